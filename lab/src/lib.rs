//! A real Xen host on any machine, and the scenarios that Domkeep is proved with on it.
//!
//! ```text
//! the developer's machine        QEMU: Xen, dom0               a guest
//! host/  (domkeep-lab)     --->  dom0/, scenarios/ (lab-dom0)  ---> guest/ (lab-guest)
//!   makes the image from           runs one scenario, writes        ticks, obeys commands
//!   Debian's packages, boots       its report into the share        in its own Xenstore
//!   it, judges the report
//! ```
//!
//! `docs/lab.md` shows how to use it and how to write a scenario.

#![forbid(unsafe_code)]

pub mod blocks;
pub mod dom0;
pub mod guest;
pub mod host;
pub mod report;
pub mod scenarios;
pub mod xenstored;
