//! Why a snapshot of disks is not made.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use crate::CompleteFileError;

use super::DiskSnapshot;
use super::image::{ChainRefusal, ImageChange, ImageError};
use super::qemu_img::QemuImgError;
use super::qmp::QmpError;

/// A reason against a snapshot, found before anything was done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskRefusal {
    /// The disk's chain breaks a rule.
    #[error("{vdev}: rule {}", source.rule())]
    Chain {
        /// The disk.
        vdev: String,
        /// Which rule, and where.
        source: ChainRefusal,
    },
    /// Something has the name of a file that is to be created.
    #[error("{vdev}: {} exists already", path.display())]
    TargetExists {
        /// The disk.
        vdev: String,
        /// The name.
        path: PathBuf,
    },
    /// The directory of a file that is to be created cannot be used.
    #[error("{vdev}: nothing can be created at {}", path.display())]
    Target {
        /// The disk.
        vdev: String,
        /// The name.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The caller's descriptor cannot be written as a new image.
    #[error("{vdev}: the descriptor of {} {reason}", path.display())]
    Descriptor {
        /// The disk.
        vdev: String,
        /// What the kernel calls it.
        path: PathBuf,
        /// Why not.
        reason: &'static str,
    },
    /// Two disks of the request have something in common that they must not.
    #[error("{vdev}: another disk of the request has {what} as well")]
    Twice {
        /// The second of them.
        vdev: String,
        /// What they have in common.
        what: String,
    },
    /// A path that cannot be told to QEMU.
    #[error("{vdev}: {path:?} is not UTF-8, as QMP needs it")]
    NotUtf8 {
        /// The disk.
        vdev: String,
        /// The path.
        path: PathBuf,
    },
    /// QEMU has no such node.
    #[error("{vdev}: QEMU has no node {node:?}")]
    NoNode {
        /// The disk.
        vdev: String,
        /// The node.
        node: String,
    },
    /// QEMU has a node with the name that a new one is to have.
    #[error("{vdev}: QEMU has a node {node:?} already")]
    NodeTaken {
        /// The disk.
        vdev: String,
        /// The node.
        node: String,
    },
    /// The node cannot be written, so that there is nothing to freeze.
    #[error("{vdev}: the node {node:?} is read-only")]
    NodeReadOnly {
        /// The disk.
        vdev: String,
        /// The node.
        node: String,
    },
    /// The node is of no supported format: a filter, a protocol, another format.
    #[error("{vdev}: the node {node:?} has the driver {driver}, which is not supported")]
    NodeDriver {
        /// The disk.
        vdev: String,
        /// The node.
        node: String,
        /// Its driver.
        driver: String,
    },
    /// The node's image is no file with a path.
    #[error("{vdev}: the node {node:?} shows {filename:?}, which is not the path of a file")]
    NodeFile {
        /// The disk.
        vdev: String,
        /// The node.
        node: String,
        /// What QEMU tells.
        filename: String,
    },
    /// What QEMU has open is not what the names say: neither can be trusted.
    #[error("{vdev}: {} is not the file that QEMU has open", path.display())]
    NotTheOpenFile {
        /// The disk.
        vdev: String,
        /// The image as it is recorded.
        path: PathBuf,
    },
    /// QEMU's node rests on more or fewer images than the files record.
    #[error("{vdev}: QEMU has {open} images open in the chain, and the files record {recorded}")]
    ChainLength {
        /// The disk.
        vdev: String,
        /// Images that QEMU tells of.
        open: usize,
        /// Images that the headers tell of.
        recorded: usize,
    },
    /// A block job runs, and may change the graph at any time.
    #[error("the block job {device:?} ({kind}) runs")]
    BlockJob {
        /// Its id.
        device: String,
        /// What it does.
        kind: String,
    },
    /// Snapshots inside the image are possible in qcow2 only.
    #[error("{vdev}: its image is not qcow2")]
    NotQcow2 {
        /// The disk.
        vdev: String,
    },
    /// A snapshot has that tag, or that id, already.
    #[error("{vdev}: there is a snapshot {tag:?} already")]
    TagTaken {
        /// The disk.
        vdev: String,
        /// The tag.
        tag: String,
    },
    /// Empty, a number as QEMU's own ids are, or longer than an image can hold.
    #[error("{vdev}: {tag:?} cannot be the tag of a snapshot")]
    TagUnusable {
        /// The disk.
        vdev: String,
        /// The tag.
        tag: String,
    },
    /// A reason of the caller's own snapshotter.
    #[error("{vdev}: refused by the hook")]
    Hook {
        /// The disk.
        vdev: String,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// Why there is no plan. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// There are reasons against it: all that were found.
    #[error("refused for {} reasons, the first: {}", refusals.len(), first(refusals))]
    Refused {
        /// Every reason; at least one.
        refusals: Vec<DiskRefusal>,
    },
    /// What has to be known could not be asked.
    #[error("what has to be known cannot be asked")]
    Failed(#[from] DiskFailure),
    /// The snapshotter has been used already.
    #[error(transparent)]
    Stage(#[from] WrongStage),
}

fn first(refusals: &[DiskRefusal]) -> String {
    refusals.first().map_or_else(String::new, ToString::to_string)
}

/// Why nothing is prepared. What had been created for it is removed again, unless `left` tells otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// The plan does not hold any more, or there was none.
    #[error("there is no plan that holds")]
    Plan(#[from] PlanError),
    /// A disk could not be prepared.
    #[error("{vdev}: cannot be prepared")]
    Failed {
        /// The disk.
        vdev: String,
        /// Why.
        source: Box<DiskFailure>,
        /// What was created and could not be removed.
        left: Vec<super::LeftBehind>,
    },
    /// It is prepared already, or done.
    #[error(transparent)]
    Stage(#[from] WrongStage),
}

/// Why a snapshot is not committed, and how the disks are now.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// Every disk is as before. What was prepared is there until it is rolled back.
    #[error("no disk was changed")]
    Unchanged(#[source] DiskFailure),
    /// Some disks have their snapshot and the others do not. A rollback undoes what can be.
    #[error("some disks have their snapshot ({} of them) and the others do not", done.len())]
    Partly {
        /// What was done.
        done: Vec<DiskSnapshot>,
        /// Why not the rest.
        source: DiskFailure,
    },
    /// All disks have their snapshot, and what is said of them could not be verified afterwards.
    #[error("the snapshot was made and cannot be verified")]
    Unverified(#[source] DiskFailure),
    /// Whether the disks have their snapshot is not known: nothing may be removed, and both images of each disk are to be kept.
    #[error("whether the snapshot was made is not known")]
    Unknown {
        /// How it came to this.
        source: DiskFailure,
        /// Why QEMU could not be asked afterwards.
        asked: Box<DiskFailure>,
    },
    /// It is not prepared, or done already.
    #[error(transparent)]
    Stage(#[from] WrongStage),
}

/// What failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskFailure {
    /// QEMU, or the connection to it.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// `qemu-img`.
    #[error(transparent)]
    QemuImg(#[from] QemuImgError),
    /// An image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A chain.
    #[error("the chain of {} breaks the rule {}", path.display(), source.rule())]
    Chain {
        /// The active image.
        path: PathBuf,
        /// Which rule, and where.
        source: ChainRefusal,
    },
    /// A new file.
    #[error(transparent)]
    File(#[from] CompleteFileError),
    /// Reading, writing or syncing.
    #[error("{}: cannot {step}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was to be done.
        step: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// An image is not as it was.
    #[error("{} has changed: {}", path.display(), list(changes))]
    Changed {
        /// The image.
        path: PathBuf,
        /// How; at least one.
        changes: Vec<ImageChange>,
    },
    /// What was planned is refused by now: all reasons.
    #[error("what was planned is not possible any more for {} reasons, the first: {}", refusals.len(), first(refusals))]
    Refused {
        /// Every reason; at least one.
        refusals: Vec<DiskRefusal>,
    },
    /// An overlay rests on something else than the disk's image.
    #[error("{} records {} as its backing file, which is not {}", overlay.display(), recorded.display(), base.display())]
    OtherBacking {
        /// The overlay.
        overlay: PathBuf,
        /// The backing file it records.
        recorded: PathBuf,
        /// The image that it was made for.
        base: PathBuf,
    },
    /// After a transaction QEMU's graph is not what it should be.
    #[error("{vdev}: QEMU does not show {} over {}", active.display(), frozen.display())]
    Graph {
        /// The disk.
        vdev: String,
        /// What should be written.
        active: PathBuf,
        /// What should be below it.
        frozen: PathBuf,
    },
    /// A snapshot that was made is not in the image.
    #[error("{} has no snapshot {tag:?}", path.display())]
    NoSnapshot {
        /// The image.
        path: PathBuf,
        /// The tag.
        tag: String,
    },
    /// A snapshot that was deleted is in the image still.
    #[error("{} has the snapshot {tag:?} still", path.display())]
    SnapshotStays {
        /// The image.
        path: PathBuf,
        /// The tag.
        tag: String,
    },
    /// The deadline has passed.
    #[error("{}: the deadline has passed while it was to be {step}", path.display())]
    Deadline {
        /// The file.
        path: PathBuf,
        /// What was going on.
        step: &'static str,
    },
    /// The caller broke it off.
    #[error("{}: broken off by the caller", path.display())]
    Stopped {
        /// The file.
        path: PathBuf,
    },
    /// QEMU shows some overlays of a transaction in their place and others not, which the transaction cannot have done.
    #[error("QEMU shows the overlays of {} in place and those of {} not", pivoted.join(", "), others.join(", "))]
    Mixed {
        /// Disks whose overlay is in its place; at least one.
        pivoted: Vec<String>,
        /// Disks that are as before; at least one.
        others: Vec<String>,
    },
    /// The caller's own snapshotter.
    #[error("the hook failed")]
    Hook(#[source] Box<dyn Error + Send + Sync>),
}

fn list(changes: &[ImageChange]) -> String {
    changes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The steps of a snapshot were called out of their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{wanted} is not possible on a snapshot that is {is}")]
pub struct WrongStage {
    /// What was called.
    pub wanted: &'static str,
    /// Where the snapshot is.
    pub is: &'static str,
}
