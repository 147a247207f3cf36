//! What can go wrong in a template store, one type for each operation.

use std::{error::Error as StdError, fmt};

use thiserror::Error;

use super::{MAX_TEMPLATE_LEN, Revision, TemplateKey};

/// Why a template could not be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoadError {
    /// Somebody held the template's lock until the deadline.
    #[error("template of {key}: {holder} still held its lock ({at}) at the deadline")]
    Locked {
        /// Whose template.
        key: TemplateKey,
        /// The lock, as the store calls it: a path for a store of files.
        at: String,
        /// Who held it.
        holder: Holder,
    },
    /// The template's file is there, and has no content.
    #[error(
        "template of {key}: {at} is there but empty: its content was lost, most likely because the host went down soon \
         after libxl wrote it (libxl does not sync); forget the template and create it again from the running domain"
    )]
    EmptyTemplate {
        /// Whose template.
        key: TemplateKey,
        /// The file.
        at: String,
    },
    /// The template is longer than [`MAX_TEMPLATE_LEN`].
    #[error(
        "template of {key}: {at} is longer than the limit of {MAX_TEMPLATE_LEN} octets: not written by a toolstack"
    )]
    TooLarge {
        /// Whose template.
        key: TemplateKey,
        /// The file.
        at: String,
    },
    /// In place of the template's file or its lock there is a symbolic link, a FIFO, a directory, or the like.
    #[error("template of {key}: {at} is not a regular file; remove it")]
    NotAFile {
        /// Whose template.
        key: TemplateKey,
        /// What is in the way.
        at: String,
    },
    /// What the store gives back is not what was put into it.
    #[error(
        "template of {key}: {at} gives back other octets than were stored; forget the template and create it again"
    )]
    Damaged {
        /// Whose template.
        key: TemplateKey,
        /// Where it is stored.
        at: String,
    },
    /// The store failed.
    #[error("template of {key}: cannot be read")]
    Store {
        /// Whose template.
        key: TemplateKey,
        /// What failed.
        source: StoreFault,
    },
}

/// Why the keys could not be listed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ListError {
    /// The store failed.
    #[error("the templates cannot be listed")]
    Store {
        /// What failed.
        source: StoreFault,
    },
}

/// Why a template's lock was not taken.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LockError {
    /// Somebody else held the lock until the deadline.
    #[error("template of {key}: {holder} still held its lock ({at}) at the deadline")]
    Locked {
        /// Whose template.
        key: TemplateKey,
        /// The lock, as the store calls it: a path for a store of files.
        at: String,
        /// Who held it.
        holder: Holder,
    },
    /// In place of the lock file there is a symbolic link, a FIFO, a directory, or the like.
    #[error("template of {key}: its lock {at} is not a regular file; remove it")]
    NotAFile {
        /// Whose template.
        key: TemplateKey,
        /// What is in the way.
        at: String,
    },
    /// The store failed.
    #[error("template of {key}: cannot be locked")]
    Store {
        /// Whose template.
        key: TemplateKey,
        /// What failed.
        source: StoreFault,
    },
}

/// Why a held template was not stored or removed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The lock was taken away while it was held: its file was removed, or a lease ran out. Nothing was written.
    #[error(
        "template of {key}: its lock ({at}) was taken away while it was held; nothing was written"
    )]
    LockLost {
        /// Whose template.
        key: TemplateKey,
        /// The lock, as the store calls it.
        at: String,
    },
    /// The store failed. The template is the old one or the new one.
    #[error("template of {key}: cannot be written")]
    Store {
        /// Whose template.
        key: TemplateKey,
        /// What failed.
        source: StoreFault,
    },
}

/// Why a compare-and-swap did not happen.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SwapError {
    /// The template is not the one the change was computed from. Load it and compute the change again.
    #[error(
        "template of {key}: expected {}, found {}: somebody else changed it",
        revision_or_none(expected.as_ref()),
        revision_or_none(found.as_ref())
    )]
    Conflict {
        /// Whose template.
        key: TemplateKey,
        /// The revision that the caller named.
        expected: Option<Revision>,
        /// The revision that is there.
        found: Option<Revision>,
    },
    /// Its lock was not taken.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The template to compare with could not be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The new template could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// A step inside a store that failed; the cause is in [`source`](StdError::source).
///
/// The cause's type is the store's own business: no database or transport shows in this crate's interface.
#[derive(Debug)]
pub struct StoreFault {
    step: String,
    source: Box<dyn StdError + Send + Sync>,
}

impl StoreFault {
    /// A fault met in this step, which says what was done to what: "rename /var/lib/xen/userdata-n...".
    pub fn new(
        step: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        StoreFault { step: step.into(), source: source.into() }
    }
}

impl fmt::Display for StoreFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed to {}", self.step)
    }
}

impl StdError for StoreFault {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(self.source.as_ref())
    }
}

/// Who holds a lock, as far as it can be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Holder {
    /// A process of this host.
    Process {
        /// Its process id.
        pid: u32,
        /// Its name, as in `/proc/PID/comm`, if it was still running when asked.
        program: Option<String>,
    },
    /// The calling process itself, by another thread or an earlier call.
    ThisProcess,
    /// Somebody that this host does not show: a process in another container, or another host.
    Unknown,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Process { pid, program: Some(program) } => {
                write!(f, "process {pid} ({program})")
            }
            Holder::Process { pid, program: None } => write!(f, "process {pid}"),
            Holder::ThisProcess => f.write_str("this process"),
            Holder::Unknown => f.write_str("another process"),
        }
    }
}

fn revision_or_none(revision: Option<&Revision>) -> String {
    revision.map_or_else(|| "no template".to_owned(), |revision| format!("revision {revision}"))
}
