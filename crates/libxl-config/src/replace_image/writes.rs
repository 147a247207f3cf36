//! The nodes that name images, changed in one transaction and changed back in another.

use std::time::Instant;

use xsclient::{Batch, Client, Commit, Failure, Nodes, OperationError, Path, Transaction};

use super::{UndoError, ViewState};
use crate::template::steps;

/// A node with another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) path: Path,
    pub(super) old: Vec<u8>,
    pub(super) new: Vec<u8>,
}

/// How an attempt to write ended.
pub(super) enum Written {
    Committed,
    /// Something that was relied on is otherwise by now, or changed meanwhile. Nothing was written.
    Moved,
    /// The commit was sent and not answered.
    Unanswered(OperationError),
}

/// Writes all changes, if what was relied on still stands.
///
/// `before_commit` is the last chance to drop it all.
///
/// # Errors
/// What kept it from being written: nothing was.
pub(super) fn write<E: From<OperationError>>(
    client: &mut Client,
    changes: &[Change],
    relied_on: &[(Path, Option<Vec<u8>>)],
    before_commit: impl FnOnce() -> Result<(), E>,
) -> Result<Written, E> {
    let mut transaction = client.transaction()?;
    if !stands(&mut transaction, relied_on)? {
        transaction.abort()?;
        return Ok(Written::Moved);
    }
    put(&mut transaction, changes.iter().map(|change| (&change.path, &change.new)))?;
    steps::reached("replace: written in the transaction");
    before_commit()?;
    match transaction.commit() {
        Ok(Commit::Committed) => Ok(Written::Committed),
        Ok(Commit::Conflict) => Ok(Written::Moved),
        Err(error) if is_without_effect(&error) => Err(error.into()),
        Err(error) => Ok(Written::Unanswered(error)),
    }
}

/// Why nothing was changed back, as far as it is known.
pub(super) struct NotUndone {
    pub(super) error: UndoError,
    /// Whether a commit was sent and not answered, so that it may have been.
    pub(super) may_be_undone: bool,
}

impl From<OperationError> for NotUndone {
    fn from(error: OperationError) -> Self {
        Self { error: UndoError::Xenstore(error), may_be_undone: false }
    }
}

/// Changes everything back, unless somebody else has changed any of it since. A conflict is tried again, `attempts` times
/// in all.
pub(super) fn undo(
    client: &mut Client,
    changes: &[Change],
    attempts: u32,
) -> Result<(), NotUndone> {
    let not_undone = |error, may_be_undone| Err(NotUndone { error, may_be_undone });
    let new: Vec<_> =
        changes.iter().map(|change| (change.path.clone(), Some(change.new.clone()))).collect();
    for _ in 0..attempts {
        let mut transaction = client.transaction()?;
        if !stands(&mut transaction, &new)? {
            return not_undone(UndoError::ChangedSince, false);
        }
        put(&mut transaction, changes.iter().map(|change| (&change.path, &change.old)))?;
        match transaction.commit() {
            Ok(Commit::Committed) => return Ok(()),
            Ok(Commit::Conflict) => {}
            Err(error) => {
                let may_be_undone = !is_without_effect(&error);
                return not_undone(UndoError::Xenstore(error), may_be_undone);
            }
        }
    }
    not_undone(UndoError::Conflict { attempts }, false)
}

/// Which values the nodes have now; the new ones, if there was nothing to change.
pub(super) fn state(client: &mut Client, changes: &[Change], deadline: Instant) -> ViewState {
    if changes.is_empty() {
        return ViewState::New;
    }
    let mut client = client.with_deadline(deadline);
    let mut batch = Batch::new();
    let slots: Vec<_> = changes.iter().map(|change| batch.read(change.path.clone())).collect();
    let Ok(mut replies) = client.run(batch) else { return ViewState::Unknown };
    let mut values = Vec::new();
    for slot in slots {
        match replies.take_optional(slot) {
            Ok(value) => values.push(value),
            Err(_) => return ViewState::Unknown,
        }
    }
    let all = |wanted: fn(&Change) -> &Vec<u8>| {
        changes.iter().zip(&values).all(|(change, value)| value.as_ref() == Some(wanted(change)))
    };
    if all(|change| &change.new) {
        ViewState::New
    } else if all(|change| &change.old) {
        ViewState::Old
    } else {
        ViewState::Other
    }
}

/// Whether nodes have these values.
fn stands(
    transaction: &mut Transaction<'_>,
    nodes: &[(Path, Option<Vec<u8>>)],
) -> Result<bool, OperationError> {
    let mut batch = Batch::new();
    let slots: Vec<_> = nodes.iter().map(|(path, _)| batch.read(path.clone())).collect();
    let mut replies = transaction.run(batch)?;
    for (slot, (_, expected)) in slots.into_iter().zip(nodes) {
        if replies.take_optional(slot)? != *expected {
            return Ok(false);
        }
    }
    Ok(true)
}

fn put<'c>(
    transaction: &mut Transaction<'_>,
    values: impl Iterator<Item = (&'c Path, &'c Vec<u8>)>,
) -> Result<(), OperationError> {
    let mut batch = Batch::new();
    let slots: Vec<_> =
        values.map(|(path, value)| batch.write(path.clone(), value.clone())).collect();
    let mut replies = transaction.run(batch)?;
    slots.into_iter().try_for_each(|slot| replies.take(slot))
}

/// Whether a failed commit is known to have written nothing.
fn is_without_effect(error: &OperationError) -> bool {
    matches!(error.failure(), Failure::Refused(_) | Failure::Timeout { sent: false })
}
