//! Detaching.

use std::time::{Duration, Instant};

use serde::Serialize;
use xsclient::{Client, Commit, DomId, Nodes, OperationError};

use super::attach::remove_in;
use super::begin::{Begun, begin};
use super::claim::{self, Claimed, NotClaimed};
use super::error::{BeginError, CommitError, DetachError, StepError};
use super::place::{self, Backend, Place, backend_kinds, fixed, kind_of, under};
use super::plan::Facts;
use super::plugger::{ATTEMPTS_MAX, Hotplug};
use super::script::{Action, NicNames};
use super::wait::{self, Ends};
use super::{Device, DeviceId, DeviceName, entry};
use crate::domain::Domain;
use crate::model::Mac;
use crate::retrieve::{DeviceClass, disks};
use crate::template::{Revision, steps};
use crate::{DomainConfig, Mode};

/// How often a backend that goes on connecting is told again to close.
const REMINDERS_MAX: u32 = 8;

/// A device that was detached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Detached {
    /// Which it was.
    pub id: DeviceId,
    /// Whether Xenstore had it.
    pub was_in_xenstore: bool,
    /// Whether the template had it.
    pub was_in_template: bool,
    /// The template without it; `None` if the domain has none.
    pub revision: Option<Revision>,
    /// What went wrong with the hotplug script; the device is gone all the same, maybe not what the script should have
    /// taken back (a loop device, a place in a bridge).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub script_error: Option<String>,
}

impl Hotplug<'_> {
    /// Detaches a device from a running domain, in both views.
    ///
    /// A device that only one view has is taken out of that, and one that is half attached or half detached is detached to
    /// its end.
    ///
    /// # Errors
    /// After [`DetachError::Failed`] the device is reported half detached, and it can be tried again: a guest that does not
    /// let it go ([`StepError::NotLetGo`]) may do so later, or the device is taken away by [`force`](Self::force). After any
    /// other error nothing was changed.
    pub fn detach(&mut self, domid: DomId, name: &DeviceName) -> Result<Detached, DetachError> {
        let domain = self.domain(domid)?;
        let id = self.resolve(&domain, name)?;
        let deadline = Instant::now() + self.timeouts.lock;
        self.check_template(&domain, id, deadline)?;
        let (place, is_there) = self.find(domid, id)?;
        let claimed = Claimed::new(domid, id, "detach");
        if !is_there {
            let failed = |source: StepError| DetachError::Failed {
                domid,
                id,
                attaching: false,
                source: Box::new(source),
            };
            let gone = self.finish(&domain, &place, &claimed, None).map_err(failed)?;
            if !gone.was_in_template {
                return Err(DetachError::NoSuchDevice { domid, name: name.clone() });
            }
            return Ok(gone);
        }
        let was = self.close_claimed(&place, &claimed, deadline)?;
        steps::reached("detach: closing");
        let (script, names) = self.script_of(&place).map_err(|source| DetachError::Failed {
            domid,
            id,
            attaching: false,
            source: Box::new(source.into()),
        })?;
        let script = script.as_deref().map(|script| (script, &names));
        let limit = self.timeouts.let_go;
        self.close_down(&domain, &place, &claimed, script, (was, limit), None).map_err(|source| {
            claimed.release(self.client);
            DetachError::Failed { domid, id, attaching: false, source: Box::new(source) }
        })
    }

    /// Undoes an attaching, from whatever step, and puts back the template's entry that it replaced.
    pub(super) fn take_down(
        &mut self,
        domain: &Domain,
        place: &Place,
        claimed: &Claimed,
        script: Option<(&str, &NicNames)>,
        limit: Duration,
        before: Option<&Device>,
    ) -> Result<Detached, StepError> {
        let mut attempts = 0;
        let was = loop {
            attempts += 1;
            match self.close(place, claimed) {
                Ok((Commit::Committed, was)) => break was,
                Ok((Commit::Conflict, _)) if attempts < ATTEMPTS_MAX => {}
                Ok((Commit::Conflict, _)) => return Err(StepError::Conflict { attempts }),
                Err(NotClaimed::Xenstore(error)) => return Err(error.into()),
                // Somebody has taken the device over.
                Err(NotClaimed::By(_)) => return Err(StepError::Vanished),
            }
        };
        self.close_down(domain, place, claimed, script, (was, limit), before)
    }

    /// From `online` 0 to nothing: the ends, the script, both views.
    pub(super) fn close_down(
        &mut self,
        domain: &Domain,
        place: &Place,
        claimed: &Claimed,
        script: Option<(&str, &NicNames)>,
        (was, limit): (Option<u32>, Duration),
        before: Option<&Device>,
    ) -> Result<Detached, StepError> {
        let ends = self.await_closed(place, was, limit)?;
        steps::reached("detach: closed");
        let mut script_error = None;
        if let Some((script, names)) = script
            && ends.backend
            && (ends.script_left || place.id.class == DeviceClass::Nic)
        {
            // As in libxl, what a script cannot take back does not keep the device.
            if let Err(error) = self.run_script(place, script, names, Action::Remove) {
                tracing::warn!(%error, id = %place.id, "the hotplug script failed");
                script_error = Some(xsclient::on_one_line(&error));
            }
            steps::reached("detach: script done");
        }
        let gone = self.finish(domain, place, claimed, before)?;
        Ok(Detached { was_in_xenstore: true, script_error, ..gone })
    }

    /// The last step: the nodes and the template's entry, under the template's lock.
    ///
    /// In between, a killed process leaves the device in the view whose word does not count: in the template, where libxl
    /// compares the class with Xenstore; in Xenstore, closed, where it does not.
    pub(super) fn finish(
        &mut self,
        domain: &Domain,
        place: &Place,
        claimed: &Claimed,
        before: Option<&Device>,
    ) -> Result<Detached, StepError> {
        let deadline = Instant::now() + self.timeouts.lock;
        let templates = self.templates;
        let begun = match domain.key.map(|key| begin(templates, &key, deadline)) {
            None | Some(Err(BeginError::NoTemplate { .. })) => None,
            Some(begun) => Some(begun?),
        };
        steps::reached("detach: locked");
        let mut gone = Detached {
            id: place.id,
            was_in_xenstore: false,
            was_in_template: false,
            revision: None,
            script_error: None,
        };
        let template_first = place.id.class == DeviceClass::P9;
        let mut begun = begun;
        if let Some(begun) = &mut begun {
            gone.was_in_template = begun.remove(place.id).is_some();
            if let Some(before) = before {
                let key = *begun.key();
                begun.add(before).map_err(|source| BeginError::Entry { key, source })?;
            }
            begun.check()?;
            gone.revision = Some(begun.before());
        }
        if template_first {
            store(&mut begun, &mut gone, deadline)?;
        }
        self.remove(domain, place, claimed)?;
        steps::reached("detach: removed");
        if !template_first {
            store(&mut begun, &mut gone, deadline)?;
        }
        Ok(gone)
    }

    fn remove(
        &mut self,
        domain: &Domain,
        place: &Place,
        claimed: &Claimed,
    ) -> Result<(), StepError> {
        for _ in 0..ATTEMPTS_MAX {
            let mut transaction = self.client.transaction()?;
            if transaction.read_optional(&disks::vm_path(domain.domid))? != domain.vm {
                return Err(StepError::Vanished);
            }
            remove_in(&mut transaction, place, claimed)?;
            steps::reached("detach: removed in the transaction");
            match transaction.commit() {
                Ok(Commit::Committed) => return Ok(()),
                Ok(Commit::Conflict) => {}
                // Not answered, and done all the same.
                Err(_) if Ends::read(self.client, place).is_ok_and(|ends| ends.is_gone()) => {
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(StepError::Conflict { attempts: ATTEMPTS_MAX })
    }

    /// Claims the device and starts closing it, in one transaction; waits for another's claim. Gives the backend's state
    /// from before.
    fn close_claimed(
        &mut self,
        place: &Place,
        claimed: &Claimed,
        deadline: Instant,
    ) -> Result<Option<u32>, DetachError> {
        let (domid, id) = (place.domid, place.id);
        let xenstore = |source| DetachError::Xenstore { domid, source };
        loop {
            if let Some(claim) =
                claim::await_free(self.client, domid, id, deadline).map_err(xenstore)?
            {
                return Err(DetachError::Claimed { domid, id, claim });
            }
            match self.close(place, claimed) {
                Ok((Commit::Committed, was)) => return Ok(was),
                // Somebody was faster, or something changed.
                Ok((Commit::Conflict, _)) => {}
                Err(NotClaimed::By(claim)) if Instant::now() >= deadline => {
                    return Err(DetachError::Claimed { domid, id, claim });
                }
                Err(NotClaimed::By(_)) => {}
                Err(NotClaimed::Xenstore(source)) => return Err(xenstore(source)),
            }
        }
    }

    fn close(
        &mut self,
        place: &Place,
        claimed: &Claimed,
    ) -> Result<(Commit, Option<u32>), NotClaimed> {
        let force = self.force;
        let mut transaction = self.client.transaction()?;
        claimed.put(&mut transaction)?;
        let ends = Ends::read(&mut transaction, place)?;
        if ends.backend {
            transaction.write(&under(&place.backend(), "online"), b"0")?;
            if ends.backend_state != Some(6) {
                transaction.write(&under(&place.backend(), "state"), b"5")?;
            }
        }
        if force && ends.frontend {
            // The backend takes this for the end of the guest's side.
            transaction.rm(&place.frontend())?;
        }
        steps::reached("detach: written in the transaction");
        Ok((transaction.commit()?, ends.backend_state))
    }

    fn await_closed(
        &mut self,
        place: &Place,
        was: Option<u32>,
        limit: Duration,
    ) -> Result<Ends, StepError> {
        let is_qemus = !matches!(place.backend_kind, "vbd" | "vif");
        let directory = self.script_directory.clone();
        let facts = Facts::read(self.client, place.domid, &directory)?;
        let nobody = is_qemus && !facts.device_model.is_running();
        let deadline = Instant::now() + if nobody { Duration::ZERO } else { limit };
        let (mut last, mut reminders) = (Ends::default(), REMINDERS_MAX);
        let closed = wait::until(self.client, &place.backend(), deadline, |client| {
            last = Ends::read(client, place)?;
            if matches!(last.backend_state, Some(1..=4)) && reminders > 0 {
                reminders -= 1;
                remind(client, place)?;
            }
            let done =
                !last.backend || last.backend_state.is_none() || last.backend_state == Some(6);
            Ok(done.then_some(()))
        })?;
        // A backend that never began has nothing to close; and no frontend has ever met it.
        let never_met = !last.frontend || matches!(last.frontend_state, None | Some(0 | 1 | 6));
        let never_begun = never_met && matches!(was, None | Some(0 | 1));
        if closed.is_some() || nobody || never_begun || self.force {
            return Ok(last);
        }
        let (backend, frontend) = (last.backend_state, last.frontend_state);
        Err(StepError::NotLetGo { backend, frontend })
    }

    /// Where the device is, and whether Xenstore has anything of it.
    pub(super) fn find(
        &mut self,
        domid: DomId,
        id: DeviceId,
    ) -> Result<(Place, bool), DetachError> {
        let xenstore = |source| DetachError::Xenstore { domid, source };
        let kind = match place::backend_of(self.client, domid, id).map_err(xenstore)? {
            Backend::Here(kind) => kind,
            Backend::Elsewhere(backend) => {
                return Err(DetachError::Elsewhere { domid, id, backend });
            }
            Backend::Nowhere => {
                let left = place::left_backend(self.client, domid, id).map_err(xenstore)?;
                left.unwrap_or(backend_kinds(id.class)[0])
            }
        };
        let place = Place::new(domid, id, kind);
        let ends = Ends::read(self.client, &place).map_err(xenstore)?;
        Ok((place, !ends.is_gone()))
    }

    /// The script of a device that is there, as it was written when it was made.
    pub(super) fn script_of(
        &mut self,
        place: &Place,
    ) -> Result<(Option<String>, NicNames), OperationError> {
        let mut read = |key: &str| -> Result<Option<String>, OperationError> {
            let mut told = self.client.read_optional(&under(&place.toolstack(), key))?;
            if told.is_none() {
                told = self.client.read_optional(&under(&place.backend(), key))?;
            }
            Ok(told.and_then(|told| String::from_utf8(told).ok()).filter(|told| !told.is_empty()))
        };
        if !matches!(place.backend_kind, "vbd" | "vif") {
            return Ok((None, NicNames::default()));
        }
        let script = read("script")?;
        let names = NicNames { ifname: read("vifname")?, gatewaydev: read("gatewaydev")? };
        Ok((script, names))
    }

    /// The number of a device that was named otherwise.
    pub(super) fn resolve(
        &mut self,
        domain: &Domain,
        name: &DeviceName,
    ) -> Result<DeviceId, DetachError> {
        let domid = domain.domid;
        let no_such = || DetachError::NoSuchDevice { domid, name: name.clone() };
        match name {
            DeviceName::Id(id) => Ok(*id),
            DeviceName::Mac(mac) => {
                let devid = self.nic_with(domid, *mac);
                let devid = devid.map_err(|source| DetachError::Xenstore { domid, source })?;
                devid.and_then(|devid| DeviceId::new(DeviceClass::Nic, devid)).ok_or_else(no_such)
            }
            DeviceName::Tag(tag) => {
                let deadline = Instant::now() + self.timeouts.lock;
                let key = domain.key.ok_or_else(no_such)?;
                let found = self.templates.load(&key, deadline).map_err(BeginError::from)?;
                let octets = found.ok_or_else(no_such)?.octets;
                let read = DomainConfig::read(&octets, Mode::Lenient);
                let config = read.map_err(|source| BeginError::Unreadable { key, source })?.config;
                let tagged = |p9: &crate::model::P9| p9.tag.as_deref() == Some(tag);
                let at = config.p9s.iter().position(tagged).ok_or_else(no_such)?;
                let devid = entry::places(&config, DeviceClass::P9).get(at).copied();
                devid.and_then(|devid| DeviceId::new(DeviceClass::P9, devid)).ok_or_else(no_such)
            }
        }
    }

    fn nic_with(&mut self, domid: DomId, mac: Mac) -> Result<Option<u32>, OperationError> {
        let directory = fixed(&format!("/libxl/{domid}/device/{}", kind_of(DeviceClass::Nic)));
        let names = match self.client.directory(&directory) {
            Err(error) if error.is_not_found() => Vec::new(),
            names => names?,
        };
        for name in names {
            let Ok(devid) = name.as_str().parse() else { continue };
            let told = self.client.read_optional(&under(&directory, &format!("{devid}/mac")))?;
            let told = told.and_then(|told| Mac::parse_text(str::from_utf8(&told).ok()?));
            if told == Some(mac) {
                return Ok(Some(devid));
            }
        }
        Ok(None)
    }

    /// That the template can be changed is found out before the guest loses its device.
    pub(super) fn check_template(
        &mut self,
        domain: &Domain,
        id: DeviceId,
        deadline: Instant,
    ) -> Result<(), BeginError> {
        let Some(key) = domain.key else { return Ok(()) };
        let mut begun = match begin(self.templates, &key, deadline) {
            Err(BeginError::NoTemplate { .. }) => return Ok(()),
            begun => begun?,
        };
        begun.remove(id);
        begun.check()
    }
}

/// Tells a backend again to close: one that was about to say how far it has come writes over what it was told.
fn remind(client: &mut Client, place: &Place) -> Result<(), OperationError> {
    let state = under(&place.backend(), "state");
    let mut transaction = client.transaction()?;
    if !matches!(transaction.read_optional(&state)?.as_deref(), Some(b"1" | b"2" | b"3" | b"4")) {
        return transaction.abort();
    }
    transaction.write(&state, b"5")?;
    // After a conflict comes the event of what has changed.
    transaction.commit().map(drop)
}

fn store(
    begun: &mut Option<Begun<'_>>,
    gone: &mut Detached,
    deadline: Instant,
) -> Result<(), CommitError> {
    if let Some(begun) = begun {
        gone.revision = Some(begun.store(deadline)?);
        steps::reached("detach: template written");
    }
    Ok(())
}
