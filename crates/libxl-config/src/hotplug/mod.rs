//! Devices plugged into a running domain and unplugged: in Xenstore and in the template, together.
//!
//! ```no_run
//! use libxl_config::hotplug::{DeviceName, Hotplug, spec};
//! use libxl_config::retrieve::DeviceClass;
//! use libxl_config::template::UserdataDir;
//! use xsclient::{Client, DomId, Endpoint, Options};
//!
//! let mut client = Client::open(Endpoint::Search, Options::default())?;
//! let templates = UserdataDir::open(UserdataDir::HOST_PATH)?;
//! let disk = spec::disk("format=raw,vdev=xvdb,access=rw,target=/srv/data.img")?;
//! let mut hotplug = Hotplug::new(&mut client, &templates);
//! let attached = hotplug.attach(DomId::new(7), &disk.into())?;
//! println!("{}: {}", attached.id, attached.attachment);
//! hotplug.detach(DomId::new(7), &attached.id.into())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! There are two levels. [`Hotplug`] does everything, for disks, nics and 9pfs shares: nodes, template, hotplug script,
//! waiting. [`begin()`] is for a toolstack that plugs a device itself and wants the template changed with it.
//!
//! # Order
//!
//! Under the template's lock (libxl's own): the template is read, one Xenstore transaction with all nodes of the device
//! commits, the template is written. Without the lock: the backend's state 2 is waited for, the script runs, state 4 is
//! waited for. What fails is undone, or is left where `retrieve` reports it half attached or half detached; and
//! [`Hotplug::repair`] finishes or undoes that. What is where after each step is tabulated in `docs/hotplug.md`.
//!
//! Waiting is done by watch, on the client that was given: events of its other watches are left alone.

mod attach;
mod begin;
mod claim;
mod detach;
mod device;
mod entry;
mod error;
mod place;
mod plan;
mod plugger;
mod refusal;
mod repair;
mod script;
#[cfg(any(test, feature = "conformance"))]
pub mod simulated;
pub mod spec;
#[cfg(test)]
mod tests;
mod wait;

pub use attach::Attached;
pub use begin::{Begun, begin, template_key};
pub use claim::{Claim, ClaimHolder};
pub use detach::Detached;
pub use device::{Device, DeviceId, DeviceName, DeviceNameError};
pub use entry::EntryError;
pub use error::{AttachError, BeginError, CommitError, DetachError, Left, StepError};
pub use plugger::{
    ATTEMPTS_MAX, BACKEND_TIMEOUT, CONNECT_TIMEOUT, Hotplug, LET_GO_TIMEOUT, LOCK_TIMEOUT,
    SCRIPT_TIMEOUT, Timeouts, UNDO_TIMEOUT,
};
pub use refusal::{DeviceModel, Refusal};
pub use repair::{Mend, Mended, RepairOutcome, Repaired};
pub use script::{SCRIPT_SAID_MAX, ScriptError};
