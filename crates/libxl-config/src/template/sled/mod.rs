//! The embedded store: a database directory that one process owns.

mod database;
mod entries;
mod open;
#[cfg(test)]
mod tests;
mod witness;

use std::{collections::HashSet, path::Path, time::Instant};

pub use self::open::OpenStoreError;
use self::{
    database::{Change, Database},
    open::Opened,
    witness::Witness,
};
use super::{
    CreateError, CreateManyError, DomId, HeldTemplate, Holder, ListError, LoadError, LockError,
    Revision, StoreFault, Template, TemplateKey, TemplateStore, TemplateText, WriteError,
    WritePermit,
    key_locks::{Busy, KeyGuard, KeyLocks},
};

/// How many templates are created with one wait for the disk. Bounds what a batch keeps in memory beside the caller's
/// copy: a thousand templates of a few KiB.
const BATCH: usize = 1000;

/// Templates in an embedded database: the default for a toolstack that does not share libxl's directory.
///
/// One process owns the directory from opening to dropping. Another that opens it waits until its deadline, and is then
/// told who the owner is. Threads share the store freely; those that write different templates at the same time share
/// the waits for the disk.
///
/// When a writing call returns, the change is on the disk: the database's own flush only hands it to the kernel, so
/// this adds an fsync. Once a write has failed, what the database holds in memory may differ from the disk; the store
/// then refuses everything until it is opened again.
#[derive(Debug)]
pub struct SledStore {
    locks: KeyLocks,
    /// Before `opened`, so that it is closed before the ownership of the directory ends.
    database: Database,
    witness: Witness,
    opened: Opened,
}

impl SledStore {
    /// Opens the store in this directory, which must exist. Opening writes: the database keeps its own records current.
    ///
    /// # Errors
    /// If there is no store there, if another process owned it until the deadline, or if it is damaged.
    pub fn open(path: impl AsRef<Path>, deadline: Instant) -> Result<Self, OpenStoreError> {
        Self::own(Opened::existing(path.as_ref(), deadline)?, deadline)
    }

    /// Opens the store in this directory, and creates it if there is none.
    ///
    /// # Errors
    /// As [`open`](Self::open), or if the directory cannot be created.
    pub fn open_or_create(
        path: impl AsRef<Path>,
        deadline: Instant,
    ) -> Result<Self, OpenStoreError> {
        let opened = Opened::or_create(path.as_ref(), deadline)?;
        opened.create_database(|path| Database::open(path).map(drop))?;
        Self::own(opened, deadline)
    }

    /// The directory, as it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.opened.path()
    }

    fn own(opened: Opened, deadline: Instant) -> Result<Self, OpenStoreError> {
        opened.await_database(deadline)?;
        let database = Database::open(&opened.database_path()).map_err(|source| {
            OpenStoreError::Database { path: opened.path().to_owned(), source }
        })?;
        let witness = Witness::open(opened.path()).map_err(|source| OpenStoreError::Directory {
            path: opened.path().to_owned(),
            source,
        })?;
        let (known, found) = (witness.noted(), database.last_change());
        if found < known {
            let count_file = Witness::path(opened.path());
            return Err(OpenStoreError::ChangesLost {
                path: opened.path().to_owned(),
                known,
                found,
                count_file,
            });
        }
        Ok(SledStore { locks: KeyLocks::default(), database, witness, opened })
    }

    /// Makes changes in one step; every change goes through here, so that its number is noted.
    fn apply<'t>(&self, changes: impl IntoIterator<Item = Change<'t>>) -> Result<(), StoreFault> {
        let number = self.database.apply(changes)?;
        self.witness.note(number);
        Ok(())
    }

    fn at(&self) -> String {
        self.path().display().to_string()
    }

    fn read(&self, key: &TemplateKey) -> Result<Option<Template>, LoadError> {
        let stored =
            self.database.get(key).map_err(|source| LoadError::Store { key: *key, source })?;
        let Some(stored) = stored else { return Ok(None) };
        entries::template(&stored)
            .map(Some)
            .ok_or_else(|| LoadError::Damaged { key: *key, at: self.at() })
    }

    fn lock_keys(
        &self,
        keys: Vec<TemplateKey>,
        deadline: Instant,
    ) -> Result<KeyGuard<'_>, LockError> {
        self.locks.write(keys, deadline).map_err(|Busy(key)| LockError::Locked {
            key,
            at: self.at(),
            holder: Holder::ThisProcess,
        })
    }

    /// Creates a batch of different templates with one wait for the disk: all, or on failure none.
    ///
    /// An error names the first template that failed by its place in the batch.
    fn create_batch(
        &self,
        batch: &[(TemplateKey, TemplateText)],
        deadline: Instant,
    ) -> Result<(), (usize, CreateError)> {
        let _guard = self
            .lock_keys(batch.iter().map(|(key, _)| *key).collect(), deadline)
            .map_err(|error| (0, error.into()))?;
        for (place, (key, _)) in batch.iter().enumerate() {
            match self.read(key) {
                Ok(None) => {}
                Ok(Some(found)) => {
                    return Err((place, CreateError::Exists { key: *key, found: found.revision }));
                }
                Err(error) => return Err((place, error.into())),
            }
        }
        let changes = batch.iter().map(|(key, text)| Change::Store(*key, text));
        self.apply(changes)
            .map_err(|source| (0, WriteError::Store { key: batch[0].0, source }.into()))
    }
}

impl TemplateStore for SledStore {
    fn load(&self, key: &TemplateKey, deadline: Instant) -> Result<Option<Template>, LoadError> {
        let _reading = self.locks.read(key, deadline).map_err(|Busy(key)| LoadError::Locked {
            key,
            at: self.at(),
            holder: Holder::ThisProcess,
        })?;
        self.read(key)
    }

    fn keys(&self, _deadline: Instant) -> Result<Vec<TemplateKey>, ListError> {
        self.database.keys(None).map_err(|source| ListError::Store { source })
    }

    fn keys_of(&self, domid: DomId, _deadline: Instant) -> Result<Vec<TemplateKey>, ListError> {
        self.database.keys(Some(domid)).map_err(|source| ListError::Store { source })
    }

    fn lock<'s>(
        &'s self,
        _permit: &WritePermit,
        key: &TemplateKey,
        deadline: Instant,
    ) -> Result<Box<dyn HeldTemplate + 's>, LockError> {
        let guard = self.lock_keys(vec![*key], deadline)?;
        Ok(Box::new(Held { store: self, key: *key, _guard: guard }))
    }

    fn create_many(
        &self,
        _permit: &WritePermit,
        templates: &[(TemplateKey, TemplateText)],
        deadline: Instant,
    ) -> Result<(), CreateManyError> {
        let mut created = 0;
        while created < templates.len() {
            let mut seen = HashSet::new();
            let rest = &templates[created..];
            let count = rest.iter().take(BATCH).take_while(|(key, _)| seen.insert(*key)).count();
            let mut batch = &rest[..count];
            let failure = self.create_batch(batch, deadline).err();
            if let Some((place, _)) = &failure {
                // Those before the one that failed are still created, as the trait promises.
                batch = &batch[..*place];
                if !batch.is_empty() {
                    self.create_batch(batch, deadline).map_err(|(place, source)| {
                        CreateManyError { created, key: batch[place].0, source }
                    })?;
                }
            }
            created += batch.len();
            if let Some((_, source)) = failure {
                return Err(CreateManyError { created, key: templates[created].0, source });
            }
        }
        Ok(())
    }
}

/// A template that no other thread reads or writes; no other process can.
struct Held<'s> {
    store: &'s SledStore,
    key: TemplateKey,
    _guard: KeyGuard<'s>,
}

impl HeldTemplate for Held<'_> {
    fn key(&self) -> &TemplateKey {
        &self.key
    }

    fn load(&self, _deadline: Instant) -> Result<Option<Template>, LoadError> {
        self.store.read(&self.key)
    }

    fn store(&mut self, text: &TemplateText, _deadline: Instant) -> Result<Revision, WriteError> {
        let change = Change::Store(self.key, text);
        self.store.apply([change]).map_err(|source| WriteError::Store { key: self.key, source })?;
        Ok(text.revision())
    }

    fn remove(&mut self, _deadline: Instant) -> Result<bool, WriteError> {
        let failed = |source| WriteError::Store { key: self.key, source };
        let existed = self.store.database.contains(&self.key).map_err(failed)?;
        if existed {
            self.store.apply([Change::Remove(self.key)]).map_err(failed)?;
        }
        Ok(existed)
    }
}
