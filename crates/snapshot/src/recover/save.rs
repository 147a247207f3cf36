//! What becomes of a save whose process died.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use crate::control::DomainState;
use crate::creation::{LeftReason, RollbackReport};
use crate::disk::image::{Chain, ChainRules, ImageFormat, ImageRef, Writers};
use crate::disk::qmp::QmpError;
use crate::disk::{
    DiskAction, DiskFailure, DiskSnapshot, OverlayIntent, OverlaysAre, TagIntent, close_overlays,
    digest_image, recover_internal, recover_overlays,
};
use crate::journal::{BeginSave, DraftSave, Record, steps};
use crate::manifest::{ImageMove, NamedImage};
use crate::save::{After, ConfigUpdate, DIGEST_LIMIT};
use crate::{Phase, Snapshot};

use super::domain::{self, soon};
use super::{RecoverError, Recovered, Work, configure, files, undone_before};

/// How far the save came.
#[derive(Default)]
struct SoFar<'r> {
    frozen: bool,
    suspended: bool,
    /// What QEMU was asked to open.
    opened: Vec<OverlayIntent>,
    tags: Vec<&'r TagIntent>,
    committed: Vec<&'r DiskSnapshot>,
    pivoting: Option<&'r DraftSave>,
    pivoted: Option<&'r Snapshot>,
    saved: Option<&'r Snapshot>,
    undone: bool,
}

impl<'r> SoFar<'r> {
    fn of(records: &'r [Record]) -> Self {
        let mut it = Self::default();
        for record in records {
            match record {
                Record::Freezing => it.frozen = true,
                Record::Thawed => it.frozen = false,
                Record::Suspending => it.suspended = true,
                Record::Opening(overlays) => it.opened.extend(overlays.iter().cloned()),
                Record::Tagging(tags) => it.tags.extend(tags),
                Record::Committed(disks) => it.committed.extend(disks),
                Record::Pivoting(draft) => it.pivoting = Some(draft),
                Record::Pivoted(snapshot) => it.pivoted = Some(snapshot),
                Record::Saved(snapshot) => it.saved = Some(snapshot),
                Record::RolledBack => it.undone = true,
                _ => {}
            }
        }
        it
    }
}

pub(super) fn recover(
    work: &mut Work<'_, '_, '_>,
    begin: &BeginSave,
    records: &[Record],
) -> Result<Recovered, RecoverError> {
    let so_far = SoFar::of(records);
    if let Some(snapshot) = so_far.saved {
        return Ok(Recovered::Saved(Box::new(snapshot.clone())));
    }
    if so_far.undone {
        return Ok(undone_before());
    }
    if let Some(snapshot) = so_far.pivoted {
        return complete(work, begin, &so_far, snapshot.clone());
    }
    let Some(draft) = so_far.pivoting else {
        return roll_back(work, begin, &so_far);
    };
    // Before the domain goes on: once QEMU has answered, it does nothing any more that the dead process has asked for.
    work.observer.begin(Phase::Pivot);
    match what_became_of_the_disks(work, begin, draft)? {
        None => roll_back(work, begin, &so_far),
        Some(disks) => {
            let snapshot = whole(draft, &so_far.committed, disks);
            work.write(&Record::Pivoted(Box::new(snapshot.clone())))?;
            complete(work, begin, &so_far, snapshot)
        }
    }
}

/// The disks of the last group if they have their snapshots; `None` if they do not.
fn what_became_of_the_disks(
    work: &Work<'_, '_, '_>,
    begin: &BeginSave,
    draft: &DraftSave,
) -> Result<Option<Vec<DiskSnapshot>>, RecoverError> {
    if let Some(hook) = &draft.hook {
        return Err(RecoverError::Hook { hook: hook.clone() });
    }
    let (Some(qmp), false) = (&begin.qmp, draft.overlays.is_empty()) else { return Ok(None) };
    let state = domain::settled(work.access.control, &begin.domain)?;
    let runs_nowhere = matches!(state, DomainState::Gone | DomainState::ShutDown(_));
    steps::reached("before disks");
    let asked = recover_overlays(qmp, &draft.overlays, soon());
    steps::reached("after disks");
    match asked {
        Ok(OverlaysAre::Pivoted(disks)) => Ok(Some(disks)),
        Ok(OverlaysAre::Unchanged) => Ok(None),
        // Its QEMU is gone, or is another domain's by now.
        Err(DiskFailure::Qmp(QmpError::Connect { .. }) | DiskFailure::Graph { .. })
            if runs_nowhere =>
        {
            from_files(&draft.overlays).map_err(RecoverError::Disks)
        }
        Err(failure) => Err(RecoverError::Disks(failure)),
    }
}

/// With no QEMU to ask: overlays that nobody has written to since they were made can go, wherever the disks were. A QEMU writes
/// to one only once the disk is in it.
fn from_files(intents: &[OverlayIntent]) -> Result<Option<Vec<DiskSnapshot>>, DiskFailure> {
    let is_written = |intent: &OverlayIntent| {
        ImageRef::read(&intent.overlay.path, ImageFormat::Qcow2).is_ok_and(|now| {
            now.is_same_file(&intent.overlay) && !now.changes_since(&intent.overlay).is_empty()
        })
    };
    if !intents.iter().any(is_written) {
        return Ok(None);
    }
    intents.iter().map(from_file).collect::<Result<_, _>>().map(Some)
}

fn from_file(intent: &OverlayIntent) -> Result<DiskSnapshot, DiskFailure> {
    let path = &intent.overlay.path;
    let not_shown = || DiskFailure::Graph {
        vdev: intent.vdev.clone(),
        active: path.clone(),
        frozen: intent.base.path.clone(),
    };
    let rules = ChainRules { depth: usize::MAX, writers: Writers::Anybody };
    let chain = Chain::read(path, ImageFormat::Qcow2, rules).map_err(|broken| {
        let first = broken.into_iter().next();
        first.map_or_else(not_shown, |source| DiskFailure::Chain { path: path.clone(), source })
    })?;
    let mut images = chain.into_images();
    let active = images.remove(0);
    let frozen = images.first().filter(|frozen| frozen.is_same_file(&intent.base)).cloned();
    let Some(frozen) = frozen.filter(|_| active.is_same_file(&intent.overlay)) else {
        return Err(not_shown());
    };
    Ok(DiskSnapshot {
        vdev: intent.vdev.clone(),
        action: DiskAction::ExternalQcow2 { overlay: path.clone() },
        frozen,
        active,
        chain: images,
        digest: None,
        warnings: Vec::new(),
    })
}

/// The snapshot that the save would have had.
fn whole(draft: &DraftSave, committed: &[&DiskSnapshot], moved: Vec<DiskSnapshot>) -> Snapshot {
    let mut snapshot = draft.snapshot.clone();
    for disk in committed.iter().copied().cloned().chain(moved) {
        let is_move = matches!(disk.action, DiskAction::ExternalQcow2 { .. });
        if is_move && !snapshot.config_delta.iter().any(|known| known.vdev == disk.vdev) {
            let named =
                |image: &ImageRef| NamedImage { path: image.path.clone(), format: image.format };
            let (from, to) = (named(&disk.frozen), named(&disk.active));
            snapshot.config_delta.push(ImageMove { vdev: disk.vdev.clone(), from, to });
        }
        match snapshot.disks.iter_mut().find(|known| known.vdev == disk.vdev) {
            Some(known) => *known = disk,
            None => snapshot.disks.push(disk),
        }
    }
    snapshot
}

fn roll_back(
    work: &mut Work<'_, '_, '_>,
    begin: &BeginSave,
    so_far: &SoFar<'_>,
) -> Result<Recovered, RecoverError> {
    work.observer.begin(Phase::RollBack);
    let control = work.access.control;
    let mut state = domain::settled(control, &begin.domain)?;
    if so_far.suspended && state == DomainState::Suspended {
        state = domain::resume(control, &begin.domain)?;
    }
    let mut warnings: Vec<String> = begin
        .hooks
        .iter()
        .map(|hook| format!("what the hook {hook} has made, if anything, is left"))
        .collect();
    let mut report = RollbackReport::default();
    delete_tags(work, begin, &so_far.tags, state, &mut report);
    let open = close(begin, &so_far.opened, &mut report);
    files::remove(&begin.targets, &work.journal, &open, &mut report);
    thaw(work, begin, so_far, state, &mut warnings)?;
    if report.left.is_empty() {
        work.write(&Record::RolledBack)?;
    }
    let RollbackReport { removed, left } = report;
    Ok(Recovered::RolledBack { removed, left, domain: Some(state), warnings })
}

/// Has QEMU close overlays that no disk uses, while the guest goes on. Those that it may have open still, and that are left.
fn close(begin: &BeginSave, opened: &[OverlayIntent], report: &mut RollbackReport) -> Vec<PathBuf> {
    let (Some(qmp), false) = (&begin.qmp, opened.is_empty()) else { return Vec::new() };
    match close_overlays(qmp, opened, soon()) {
        Ok(()) => Vec::new(),
        // A QEMU that has ended has nothing open; removing a file looks whether anybody has.
        Err(DiskFailure::Qmp(error)) if error.is_nobody_there() => Vec::new(),
        Err(failure) => {
            let paths: Vec<_> = opened.iter().map(|intent| intent.overlay.path.clone()).collect();
            for path in &paths {
                let reason = format!("QEMU may have it open: {failure}");
                report.leave(path, LeftReason::Refused(reason));
            }
            paths
        }
    }
}

/// Deletes snapshots inside images: by the QEMU that has them open, or else by a program.
fn delete_tags(
    work: &Work<'_, '_, '_>,
    begin: &BeginSave,
    tags: &[&TagIntent],
    state: DomainState,
    report: &mut RollbackReport,
) {
    let (Some(qmp), false) = (&begin.qmp, tags.is_empty()) else { return };
    let tags: Vec<_> = tags.iter().copied().cloned().collect();
    steps::reached("before tags");
    let deleted = recover_internal(qmp, &tags, soon());
    steps::reached("after tags");
    let Err(failure) = deleted else { return };
    let is_offline = matches!(state, DomainState::Gone)
        && matches!(failure, DiskFailure::Qmp(QmpError::Connect { .. }));
    for TagIntent { image, tag, .. } in &tags {
        let gone = is_offline && work.delete_offline(image, tag).is_ok();
        if !gone {
            report.leave(&image.path, LeftReason::Refused(format!("{tag}: {failure}")));
        }
    }
}

impl Work<'_, '_, '_> {
    /// Of an image that nobody uses, if it is that image still.
    fn delete_offline(&self, image: &ImageRef, tag: &str) -> Result<(), DiskFailure> {
        let path = &image.path;
        let changes = ImageRef::read(path, image.format)?.changes_since(image);
        if changes.contains(&crate::disk::image::ImageChange::OtherFile) {
            return Err(DiskFailure::Changed { path: path.clone(), changes });
        }
        let info = self.access.qemu_img.info(path, image.format, true, soon())?;
        if info.snapshots.iter().any(|snapshot| snapshot.name == tag) {
            self.access.qemu_img.delete_snapshot(path, tag, soon())?;
        }
        Ok(())
    }
}

/// All is saved; what is left to do is what a save does after that.
fn complete(
    work: &mut Work<'_, '_, '_>,
    begin: &BeginSave,
    so_far: &SoFar<'_>,
    mut snapshot: Snapshot,
) -> Result<Recovered, RecoverError> {
    let before = domain::settled(work.access.control, &begin.domain)?;
    apply_config(work, begin, before, &mut snapshot);
    work.observer.begin(Phase::After);
    let state = leave_as_wanted(work, begin, so_far, before, &mut snapshot.warnings)?;
    snapshot.state_after = Some(state);
    thaw(work, begin, so_far, state, &mut snapshot.warnings)?;
    digest(work, begin, &mut snapshot)?;
    snapshot.warnings.push("its save died and was completed by a recovery".into());
    work.write(&Record::Saved(Box::new(snapshot.clone())))?;
    Ok(Recovered::Saved(Box::new(snapshot)))
}

fn apply_config(
    work: &mut Work<'_, '_, '_>,
    begin: &BeginSave,
    state: DomainState,
    snapshot: &mut Snapshot,
) {
    let wanted = begin.config == ConfigUpdate::Apply && !snapshot.config_applied;
    if !wanted || snapshot.config_delta.is_empty() {
        return;
    }
    work.observer.begin(Phase::Configure);
    if state == DomainState::Gone {
        snapshot.warnings.push("the domain is gone: its new images are told nowhere".into());
        return;
    }
    match configure::apply(work.access, &begin.domain, &snapshot.config_delta) {
        Ok(()) => snapshot.config_applied = true,
        Err(error) => snapshot.warnings.push(format!("the new images are not told: {error}")),
    }
}

/// What the save would have left the domain as. It may have been resumed by a guardian: what it has done since is not thrown away.
fn leave_as_wanted(
    work: &Work<'_, '_, '_>,
    begin: &BeginSave,
    so_far: &SoFar<'_>,
    state: DomainState,
    warnings: &mut Vec<String>,
) -> Result<DomainState, RecoverError> {
    let (control, domain) = (work.access.control, &begin.domain);
    match (begin.after, state) {
        (_, DomainState::Gone | DomainState::Dying | DomainState::ShutDown(_)) => Ok(state),
        (After::Resume, DomainState::Suspended) if so_far.suspended => {
            domain::resume(control, domain)
        }
        (After::Resume, _) | (After::LeavePaused, DomainState::Paused) => Ok(state),
        (After::LeavePaused, DomainState::Suspended) if so_far.suspended => {
            domain::pause(control, domain)?;
            domain::resume(control, domain)
        }
        (After::LeavePaused, DomainState::Suspended) => Ok(state),
        (After::LeavePaused, _) => {
            if begin.state_before == DomainState::Running && so_far.suspended {
                warnings.push("the domain ran on after it was saved, before it was paused".into());
            }
            domain::pause(control, domain)?;
            Ok(control.state(domain, soon())?)
        }
        (After::Destroy, _)
            if state == DomainState::Suspended
                || state == begin.state_before && !so_far.suspended =>
        {
            domain::destroy(control, domain)?;
            Ok(DomainState::Gone)
        }
        (After::Destroy, _) => {
            warnings.push("the domain ran on after it was saved, and was not destroyed".into());
            Ok(state)
        }
    }
}

fn thaw(
    work: &mut Work<'_, '_, '_>,
    begin: &BeginSave,
    so_far: &SoFar<'_>,
    state: DomainState,
    warnings: &mut Vec<String>,
) -> Result<(), RecoverError> {
    let (Some(quiescer), true) = (&begin.quiescer, so_far.frozen) else { return Ok(()) };
    if state != DomainState::Running {
        warnings
            .push(format!("the domain is {state}, so that {quiescer} was not asked to thaw it"));
        return Ok(());
    }
    let Some(hook) = work.access.quiescers.get_mut(quiescer) else {
        return Err(RecoverError::NoQuiescer { quiescer: quiescer.clone() });
    };
    steps::reached("before thaw");
    hook.thaw(soon())
        .map_err(|source| RecoverError::Thaw { quiescer: quiescer.clone(), source })?;
    steps::reached("after thaw");
    work.write(&Record::Thawed)
}

fn digest(
    work: &mut Work<'_, '_, '_>,
    begin: &BeginSave,
    snapshot: &mut Snapshot,
) -> Result<(), RecoverError> {
    let wanted =
        |disk: &&mut DiskSnapshot| disk.digest.is_none() && begin.digests.contains(&disk.vdev);
    for disk in snapshot.disks.iter_mut().filter(wanted) {
        work.observer.begin(Phase::Digest);
        let frozen = &disk.frozen;
        let deadline = Instant::now() + DIGEST_LIMIT;
        let digested = digest_image(&frozen.path, frozen, deadline, &mut |done| {
            work.observer.advance(done, Some(frozen.size));
            if work.observer.is_cancelled() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        match digested {
            Ok(digest) => disk.digest = Some(digest),
            Err(DiskFailure::Stopped { .. }) => return Err(RecoverError::Cancelled),
            Err(error) => snapshot.warnings.push(format!("{}: no digest: {error}", disk.vdev)),
        }
    }
    Ok(())
}
