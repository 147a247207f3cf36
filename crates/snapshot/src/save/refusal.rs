//! Why a save is not planned.

use std::path::PathBuf;

use libxl_config::retrieve::RetrieveError;
use uuid::Uuid;
use xsclient::{DomId, OpenError};

use super::Consistency;
use crate::TargetError;
use crate::control::{DomainState, QueryError};
use crate::disk::{DiskFailure, DiskRefusal};

/// Why there is no plan. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanSaveError {
    /// There are reasons against it: all that were found.
    #[error("the save is refused for {} reasons, the first: {}", refusals.len(), first(refusals))]
    Refused {
        /// Every reason; at least one.
        refusals: Vec<SaveRefusal>,
    },
    /// The hypervisor does not say how the domain is.
    #[error("it cannot be found out how the domain is")]
    Query(#[from] Box<QueryError>),
    /// Xenstore cannot be reached.
    #[error("Xenstore cannot be reached")]
    Xenstore(#[from] Box<OpenError>),
    /// The configuration cannot be retrieved, so that nobody knows which disks there are.
    #[error("the domain's configuration cannot be retrieved")]
    Configuration(#[from] Box<RetrieveError>),
    /// The system gives no random number for the snapshot's id.
    #[error("there is no id for the snapshot")]
    Id(#[source] std::io::Error),
}

fn first(refusals: &[SaveRefusal]) -> String {
    refusals.first().map_or_else(String::new, ToString::to_string)
}

/// A reason against a save.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SaveRefusal {
    /// There is none.
    #[error("there is no domain {domid}")]
    NoSuchDomain {
        /// Which.
        domid: DomId,
    },
    /// The domid is another domain's.
    #[error("domain {domid} has the uuid {found}")]
    AnotherDomain {
        /// Which.
        domid: DomId,
        /// Its uuid.
        found: Uuid,
    },
    /// It is shut down or dying.
    #[error("the domain is {state}")]
    State {
        /// What it is.
        state: DomainState,
    },
    /// A guest that does not run cannot be asked to suspend.
    #[error("memory is saved of a running domain, and this one is {state}")]
    MemoryOfStanding {
        /// What it is.
        state: DomainState,
    },
    /// Memory and disks would be of different moments.
    #[error("memory cannot be saved while the guest is held running")]
    MemoryWhileRunning,
    /// The format has one place for each page.
    #[error("a live save is a stream: other formats hold each page once")]
    LiveFormat,
    /// libxl does not suspend such guests.
    #[error("the guest has virtual NUMA nodes, with which its memory cannot be saved")]
    VirtualNuma,
    /// A disk that the guest can write is not in the request.
    #[error("{vdev} can be written and is not in the request")]
    Missing {
        /// Which.
        vdev: String,
    },
    /// It is in the request more than once.
    #[error("{vdev} is in the request more than once")]
    Twice {
        /// Which.
        vdev: String,
    },
    /// The domain has no such disk.
    #[error("the domain has no disk {vdev}")]
    Unknown {
        /// Which.
        vdev: String,
    },
    /// The disk's image is not a file of a format that is handled.
    #[error("{vdev}: {reason}")]
    Image {
        /// Which disk.
        vdev: String,
        /// What it is.
        reason: String,
    },
    /// There is no QEMU to ask.
    #[error("{vdev}: QEMU has to take part, and no QMP socket is given")]
    NoQmp {
        /// Which disk.
        vdev: String,
    },
    /// Not exactly one node of QEMU writes the image.
    #[error("{vdev}: {count} nodes of QEMU write {}", image.display())]
    Node {
        /// Which disk.
        vdev: String,
        /// Its image.
        image: PathBuf,
        /// How many.
        count: usize,
    },
    /// QEMU takes no such name for a node.
    #[error("{vdev}: {name:?} cannot be the name of a node")]
    NodeName {
        /// Which disk.
        vdev: String,
        /// The name.
        name: String,
    },
    /// What QEMU has in its memory would be missing.
    #[error("{vdev}: a qcow2 image that is being written cannot be copied")]
    CopyOfOpenQcow2 {
        /// Which disk.
        vdev: String,
    },
    /// A reason against what is to be done with the disks.
    #[error(transparent)]
    Disk(#[from] DiskRefusal),
    /// What has to be known of the disks could not be asked.
    #[error("{kind}: what has to be known cannot be asked")]
    Disks {
        /// Which way of snapshotting.
        kind: &'static str,
        /// Why.
        source: Box<DiskFailure>,
    },
    /// There is no such hook.
    #[error("there is no hook {name:?}")]
    NoHook {
        /// Its name.
        name: String,
    },
    /// The hook is for other disks.
    #[error("the hook {name:?} is for {described:?}, and the request has it for {requested:?}")]
    HookDisks {
        /// Its name.
        name: String,
        /// The disks it describes.
        described: Vec<String>,
        /// The disks that name it.
        requested: Vec<String>,
    },
    /// There is no such quiescer.
    #[error("there is no quiescer {name:?}")]
    NoQuiescer {
        /// Its name.
        name: String,
    },
    /// If the second failed, the first could not be undone.
    #[error("more than one way of snapshotting cannot be undone: {}", kinds.join(", "))]
    Irreversible {
        /// Which.
        kinds: Vec<String>,
    },
    /// The disks do not change at one moment.
    #[error(
        "the disks do not all change at one moment, so that the guest has to be held suspended"
    )]
    NotAtomic,
    /// A part of the request cannot be at such a place.
    #[error("{what} needs a name, and a descriptor is given")]
    NeedsName {
        /// Which part.
        what: String,
    },
    /// Where a target is cannot be told.
    #[error("{what}: there is no such place")]
    Target {
        /// Which part.
        what: String,
        /// Why.
        source: TargetError,
    },
    /// There is something with that name.
    #[error("{what}: {} exists already", path.display())]
    TargetExists {
        /// Which part.
        what: String,
        /// The name.
        path: PathBuf,
    },
    /// The directory cannot be used.
    #[error("{what}: nothing can be created at {}", path.display())]
    TargetDirectory {
        /// Which part.
        what: String,
        /// The name.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Neither a manifest, nor a journal, nor QEMU can be told the path.
    #[error("{what}: {path:?} is not UTF-8, so that it cannot be told")]
    NotUtf8 {
        /// Which part of the request, or which disk.
        what: String,
        /// The path.
        path: PathBuf,
    },
    /// Two parts of the request have the same target.
    #[error("{what}: {} is the target of something else as well", path.display())]
    TargetTwice {
        /// The second of them.
        what: String,
        /// The name.
        path: PathBuf,
    },
    /// There is too little room.
    #[error("{needed} octets may be needed where {} is, and {free} are free", path.display())]
    NoSpace {
        /// One of the files.
        path: PathBuf,
        /// How many.
        needed: u64,
        /// How many there are.
        free: u64,
    },
    /// Less can be achieved than is asked for.
    #[error("{wanted:?} is asked for, and {achievable:?} is what can be achieved")]
    Consistency {
        /// What is asked for.
        wanted: Consistency,
        /// What can be.
        achievable: Consistency,
    },
    /// The domain would be destroyed while what was saved of it is not durable.
    #[error("a domain is destroyed only once all is durable")]
    DestroyUndurable,
    /// A member of the request that has a range.
    #[error("{what} is out of its range")]
    Range {
        /// Which.
        what: &'static str,
    },
}
