//! The records of a journal.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Snapshot;
use crate::control::{DomainIdentity, DomainState};
use crate::creation::CreatedFile;
use crate::disk::{DiskSnapshot, OverlayIntent, TagIntent};
use crate::restore::{Restored, Start};
use crate::save::{After, ConfigUpdate};

/// Something that has been done, or is about to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "record", content = "of")]
pub(crate) enum Record {
    /// The first one.
    Begin(Box<Operation>),
    /// A file is there under its temporary name, still empty.
    Created(CreatedFile),
    /// QEMU is about to be asked to open these overlays, as nodes that no disk uses.
    Opening(Vec<OverlayIntent>),
    /// The guest is about to be asked to quiesce its file systems.
    Freezing,
    /// It was asked to thaw them, and has.
    Thawed,
    /// The guest is about to be asked to suspend.
    Suspending,
    /// Memory image and Xenstore state are about to have their names.
    Naming,
    /// The disks are about to be frozen. All else has been saved.
    Pivoting(Box<DraftSave>),
    /// Snapshots inside images are about to be made.
    Tagging(Vec<TagIntent>),
    /// A group of disks that can be brought back has its snapshot.
    Committed(Vec<DiskSnapshot>),
    /// All disks have their snapshots: the save is completed from here on, whatever happens.
    Pivoted(Box<Snapshot>),
    /// The save is done, and the domain is what it was to be.
    Saved(Box<Snapshot>),
    /// A domain is about to be built under the temporary name; the replaced one is destroyed before if that was to be.
    Building,
    /// It is built, and paused.
    Built(DomainIdentity),
    /// The replaced domain is about to be destroyed, or the new one about to run: the restore is completed from here on.
    Committing(Box<RestoredDraft>),
    /// The restore is done.
    Restored(Box<Restored>),
    /// Everything was undone.
    RolledBack,
}

impl Record {
    /// As it is in the journal.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Begin(_) => "begin",
            Self::Created(_) => "created",
            Self::Opening(_) => "opening",
            Self::Freezing => "freezing",
            Self::Thawed => "thawed",
            Self::Suspending => "suspending",
            Self::Naming => "naming",
            Self::Pivoting(_) => "pivoting",
            Self::Tagging(_) => "tagging",
            Self::Committed(_) => "committed",
            Self::Pivoted(_) => "pivoted",
            Self::Saved(_) => "saved",
            Self::Building => "building",
            Self::Built(_) => "built",
            Self::Committing(_) => "committing",
            Self::Restored(_) => "restored",
            Self::RolledBack => "rolled-back",
        }
    }
}

/// What a journal is of.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "operation")]
pub(crate) enum Operation {
    Save(BeginSave),
    Restore(BeginRestore),
}

/// What a save set out to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct BeginSave {
    /// The snapshot's.
    pub(crate) id: Uuid,
    pub(crate) domain: DomainIdentity,
    pub(crate) state_before: DomainState,
    /// Final names of all files that may be created.
    pub(crate) targets: Vec<PathBuf>,
    pub(crate) qmp: Option<PathBuf>,
    pub(crate) after: After,
    pub(crate) config: ConfigUpdate,
    /// Names of hooks that take part. What they did only they can tell.
    pub(crate) hooks: Vec<String>,
    /// The name of the quiescer, if the guest is quiesced.
    pub(crate) quiescer: Option<String>,
    /// Disks whose frozen image is read for a digest.
    pub(crate) digests: Vec<String>,
}

/// All of a snapshot but the disks of the last group, and what is about to be done with those.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DraftSave {
    /// With the disks that are committed already.
    pub(crate) snapshot: Snapshot,
    pub(crate) overlays: Vec<OverlayIntent>,
    /// The hook whose disks cannot be brought back, if those are the last group.
    pub(crate) hook: Option<String>,
}

/// What a restore set out to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct BeginRestore {
    /// The restore's own.
    pub(crate) id: Uuid,
    /// The domain that is replaced.
    pub(crate) replaces: Option<DomainIdentity>,
    /// Whether that is destroyed before anything else.
    pub(crate) free_first: bool,
    /// The new domain's uuid.
    pub(crate) uuid: Uuid,
    /// The name it is built under, and no other domain ever has.
    pub(crate) temporary_name: String,
    pub(crate) name: String,
    pub(crate) start: Start,
    pub(crate) targets: Vec<PathBuf>,
}

/// All of a restore's result but the last steps.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RestoredDraft {
    pub(crate) restored: Restored,
}
