//! What clients and a simulated host say to each other.
//!
//! One request a connection: a line of JSON, with the descriptor of a stream attached to its first octet; then the reply, another
//! line. In between a client may send the line `cancel`. A client that goes away does not stop what it asked for: a domain
//! outlives whoever saves it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::faults::{Call, Effect};
use super::spec::{DiskImage, DomainSpec, GuestSpec};
use crate::control::{DomainIdentity, DomainState, DomainView, ShutdownReason};

/// A configuration is tens of kilobytes at most; nothing else comes near.
pub(super) const LINE_MAX: usize = 1 << 20;

pub(super) const CANCEL: &str = "cancel";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Request {
    Find { domid: u16 },
    SuspendTo { domain: DomainIdentity, live: bool },
    SuspendOnly { domain: DomainIdentity },
    Resume { domain: DomainIdentity },
    BuildFrom { configuration: String },
    Settle { domain: DomainIdentity },
    Pause { domain: DomainIdentity },
    Unpause { domain: DomainIdentity },
    Destroy { domain: DomainIdentity },
    Rename { domain: DomainIdentity, name: String },
    List,
    Create { spec: Box<DomainSpec> },
    Inspect { domain: DomainIdentity, check: bool },
    AwaitTick { domain: DomainIdentity, tick: u64 },
    SwitchDisk { domain: DomainIdentity, vdev: String, image: DiskImage },
    Spoil { domain: DomainIdentity, pfn: u64 },
    Fail { call: Call, effect: Effect },
    Host,
    Tie,
    End,
}

impl Request {
    /// Which call of the trait it is.
    pub(super) fn call(&self) -> Option<Call> {
        Some(match self {
            Self::Find { .. } => Call::Find,
            Self::SuspendTo { .. } => Call::SuspendTo,
            Self::SuspendOnly { .. } => Call::SuspendOnly,
            Self::Resume { .. } => Call::Resume,
            Self::BuildFrom { .. } => Call::BuildFrom,
            Self::Pause { .. } => Call::Pause,
            Self::Unpause { .. } => Call::Unpause,
            Self::Destroy { .. } => Call::Destroy,
            Self::Rename { .. } => Call::Rename,
            _ => return None,
        })
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    Done,
    Found(Option<DomainView>),
    Domain(DomainView),
    Domains(Vec<DomainView>),
    Inspection(Box<Inspection>),
    Host(HostView),
    Failed(Failure),
}

/// What is known of a simulated domain.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Inspection {
    /// How it is.
    pub view: DomainView,
    /// Its guest.
    pub guest: GuestSpec,
    /// The last tick that is done.
    pub tick: u64,
    /// Its disks, in the order in which it writes to them.
    pub disks: Vec<super::spec::DiskSpec>,
    /// Whether its memory is being written to a stream.
    pub streaming: bool,
    /// Octets that its memory takes on the host's disk.
    pub memory_stored: u64,
    /// The QMP socket of the process that has its qcow2 disks open; `None` if it has no such disk.
    pub qmp: Option<PathBuf>,
    /// That process.
    pub storage_daemon: Option<u32>,
    /// What the guest found wrong when it crashed, or what a check of its memory found. `None` if nothing.
    pub wrong: Option<String>,
}

/// What is known of a simulated host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HostView {
    /// Its process.
    pub pid: u32,
    /// The socket of its Xenstore, if it has one.
    pub xenstore: Option<PathBuf>,
    /// The directory of its domains' templates, as libxl keeps them, if it keeps any.
    pub templates: Option<PathBuf>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Failure {
    ControlDomain,
    NoSuchDomain,
    AnotherDomain { found: Uuid },
    WrongState { state: DomainState },
    LiveUnsupported,
    NotAcknowledged,
    GuestStopped { reason: ShutdownReason },
    StillStreaming,
    NameTaken { name: String },
    Configuration { problem: String },
    InvalidStream { problem: String },
    Stream { errno: Option<i32>, problem: String },
    HelperDied,
    Cancelled,
    Other { problem: String },
}
