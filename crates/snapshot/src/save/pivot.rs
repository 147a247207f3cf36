//! The disks: the commit point of a save.
//!
//! What can be undone comes first, and what cannot be last and alone. Once that is done there is a snapshot.

use std::time::Instant;

use super::engine::{Run, micros};
use super::groups::Group;
use super::undo::QUERY_LIMIT;
use super::{Consistency, Hold, SaveCause};
use crate::control::{DomainState, deadline_in};
use crate::disk::{
    CommitError, DiskAction, DiskSnapshot, OverlayIntent, OverlaysAre, recover_overlays,
};
use crate::journal::{DraftSave, Record, steps};
use crate::manifest::{ImageMove, NamedImage};
use crate::{Phase, Snapshot};

impl Run<'_, '_, '_> {
    /// A QEMU reads slowly what it will be asked at the pivot: it may do so while the rest is captured. With several groups, another
    /// one may need the same QEMU first.
    pub(super) fn approach(&mut self) {
        if let [group] = &mut self.survey.groups[..]
            && let Some(snapshotter) = group.snapshotter(&mut self.access.hooks)
        {
            steps::reached("before approach");
            snapshotter.approach(self.deadline.min(deadline_in(self.request.deadlines.disks)));
            steps::reached("after approach");
        }
    }

    /// Freezes the disks. On failure all that can be undone is the caller's to undo.
    pub(super) fn pivot(&mut self, mut snapshot: Snapshot) -> Result<Snapshot, SaveCause> {
        self.enter(Phase::Pivot)?;
        let began = Instant::now();
        let until = self.deadline.min(deadline_in(self.request.deadlines.disks));
        for at in 0..self.survey.groups.len() {
            if self.observer.is_cancelled() {
                return Err(SaveCause::Cancelled);
            }
            self.still_stands()?;
            let disks = self.commit(at, &snapshot, until)?;
            self.committed.extend(disks.iter().cloned());
            snapshot.disks.extend(disks);
        }
        self.timings.disks_us = micros(began);
        match self.still_stands() {
            Err(cause) if self.is_final() => self.is_of_several_moments(&mut snapshot, &cause),
            stands => stands?,
        }
        if self.request.hold == Hold::Running {
            self.timings.held_us = micros(began);
        }
        snapshot.config_delta = moves(&snapshot.disks);
        snapshot.timings = self.timings;
        if self.survey.groups.is_empty() && self.observer.is_cancelled() {
            return Err(SaveCause::Cancelled);
        }
        self.written_pivoted(&mut snapshot)?;
        Ok(snapshot)
    }

    /// Whether the guest still stands as it has since its memory was written: somebody else may have let it go on.
    fn still_stands(&self) -> Result<(), SaveCause> {
        if self.request.hold == Hold::Running {
            return Ok(());
        }
        let wanted = if self.suspended { DomainState::Suspended } else { self.before() };
        match self.access.control.state(&self.request.domain, Instant::now() + QUERY_LIMIT)? {
            state if state == wanted => Ok(()),
            // Destroyed where it stood: what was saved of it is all there is.
            DomainState::Dying | DomainState::Gone => Ok(()),
            state => Err(SaveCause::WentOn { state }),
        }
    }

    /// Between memory, disks and disks the guest may have written, and what was done cannot be taken back.
    fn is_of_several_moments(&self, snapshot: &mut Snapshot, cause: &SaveCause) {
        let warning = format!("whether the guest stood still until its disks were frozen: {cause}");
        if matches!(cause, SaveCause::WentOn { .. }) {
            let is_one = self.survey.groups.len() == 1;
            snapshot.consistency =
                if is_one { Consistency::CrashConsistent } else { Consistency::PerDisk };
            snapshot.consistency_reason = Some(cause.to_string());
        }
        snapshot.warnings.push(warning);
    }

    /// With disks that cannot be brought back the save has happened, whether the journal says so or not.
    fn written_pivoted(&mut self, snapshot: &mut Snapshot) -> Result<(), SaveCause> {
        let record = Record::Pivoted(Box::new(snapshot.clone()));
        match self.journal.write(&record) {
            Ok(()) => Ok(()),
            Err(error) if !snapshot.config_delta.is_empty() || self.is_final() => {
                snapshot.warnings.push(format!("the journal could not be written: {error}"));
                Ok(())
            }
            Err(error) => Err(SaveCause::Journal(error)),
        }
    }

    /// Whether something was committed that cannot be undone.
    fn is_final(&mut self) -> bool {
        let hooks = &mut self.access.hooks;
        self.survey
            .groups
            .iter_mut()
            .any(|group| group.snapshotter(hooks).is_some_and(|group| !group.describe().reversible))
    }

    fn commit(
        &mut self,
        at: usize,
        snapshot: &Snapshot,
        until: Instant,
    ) -> Result<Vec<DiskSnapshot>, SaveCause> {
        let Some(description) = self.survey.groups[at]
            .snapshotter(&mut self.access.hooks)
            .map(|snapshotter| snapshotter.describe())
        else {
            return Ok(Vec::new());
        };
        let kind = description.kind;
        let commit_failed =
            |source: CommitError| SaveCause::Commit { kind, source: Box::new(source) };
        let mut intents = Vec::new();
        match &self.survey.groups[at] {
            Group::Overlays(overlays) => {
                intents = overlays.intents().map_err(|stage| commit_failed(stage.into()))?;
            }
            Group::Internal(internal) => {
                let tags = internal.intents().map_err(|stage| commit_failed(stage.into()))?;
                self.write(&Record::Tagging(tags))?;
            }
            Group::Copies(_) | Group::Hook(_) => {}
        }
        if !description.reversible {
            let hook = match &self.survey.groups[at] {
                Group::Hook(name) => Some(name.clone()),
                _ => None,
            };
            let snapshot = snapshot.clone();
            let draft = DraftSave { snapshot, overlays: intents.clone(), hook };
            self.write(&Record::Pivoting(Box::new(draft)))?;
            if let (Some(guardian), Some(qmp)) = (&mut self.guardian, &self.request.qmp) {
                guardian.awaits_qemu(qmp)?;
            }
        }
        steps::reached("before commit");
        let committed = match self.survey.groups[at].snapshotter(&mut self.access.hooks) {
            Some(snapshotter) => snapshotter.commit(until),
            None => return Ok(Vec::new()),
        };
        steps::reached("after commit");
        let disks = match committed {
            Ok(disks) => disks,
            Err(error) => match self.ask_again(error, &intents) {
                Ok(disks) => disks,
                Err(error) => {
                    let is_lost = match &error {
                        CommitError::Unknown { .. } | CommitError::Unverified(_) => true,
                        CommitError::Partly { .. } => !description.reversible,
                        _ => false,
                    };
                    if is_lost {
                        self.unknown.extend(description.disks.into_iter().map(|(vdev, _)| vdev));
                    }
                    return Err(commit_failed(error));
                }
            },
        };
        if description.reversible {
            self.write(&Record::Committed(disks.clone()))?;
        }
        Ok(disks)
    }

    /// A lost answer is no answer: QEMU is asked how its disks are, once more.
    fn ask_again(
        &self,
        error: CommitError,
        intents: &[OverlayIntent],
    ) -> Result<Vec<DiskSnapshot>, CommitError> {
        let is_lost = matches!(error, CommitError::Unknown { .. } | CommitError::Unverified(_));
        let (Some(qmp), true, false) = (&self.request.qmp, is_lost, intents.is_empty()) else {
            return Err(error);
        };
        match recover_overlays(qmp, intents, deadline_in(self.request.deadlines.disks)) {
            Ok(OverlaysAre::Pivoted(disks)) => Ok(disks),
            Ok(OverlaysAre::Unchanged) => match error {
                CommitError::Unknown { source, .. } | CommitError::Unverified(source) => {
                    Err(CommitError::Unchanged(source))
                }
                other => Err(other),
            },
            Err(_) => Err(error),
        }
    }
}

/// Disks that are in another image now.
fn moves(disks: &[DiskSnapshot]) -> Vec<ImageMove> {
    let moved = disks
        .iter()
        .filter(|disk| matches!(disk.action, DiskAction::ExternalQcow2 { .. }))
        .map(|disk| ImageMove {
            vdev: disk.vdev.clone(),
            from: NamedImage { path: disk.frozen.path.clone(), format: disk.frozen.format },
            to: NamedImage { path: disk.active.path.clone(), format: disk.active.format },
        });
    moved.collect()
}
