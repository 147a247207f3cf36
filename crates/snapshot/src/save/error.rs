//! Why there is no snapshot, and how everything is then.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;

use libxl_config::retrieve::RetrieveError;
use serde::Serialize;
use xenstore_migration::domain_state::ToStreamError;
use xenstore_migration::{CreateError, WriteError};
use xsclient::OpenError;

use super::{Consistency, PlanSaveError};
use crate::control::{ChangeError, DomainState, QueryError, ResumeError, SuspendError};
use crate::disk::{CommitError, PrepareError};
use crate::guard::GuardianError;
use crate::image::ImageWriteError;
use crate::xenstore_state::ExtractError;
use crate::{CompleteFileError, LeftBehind, Phase, Snapshot};

/// A save that did not do all it was to do, and what was found afterwards.
///
/// Up to the commit point everything is undone: the domain is as before, nothing is left but what `left` names. From then on
/// there is a whole snapshot, and `snapshot` has it.
#[derive(Debug)]
#[non_exhaustive]
pub struct SaveFailure {
    /// What was going on.
    pub phase: Phase,
    /// Why it failed.
    pub cause: SaveCause,
    /// What a query has shown afterwards; `None` if it could not be found out.
    pub domain: Option<DomainState>,
    /// In which image each disk is that was to be saved.
    pub disks: Vec<DiskAfter>,
    /// Files with their final names that were removed again.
    pub removed: Vec<PathBuf>,
    /// What is left.
    pub left: Vec<LeftBehind>,
    /// Why the guest could not be told to thaw: its file systems may still be frozen.
    pub thaw: Option<Box<dyn Error + Send + Sync>>,
    /// The snapshot, which is whole, if what failed came after it was made.
    pub snapshot: Option<Box<Snapshot>>,
    /// The journal, if [`recover`](crate::recover::recover()) has something to do.
    pub journal: Option<PathBuf>,
}

/// In which image a disk is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DiskAfter {
    /// Which disk.
    pub vdev: String,
    /// Its image.
    pub image: ImageAfter,
}

/// Which image a disk is in after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageAfter {
    /// The one it was in.
    Old,
    /// The new one.
    New,
    /// It is not known.
    Unknown,
}

impl fmt::Display for SaveFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the save failed ({}): {}; ", self.phase, self.cause)?;
        match self.domain {
            Some(state) => write!(f, "the domain is {state}")?,
            None => f.write_str("what the domain is now is not known")?,
        }
        if self.snapshot.is_some() {
            f.write_str("; the snapshot is whole")?;
        }
        for left in &self.left {
            write!(f, "; {left}")?;
        }
        if self.thaw.is_some() {
            f.write_str("; the guest could not be thawed")?;
        }
        Ok(())
    }
}

/// The cause is in the message, so that the next is the cause's own.
impl Error for SaveFailure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.source()
    }
}

/// Why a save failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SaveCause {
    /// What was planned is not possible any more, or cannot be looked at.
    #[error("what was planned is not possible any more")]
    Plan(#[source] PlanSaveError),
    /// Something is another since it was planned.
    #[error("since it was planned, {what} has changed")]
    StalePlan {
        /// What.
        what: &'static str,
    },
    /// The journal cannot be written.
    #[error("the journal cannot be written")]
    Journal(#[source] io::Error),
    /// The disks cannot be prepared.
    #[error("{kind}: cannot be prepared")]
    Prepare {
        /// Which way of snapshotting.
        kind: &'static str,
        /// Why.
        source: Box<PrepareError>,
    },
    /// A new file.
    #[error(transparent)]
    File(#[from] CompleteFileError),
    /// There is no guardian.
    #[error(transparent)]
    Guardian(#[from] GuardianError),
    /// The guest is not quiesced.
    #[error("the guest cannot be quiesced")]
    Freeze(#[source] Box<dyn Error + Send + Sync>),
    /// Less was achieved than was asked for.
    #[error("{wanted:?} was asked for, and no more than {achieved:?} can be achieved")]
    Consistency {
        /// What was asked for.
        wanted: Consistency,
        /// What is achieved.
        achieved: Consistency,
    },
    /// The domain is not suspended, or not streamed.
    #[error(transparent)]
    Suspend(#[from] SuspendError),
    /// The domain was not found suspended.
    #[error("the domain was to be suspended, and was found {state}")]
    NotSuspended {
        /// What it was found to be.
        state: DomainState,
    },
    /// Somebody else let the guest go on before its disks were frozen.
    #[error("the guest was to stand still until its disks are frozen, and was found {state}")]
    WentOn {
        /// What it was found to be.
        state: DomainState,
    },
    /// Nobody says how the domain is.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The memory image cannot be written.
    #[error("the memory image cannot be written")]
    Image(#[from] ImageWriteError),
    /// There is something behind the end of the domain's stream.
    #[error("there is something behind the end of the domain's stream")]
    Trailing,
    /// A pipe, a thread's token or a descriptor.
    #[error("cannot {step}")]
    Io {
        /// What was to be done.
        step: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// Xenstore cannot be reached.
    #[error("Xenstore cannot be reached")]
    Xenstore(#[from] OpenError),
    /// The configuration cannot be retrieved.
    #[error("the domain's configuration cannot be retrieved")]
    Configuration(#[from] RetrieveError),
    /// What the domain has in Xenstore cannot be read.
    #[error("what the domain has in Xenstore cannot be read")]
    Extract(#[from] ExtractError),
    /// It cannot be written as a stream.
    #[error("what the domain has in Xenstore cannot be written as a stream")]
    ToStream(#[from] ToStreamError),
    /// Its stream cannot be begun.
    #[error("what the domain has in Xenstore cannot be written as a stream")]
    CreateStream(#[from] CreateError),
    /// Its stream cannot be ended.
    #[error("what the domain has in Xenstore cannot be written as a stream")]
    Stream(#[from] WriteError),
    /// The disks have no snapshot, or whether they have is not known.
    #[error("{kind}: not done")]
    Commit {
        /// Which way of snapshotting.
        kind: &'static str,
        /// Why, and how the disks are.
        source: Box<CommitError>,
    },
    /// The domain does not go on. The snapshot is whole.
    #[error(transparent)]
    Resume(#[from] ResumeError),
    /// The domain was not paused or destroyed. The snapshot is whole.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The domain is not what it was to be afterwards. The snapshot is whole.
    #[error("the domain was found {state} afterwards")]
    After {
        /// What it is.
        state: DomainState,
    },
    /// The guest could not be told to thaw. The snapshot is whole.
    #[error("the guest cannot be told to thaw")]
    Thaw,
    /// The caller cancelled it.
    #[error("the save was cancelled")]
    Cancelled,
    /// It took too long.
    #[error("the deadline has passed")]
    DeadlinePassed,
}
