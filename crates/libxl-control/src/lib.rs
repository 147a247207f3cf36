//! Xen domains through Xen's own libraries, loaded at run time: [`DomainControl`](snapshot::control::DomainControl) over libxl,
//! and [`HypervisorView`](libxl_config::retrieve::HypervisorView) over libxenctrl, which answers at once.
//!
//! Nothing of Xen is needed to build or to start a program with this. It creates no domains but from a stream, and knows
//! nothing of disks and files.
//!
//! ```no_run
//! use std::time::{Duration, Instant};
//!
//! use libxl_control::{Libxl, LibxlOptions};
//! use snapshot::control::DomainControl;
//!
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let xen = Libxl::open(LibxlOptions::default())?;
//! let soon = Instant::now() + Duration::from_secs(10);
//! for domain in xen.list(soon)? {
//!     println!("{}: {}", domain.identity, domain.state);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! | what | where |
//! |---|---|
//! | what is done to domains | [`Libxl`], [`LibxlOptions`] |
//! | what a configuration needs of the hypervisor | [`Xenctrl`] |
//! | where the libraries are, and why they cannot be used | [`LibraryAt`], [`LoadError`] |
//!
//! # Threads, signals, descriptors
//!
//! All of this is about libxl. libxenctrl's questions are asked in the calling thread, and leave nothing behind.
//!
//! - Each call runs in a thread and a libxl context of its own, so that one deadline aborts one call. Any number of threads may
//!   call at once. What libxl does not come back from is left to itself, and its answer dropped.
//! - libxl is told to reap only its own children ("always selective reap"); by default it eats those of the whole process. It
//!   installs a handler for SIGCHLD, so that system calls may end with EINTR.
//! - SIGPIPE is ignored if nobody handles it: libxl writes to pipes whose reader may go away.
//! - A stream goes through a pipe and a thread of ours, in both directions.
//!
//! # What libxl does, and is not passed on
//!
//! See `docs/libxl-control.md`.

#[cfg(not(target_os = "linux"))]
compile_error!("a control domain of Xen is Linux here");

mod build;
mod control;
mod failure;
mod ffi;
mod helper;
mod info;
mod intake;
mod load;
mod log;
mod pool;
mod rc;
mod refused;
mod relay;
mod store;
mod suspend;
mod xenctrl;

pub use control::{Libxl, LibxlOptions};
pub use load::{LibraryAt, LoadError, LoaderError, Missing};
pub use xenctrl::Xenctrl;
