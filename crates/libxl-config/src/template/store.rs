//! The interface that every template store implements.

use std::time::Instant;

use super::{
    DomId, ListError, LoadError, LockError, Revision, SwapError, TemplateKey, TemplateText,
    WriteError, lifecycle::CreateManyError,
};

/// A template as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// The exact octets of the JSON text, without the trailing NUL that libxl puts after them.
    pub octets: Vec<u8>,
    /// What this content is called.
    pub revision: Revision,
}

impl Template {
    /// A template with these octets.
    #[must_use]
    pub fn from_octets(octets: Vec<u8>) -> Self {
        let revision = Revision::of(&octets);
        Template { octets, revision }
    }
}

/// Leave to write to a template store.
///
/// Only this crate makes one: there is no public "store the configuration". A template changes by creating a domain,
/// forgetting it, hotplug, and moving a disk to another image, and by nothing else. An implementation of
/// [`TemplateStore`] in another crate is handed a permit and has no use for it but to pass it on.
///
/// ```compile_fail
/// let permit = libxl_config::template::WritePermit(());
/// ```
#[derive(Debug)]
pub struct WritePermit(());

impl WritePermit {
    pub(crate) const fn new() -> Self {
        WritePermit(())
    }
}

/// Keeps templates.
///
/// Nothing here assumes a local disk: keys and revisions mean the same everywhere, and each operation has a deadline.
///
/// Promises that every implementation makes, and that the tests hold each one to:
///
/// - A read gives a complete template, some old or the current one, and creates nothing.
/// - A read waits while somebody holds the template's lock, so that it does not see the template from the middle of a
///   change that spans the template and Xenstore.
/// - When a writing call has returned `Ok`, the change survives the loss of power (in a store that outlives the process).
/// - When a writing call has returned an error, or the process was killed, the template is the old one or the new one,
///   and complete.
///
/// About deadlines: one that has passed means "do not wait", so that `Instant::now()` is a single attempt. Local disk
/// input and output is not interrupted; deadlines bound the waiting for others.
pub trait TemplateStore: Send + Sync {
    /// Reads a template; `None` if there is none under this key.
    ///
    /// # Errors
    /// If somebody held the template until the deadline, or what is stored is damaged or out of reach.
    fn load(&self, key: &TemplateKey, deadline: Instant) -> Result<Option<Template>, LoadError>;

    /// The keys of all templates, in ascending order. Templates that could not be loaded (empty or too large files) are
    /// listed too.
    ///
    /// # Errors
    /// If the store cannot be read to its end.
    fn keys(&self, deadline: Instant) -> Result<Vec<TemplateKey>, ListError>;

    /// The keys with this domain id, in ascending order of the uuid: see [`TemplateKey`] for why there can be several.
    ///
    /// # Errors
    /// If the store cannot be read to its end.
    fn keys_of(&self, domid: DomId, deadline: Instant) -> Result<Vec<TemplateKey>, ListError> {
        let mut keys = self.keys(deadline)?;
        keys.retain(|key| key.domid == domid);
        Ok(keys)
    }

    /// Takes the template's lock, whether or not there is a template, until the returned value is dropped.
    ///
    /// For changes that must not interleave with anybody else's while they span more than the template: hotplug reads
    /// the template, commits a Xenstore transaction, and writes the template, all under this lock. The lock is not
    /// reentrant: [`load`](Self::load) on the same key by its holder waits until the deadline.
    ///
    /// # Errors
    /// If somebody else held it until the deadline, or the store is out of reach.
    fn lock<'s>(
        &'s self,
        permit: &WritePermit,
        key: &TemplateKey,
        deadline: Instant,
    ) -> Result<Box<dyn HeldTemplate + 's>, LockError>;

    /// Replaces a template if it still is what the caller believes it to be.
    ///
    /// `expected` is the revision that the change was computed from; `None` says that there must be no template.
    /// `new` is the text to store; `None` removes. Returns the revision of the text now stored, `None` after a removal.
    ///
    /// # Errors
    /// [`SwapError::Conflict`], with the revision found, if the template is another; otherwise as [`lock`](Self::lock),
    /// [`HeldTemplate::load`] and [`HeldTemplate::store`].
    fn compare_and_swap(
        &self,
        permit: &WritePermit,
        key: &TemplateKey,
        expected: Option<&Revision>,
        new: Option<&TemplateText>,
        deadline: Instant,
    ) -> Result<Option<Revision>, SwapError> {
        let mut held = self.lock(permit, key, deadline)?;
        let found = held.load(deadline)?.map(|template| template.revision);
        if found.as_ref() != expected {
            return Err(SwapError::Conflict { key: *key, expected: expected.copied(), found });
        }
        match new {
            Some(text) => Ok(Some(held.store(text, deadline)?)),
            None => {
                held.remove(deadline)?;
                Ok(None)
            }
        }
    }

    /// Stores templates under keys that have none, in the order given.
    ///
    /// What one call for each would do, at less cost: a store may make many durable at once. It is not one change: after
    /// an error the templates before the one named are stored.
    ///
    /// # Errors
    /// What the first template that could not be created met, and how many were created before it.
    fn create_many(
        &self,
        permit: &WritePermit,
        templates: &[(TemplateKey, TemplateText)],
        deadline: Instant,
    ) -> Result<(), CreateManyError> {
        for (created, (key, text)) in templates.iter().enumerate() {
            self.compare_and_swap(permit, key, None, Some(text), deadline)
                .map_err(|source| CreateManyError { created, key: *key, source: source.into() })?;
        }
        Ok(())
    }
}

/// A template whose lock this value holds; dropping it releases the lock.
pub trait HeldTemplate: Send {
    /// Which template this is.
    fn key(&self) -> &TemplateKey;

    /// Reads the template; `None` if there is none.
    ///
    /// # Errors
    /// If what is stored is damaged or out of reach.
    fn load(&self, deadline: Instant) -> Result<Option<Template>, LoadError>;

    /// Stores this text, in place of the template if there is one, and returns its revision once it is durable.
    ///
    /// # Errors
    /// If the store cannot write, or the lock was taken away meanwhile; the template is then the old one or the new one.
    fn store(&mut self, text: &TemplateText, deadline: Instant) -> Result<Revision, WriteError>;

    /// Removes the template, readable or not, and returns whether there was one once that is durable.
    ///
    /// # Errors
    /// As [`store`](Self::store).
    fn remove(&mut self, deadline: Instant) -> Result<bool, WriteError>;
}
