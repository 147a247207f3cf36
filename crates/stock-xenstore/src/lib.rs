//! Runs Debian's stock Xenstore daemons and tools without a hypervisor, for tests and benches.
//!
//! It installs nothing, needs no root (except where noted) and leaves nothing behind but a cache under `target/`:
//!
//! - [`Packages`] downloads Debian's Xen 4.17 packages with `apt-get download`, unpacks them with `dpkg-deb -x`, and
//!   builds the stand-in hypervisor (`stand-in/hypervisor.c`) that the daemons are started with. Processes that ask at
//!   once wait for the first; later calls find the cache and are instant. [`Packages::of_workspace`] is what tests use.
//! - [`StockDaemon`] is one running daemon, C xenstored or oxenstored, in a scratch directory of its own: as many as
//!   wanted run side by side. Dropping it kills and reaps the daemon and removes the directory; should this process be
//!   killed, the kernel kills its daemons (the scratch directories then stay).
//! - [`StockDaemon::live_update_dump`] has the C daemon's state as an xenstore-migration stream, and
//!   [`StockDaemon::live_update_through`] has the C daemon go on from a stream that the caller makes of it.
//!   [`StockDaemon::start_on`] starts a new one on any stream.
//! - [`Listing`] is the text of `xenstore-ls -fp`, and [`Listing::write_to`] writes it into any Xenstore socket.
//! - [`Client`] names the stock command line tools, among them the upstream test and benchmark, `test-xenstore`.
//! - [`own_lists`], [`write_configuration`], [`run`], [`wait`], [`lock`] and [`spawn_bound`] are how it works with apt and with programs, for the lab.
//!
//! What cannot be had (no network, no compiler, no apt) is an [`Unavailable`] that says what is missing, for a test to
//! print as the reason why it was skipped.
//!
//! It is no Xenstore client: tests that talk to a daemon use `xsclient`, or the stock tools.
//!
//! # The stand-in hypervisor
//!
//! Both daemons believe that every domain they ask about exists and runs. So nodes of any owner stay, SET_PERMS accepts
//! any domid, and INTRODUCE, SET_TARGET and RELEASE work, and so does the live update of the C daemon; as on a host,
//! RELEASE deletes the domain's nodes. A domain's ring is a page that nobody else sees, and no event ever arrives: no
//! domain dies. Quotas are the daemons' defaults; they do not bind dom0's number of nodes.
//!
//! Guests of the C daemon can be played: [`StockDaemon::start_with_guests`] and [`Guest`] make ring pages files that both
//! ends have, and event channels FIFOs.
//!
//! oxenstored keeps its socket in /var/run/xenstored whatever it is told, so it gets a mount namespace in which its
//! scratch directory lies there; that takes root, or a kernel that lets others create user namespaces.
//!
//! # Example
//!
//! ```no_run
//! use stock_xenstore::{Client, Kind, Packages, StockDaemon};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let packages = match Packages::of_workspace() {
//!     Ok(packages) => packages,
//!     Err(reason) => {
//!         println!("skipped: the_test: {reason}");
//!         return Ok(());
//!     }
//! };
//! let daemon = StockDaemon::start(Kind::C, packages)?;
//! daemon.fill("/vm = \"\"   (n0)\n/vm/name = \"guest\"   (n0,r7)\n")?;
//! let output = daemon.client(Client::Read).arg("/vm/name").output()?;
//! assert_eq!(output.stdout, b"guest\n");
//! # Ok(())
//! # }
//! ```
//!
//! The daemons and tools are those of <https://xenbits.xen.org/docs/4.17-testing/>, the protocol is
//! <https://xenbits.xen.org/docs/4.17-testing/misc/xenstore.txt>, the stream is
//! <https://xenbits.xen.org/docs/4.17-testing/designs/xenstore-migration.html>.

mod apt;
mod commands;
mod daemon;
mod fetch;
mod guest;
mod launcher;
mod listing;
mod live_update;
mod packages;
mod restored;
mod unavailable;
mod wire;

pub use apt::{own_lists, write_configuration};
pub use commands::{run, wait};
pub use daemon::{Kind, StartError, StockDaemon};
pub use fetch::lock;
pub use guest::Guest;
pub use launcher::spawn_bound;
pub use listing::{ListedNode, Listing, ListingError};
pub use live_update::LiveUpdateError;
pub use packages::{Client, Packages, Tools};
pub use restored::StreamError;
pub use unavailable::Unavailable;
pub use wire::FillError;
