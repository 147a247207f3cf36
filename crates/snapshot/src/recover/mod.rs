//! Bringing a save or restore to its end whose process died: back to how it was, or on to how it was to be.
//!
//! The journal says what may have been done, and the world says what has been: files are known by their inodes, disks by what
//! QEMU has open, domains by number and uuid. Everything here can be done again, so that a recovery that dies is recovered as well.
//!
//! | died | what becomes of it |
//! |---|---|
//! | a save, before its disks were moved | nothing is left of it, the domain goes on |
//! | a save, after that | it is completed: configuration, domain, digests |
//! | a restore, before its commit | the new domain and its files are gone, the old one is as it was |
//! | a restore, after that | it is completed: the old domain is gone, the new one has its name and runs |

pub(crate) mod configure;
mod domain;
mod error;
mod files;
mod restore;
mod save;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::control::DomainState;
use crate::journal::{Journal, Operation, Record};
use crate::restore::Restored;
use crate::{HostAccess, JournalError, LeftBehind, Observer, Phase, Snapshot};

pub use error::RecoverError;

/// What became of a call that died.
#[derive(Debug)]
#[non_exhaustive]
pub enum Recovered {
    /// It had not begun.
    NothingDone,
    /// It was undone.
    #[non_exhaustive]
    RolledBack {
        /// Files that were removed.
        removed: Vec<PathBuf>,
        /// What could not be removed: to recover once more tries again.
        left: Vec<LeftBehind>,
        /// The domain's state afterwards: of a restore, that of the domain that it was to replace. `None` if there is none, or if
        /// all of it had been done before.
        domain: Option<DomainState>,
        /// What could not be made sure, in words.
        warnings: Vec<String>,
    },
    /// The save is complete.
    Saved(Box<Snapshot>),
    /// The restore is complete.
    Restored(Box<Restored>),
}

/// An object with `recovered`, which is `nothing-done`, `rolled-back`, `saved` or `restored`, and a member with what there is to
/// tell of that: `rolled_back`, `snapshot`, `restored`.
impl Serialize for Recovered {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct RolledBack<'r> {
            removed: &'r [PathBuf],
            left: Vec<String>,
            domain: Option<DomainState>,
            warnings: &'r [String],
        }
        let mut map = serializer.serialize_map(None)?;
        match self {
            Self::NothingDone => map.serialize_entry("recovered", "nothing-done")?,
            Self::RolledBack { removed, left, domain, warnings } => {
                let left = left.iter().map(ToString::to_string).collect();
                let told = RolledBack { removed, left, domain: *domain, warnings };
                map.serialize_entry("recovered", "rolled-back")?;
                map.serialize_entry("rolled_back", &told)?;
            }
            Self::Saved(snapshot) => {
                map.serialize_entry("recovered", "saved")?;
                map.serialize_entry("snapshot", snapshot)?;
            }
            Self::Restored(restored) => {
                map.serialize_entry("recovered", "restored")?;
                map.serialize_entry("restored", restored)?;
            }
        }
        map.end()
    }
}

/// Finds out from its journal what became of a [`save`](crate::save::save()) or [`restore`](crate::restore::restore()) whose process
/// died, and undoes or completes it. The journal is the caller's to remove afterwards.
///
/// It may be repeated, also after it was killed itself, and while a guardian is at work. It must not be called while something else
/// has the domain suspended: that would go on by it. A domain that was to be destroyed and runs again, since a guardian has resumed
/// it, is left running.
///
/// Hooks and quiescers that took part are asked for by their names in [`HostAccess`].
///
/// # Errors
///
/// [`RecoverError`]: what was found is in the journal, and to recover once more goes on with it.
pub fn recover(
    access: &mut HostAccess<'_>,
    journal: &Path,
    observer: &mut Observer<'_>,
) -> Result<Recovered, RecoverError> {
    observer.begin(Phase::Plan);
    let Some((journal, found)) = Journal::find(journal)? else {
        return Ok(Recovered::NothingDone);
    };
    let mut work = Work { access, journal, observer };
    match found.operation {
        Operation::Save(begin) => save::recover(&mut work, &begin, &found.records),
        Operation::Restore(begin) => restore::recover(&mut work, &begin, &found.records),
    }
}

/// What all steps work with.
struct Work<'w, 'a, 'o> {
    access: &'w mut HostAccess<'a>,
    journal: Journal,
    observer: &'w mut Observer<'o>,
}

impl Work<'_, '_, '_> {
    fn write(&mut self, record: &Record) -> Result<(), RecoverError> {
        let written = self.journal.write(record);
        written.map_err(|source| {
            let path = self.journal.path().map(Path::to_owned).unwrap_or_default();
            JournalError::Io { path, step: "written", source }.into()
        })
    }
}

/// All was undone before.
fn undone_before() -> Recovered {
    Recovered::RolledBack { removed: vec![], left: vec![], domain: None, warnings: vec![] }
}
