//! `begin`, `commit`, `abort`: a template changed under its lock, around whatever the caller does to Xenstore meanwhile.

use std::time::Instant;

use xsclient::{Client, DomId};

use super::entry;
use super::error::{BeginError, CommitError};
use super::{Device, DeviceId};
use crate::domain::Domain;
use crate::retrieve::{DeviceClass, HypervisorView};
use crate::template::{
    HeldTemplate, Revision, Template, TemplateKey, TemplateStore, TemplateText, WritePermit,
};
use crate::{DomainConfig, DomainError, Mode};

use super::EntryError;

/// Takes a template's lock (libxl's own in a [`UserdataDir`](crate::template::UserdataDir)) and reads the template.
///
/// For a toolstack that plugs devices itself: begin, [`add`](Begun::add) or [`remove`](Begun::remove), commit its own
/// Xenstore transaction, then [`commit`](Begun::commit). Nothing slow belongs in between: `xl` waits.
///
/// ```
/// use std::time::{Duration, Instant};
///
/// use libxl_config::hotplug::{begin, spec};
/// use libxl_config::template::{DomId, MemoryStore, TemplateKey, TemplateText, create};
///
/// let templates = MemoryStore::new();
/// let key = TemplateKey::new(DomId::new(7), "a7989683-6a5f-495a-b64f-11438bce7d66".parse()?);
/// let deadline = Instant::now() + Duration::from_secs(10);
/// create(&templates, &key, &TemplateText::new(r#"{"c_info": {"name": "web"}}"#)?, deadline)?;
///
/// let disk = spec::disk("vdev=xvdb,format=raw,access=rw,target=/srv/data.img")?;
/// let mut begun = begin(&templates, &key, deadline)?;
/// begun.add(&disk.into())?;
/// // What is wrong with the template shows while nothing is in Xenstore yet.
/// begun.check()?;
/// // Here the toolstack commits the transaction with the device's nodes; if that fails, it aborts.
/// let revision = begun.commit(deadline)?;
/// # drop(revision);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// If the lock was not taken by the deadline, or the template is missing or cannot be read.
pub fn begin<'s>(
    templates: &'s dyn TemplateStore,
    key: &TemplateKey,
    deadline: Instant,
) -> Result<Begun<'s>, BeginError> {
    let held = templates.lock(&WritePermit::new(), key, deadline)?;
    let before = held.load(deadline)?.ok_or(BeginError::NoTemplate { key: *key })?;
    let read = DomainConfig::read(&before.octets, Mode::Lenient)
        .map_err(|source| BeginError::Unreadable { key: *key, source })?;
    Ok(Begun { held, before, config: read.config, changed: Vec::new() })
}

/// Which template is a domain's own: the one of its uuid, as the hypervisor tells it if there is one to ask, and Xenstore if not.
///
/// # Errors
/// If there is no such domain, or nothing tells which template is its own.
pub fn template_key(
    client: &mut Client,
    templates: &dyn TemplateStore,
    hypervisor: Option<&dyn HypervisorView>,
    domid: DomId,
    deadline: Instant,
) -> Result<TemplateKey, DomainError> {
    let mut client = client.with_deadline(deadline);
    Domain::find(&mut client, templates, hypervisor, domid, deadline)?.key()
}

/// A template that is locked and about to change.
///
/// Dropping it releases the lock and leaves the template as it was, as [`abort`](Self::abort) does; so does the end of the
/// process, however it comes. It cannot be handed to another process: a lock that outlives its holder would be none.
pub struct Begun<'s> {
    held: Box<dyn HeldTemplate + 's>,
    before: Template,
    config: DomainConfig,
    changed: Vec<DeviceClass>,
}

impl Begun<'_> {
    /// Whose template it is.
    pub fn key(&self) -> &TemplateKey {
        self.held.key()
    }

    /// The configuration with the changes made so far, which nobody else sees yet.
    pub fn config(&self) -> &DomainConfig {
        &self.config
    }

    /// The revision of the template as it is stored.
    pub fn before(&self) -> Revision {
        self.before.revision
    }

    /// The numbers that the template's devices of a class have, for choosing another.
    pub fn devids(&self, class: DeviceClass) -> Vec<u32> {
        entry::places(&self.config, class)
    }

    /// Puts a device in, in place of the entry that it may have already; gives that.
    ///
    /// # Errors
    /// If the entry has neither vdev nor devid.
    pub fn add(&mut self, device: &Device) -> Result<Option<Device>, EntryError> {
        let before = entry::put(&mut self.config, device)?;
        self.changed.push(device.class());
        Ok(before)
    }

    /// Takes a device out; gives its entry, if it has one.
    pub fn remove(&mut self, id: DeviceId) -> Option<Device> {
        let taken = entry::take(&mut self.config, id);
        if taken.is_some() {
            self.changed.push(id.class);
        }
        taken
    }

    /// Checks that the changes can be written, so that nothing but the store can fail after it.
    ///
    /// # Errors
    /// What stands in their way.
    pub fn check(&self) -> Result<(), BeginError> {
        self.text().map(drop)
    }

    /// Writes the template and releases the lock.
    ///
    /// # Errors
    /// If it cannot be written; the lock is released all the same, and the template is the old one or the new one.
    pub fn commit(mut self, deadline: Instant) -> Result<Revision, CommitError> {
        self.store(deadline)
    }

    /// Releases the lock; the template stays as it was.
    pub fn abort(self) {
        drop(self);
    }

    /// Writes the template and keeps the lock.
    pub(super) fn store(&mut self, deadline: Instant) -> Result<Revision, CommitError> {
        let Some(text) = self.text()? else { return Ok(self.before.revision) };
        let revision = self.held.store(&text, deadline)?;
        self.before = Template::from_octets(text.octets().to_vec());
        self.changed.clear();
        Ok(revision)
    }

    /// Whether the store has another template by now, or cannot say that it has not.
    pub(super) fn is_stored(&self) -> bool {
        let found = self.held.load(Instant::now());
        !matches!(found, Ok(Some(found)) if found.revision == self.before.revision)
    }

    fn text(&self) -> Result<Option<TemplateText>, BeginError> {
        if self.changed.is_empty() {
            return Ok(None);
        }
        let key = *self.key();
        let octets = entry::text(&self.before.octets, &self.config, &self.changed)
            .map_err(|source| BeginError::Entry { key, source })?;
        let text = TemplateText::new(octets);
        text.map(Some).map_err(|source| BeginError::Text { key, source })
    }
}
