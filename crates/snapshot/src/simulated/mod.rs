//! A domain to test against, without a hypervisor.
//!
//! Its memory, virtual CPUs and disks are real: files whose octets are checked. Its guest writes to all of them while it runs, in
//! an order that lets nothing pass for a snapshot that is none: what was copied too early, too late, or while the guest ran,
//! is found by [`check`]. `content` says which order that is.
//!
//! ```text
//!  saver, guardian, restorer            a process of its own, which outlives them
//!  +------------------------+          +---------------------------------------------------+
//!  | SimulatedDomain        |  socket  | Host: domains, each a guest with memory and disks |
//!  |   (DomainControl)      |--------->|   its Xenstore, on a socket of its own            |
//!  | Operator (tests)       |          |   failures on command                             |
//!  +------------------------+          +---------------------------------------------------+
//! ```
//!
//! Raw disks are written by the host itself. Qcow2 disks are written by a real `qemu-storage-daemon`, one for each domain, which the
//! host starts and which dies with it; its QMP socket is where a saver moves them to overlays: [`Inspection::qmp`]. That
//! needs `qemu-storage-daemon`, and `setpriv` of util-linux.
//!
//! What it is not: there is one kind of domain, PV; a suspend cannot be live, as on a hypervisor without shadow paging; a page
//! of memory costs a system call. What it streams is a libxl stream, and it builds from no other guest's.
//!
//! Host and guardian are processes of their own. A program can be both of them as well, and be told which by its arguments:
//!
//! ```no_run
//! use std::env;
//! use std::io::{self, BufReader};
//! use std::path::PathBuf;
//! use std::process::Command;
//! use std::time::{Duration, Instant};
//!
//! use snapshot::simulated::{Host, HostProcess, SimulatedDomain, listener_on_stdin};
//! use snapshot::{GuardianProgram, guard};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let directory = PathBuf::from("/tmp/simulated");
//! match env::args().nth(1).as_deref() {
//!     // Without a Xenstore of its own: nodes are the toolstack's to write.
//!     Some("host") => Host::new(directory, None)?.serve(&listener_on_stdin()?)?,
//!     Some("guardian") => {
//!         let mut saver = BufReader::new(io::stdin());
//!         let needs = guard::read_needs(&mut saver)?;
//!         let control = SimulatedDomain::from_guardian(&needs)?;
//!         guard::run(&control, &needs.domain, saver, io::stdout())?;
//!     }
//!     _ => {
//!         let program = env::current_exe()?;
//!         let mut host = Command::new(&program);
//!         host.arg("host");
//!         let deadline = Instant::now() + Duration::from_secs(10);
//!         let host = HostProcess::start(host, directory.join("host"), deadline)?;
//!         // For `HostAccess`.
//!         let control = host.control();
//!         let guardian = GuardianProgram { program, arguments: vec!["guardian".to_owned()] };
//!         # drop((control, guardian));
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! | what | where |
//! |---|---|
//! | the domains, as a saver sees them | [`SimulatedDomain`] |
//! | the process | [`HostProcess`], [`Host`], [`HostXenstore`], [`listener_on_stdin`] |
//! | making domains and looking into them | [`Operator`], [`DomainSpec`], [`GuestSpec`], [`Inspection`] |
//! | failures on command | [`Call`], [`Effect`] |
//! | whether what was saved is of one moment | [`check`] |

pub mod check;
mod client;
mod connection;
mod content;
mod disk;
mod faults;
mod host;
mod memory;
mod nbd;
mod operator;
mod process;
mod protocol;
mod qcow2_content;
mod reasons;
mod spec;
mod stream;
#[cfg(test)]
mod stream_captured;
mod wire;

pub use client::SimulatedDomain;
pub use connection::CallError;
pub use faults::{Call, Effect};
pub use host::{Host, HostXenstore};
pub use operator::{Operator, OperatorError};
pub use process::{HostProcess, StartError, listener_on_stdin};
pub use protocol::{HostView, Inspection};
pub use spec::{
    DISKS_MAX, DiskImage, DiskSpec, DomainSpec, GuestSpec, PAGES_MAX, PAGES_MIN, Population,
    VCPUS_MAX,
};
pub use stream::StreamError;
