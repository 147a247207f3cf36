//! Why a device was not plugged or unplugged, and what is left of the attempt.

use std::fmt;
use std::time::Duration;

use xsclient::{DomId, OperationError};

use super::{Claim, DeviceId, DeviceName, EntryError, Refusal, ScriptError};
use crate::retrieve::RetrieveError;
use crate::template::{LoadError, LockError, TemplateKey, TextError, WriteError};
use crate::{DomainError, ReadError};

/// Why a change of a template was not begun. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BeginError {
    /// Its lock was not taken.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// It could not be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// There is none.
    #[error("template of {key}: the store has none")]
    NoTemplate {
        /// Whose.
        key: TemplateKey,
    },
    /// It is no configuration.
    #[error("template of {key}: cannot be understood")]
    Unreadable {
        /// Whose.
        key: TemplateKey,
        /// Why.
        source: ReadError,
    },
    /// The device cannot be put into its text or taken out.
    #[error("template of {key}: cannot be changed")]
    Entry {
        /// Whose.
        key: TemplateKey,
        /// Why.
        source: EntryError,
    },
    /// With the change it could not be stored.
    #[error("template of {key}: with the device it is no template")]
    Text {
        /// Whose.
        key: TemplateKey,
        /// Why.
        source: TextError,
    },
}

/// Why a changed template was not written. The template is the old one or the new one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// It cannot be written as it is.
    #[error(transparent)]
    Change(#[from] BeginError),
    /// The store failed.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Why a device was not attached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// Nothing could be begun. Nothing was changed.
    #[error(transparent)]
    Domain(#[from] DomainError),
    /// The template cannot be changed. Nothing was.
    #[error(transparent)]
    Begin(#[from] BeginError),
    /// Something speaks against it. Nothing was changed.
    #[error("domain {domid}: {}", listed(refusals))]
    Refused {
        /// Which domain.
        domid: DomId,
        /// Everything that does.
        refusals: Vec<Refusal>,
    },
    /// There is such a device. Nothing was changed.
    #[error("domain {domid}: {id} is there already")]
    Exists {
        /// Which domain.
        domid: DomId,
        /// Which device.
        id: DeviceId,
    },
    /// One end of a removed device of that number is still there. Nothing was changed.
    #[error("domain {domid}: {id} was removed, and something of it is left at {path}")]
    Occupied {
        /// Which domain.
        domid: DomId,
        /// Which device.
        id: DeviceId,
        /// What is left.
        path: String,
    },
    /// Another process is plugging or unplugging that device. Nothing was changed.
    #[error("domain {domid}: {id} is claimed: {claim}")]
    Claimed {
        /// Which domain.
        domid: DomId,
        /// Which device.
        id: DeviceId,
        /// By whom.
        claim: Claim,
    },
    /// Somebody else kept changing the domain in Xenstore. Nothing was changed.
    #[error("domain {domid}: changed by somebody else in each of {attempts} attempts")]
    Conflict {
        /// Which domain.
        domid: DomId,
        /// How often it was tried.
        attempts: u32,
    },
    /// Xenstore did not take the device. Nothing was changed.
    #[error("domain {domid}: Xenstore did not do it")]
    Xenstore {
        /// Which domain.
        domid: DomId,
        /// Why.
        source: OperationError,
    },
    /// The device was in Xenstore, or may have been, when it failed.
    #[error("domain {domid}: {id} was not attached ({left})")]
    Failed {
        /// Which domain.
        domid: DomId,
        /// Which device.
        id: DeviceId,
        /// What is left of it.
        left: Left,
        /// What failed.
        source: Box<StepError>,
    },
}

/// What is left of an attempt that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Left {
    /// Nothing: both views are as before.
    Nothing,
    /// Some of it, where `retrieve` reports it; repairing the device finishes or undoes it.
    Some {
        /// Why it was not undone.
        why: String,
    },
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("all is as before"),
            Self::Some { why } => write!(f, "some of it is left, to be repaired: {why}"),
        }
    }
}

/// The step that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// The template was not written.
    #[error(transparent)]
    Template(#[from] CommitError),
    /// The template's lock was not taken.
    #[error(transparent)]
    Begin(#[from] BeginError),
    /// The backend did not begin with the device.
    #[error("the backend did not take the device up within {} s: its state is {}", waited.as_secs(), state_or_none(*state))]
    NoBackend {
        /// Its state.
        state: Option<u32>,
        /// How long it had.
        waited: Duration,
    },
    /// The hotplug script failed.
    #[error("{}", hotplug_error.as_deref().map_or_else(|| "the hotplug script failed".to_owned(), |told| format!("hotplug error: {told}")))]
    Script {
        /// What it left in `hotplug-error`.
        hotplug_error: Option<String>,
        /// What became of it.
        source: ScriptError,
    },
    /// The script ended well and says in Xenstore that it did not.
    #[error("the hotplug script left an error: {error}")]
    HotplugError {
        /// What it says.
        error: String,
    },
    /// Both ends are there and do not come together.
    #[error("backend and frontend did not connect: their states are {} and {}", state_or_none(*backend), state_or_none(*frontend))]
    NotConnected {
        /// The backend's state.
        backend: Option<u32>,
        /// The frontend's state.
        frontend: Option<u32>,
    },
    /// The guest, or whatever has the device, does not let it go.
    #[error("the device is not let go: the states of backend and frontend are {} and {}", state_or_none(*backend), state_or_none(*frontend))]
    NotLetGo {
        /// The backend's state.
        backend: Option<u32>,
        /// The frontend's state.
        frontend: Option<u32>,
    },
    /// Somebody else removed the device meanwhile.
    #[error("somebody else has removed the device meanwhile")]
    Vanished,
    /// A script for this device still runs, of somebody who is gone or of xl.
    #[error("process {pid} still runs a hotplug script for this device")]
    ScriptRuns {
        /// The process.
        pid: u32,
    },
    /// Whether a script for this device runs could not be seen.
    #[error("the processes of this host cannot be looked at")]
    Processes(#[source] std::io::Error),
    /// Somebody else kept changing the domain.
    #[error("changed by somebody else in each of {attempts} attempts")]
    Conflict {
        /// How often it was tried.
        attempts: u32,
    },
    /// Xenstore did not do it.
    #[error(transparent)]
    Xenstore(#[from] OperationError),
}

/// Why a device was not detached, or not repaired.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DetachError {
    /// Nothing could be begun. Nothing was changed.
    #[error(transparent)]
    Domain(#[from] DomainError),
    /// The template cannot be read. Nothing was changed.
    #[error(transparent)]
    Begin(#[from] BeginError),
    /// Neither Xenstore nor the template has such a device.
    #[error("domain {domid}: no {name}")]
    NoSuchDevice {
        /// Which domain.
        domid: DomId,
        /// Which device.
        name: DeviceName,
    },
    /// The device's backend is not in domain 0, or of a kind that is not plugged. Nothing was changed.
    #[error(
        "domain {domid}: the backend of {id} is {backend}, which only its own toolstack unplugs"
    )]
    Elsewhere {
        /// Which domain.
        domid: DomId,
        /// Which device.
        id: DeviceId,
        /// Where the backend is.
        backend: String,
    },
    /// Another process is plugging or unplugging that device. Nothing was changed.
    #[error("domain {domid}: {id} is claimed: {claim}")]
    Claimed {
        /// Which domain.
        domid: DomId,
        /// Which device.
        id: DeviceId,
        /// By whom.
        claim: Claim,
    },
    /// What there is could not be found out. Nothing was changed.
    #[error(transparent)]
    Retrieve(#[from] RetrieveError),
    /// Xenstore did not do it. Nothing was changed.
    #[error("domain {domid}: Xenstore did not do it")]
    Xenstore {
        /// Which domain.
        domid: DomId,
        /// Why.
        source: OperationError,
    },
    /// It began, and did not come to its end: `retrieve` reports the device as half detached or half attached, and it can be
    /// tried again.
    #[error("domain {domid}: {id} is half {}", if *attaching { "attached" } else { "detached" })]
    Failed {
        /// Which domain.
        domid: DomId,
        /// Which device.
        id: DeviceId,
        /// Whether it was being attached, by a repair.
        attaching: bool,
        /// What failed.
        source: Box<StepError>,
    },
}

fn listed(refusals: &[Refusal]) -> String {
    refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn state_or_none(state: Option<u32>) -> String {
    state.map_or_else(
        || "missing".to_owned(),
        |state| crate::retrieve::BackendState(state).to_string(),
    )
}
