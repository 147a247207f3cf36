//! Why a restore did not do what it was to do, and what there is now.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;

use xenstore_migration::domain_state::{FromStreamError, TranslateError};
use xsclient::{DomId, OpenError, PathError};

use super::Restored;
use super::refusal::{PlanRestoreError, RestoreRefusal};
use crate::control::{
    BuildError, ChangeError, DomainIdentity, DomainState, QueryError, RenameError,
};
use crate::disk::DiskFailure;
use crate::disk::image::{ChainRefusal, Digest};
use crate::image::{ImageOpenError, ImageReadError, ImageWriteError};
use crate::verify::VerifyError;
use crate::xenstore_state::ApplyError;
use crate::{LeftBehind, Phase};

/// A restore that did not do what it was to do, and what there is now.
///
/// Up to the commit point, everything is undone: no domain and no file is there that was not before, but what `domain` and `left`
/// name. From there on `restored` says what there is.
#[derive(Debug)]
#[non_exhaustive]
pub struct RestoreFailure {
    /// What was being done.
    pub phase: Phase,
    /// Why it failed.
    pub cause: Box<RestoreCause>,
    /// The new domain, if it exists, or if nobody could find out; with the state that it was found in.
    pub domain: Option<(DomainIdentity, Option<DomainState>)>,
    /// The domain that was to be replaced, as it was found afterwards: `None` if there was none to replace, or if nobody could
    /// find out. [`DomainState::Gone`] if it is destroyed.
    pub replaced: Option<DomainState>,
    /// Files of this call that are removed.
    pub removed: Vec<PathBuf>,
    /// Files of this call that are there still.
    pub left: Vec<LeftBehind>,
    /// What there is, if the commit point was passed: the new domain is built, and only its name or its start is missing.
    pub restored: Option<Box<Restored>>,
    /// The journal, if [`crate::recover()`] has something to do.
    pub journal: Option<PathBuf>,
}

impl fmt::Display for RestoreFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the restore failed ({}): {}", self.phase, self.cause)?;
        if let Some((domain, state)) = &self.domain {
            match state {
                Some(state) => write!(f, "; domain {domain} is {state}")?,
                None => write!(f, "; domain {domain} may be there")?,
            }
        }
        self.left.iter().try_for_each(|left| write!(f, "; {left}"))
    }
}

/// The cause is in the message, so that the next cause is the cause's.
impl Error for RestoreFailure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.source()
    }
}

/// Why a restore failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreCause {
    /// What the plan rests on has changed.
    #[error("the plan does not hold any more")]
    StalePlan,
    /// By now something speaks against it.
    #[error("the plan does not hold any more: {source}")]
    Refused {
        /// What.
        source: PlanRestoreError,
    },
    /// What was saved is missing or different.
    #[error("what was saved is not what is there")]
    Verify {
        /// What is.
        source: VerifyError,
    },
    /// An image that was to hold a disk as it was saved holds something else.
    #[error("disk {vdev}: {} has the digest {has}, and {saved} was saved", image.display())]
    OtherContent {
        /// Which disk.
        vdev: String,
        /// The image.
        image: PathBuf,
        /// Its digest.
        has: Digest,
        /// The frozen image's.
        saved: Digest,
    },
    /// An image cannot be used.
    #[error("disk {vdev}: its image cannot be used")]
    Disk {
        /// Which disk.
        vdev: String,
        /// Why.
        source: DiskFailure,
    },
    /// An image that the new domain writes is written by somebody else still.
    #[error("disk {vdev}: its image cannot be taken over")]
    DiskInUse {
        /// Which disk.
        vdev: String,
        /// Why.
        source: ChainRefusal,
    },
    /// There are no random octets for an id.
    #[error("cannot make an id")]
    Random {
        /// Why.
        source: io::Error,
    },
    /// The journal cannot be written.
    #[error("the journal cannot be written")]
    Journal {
        /// Why.
        source: io::Error,
    },
    /// What was saved cannot be opened any more.
    #[error(transparent)]
    Source(RestoreRefusal),
    /// There is no pipe or thread to build through.
    #[error("the stream cannot be set up")]
    Pipe {
        /// Why.
        source: io::Error,
    },
    /// The memory image cannot be read.
    #[error("the memory image cannot be read")]
    Memory {
        /// Why.
        source: MemoryFailure,
    },
    /// The domain cannot be built.
    #[error(transparent)]
    Build(BuildError),
    /// Nobody says what the new domain is.
    #[error("cannot tell what the new domain is")]
    Query {
        /// Why.
        source: QueryError,
    },
    /// The new domain is not what it was to be.
    #[error("the new domain is {state}, and not {wanted}")]
    State {
        /// What it is.
        state: DomainState,
        /// What it was to be.
        wanted: DomainState,
    },
    /// The domain that was built is another than the configuration's.
    #[error("the domain that was built is {found}")]
    OtherDomain {
        /// Which.
        found: DomainIdentity,
    },
    /// The new domain does not get what the guest had in Xenstore.
    #[error("the Xenstore state cannot be restored")]
    Xenstore {
        /// Why.
        source: XenstoreFailure,
    },
    /// The domain that was to be replaced is not destroyed.
    #[error("the domain to be replaced is not destroyed")]
    Destroy {
        /// Why.
        source: ChangeError,
    },
    /// The new domain does not have its name.
    #[error("the new domain is not renamed")]
    Rename {
        /// Why.
        source: RenameError,
    },
    /// The new domain does not run.
    #[error("the new domain is not started")]
    Start {
        /// Why.
        source: ChangeError,
    },
    /// The observer has cancelled it.
    #[error("the restore was cancelled")]
    Cancelled,
    /// It took too long.
    #[error("the deadline has passed")]
    DeadlinePassed,
}

/// Why a memory image cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryFailure {
    /// It is no image, or an incomplete one.
    #[error("it is no complete image")]
    Open {
        /// Why.
        source: ImageOpenError,
    },
    /// Something in it is not as it was written.
    #[error("it is not as it was written")]
    Read {
        /// What.
        source: ImageReadError,
    },
    /// It is no stream.
    #[error("it is no saved domain")]
    Stream {
        /// Why.
        source: ImageWriteError,
    },
    /// It is an image of another stream than when it was verified.
    #[error("it has changed since it was verified")]
    Changed,
}

/// Why a domain does not get what its guest had in Xenstore.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum XenstoreFailure {
    /// Xenstore cannot be reached.
    #[error("Xenstore cannot be reached")]
    Connect {
        /// Why.
        source: OpenError,
    },
    /// The file cannot be read.
    #[error("the file cannot be read")]
    Read {
        /// Why.
        source: io::Error,
    },
    /// It is another file than when it was verified.
    #[error("it has changed since it was verified")]
    Changed,
    /// It does not begin as a migration stream does.
    #[error("it is no migration stream")]
    Open {
        /// Why.
        source: xenstore_migration::OpenError,
    },
    /// It is not the stream of one domain.
    #[error("it is no stream of one domain")]
    State {
        /// Why.
        source: FromStreamError,
    },
    /// It is another domain's.
    #[error("it is of domain {found}, and {saved} was saved")]
    OtherDomain {
        /// Whose.
        found: DomId,
        /// Whose it should be.
        saved: DomId,
    },
    /// A uuid makes no path.
    #[error("there is no path for the uuid")]
    Path {
        /// Why.
        source: PathError,
    },
    /// It cannot become the new domain's.
    #[error("it cannot become the new domain's")]
    Translate {
        /// Why.
        source: TranslateError,
    },
    /// It cannot be applied.
    #[error("it cannot be applied")]
    Apply {
        /// Why.
        source: ApplyError,
    },
    /// Domains would get rights by a number that may be another's by now.
    #[error("domains {} would get rights, and may be others by now", listed(domids))]
    Strangers {
        /// Which.
        domids: Vec<DomId>,
    },
}

fn listed(domids: &[DomId]) -> String {
    domids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
