//! Undoing a save that has not reached its pivot.

use std::error::Error;
use std::time::{Duration, Instant};

use super::engine::{Files, Run};
use super::{DiskAfter, DiskRequestAction, ImageAfter, SaveCause, SaveFailure, SaveRequest};
use crate::Phase;
use crate::control::{DomainState, SETTLE_LIMIT, deadline_in};
use crate::creation::RollbackReport;
use crate::journal::{Record, steps};

/// How long finding out may take.
pub(super) const QUERY_LIMIT: Duration = Duration::from_secs(10);
/// How long a rollback of disks has at least.
const ROLLBACK_LIMIT: Duration = Duration::from_secs(30);
/// How often a guest is resumed before it is left suspended.
const RESUMES: usize = 3;

impl Run<'_, '_, '_> {
    /// Brings everything back to how it was, as far as it is known how it is, and tells of the rest.
    pub(super) fn undo(mut self, cause: SaveCause) -> Box<SaveFailure> {
        let phase = self.phase;
        tracing::debug!(%phase, %cause, "the save is undone");
        self.observer.begin(Phase::RollBack);
        // Whoever recovers may find that the disks were frozen after all: then the guest must not have run since.
        let is_unknown = !self.unknown.is_empty();
        let stays_held = is_unknown && self.journal.path().is_some();
        let domain = if stays_held { self.state() } else { self.bring_back() };
        let thaw = if stays_held { None } else { self.thaw() };
        let mut report = RollbackReport::default();
        self.files = Files::default();
        for group in self.survey.groups.iter_mut().rev() {
            let Some(snapshotter) = group.snapshotter(&mut self.access.hooks) else { continue };
            let mut disks = snapshotter.describe().disks.into_iter();
            if stays_held && !disks.any(|(vdev, _)| self.unknown.contains(&vdev)) {
                // The others' snapshots are part of the whole one, if whoever recovers completes that.
                continue;
            }
            steps::reached("before rollback");
            let rolled_back = snapshotter.rollback(Instant::now() + ROLLBACK_LIMIT);
            steps::reached("after rollback");
            report.removed.extend(rolled_back.removed);
            report.left.extend(rolled_back.left);
        }
        if !stays_held {
            self.named.iter().for_each(|file| {
                if file.is_at(&file.path) {
                    report.remove(file);
                }
            });
        }
        let is_undone = !is_unknown
            && report.left.is_empty()
            && thaw.is_none()
            && (!self.suspended || domain.is_some_and(|state| state != DomainState::Suspended));
        let is_written = is_undone && self.journal.write(&Record::RolledBack).is_ok();
        let journal = self.journal.path().filter(|_| !is_written).map(ToOwned::to_owned);
        self.release_guardian();
        let disks = all_old(self.request).into_iter().map(|mut disk| {
            if self.unknown.contains(&disk.vdev) {
                disk.image = ImageAfter::Unknown;
            }
            disk
        });
        Box::new(SaveFailure {
            phase,
            cause,
            domain,
            disks: disks.collect(),
            removed: report.removed,
            left: report.left,
            thaw,
            snapshot: None,
            journal,
        })
    }

    /// Has the guest go on if it is suspended by this call, and says what it is then.
    pub(super) fn bring_back(&self) -> Option<DomainState> {
        if !self.suspended {
            return self.state();
        }
        let (control, domain) = (self.access.control, self.domain());
        let mut state = None;
        for _ in 0..RESUMES {
            // What a lost call has begun may be going on still.
            state = match self.state() {
                Some(DomainState::Gone) => return Some(DomainState::Gone),
                _ => control.settled(&domain, Instant::now() + SETTLE_LIMIT).ok(),
            };
            match state {
                Some(DomainState::Suspended) => {
                    steps::reached("before resume");
                    let resumed = control.resume(&domain, Instant::now() + SETTLE_LIMIT);
                    steps::reached("after resume");
                    if let Err(error) = resumed {
                        tracing::warn!(%error, "the guest does not go on after a save was undone");
                    }
                    state = self.state();
                    if state != Some(DomainState::Suspended) && state.is_some() {
                        return state;
                    }
                }
                Some(other) => return Some(other),
                None => {}
            }
        }
        state
    }

    pub(super) fn state(&self) -> Option<DomainState> {
        let found = self.access.control.state(&self.domain(), Instant::now() + QUERY_LIMIT);
        found.inspect_err(|error| tracing::warn!(%error, "the domain's state is not known")).ok()
    }

    /// Thaws, if it was asked to freeze.
    pub(super) fn thaw(&mut self) -> Option<Box<dyn Error + Send + Sync>> {
        let quiesce = self.request.quiesce.as_ref().filter(|_| self.frozen)?;
        let quiescer = self.access.quiescers.get_mut(&quiesce.hook)?;
        self.frozen = false;
        steps::reached("before thaw");
        let thawed = quiescer.thaw(deadline_in(quiesce.deadline));
        steps::reached("after thaw");
        match thawed {
            Ok(()) => {
                if let Err(error) = self.journal.write(&Record::Thawed) {
                    tracing::warn!(%error, "the journal does not tell that the guest was thawed");
                }
                None
            }
            Err(error) => Some(error),
        }
    }

    /// The domain is what it is to be, or its caller is told what it is.
    pub(super) fn release_guardian(&mut self) {
        if let Some(guardian) = self.guardian.take()
            && let Err(error) = guardian.release()
        {
            let warning = format!("the guardian was not there any more: {error}");
            self.warnings.push(warning);
        }
    }
}

/// No disk that was to be saved has been moved.
pub(super) fn all_old(request: &SaveRequest) -> Vec<DiskAfter> {
    let saved = request
        .disks
        .iter()
        .filter(|disk| !matches!(disk.action, DiskRequestAction::Skip { .. }))
        .map(|disk| DiskAfter { vdev: disk.vdev.clone(), image: ImageAfter::Old });
    saved.collect()
}
