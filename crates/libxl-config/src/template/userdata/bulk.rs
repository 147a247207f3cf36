//! Many templates created with few waits for the disk.

use std::{collections::HashSet, time::Instant};

use super::{Held, UserdataDir, WriteLock};
use crate::template::{
    CreateError, CreateManyError, HeldTemplate, StoreFault, SwapError, TemplateKey, TemplateText,
    WriteError, steps,
};

/// How many templates are created with one sync. Each holds its lock file open meanwhile; a process may have 1024
/// files open unless told otherwise, and should keep most of them for itself.
const BATCH: usize = 256;

/// Creates templates in the order given, a batch at a time.
///
/// In a batch every template is locked and written beside its place, then all are made durable at once by a sync of the
/// file system, then each is renamed into place, and the directory is synced: no name stands for a template that is not
/// on the disk. Two processes that create some of the same templates in different orders wait for each other's locks
/// until one reaches its deadline.
pub(super) fn create(
    store: &UserdataDir,
    templates: &[(TemplateKey, TemplateText)],
    deadline: Instant,
) -> Result<(), CreateManyError> {
    let mut created = 0;
    while created < templates.len() {
        let (count, failure) = create_batch(store, distinct(&templates[created..]), deadline);
        created += count;
        if let Some(source) = failure {
            return Err(CreateManyError { created, key: templates[created].0, source });
        }
    }
    Ok(())
}

/// The longest start of these that is a batch of different templates: nobody can lock one template twice.
fn distinct(templates: &[(TemplateKey, TemplateText)]) -> &[(TemplateKey, TemplateText)] {
    let mut seen = HashSet::new();
    let count = templates.iter().take(BATCH).take_while(|(key, _)| seen.insert(*key)).count();
    &templates[..count]
}

/// Creates a batch, or its start; returns how many were created, and what the next one met.
fn create_batch(
    store: &UserdataDir,
    batch: &[(TemplateKey, TemplateText)],
    deadline: Instant,
) -> (usize, Option<CreateError>) {
    let mut written = Vec::with_capacity(batch.len());
    let mut failure = None;
    for (key, text) in batch {
        match write(store, key, text, deadline) {
            Ok(held) => written.push(held),
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    if written.is_empty() {
        return (0, failure);
    }
    steps::reached("userdata: batch written");
    if let Err(error) = store.directory.sync_file_system() {
        written.iter().for_each(Held::discard_next);
        let source =
            StoreFault::new(format!("sync the file system of {}", store.path().display()), error);
        return (0, Some(WriteError::Store { key: batch[0].0, source }.into()));
    }
    let mut renamed = 0;
    for held in &written {
        if let Err(error) = held.rename_next() {
            failure = Some(error.into());
            break;
        }
        renamed += 1;
        steps::reached("userdata: one of the batch renamed");
    }
    written.iter().skip(renamed).for_each(Held::discard_next);
    steps::reached("userdata: batch renamed");
    match written.first().map(Held::sync_names) {
        // Renamed, but perhaps not for long: nothing is promised of this batch.
        Some(Err(error)) => (0, Some(error.into())),
        Some(Ok(())) | None => (renamed, failure),
    }
}

fn write<'s>(
    store: &'s UserdataDir,
    key: &TemplateKey,
    text: &TemplateText,
    deadline: Instant,
) -> Result<Held<'s>, CreateError> {
    let lock = WriteLock::acquire(&store.directory, key, deadline)
        .map_err(|e| e.for_lock(&store.directory, key))?;
    let held = Held { store, key: *key, lock };
    if let Some(found) = held.load(deadline)? {
        return Err(
            SwapError::Conflict { key: *key, expected: None, found: Some(found.revision) }.into()
        );
    }
    held.write_next(text).inspect_err(|_| held.discard_next())?;
    Ok(held)
}
