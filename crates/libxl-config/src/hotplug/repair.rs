//! Repairing: what a killed or failed attach or detach has left is finished or undone.

use std::time::{Duration, Instant};

use serde::Serialize;
use xsclient::{Commit, DomId};

use super::begin::begin;
use super::claim::{self, Claimed, NotClaimed};
use super::error::{BeginError, DetachError, StepError};
use super::place::Place;
use super::plugger::{ATTEMPTS_MAX, Hotplug};
use super::wait::{self, Ends};
use super::{Claim, Device, DeviceId, DeviceName, entry};
use crate::DomainConfig;
use crate::domain::Domain;
use crate::retrieve::{Attachment, DeviceClass, DeviceNote, DeviceReport, Presence, Retriever};
use crate::template::steps;

/// How long a half-attached device that nobody claims is watched before it is touched: xl, which leaves no claims, is
/// between two of its steps for no longer than a backend needs to answer.
const SETTLE: Duration = Duration::from_secs(3);

/// What is to become of a half-attached device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mend {
    /// Attach it to the end; detach it, if that fails.
    #[default]
    Finish,
    /// Detach it.
    Undo,
}

/// A device that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Repaired {
    /// Which.
    pub id: DeviceId,
    /// What it was like before, as `retrieve` reports it; `None` if neither view had it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<Attachment>,
    /// Which views had it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence: Option<Presence>,
    /// The claim of a process that is gone, which is what tells why the device was half done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,
    /// What was done.
    #[serde(flatten)]
    pub mended: Mended,
}

/// What a repair has done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "mended", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Mended {
    /// Nothing: there was nothing to do.
    Nothing,
    /// Attached to the end.
    Attached {
        /// How far it has come.
        attachment: Attachment,
    },
    /// Detached to the end.
    Detached {
        /// Why it was not attached instead, if that was tried.
        #[serde(skip_serializing_if = "Option::is_none")]
        because: Option<String>,
    },
    /// It was attached; the template has it now.
    EntryAdded,
    /// It was not attached; the template has it no more.
    EntryRemoved,
}

/// A device, and what became of its repair.
pub type RepairOutcome = (DeviceId, Result<Repaired, DetachError>);

impl Hotplug<'_> {
    /// Finishes or undoes what is left of an attach or a detach, whoever began it. Safe to repeat, and safe beside a running
    /// attach or detach of this library: that is waited for.
    ///
    /// # Errors
    /// As [`detach`](Self::detach).
    pub fn repair(
        &mut self,
        domid: DomId,
        name: &DeviceName,
        mend: Mend,
    ) -> Result<Repaired, DetachError> {
        let domain = self.domain(domid)?;
        let id = self.resolve(&domain, name)?;
        let deadline = Instant::now() + self.timeouts.lock;
        let claimed = Claimed::new(domid, id, "repair");
        let claim = self.claim(domid, id, &claimed, deadline)?;
        steps::reached("repair: claimed");
        let repaired = self.repair_claimed(&domain, id, mend, claim, &claimed);
        claimed.release(self.client);
        repaired
    }

    /// Repairs every disk, nic and share of a domain that is not settled, each with an answer of its own.
    ///
    /// # Errors
    /// If the domain cannot be looked at.
    pub fn repair_all(
        &mut self,
        domid: DomId,
        mend: Mend,
    ) -> Result<Vec<RepairOutcome>, DetachError> {
        let mut ids = Vec::new();
        let (devices, _) = self.look(domid)?;
        for device in devices {
            let settled = device.presence == Presence::Both && device.attachment.is_settled();
            if let Ok(DeviceName::Id(id)) = DeviceName::parse(device.class, &device.id)
                && !settled
            {
                ids.push(id);
            }
        }
        let claims = self.claims(domid);
        let claims = claims.map_err(|source| DetachError::Xenstore { domid, source })?;
        ids.extend(claims.into_iter().map(|(id, _)| id));
        ids.sort_unstable();
        ids.dedup();
        Ok(ids.into_iter().map(|id| (id, self.repair(domid, &id.into(), mend))).collect())
    }

    fn repair_claimed(
        &mut self,
        domain: &Domain,
        id: DeviceId,
        mend: Mend,
        claim: Option<Claim>,
        claimed: &Claimed,
    ) -> Result<Repaired, DetachError> {
        let domid = domain.domid;
        let (place, _) = self.find(domid, id)?;
        let failed = |attaching| {
            move |source: StepError| DetachError::Failed {
                domid,
                id,
                attaching,
                source: Box::new(source),
            }
        };
        if claim.is_none() {
            self.settle(&place).map_err(|source| DetachError::Xenstore { domid, source })?;
        }
        let until = Instant::now() + self.timeouts.script;
        match claim::await_scripts(&place, until) {
            Ok(None) => {}
            Ok(Some(pid)) => return Err(failed(true)(StepError::ScriptRuns { pid })),
            Err(error) => return Err(failed(true)(StepError::Processes(error))),
        }
        let (devices, config) = self.look(domid)?;
        let report = devices.into_iter().find(|device| is(device, id));
        let mut repaired =
            Repaired { id, found: None, presence: None, claim, mended: Mended::Nothing };
        let Some(report) = report else { return Ok(repaired) };
        repaired.found = Some(report.attachment.clone());
        repaired.presence = Some(report.presence);
        let (script, names) =
            self.script_of(&place).map_err(|source| DetachError::Xenstore { domid, source })?;
        let script = script.as_deref().map(|script| (script, &names));
        let let_go = self.timeouts.let_go;
        repaired.mended = match (&report.attachment, mend) {
            (Attachment::HalfAttached { .. }, Mend::Finish) => {
                self.add_entry(domain, &report, &config, id)?;
                match self.bring_up(&place, script) {
                    Ok(attachment) => Mended::Attached { attachment },
                    Err(error) => {
                        let because = Some(xsclient::on_one_line(&error));
                        self.take_down(domain, &place, claimed, script, let_go, None)
                            .map_err(failed(false))?;
                        Mended::Detached { because }
                    }
                }
            }
            (Attachment::HalfAttached { .. }, Mend::Undo)
            | (Attachment::HalfDetached { .. }, _) => {
                self.take_down(domain, &place, claimed, script, let_go, None)
                    .map_err(failed(false))?;
                Mended::Detached { because: None }
            }
            // Who could not look must not conclude that it is not there.
            (Attachment::Absent, _) if report.note == Some(DeviceNote::KeptUnseen) => {
                Mended::Nothing
            }
            (Attachment::Absent, _) => {
                self.finish(domain, &place, claimed, None).map_err(failed(false))?;
                Mended::EntryRemoved
            }
            _ if report.presence == Presence::XenstoreOnly => {
                if self.add_entry(domain, &report, &config, id)? {
                    Mended::EntryAdded
                } else {
                    Mended::Nothing
                }
            }
            _ => Mended::Nothing,
        };
        Ok(repaired)
    }

    /// Claims a device, once nobody else has it. Gives the claim of a process that is gone.
    fn claim(
        &mut self,
        domid: DomId,
        id: DeviceId,
        claimed: &Claimed,
        deadline: Instant,
    ) -> Result<Option<Claim>, DetachError> {
        let xenstore = |source| DetachError::Xenstore { domid, source };
        let mut last = None;
        for _ in 0..ATTEMPTS_MAX {
            let taken = claim::await_free(self.client, domid, id, deadline).map_err(xenstore)?;
            if let Some(claim) = taken {
                return Err(DetachError::Claimed { domid, id, claim });
            }
            let all = claim::all(self.client, domid).map_err(xenstore)?;
            let before = all.into_iter().find(|(of, _)| *of == id).map(|(_, claim)| claim);
            let mut transaction = self.client.transaction().map_err(xenstore)?;
            match claimed.put(&mut transaction) {
                Ok(()) => {}
                Err(NotClaimed::By(claim)) => {
                    last = Some(claim);
                    continue;
                }
                Err(NotClaimed::Xenstore(source)) => return Err(xenstore(source)),
            }
            if transaction.commit().map_err(xenstore)? == Commit::Committed {
                return Ok(before);
            }
        }
        match last {
            Some(claim) => Err(DetachError::Claimed { domid, id, claim }),
            None => {
                let source = Box::new(StepError::Conflict { attempts: ATTEMPTS_MAX });
                Err(DetachError::Failed { domid, id, attaching: true, source })
            }
        }
    }

    /// Gives whoever leaves no claims the time to take the next step.
    fn settle(&mut self, place: &Place) -> Result<(), xsclient::OperationError> {
        let until = Instant::now() + SETTLE;
        wait::until(self.client, &place.backend(), until, |client| {
            let ends = Ends::read(client, place)?;
            let under_way = ends.toolstack
                && ends.online.as_deref() == Some("1")
                && !matches!(ends.backend_state, Some(4))
                && ends.hotplug_status.as_deref() != Some("error");
            Ok((!under_way).then_some(()))
        })?;
        Ok(())
    }

    /// What `retrieve` says now.
    fn look(&mut self, domid: DomId) -> Result<(Vec<DeviceReport>, DomainConfig), DetachError> {
        let mut retriever = Retriever::new(self.client, self.templates);
        if let Some(hypervisor) = self.hypervisor {
            retriever = retriever.hypervisor(hypervisor);
        }
        let retrieved = retriever.retrieve(domid)?;
        Ok((retrieved.report.devices, retrieved.config))
    }

    /// Gives the template an entry for a device that only Xenstore has; `false` if the domain has no template, or the device
    /// had one.
    fn add_entry(
        &mut self,
        domain: &Domain,
        report: &DeviceReport,
        config: &DomainConfig,
        id: DeviceId,
    ) -> Result<bool, DetachError> {
        if report.presence != Presence::XenstoreOnly || !report.in_configuration {
            return Ok(false);
        }
        let Some(key) = domain.key else { return Ok(false) };
        let position = entry::find(config, id);
        let Some(mut device) = position.and_then(|at| entry::at(config, id.class, at)) else {
            return Ok(false);
        };
        if let Device::P9(p9) = &mut device
            && p9.devid.get().is_none()
            && let Ok(devid) = i32::try_from(id.devid)
        {
            p9.devid = crate::model::DevId::new(devid);
        }
        let deadline = Instant::now() + self.timeouts.lock;
        let mut begun = match begin(self.templates, &key, deadline) {
            Err(BeginError::NoTemplate { .. }) => return Ok(false),
            begun => begun?,
        };
        begun.add(&device).map_err(|source| BeginError::Entry { key, source })?;
        let stored = begun.commit(deadline);
        stored.map_err(|source| DetachError::Failed {
            domid: domain.domid,
            id,
            attaching: true,
            source: Box::new(source.into()),
        })?;
        Ok(true)
    }
}

/// Whether a report is about this device, whatever name of several it uses.
fn is(report: &DeviceReport, id: DeviceId) -> bool {
    report.class == id.class
        && matches!(report.class, DeviceClass::Disk | DeviceClass::Nic | DeviceClass::P9)
        && DeviceName::parse(report.class, &report.id) == Ok(DeviceName::Id(id))
}
