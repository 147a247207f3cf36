//! Why images were not replaced, and which view names what after that.

use std::fmt;

use xsclient::{DomId, Errno, OperationError};

use super::{EditError, Refusal};
use crate::template::{LoadError, LockError, Revision, TemplateKey, TextError, WriteError};
use crate::{DomainError, ReadError};

/// Which images one of the views names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ViewState {
    /// Those it named before the call.
    Old,
    /// The new ones, of all disks; maybe it did so before the call.
    New,
    /// Neither all the old nor all the new ones: somebody else has changed the view.
    Other,
    /// It could not be seen.
    Unknown,
}

impl fmt::Display for ViewState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Old => "old",
            Self::New => "new",
            Self::Other => "changed by somebody else",
            Self::Unknown => "not known",
        })
    }
}

/// Both views after an operation that did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Views {
    /// Xenstore.
    pub live: ViewState,
    /// The template.
    pub template: ViewState,
}

impl Views {
    /// Nothing was changed.
    pub(super) const OLD: Self = Self { live: ViewState::Old, template: ViewState::Old };
}

/// `live view new, template old`
impl fmt::Display for Views {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "live view {}, template {}", self.live, self.template)
    }
}

/// Why images were not replaced. Unless it is said otherwise, nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplaceError {
    /// Nothing could be begun on the domain.
    #[error(transparent)]
    Domain(#[from] DomainError),
    /// Xenstore has something that decides, and does not show it to this domain.
    #[error("domain {domid}: Xenstore refuses to show {path} ({errno})")]
    NotShown {
        /// Which.
        domid: DomId,
        /// What.
        path: String,
        /// With which error.
        errno: Errno,
    },
    /// The template's lock was not taken.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The template could not be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The template is no configuration.
    #[error("template of {key}: cannot be understood")]
    Unreadable {
        /// Whose template.
        key: TemplateKey,
        /// Why.
        source: ReadError,
    },
    /// The new images cannot be put into the template's text.
    #[error("template of {key}: cannot be changed")]
    Edit {
        /// Whose template.
        key: TemplateKey,
        /// Why.
        source: EditError,
    },
    /// The changed template could not be stored as a template.
    #[error("template of {key}: with the new images it is no template")]
    Text {
        /// Whose template.
        key: TemplateKey,
        /// Why.
        source: TextError,
    },
    /// Something speaks against it.
    #[error("domain {domid}: {}", listed(refusals))]
    Refused {
        /// Which.
        domid: DomId,
        /// Everything that does.
        refusals: Vec<Refusal>,
    },
    /// The template is another than the caller expected, or was changed by somebody who does not heed its lock.
    #[error("template of {key}: expected revision {expected}, found {}", or_none(found.as_ref()))]
    TemplateChanged {
        /// Whose template.
        key: TemplateKey,
        /// What was expected.
        expected: Revision,
        /// What is there; `None` if no template.
        found: Option<Revision>,
    },
    /// Somebody else kept changing the domain in Xenstore.
    #[error("domain {domid}: changed by somebody else in each of {attempts} attempts")]
    Conflict {
        /// Which.
        domid: DomId,
        /// How often it was tried.
        attempts: u32,
    },
    /// Xenstore could not be read, or refused to write.
    #[error("domain {domid}: Xenstore did not do it")]
    Xenstore {
        /// Of which domain.
        domid: DomId,
        /// Why.
        source: OperationError,
    },
    /// No answer to the commit came, and it did not take place as far as could be seen: the template was not touched.
    #[error("domain {domid}: no answer to the commit ({views})")]
    CommitUnanswered {
        /// Which.
        domid: DomId,
        /// What was found out: the live view is old or not known.
        views: Views,
        /// What happened to the answer.
        source: OperationError,
    },
    /// Xenstore was changed, the template was not, or not for certain; Xenstore was changed back if that makes both agree.
    #[error("domain {domid}: the template was not written ({views}{})", and_why(undo.as_ref()))]
    TemplateNotWritten {
        /// Which.
        domid: DomId,
        /// What was found out after the attempt to undo.
        views: Views,
        /// Why the template was not written.
        source: Box<WriteError>,
        /// Why Xenstore was not changed back, if that was tried and failed.
        undo: Option<UndoError>,
    },
}

impl ReplaceError {
    /// Which images each view names after this error.
    pub fn views(&self) -> Views {
        match self {
            Self::CommitUnanswered { views, .. } | Self::TemplateNotWritten { views, .. } => *views,
            _ => Views::OLD,
        }
    }
}

/// Why Xenstore was not changed back.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UndoError {
    /// Somebody else has changed what would have been changed back.
    #[error("somebody else has changed the live view since")]
    ChangedSince,
    /// Somebody else kept changing the domain.
    #[error("somebody else kept changing the domain, in each of {attempts} attempts")]
    Conflict {
        /// How often it was tried.
        attempts: u32,
    },
    /// Xenstore did not do it.
    #[error("{0}")]
    Xenstore(OperationError),
}

fn listed(refusals: &[Refusal]) -> String {
    refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn or_none(revision: Option<&Revision>) -> String {
    revision.map_or_else(|| "no template".to_owned(), ToString::to_string)
}

fn and_why(undo: Option<&UndoError>) -> String {
    undo.map(|error| format!("; not undone: {error}")).unwrap_or_default()
}
