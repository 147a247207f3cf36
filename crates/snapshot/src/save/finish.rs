//! What is left to do once there is a snapshot.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::engine::{Run, micros};
use super::{After, ConfigUpdate, DiskRequestAction, ImageAfter, SaveCause, SaveFailure, undo};
use crate::control::{DomainState, SETTLE_LIMIT};
use crate::disk::digest_image;
use crate::journal::{Record, steps};
use crate::recover::configure;
use crate::{Phase, Snapshot};

/// How long reading a frozen image may take: an hour for some terabytes.
pub(crate) const DIGEST_LIMIT: Duration = Duration::from_secs(4 * 3600);

impl Run<'_, '_, '_> {
    /// Configuration, domain, digests. Nothing of this can take the snapshot back.
    pub(super) fn complete(mut self, mut snapshot: Snapshot) -> Result<Snapshot, Box<SaveFailure>> {
        self.apply_config(&mut snapshot);
        self.announce(Phase::After);
        let left = self.leave();
        if self.suspended {
            self.timings.held_us = micros(self.held);
        }
        snapshot.state_after = self.state();
        let left = match left {
            // What counts is how the domain is; the answer may have been lost.
            Err(error) if snapshot.state_after == Some(self.wanted()) => {
                snapshot
                    .warnings
                    .push(format!("the domain is what it was to be, although: {error}"));
                Ok(())
            }
            left => left.and_then(|()| self.check_after(snapshot.state_after)),
        };
        let mut failed = left.err().map(|cause| (Phase::After, cause));
        self.release_guardian();
        let thaw = match snapshot.state_after {
            Some(DomainState::Running) => self.thaw(),
            // A guest that does not run cannot be told; whoever lets it go on has to.
            state => {
                if self.frozen {
                    let state = state.map_or("not known".to_owned(), |state| state.to_string());
                    let warning = format!("the guest was not told to thaw, since it is {state}");
                    snapshot.warnings.push(warning);
                }
                None
            }
        };
        if thaw.is_some() && failed.is_none() {
            failed = Some((Phase::Freeze, SaveCause::Thaw));
        }
        self.digest(&mut snapshot);
        self.timings.total_us = micros(self.began);
        snapshot.timings = self.timings;
        let known: Vec<_> = snapshot.warnings.clone();
        snapshot.warnings.extend(self.warnings.drain(..).filter(|new| !known.contains(new)));
        let Some((phase, cause)) = failed else {
            if let Err(error) = self.journal.write(&Record::Saved(Box::new(snapshot.clone()))) {
                let warning = format!("the journal does not tell that all is done: {error}");
                snapshot.warnings.push(warning);
            }
            return Ok(snapshot);
        };
        let disks = undo::all_old(self.request).into_iter().map(|mut disk| {
            if snapshot.config_delta.iter().any(|moved| moved.vdev == disk.vdev) {
                disk.image = ImageAfter::New;
            }
            disk
        });
        Err(Box::new(SaveFailure {
            phase,
            cause,
            domain: snapshot.state_after,
            disks: disks.collect(),
            removed: Vec::new(),
            left: Vec::new(),
            thaw,
            journal: self.journal.path().map(ToOwned::to_owned),
            snapshot: Some(Box::new(snapshot)),
        }))
    }

    /// Nothing ends the call early any more.
    fn announce(&mut self, phase: Phase) {
        self.phase = phase;
        self.observer.begin(phase);
    }

    fn apply_config(&mut self, snapshot: &mut Snapshot) {
        if snapshot.config_delta.is_empty() || self.request.config == ConfigUpdate::Leave {
            return;
        }
        self.announce(Phase::Configure);
        match configure::apply(self.access, &self.domain(), &snapshot.config_delta) {
            Ok(()) => snapshot.config_applied = true,
            Err(error) => {
                snapshot.warnings.push(format!("the new images are not told: {error}"));
            }
        }
    }

    fn leave(&mut self) -> Result<(), SaveCause> {
        let (control, domain) = (self.access.control, self.domain());
        let until = Instant::now() + SETTLE_LIMIT;
        let resume = |suspended: bool| {
            if !suspended {
                return Ok(());
            }
            steps::reached("before resume");
            let resumed = control.resume(&domain, until);
            steps::reached("after resume");
            match resumed {
                // A guardian, or an answer that was lost: that it goes on is what counts.
                Err(error)
                    if matches!(error.state, Some(DomainState::Running | DomainState::Paused)) =>
                {
                    Ok(())
                }
                resumed => resumed.map_err(SaveCause::from),
            }
        };
        match self.request.after {
            After::Resume => resume(self.suspended),
            After::LeavePaused => {
                if self.before() == DomainState::Suspended {
                    return Ok(());
                }
                steps::reached("before pause");
                let paused = control.pause(&domain, until);
                steps::reached("after pause");
                match paused {
                    Err(_) if self.is_paused() => {}
                    paused => paused?,
                }
                resume(self.suspended)
            }
            After::Destroy => {
                // What it has done since is in no image.
                if self.suspended && self.state() == Some(DomainState::Running) {
                    return Err(SaveCause::After { state: DomainState::Running });
                }
                steps::reached("before destroy");
                control.destroy(&domain, until)?;
                steps::reached("after destroy");
                Ok(())
            }
        }
    }

    /// A suspended domain can be paused as well, which its state does not tell.
    fn is_paused(&self) -> bool {
        let domain = self.domain();
        let found = self.access.control.find(domain.domid, Instant::now() + undo::QUERY_LIMIT);
        matches!(found, Ok(Some(view)) if view.identity == domain && view.paused)
    }

    /// What the domain is to be afterwards.
    fn wanted(&self) -> DomainState {
        match self.request.after {
            After::Resume => self.before(),
            After::LeavePaused if self.before() == DomainState::Suspended => DomainState::Suspended,
            After::LeavePaused => DomainState::Paused,
            After::Destroy => DomainState::Gone,
        }
    }

    fn check_after(&self, state: Option<DomainState>) -> Result<(), SaveCause> {
        match state {
            Some(state) if state != self.wanted() => Err(SaveCause::After { state }),
            _ => Ok(()),
        }
    }

    /// Frozen images do not change any more, so that this can be done while the guest runs.
    fn digest(&mut self, snapshot: &mut Snapshot) {
        let wanted: Vec<_> = self
            .request
            .disks
            .iter()
            .filter(|disk| {
                matches!(disk.action, DiskRequestAction::ExternalQcow2 { digest: true, .. })
            })
            .map(|disk| &*disk.vdev)
            .collect();
        for disk in &mut snapshot.disks {
            if !wanted.contains(&&*disk.vdev) {
                continue;
            }
            self.phase = Phase::Digest;
            self.observer.begin(Phase::Digest);
            let frozen = &disk.frozen;
            let until = Instant::now() + DIGEST_LIMIT;
            let observer = &mut *self.observer;
            let digested = digest_image(&frozen.path, frozen, until, &mut |done| {
                observer.advance(done, Some(frozen.size));
                match observer.is_cancelled() {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            });
            match digested {
                Ok(digest) => disk.digest = Some(digest),
                Err(error) => {
                    snapshot.warnings.push(format!("{}: no digest: {error}", disk.vdev));
                }
            }
        }
    }
}
