//! The public way in, and the order of the steps.

use std::time::{Duration, Instant};

use xsclient::{Batch, Client, DomId, Nodes, OperationError, Path};

use super::edit;
use super::error::{ReplaceError, UndoError, ViewState, Views};
use super::judge::{self, Params};
use super::writes::{self, Change, NotUndone, Written};
use super::{Plan, Refusal, Replaced, ReplacedDisk, Replacement};
use crate::domain::Domain;
use crate::retrieve::HypervisorView;
use crate::retrieve::disks::{self, LiveDisks};
use crate::template::{
    HeldTemplate, LoadError, Revision, Template, TemplateKey, TemplateStore, TemplateText,
    WriteError, WritePermit, steps,
};
use crate::{DomainConfig, DomainError, Mode};

/// How often it is tried while somebody else changes the domain in Xenstore: sixteen clients that plug devices at once need
/// up to about that many transactions on C xenstored.
pub const ATTEMPTS_MAX: u32 = 100;

/// How long finding out and changing back may take after a failure, whatever the deadline: what is left half done costs
/// more than being late.
pub const TIME_TO_UNDO: Duration = Duration::from_secs(5);

/// How long a call may take, when nothing else is said.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// Moves disks to other images, in one Xenstore and one template store.
pub struct ReplaceImage<'a> {
    client: &'a mut Client,
    templates: &'a dyn TemplateStore,
    hypervisor: Option<&'a dyn HypervisorView>,
    deadline: Option<Instant>,
    expected: Option<Revision>,
}

impl<'a> ReplaceImage<'a> {
    /// With 30 seconds for each call.
    pub fn new(client: &'a mut Client, templates: &'a dyn TemplateStore) -> Self {
        Self { client, templates, hypervisor: None, deadline: None, expected: None }
    }

    /// When to give up waiting, for the template's lock as for Xenstore. After a failure up to [`TIME_TO_UNDO`] more is
    /// taken to find out what has happened and to change it back.
    #[must_use]
    pub fn deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Asks this for the domain's uuid, by which its template is filed, instead of Xenstore.
    #[must_use]
    pub fn hypervisor(mut self, hypervisor: &'a dyn HypervisorView) -> Self {
        self.hypervisor = Some(hypervisor);
        self
    }

    /// Replaces only if the template still is the one of this revision: that of a [`Plan`].
    #[must_use]
    pub fn expecting(mut self, revision: Revision) -> Self {
        self.expected = Some(revision);
        self
    }

    /// Says what [`replace`](Self::replace) would do, and everything that speaks against it. Changes nothing and takes no
    /// lock, so that template and Xenstore need not be of one moment.
    ///
    /// # Errors
    /// If domain or template are missing, or cannot be read.
    pub fn plan(
        &mut self,
        domid: DomId,
        replacements: &[Replacement],
    ) -> Result<Plan, ReplaceError> {
        let deadline = self.end();
        let key = self.key(domid, deadline)?;
        let found = self.templates.load(&key, deadline)?;
        let template = found.ok_or(no_template(&key))?;
        self.check_expected(&key, Some(&template))?;
        let work = self.work(&key, template, replacements, deadline)?;
        Ok(Plan { key, before: work.before.revision, disks: work.disks, refusals: work.refusals })
    }

    /// Moves disks of a domain to other images: all of them, in both views, or none.
    ///
    /// A disk that one of the views, or both, have on the new image already is brought to it in the other: a call that was
    /// interrupted can be repeated.
    ///
    /// # Errors
    /// [`ReplaceError::Refused`] with everything that speaks against it. What each view names after any error:
    /// [`ReplaceError::views`].
    pub fn replace(
        &mut self,
        domid: DomId,
        replacements: &[Replacement],
    ) -> Result<Replaced, ReplaceError> {
        let deadline = self.end();
        let key = self.key(domid, deadline)?;
        let mut held = self.templates.lock(&WritePermit::new(), &key, deadline)?;
        steps::reached("replace: locked");
        for _ in 0..ATTEMPTS_MAX {
            let template = held.load(deadline)?.ok_or(no_template(&key))?;
            self.check_expected(&key, Some(&template))?;
            let work = self.work(&key, template, replacements, deadline)?;
            if !work.refusals.is_empty() {
                return Err(ReplaceError::Refused { domid, refusals: work.refusals });
            }
            if self.write_xenstore(&work, held.as_ref(), deadline)? {
                steps::reached("replace: committed");
                let after = self.write_template(&work, held.as_mut(), deadline)?;
                steps::reached("replace: template written");
                return Ok(Replaced {
                    key,
                    before: work.before.revision,
                    after,
                    disks: work.disks,
                });
            }
        }
        Err(ReplaceError::Conflict { domid, attempts: ATTEMPTS_MAX })
    }

    fn end(&self) -> Instant {
        self.deadline.unwrap_or_else(|| Instant::now() + TIMEOUT_DEFAULT)
    }

    /// Which template is the domain's.
    fn key(&mut self, domid: DomId, deadline: Instant) -> Result<TemplateKey, ReplaceError> {
        let mut client = self.client.with_deadline(deadline);
        let domain = Domain::find(&mut client, self.templates, self.hypervisor, domid, deadline)?;
        Ok(domain.key()?)
    }

    fn check_expected(
        &self,
        key: &TemplateKey,
        found: Option<&Template>,
    ) -> Result<(), ReplaceError> {
        match self.expected {
            Some(expected) => check_revision(key, expected, found),
            None => Ok(()),
        }
    }

    /// Reads the live view and works out what to write.
    fn work(
        &mut self,
        key: &TemplateKey,
        before: Template,
        asked: &[Replacement],
        deadline: Instant,
    ) -> Result<Work, ReplaceError> {
        let domid = key.domid;
        let config = DomainConfig::read(&before.octets, Mode::Lenient)
            .map_err(|source| ReplaceError::Unreadable { key: *key, source })?
            .config;
        let mut client = self.client.with_deadline(deadline);
        let live = LiveDisks::read(&mut client, domid).map_err(xenstore(domid))?;
        let params = read_params(&mut client, judge::backend_params(asked, &live))
            .map_err(xenstore(domid))?;
        drop(client);
        // The domain may have gone, and another one come under its id, before the lock was taken.
        let (vm_path, vm) = live.vm();
        let told = vm.and_then(disks::uuid_of_vm);
        let is_another = self.hypervisor.is_none() && told.is_some_and(|uuid| uuid != key.uuid);
        let (judged, refusals) = judge::judge(asked, &config, &live, &params);
        let incomplete = !live.exists() || !refusals.is_empty();
        if let Some((path, errno)) = live.refused().next().filter(|_| incomplete) {
            let (path, errno) = (path.to_string(), errno.clone());
            return Err(ReplaceError::NotShown { domid, path, errno });
        }
        if !live.exists() || is_another {
            return Err(DomainError::NoSuchDomain { domid }.into());
        }
        let images: Vec<_> = judged.iter().map(|one| (one.index, &one.disk.image)).collect();
        let mut work = Work {
            key: *key,
            text: None,
            config: config.clone(),
            before,
            places: judged.iter().map(|one| one.index).collect(),
            changes: Vec::new(),
            relied_on: vm.map(|vm| (vm_path, Some(vm.as_bytes().to_vec()))).into_iter().collect(),
            disks: Vec::new(),
            refusals,
        };
        if work.refusals.is_empty() {
            let edited = edit::with_images(&work.before.octets, &config, &images)
                .map_err(|source| ReplaceError::Edit { key: *key, source })?;
            if edited != work.before.octets {
                let text = TemplateText::new(edited);
                work.text = Some(text.map_err(|source| ReplaceError::Text { key: *key, source })?);
            }
        }
        for one in judged {
            work.changes.extend(one.changes);
            work.relied_on.extend(one.relied_on);
            work.disks.push(one.disk);
        }
        Ok(work)
    }

    /// Changes the live view; `false` if it has moved since it was read, and nothing was written.
    fn write_xenstore(
        &mut self,
        work: &Work,
        held: &dyn HeldTemplate,
        deadline: Instant,
    ) -> Result<bool, ReplaceError> {
        let domid = work.key.domid;
        let mut client = self.client.with_deadline(deadline);
        let written = writes::write(&mut client, &work.changes, &work.relied_on, || {
            // The lock keeps away those who heed it.
            let found = held.load(deadline).map_err(Stop::Load)?;
            if found.as_ref().map(|template| template.revision) != Some(work.before.revision) {
                return Err(Stop::Changed(found));
            }
            Ok(())
        });
        drop(client);
        match written {
            Ok(Written::Committed) => Ok(true),
            Ok(Written::Moved) => Ok(false),
            Ok(Written::Unanswered(source)) => {
                let until = Instant::now() + TIME_TO_UNDO;
                let live = writes::state(self.client, &work.changes, until);
                match live {
                    ViewState::New => Ok(true),
                    live => {
                        let views = Views { live, template: ViewState::Old };
                        Err(ReplaceError::CommitUnanswered { domid, views, source })
                    }
                }
            }
            Err(Stop::Xenstore(source)) => Err(ReplaceError::Xenstore { domid, source }),
            Err(Stop::Load(error)) => Err(ReplaceError::Load(error)),
            Err(Stop::Changed(found)) => {
                check_revision(&work.key, work.before.revision, found.as_ref()).map(|()| false)
            }
        }
    }

    /// Writes the template, and if it cannot be written, changes the live view back.
    fn write_template(
        &mut self,
        work: &Work,
        held: &mut dyn HeldTemplate,
        deadline: Instant,
    ) -> Result<Revision, ReplaceError> {
        let Some(text) = &work.text else { return Ok(work.before.revision) };
        let source = match held.store(text, deadline) {
            Ok(revision) => return Ok(revision),
            Err(error) => error,
        };
        let template = work.template_state(held, &source);
        let (live, undo) = match template {
            // To undo makes both agree; where the template is new, or may be, the live view says what is true.
            ViewState::Old => self.undo(work),
            _ => (ViewState::New, None),
        };
        let views = Views { live, template };
        let source = Box::new(source);
        Err(ReplaceError::TemplateNotWritten { domid: work.key.domid, views, source, undo })
    }

    fn undo(&mut self, work: &Work) -> (ViewState, Option<UndoError>) {
        if work.changes.is_empty() {
            // It was new before.
            return (ViewState::New, None);
        }
        let deadline = Instant::now() + TIME_TO_UNDO;
        let mut client = self.client.with_deadline(deadline);
        let undone = writes::undo(&mut client, &work.changes, ATTEMPTS_MAX);
        drop(client);
        match undone {
            Ok(()) => (ViewState::Old, None),
            Err(NotUndone { error, may_be_undone }) => {
                tracing::warn!(key = %work.key, %error, "the live view could not be changed back");
                let live = match writes::state(self.client, &work.changes, deadline) {
                    ViewState::Unknown if !may_be_undone => ViewState::New,
                    live => live,
                };
                // No error, if only the answer was late.
                (live, Some(error).filter(|_| live != ViewState::Old))
            }
        }
    }
}

/// What is to be done.
struct Work {
    key: TemplateKey,
    before: Template,
    config: DomainConfig,
    /// The new template, if it is another.
    text: Option<TemplateText>,
    /// The places of the disks in the template's list.
    places: Vec<usize>,
    changes: Vec<Change>,
    relied_on: Vec<(Path, Option<Vec<u8>>)>,
    disks: Vec<ReplacedDisk>,
    refusals: Vec<Refusal>,
}

impl Work {
    /// Which images the template names after it could not be written.
    fn template_state(&self, held: &dyn HeldTemplate, error: &WriteError) -> ViewState {
        let found = match held.load(Instant::now() + TIME_TO_UNDO) {
            Ok(Some(found)) => found,
            Ok(None) => return ViewState::Other,
            Err(_) => return ViewState::Unknown,
        };
        if found.revision == self.before.revision {
            return ViewState::Old;
        }
        if self.text.as_ref().is_some_and(|text| text.revision() == found.revision) {
            return ViewState::New;
        }
        tracing::warn!(key = %self.key, %error, "somebody else has changed the template under its lock");
        // What somebody else has written may still name the old images.
        let Ok(read) = DomainConfig::read(&found.octets, Mode::Lenient) else {
            return ViewState::Other;
        };
        let is_old = |place: &usize| {
            let (then, now) = (self.config.disks.get(*place), read.config.disks.get(*place));
            then.zip(now).is_some_and(|(then, now)| {
                (&then.vdev, &then.pdev_path, &then.format)
                    == (&now.vdev, &now.pdev_path, &now.format)
            })
        };
        if self.places.iter().all(is_old) { ViewState::Old } else { ViewState::Other }
    }
}

/// What ends a transaction before its commit.
enum Stop {
    Xenstore(OperationError),
    Load(LoadError),
    Changed(Option<Template>),
}

impl From<OperationError> for Stop {
    fn from(error: OperationError) -> Self {
        Self::Xenstore(error)
    }
}

fn read_params(
    client: &mut Client,
    paths: impl IntoIterator<Item = Path>,
) -> Result<Params, OperationError> {
    let mut batch = Batch::new();
    let slots: Vec<_> = paths.into_iter().map(|path| (batch.read(path.clone()), path)).collect();
    if slots.is_empty() {
        return Ok(Params::new());
    }
    let mut replies = client.run(batch)?;
    slots.into_iter().map(|(slot, path)| Ok((path, replies.take_optional(slot)?))).collect()
}

fn check_revision(
    key: &TemplateKey,
    expected: Revision,
    found: Option<&Template>,
) -> Result<(), ReplaceError> {
    let found = found.map(|template| template.revision);
    if found == Some(expected) {
        return Ok(());
    }
    Err(ReplaceError::TemplateChanged { key: *key, expected, found })
}

fn no_template(key: &TemplateKey) -> DomainError {
    DomainError::NoTemplate { domid: key.domid, uuid: Some(key.uuid) }
}

fn xenstore(domid: DomId) -> impl Fn(OperationError) -> ReplaceError {
    move |source| ReplaceError::Xenstore { domid, source }
}
