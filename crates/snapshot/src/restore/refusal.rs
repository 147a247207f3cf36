//! Why a restore is not even begun.

use std::io;
use std::path::PathBuf;

use uuid::Uuid;

use crate::control::{DomainIdentity, QueryError};
use crate::disk::image::{ChainRefusal, ImageChange};
use crate::manifest::ManifestError;
use crate::target::TargetError;

/// Why there is no plan of a restore. Nothing was touched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanRestoreError {
    /// It would go wrong, or would do what nobody may want.
    #[error("the restore is refused: {}", listed(refusals))]
    Refused {
        /// Every reason that was found.
        refusals: Vec<RestoreRefusal>,
    },
    /// The hypervisor does not say which domains there are.
    #[error("cannot tell which domains there are")]
    Domains {
        /// Why.
        source: QueryError,
    },
    /// There are no random octets for a new generation id.
    #[error("cannot make a new generation id")]
    Random {
        /// Why.
        source: io::Error,
    },
}

pub(super) fn listed(refusals: &[RestoreRefusal]) -> String {
    refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A reason against a restore.
///
/// Its text has its cause in it, so that a list of them reads well; it is in `source()` as well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreRefusal {
    /// The saved configuration cannot be read.
    #[error("the saved configuration cannot be read: {source}")]
    Configuration {
        /// Why.
        source: libxl_config::ReadError,
    },
    /// Neither the snapshot nor the request has a name.
    #[error("there is no name for the domain")]
    NoName,
    /// Another domain has the name.
    #[error("domain {domain} has the name {name:?}")]
    NameTaken {
        /// The name.
        name: String,
        /// Who has it.
        domain: DomainIdentity,
    },
    /// The nil uuid is no domain's.
    #[error("the nil uuid is no domain's")]
    NilUuid,
    /// Another domain has the uuid.
    #[error("domain {domain} has the uuid already")]
    UuidTaken {
        /// Who.
        domain: DomainIdentity,
    },
    /// The domain to be replaced is not there.
    #[error("domain {domain}, to be replaced, does not exist")]
    ReplacedMissing {
        /// Which.
        domain: DomainIdentity,
    },
    /// The domid of the domain to be replaced is another's.
    #[error("domain {domain} was to be replaced, and that domid is of {found} by now")]
    ReplacedIsAnother {
        /// Which was to be.
        domain: DomainIdentity,
        /// The uuid that it has.
        found: Uuid,
    },
    /// Without memory no domain is built, so none can be replaced.
    #[error("the snapshot has no memory to build a domain from that could replace another")]
    NothingToReplaceWith,
    /// Every disk of the snapshot has to be named.
    #[error("nothing is said of disk {vdev}")]
    DiskNotNamed {
        /// Which.
        vdev: String,
    },
    /// The saved configuration has no such disk.
    #[error("the saved domain has no disk {vdev}")]
    UnknownDisk {
        /// Which.
        vdev: String,
    },
    /// The snapshot has no image of the disk.
    #[error("disk {vdev} was not saved: its image has to be named")]
    DiskNotSaved {
        /// Which.
        vdev: String,
    },
    /// The configured image of a saved disk is not where its frozen state is.
    #[error("disk {vdev} was saved, and what the configuration names is not what was frozen")]
    DiskSaved {
        /// Which.
        vdev: String,
    },
    /// The snapshot is inside an image that is written since: there is no image that only holds the frozen state.
    #[error(
        "disk {vdev} was saved as {tag:?} inside {}: name an image that was made of it, or adopt the active one",
        image.display()
    )]
    Internal {
        /// Which.
        vdev: String,
        /// The image.
        image: PathBuf,
        /// The snapshot inside.
        tag: String,
    },
    /// An image that is frozen would be opened for writing.
    #[error("disk {vdev}: {} is frozen, and would be written", image.display())]
    FrozenForWriting {
        /// Which.
        vdev: String,
        /// The image.
        image: PathBuf,
    },
    /// Two disks would write the same image.
    #[error("disks {vdev} and {other} would write the same image {}", image.display())]
    SharedImage {
        /// Which.
        vdev: String,
        /// And which.
        other: String,
        /// The image.
        image: PathBuf,
    },
    /// The frozen image is not what it was.
    #[error("disk {vdev}: {} is not as it was frozen: {}", image.display(), changes_listed(changes))]
    FrozenChanged {
        /// Which.
        vdev: String,
        /// The image.
        image: PathBuf,
        /// What is different.
        changes: Vec<ImageChange>,
    },
    /// The active image has been written since the save, and the memory knows nothing of that.
    #[error(
        "disk {vdev}: {} is not as it was when the memory was saved: {}",
        image.display(), changes_listed(changes)
    )]
    ActiveChanged {
        /// Which.
        vdev: String,
        /// The image.
        image: PathBuf,
        /// What is different.
        changes: Vec<ImageChange>,
    },
    /// The images that a disk rests on cannot be used, or somebody else writes one.
    #[error("disk {vdev}: {source}")]
    Chain {
        /// Which.
        vdev: String,
        /// Why.
        source: ChainRefusal,
    },
    /// The snapshot has no digest that an image could be compared with.
    #[error("disk {vdev}: the save took no digest that the image could be compared with")]
    NoDigest {
        /// Which.
        vdev: String,
    },
    /// A path that no configuration can hold.
    #[error("disk {vdev}: {} is not UTF-8, and no configuration can name it", path.display())]
    NotUtf8 {
        /// Which.
        vdev: String,
        /// The path.
        path: PathBuf,
    },
    /// A path that no journal can hold.
    #[error("{what}: {path:?} is not UTF-8, so that it cannot be written down")]
    TargetNotUtf8 {
        /// What.
        what: String,
        /// The path.
        path: PathBuf,
    },
    /// The snapshot holds what no manifest can.
    #[error("the snapshot: {source}")]
    Manifest {
        /// Why.
        source: ManifestError,
    },
    /// The saved configuration has no such network interface.
    #[error("the saved domain has no network interface {devid}")]
    UnknownNic {
        /// Which.
        devid: u32,
    },
    /// It cannot be told where something new would be.
    #[error("{what}: {source}")]
    Target {
        /// What.
        what: String,
        /// Why.
        source: TargetError,
    },
    /// An overlay or journal needs a name.
    #[error("{what} needs a name, and a descriptor was given")]
    Descriptor {
        /// What.
        what: String,
    },
    /// Something has the name already.
    #[error("{what}: {} exists", path.display())]
    TargetExists {
        /// What.
        what: String,
        /// The name.
        path: PathBuf,
    },
    /// Two new files would have one name.
    #[error("{what}: {} is to be two things", path.display())]
    TargetTwice {
        /// What.
        what: String,
        /// The name.
        path: PathBuf,
    },
    /// There is less room than what will be written at once.
    #[error("{} needs {needed} octets, and {free} are free", path.display())]
    NoSpace {
        /// A file on the file system.
        path: PathBuf,
        /// Octets needed there, by all new files.
        needed: u64,
        /// Octets that are free.
        free: u64,
    },
    /// The room cannot be told.
    #[error("cannot tell how much room there is for {}: {source}", path.display())]
    Space {
        /// For what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What was saved was written to a descriptor, and nobody says where that led.
    #[error("the {what} was written to a descriptor: say where it is")]
    SourceNotGiven {
        /// Memory image or Xenstore state.
        what: &'static str,
    },
    /// What was saved cannot be read.
    #[error("the {what} cannot be read at {}: {source}", path.display())]
    Source {
        /// Memory image or Xenstore state.
        what: &'static str,
        /// Where; of a descriptor, its link in `/proc`.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn changes_listed(changes: &[ImageChange]) -> String {
    changes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
