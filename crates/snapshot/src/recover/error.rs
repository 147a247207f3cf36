//! Why a call that died is neither undone nor completed yet.

use std::error::Error;

use crate::JournalError;
use crate::control::{ChangeError, DomainIdentity, QueryError, RenameError, ResumeError};
use crate::disk::DiskFailure;

/// Why a call that died is neither undone nor completed yet. To recover once more is safe.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoverError {
    /// The journal cannot be used. Nothing was touched, unless it could not be written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Nobody says how a domain is.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The domain is suspended still.
    #[error(transparent)]
    Resume(#[from] ResumeError),
    /// A domain could not be paused, unpaused or destroyed.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The restored domain has its temporary name still.
    #[error(transparent)]
    Rename(#[from] RenameError),
    /// Whether the disks are in their new images is not known. No file was removed.
    #[error("whether the disks are in their new images is not known")]
    Disks(#[source] DiskFailure),
    /// Whether a hook whose snapshot cannot be undone has taken it only that can tell. No file was removed.
    #[error("whether the hook {hook:?} has taken its snapshot is not known")]
    Hook {
        /// The hook.
        hook: String,
    },
    /// The guest's file systems may be frozen.
    #[error("the quiescer {quiescer:?} has not thawed the guest")]
    Thaw {
        /// The quiescer.
        quiescer: String,
        /// Why not.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The host has no such quiescer, and the guest's file systems may be frozen.
    #[error("there is no quiescer {quiescer:?} to thaw the guest with")]
    NoQuiescer {
        /// The quiescer.
        quiescer: String,
    },
    /// The restored domain is gone, which may have run and written to its disks: they were left.
    #[error("the restored domain {domain} is gone, with its disks left as they are")]
    Gone {
        /// The domain.
        domain: DomainIdentity,
    },
    /// The caller cancelled.
    #[error("the recovery was cancelled")]
    Cancelled,
}
