//! Undoing what a restore has done before its commit point.

use std::path::PathBuf;
use std::time::Instant;

use uuid::Uuid;

use super::check::ends;
use crate::control::{DomainControl, DomainIdentity, DomainState, SETTLE_LIMIT};
use crate::journal::{Journal, Record};
use crate::{CreatedFile, LeftReason, RollbackReport};

/// How often a destroy is tried: to destroy again is safe.
const ATTEMPTS: usize = 3;

/// What there may be to undo.
#[derive(Debug, Default)]
pub(super) struct Undo {
    /// The name that the new domain is built under, once it may exist.
    pub(super) temporary_name: Option<String>,
    /// The new domain, once it is known.
    pub(super) domain: Option<DomainIdentity>,
    /// How the replaced domain was found last.
    pub(super) replaced: Option<DomainState>,
    /// The journal, once this call has created it.
    pub(super) journal: Option<PathBuf>,
}

/// What was undone.
#[derive(Debug, Default)]
pub(super) struct Undone {
    /// The new domain, if it is there still.
    pub(super) domain: Option<(DomainIdentity, Option<DomainState>)>,
    pub(super) files: RollbackReport,
    /// The journal, if somebody has something to do with it.
    pub(super) journal: Option<PathBuf>,
}

impl Undo {
    /// Destroys the new domain, and removes what was created for it.
    pub(super) fn run(
        &self,
        control: &dyn DomainControl,
        journal: &mut Journal,
        uuid: Uuid,
        old: Option<DomainIdentity>,
    ) -> Undone {
        let deadline = Instant::now() + SETTLE_LIMIT;
        let mut undone = Undone::default();
        let (left, is_certain) = self.destroy(control, uuid, old, deadline);
        undone.domain = left;
        for created in journal.created().to_vec() {
            remove(&created, &mut undone.files, deadline);
        }
        let is_clean = undone.domain.is_none() && is_certain && undone.files.left.is_empty();
        let is_told = is_clean && journal.write(&Record::RolledBack).is_ok();
        undone.journal = self.journal.clone().filter(|_| !is_told);
        undone
    }

    /// The new domain, if it is there still; and whether there is no other.
    fn destroy(
        &self,
        control: &dyn DomainControl,
        uuid: Uuid,
        old: Option<DomainIdentity>,
        deadline: Instant,
    ) -> (Option<(DomainIdentity, Option<DomainState>)>, bool) {
        let Some(name) = &self.temporary_name else { return (None, true) };
        if let Some(domain) = self.domain
            && let Some(state) = destroyed(control, domain, deadline)
        {
            return (Some((domain, state)), true);
        }
        // Also one that nobody has told of.
        let found = (0..ATTEMPTS).find_map(|_| control.list(deadline).ok());
        let Some(found) = found else { return (None, false) };
        // One that died in the making may have no name yet; no other but the replaced one has the uuid.
        let ours = found.into_iter().filter(|view| {
            view.name.as_ref().is_none_or(|has| has == name)
                && view.identity.uuid == uuid
                && Some(view.identity) != old
        });
        for view in ours {
            if let Some(state) = destroyed(control, view.identity, deadline) {
                return (Some((view.identity, state)), true);
            }
        }
        (None, true)
    }
}

/// Destroys a domain; `None` if it is gone, else the state that it was found in, if that could be found out.
pub(super) fn destroyed(
    control: &dyn DomainControl,
    domain: DomainIdentity,
    deadline: Instant,
) -> Option<Option<DomainState>> {
    let mut found = None;
    for _ in 0..ATTEMPTS {
        if let Err(error) = control.destroy(&domain, deadline) {
            tracing::warn!(%domain, %error, "a domain that was built in vain is not destroyed");
        }
        found = control.state(&domain, deadline).ok();
        if found == Some(DomainState::Gone) {
            return None;
        }
    }
    Some(found)
}

/// Removes a file, as soon as the destroyed domain's processes have closed it.
fn remove(created: &CreatedFile, report: &mut RollbackReport, deadline: Instant) {
    // One that has not got its name has been removed by who made it.
    if !created.is_at(&created.path) {
        return;
    }
    loop {
        match created.remove() {
            Ok(()) => return report.removed.push(created.path.clone()),
            Err(LeftReason::Open { pid }) if ends(pid, deadline) => {}
            Err(reason) => return report.leave(&created.path, reason),
        }
    }
}
