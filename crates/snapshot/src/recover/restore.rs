//! What becomes of a restore whose process died.

use crate::Phase;
use crate::control::{DomainIdentity, DomainState, DomainView};
use crate::creation::RollbackReport;
use crate::journal::{BeginRestore, Record, steps};
use crate::restore::{Restored, Start};

use super::domain::{self, soon};
use super::{RecoverError, Recovered, Work, files, undone_before};

pub(super) fn recover(
    work: &mut Work<'_, '_, '_>,
    begin: &BeginRestore,
    records: &[Record],
) -> Result<Recovered, RecoverError> {
    let (mut draft, mut built, mut undone) = (None, None, false);
    for record in records {
        match record {
            Record::Committing(restored) => draft = Some(&restored.restored),
            Record::Restored(restored) => return Ok(Recovered::Restored(restored.clone())),
            Record::Built(domain) => built = Some(*domain),
            Record::RolledBack => undone = true,
            _ => {}
        }
    }
    if undone {
        return Ok(undone_before());
    }
    if let Some(restored) = draft
        && can_be_completed(work, begin, restored)?
    {
        return complete(work, begin, restored.clone());
    }
    roll_back(work, begin, built)
}

/// Whether the new domain is there; if it is gone, it can be undone only as long as the old one is there, for until then the new
/// one has not run.
fn can_be_completed(
    work: &Work<'_, '_, '_>,
    begin: &BeginRestore,
    restored: &Restored,
) -> Result<bool, RecoverError> {
    let control = work.access.control;
    let Some(domain) = &restored.domain else { return Ok(true) };
    let is_there = |domain: &DomainIdentity| -> Result<bool, RecoverError> {
        Ok(control.state(domain, soon())? != DomainState::Gone)
    };
    let is_old_there = begin.replaces.as_ref().map_or(Ok(false), is_there)?;
    match control.state(domain, soon())? {
        // The restore may have been undoing itself: the old one is not given up for one that is no more.
        DomainState::Gone | DomainState::Dying | DomainState::ShutDown(_) if is_old_there => {
            Ok(false)
        }
        DomainState::Gone => Err(RecoverError::Gone { domain: *domain }),
        _ => Ok(true),
    }
}

fn complete(
    work: &mut Work<'_, '_, '_>,
    begin: &BeginRestore,
    mut restored: Restored,
) -> Result<Recovered, RecoverError> {
    let control = work.access.control;
    if let Some(domain) = restored.domain {
        work.observer.begin(Phase::Replace);
        if let Some(old) = &begin.replaces {
            domain::destroy(control, old)?;
        }
        work.observer.begin(Phase::Start);
        let view = control.find(domain.domid, soon())?;
        if view.as_ref().and_then(|view| view.name.as_deref()) != Some(&begin.name) {
            steps::reached("before rename");
            control.rename(&domain, &begin.name, soon())?;
            steps::reached("after rename");
        }
        let mut state = control.state(&domain, soon())?;
        if begin.start == Start::Run && state == DomainState::Paused {
            steps::reached("before unpause");
            control.unpause(&domain, soon())?;
            steps::reached("after unpause");
            state = control.state(&domain, soon())?;
        }
        restored.state = Some(state);
    }
    restored.warnings.push("its restore died and was completed by a recovery".into());
    work.write(&Record::Restored(Box::new(restored.clone())))?;
    Ok(Recovered::Restored(Box::new(restored)))
}

fn roll_back(
    work: &mut Work<'_, '_, '_>,
    begin: &BeginRestore,
    built: Option<DomainIdentity>,
) -> Result<Recovered, RecoverError> {
    work.observer.begin(Phase::RollBack);
    let control = work.access.control;
    for view in control.list(soon())? {
        // By its number also under its final name, which it may have got already.
        if Some(view.identity) == built || is_new(&view, begin) {
            domain::destroy(control, &view.identity)?;
        }
    }
    let mut report = RollbackReport::default();
    files::remove(&begin.targets, &work.journal, &[], &mut report);
    let old = begin.replaces.map(|old| control.state(&old, soon())).transpose()?;
    let mut warnings = Vec::new();
    if begin.free_first && old == Some(DomainState::Gone) {
        warnings.push("the domain that was to be replaced had been destroyed before".into());
    }
    if report.left.is_empty() {
        work.write(&Record::RolledBack)?;
    }
    let RollbackReport { removed, left } = report;
    Ok(Recovered::RolledBack { removed, left, domain: old, warnings })
}

/// Whether a domain is what the restore was building: no other has the temporary name. One that died in the making may have no
/// name yet, but has the uuid, which no other had that is not replaced.
fn is_new(view: &DomainView, begin: &BeginRestore) -> bool {
    let named = view.name.as_ref().is_none_or(|name| *name == begin.temporary_name);
    named && view.identity.uuid == begin.uuid && Some(view.identity) != begin.replaces
}
