//! Keeps one locked template from using up everybody's time.

use std::time::Instant;

use libxl_config::template::{
    DomId, HeldTemplate, ListError, LoadError, LockError, Template, TemplateKey, TemplateStore,
    WritePermit,
};

use crate::places::Places;

/// A template store whose reads wait for locks for half of the time that an operation may take, all of them together.
///
/// A list of domains has one deadline. A template that somebody holds until then would leave no time to read Xenstore: every
/// domain would fail for the sake of one, and with an error that blames Xenstore.
pub(crate) struct Patience<'s> {
    store: &'s dyn TemplateStore,
    until: Instant,
}

impl<'s> Patience<'s> {
    pub(crate) fn new(store: &'s dyn TemplateStore, places: &Places) -> Self {
        Self { store, until: Instant::now() + places.timeout() / 2 }
    }
}

impl TemplateStore for Patience<'_> {
    fn load(&self, key: &TemplateKey, deadline: Instant) -> Result<Option<Template>, LoadError> {
        self.store.load(key, deadline.min(self.until))
    }

    fn keys(&self, deadline: Instant) -> Result<Vec<TemplateKey>, ListError> {
        self.store.keys(deadline.min(self.until))
    }

    fn keys_of(&self, domid: DomId, deadline: Instant) -> Result<Vec<TemplateKey>, ListError> {
        self.store.keys_of(domid, deadline.min(self.until))
    }

    fn lock<'l>(
        &'l self,
        permit: &WritePermit,
        key: &TemplateKey,
        deadline: Instant,
    ) -> Result<Box<dyn HeldTemplate + 'l>, LockError> {
        self.store.lock(permit, key, deadline.min(self.until))
    }
}
