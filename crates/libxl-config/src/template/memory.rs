//! A store in memory.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::{
    HeldTemplate, Holder, ListError, LoadError, LockError, Revision, Template, TemplateKey,
    TemplateStore, TemplateText, WriteError, WritePermit,
    key_locks::{KeyGuard, KeyLocks},
};

/// Templates in memory, gone with the value: for tests, and for a toolstack that keeps templates elsewhere.
#[derive(Debug, Default)]
pub struct MemoryStore {
    locks: KeyLocks,
    templates: Mutex<BTreeMap<TemplateKey, Template>>,
}

/// What the lock of a template in memory is called in errors.
const PLACE: &str = "in memory";

impl MemoryStore {
    /// A store with no templates.
    #[must_use]
    pub fn new() -> Self {
        MemoryStore::default()
    }

    /// Each change is one call on the map, so that a panic elsewhere cannot leave it half changed.
    fn templates(&self) -> MutexGuard<'_, BTreeMap<TemplateKey, Template>> {
        self.templates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TemplateStore for MemoryStore {
    fn load(&self, key: &TemplateKey, deadline: Instant) -> Result<Option<Template>, LoadError> {
        let _reading = self.locks.read(key, deadline).map_err(|_| LoadError::Locked {
            key: *key,
            at: PLACE.to_owned(),
            holder: Holder::ThisProcess,
        })?;
        Ok(self.templates().get(key).cloned())
    }

    fn keys(&self, _deadline: Instant) -> Result<Vec<TemplateKey>, ListError> {
        Ok(self.templates().keys().copied().collect())
    }

    fn lock<'s>(
        &'s self,
        _permit: &WritePermit,
        key: &TemplateKey,
        deadline: Instant,
    ) -> Result<Box<dyn HeldTemplate + 's>, LockError> {
        let guard = self.locks.write(vec![*key], deadline).map_err(|_| LockError::Locked {
            key: *key,
            at: PLACE.to_owned(),
            holder: Holder::ThisProcess,
        })?;
        Ok(Box::new(Held { store: self, key: *key, _guard: guard }))
    }
}

struct Held<'s> {
    store: &'s MemoryStore,
    key: TemplateKey,
    _guard: KeyGuard<'s>,
}

impl HeldTemplate for Held<'_> {
    fn key(&self) -> &TemplateKey {
        &self.key
    }

    fn load(&self, _deadline: Instant) -> Result<Option<Template>, LoadError> {
        Ok(self.store.templates().get(&self.key).cloned())
    }

    fn store(&mut self, text: &TemplateText, _deadline: Instant) -> Result<Revision, WriteError> {
        let template = Template::from_octets(text.octets().to_vec());
        let revision = template.revision;
        self.store.templates().insert(self.key, template);
        Ok(revision)
    }

    fn remove(&mut self, _deadline: Instant) -> Result<bool, WriteError> {
        Ok(self.store.templates().remove(&self.key).is_some())
    }
}
