//! Disks that are snapshotted in several ways at once: all have their snapshots, or none.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::Instant;

use snapshot::control::{DomainIdentity, DomainState};
use snapshot::disk::image::{ImageFormat, ImageRef};
use snapshot::disk::{
    CommitError, Description, DiskAction, DiskFailure, DiskPlan, DiskRefusal, DiskSnapshot,
    DiskSnapshotter, PlanError, PlannedDisk, PrepareError, RollbackReport,
};
use snapshot::restore::{Depth, DiskRestore, PlanRestoreError, RestoreRefusal, RestoreRequest};
use snapshot::save::{
    DiskRequestAction, ImageAfter, MemoryFormat, PlanSaveError, SaveCause, SaveFailure,
    SaveRefusal, SaveRequest,
};
use snapshot::verify::{Sources, verify};
use snapshot::{CreationLog, Observer, Phase, Progress, Snapshot, plan_restore, plan_save, save};

use crate::hosts::{TestHost, has_qemu, soon, start};
use crate::proxy::{Fault, Proxy};
use crate::save_failures::assert_undone;

/// A caller's own snapshotter: makes an empty file beside the image, and fails where it is told.
#[derive(Debug)]
struct Volumes {
    vdev: &'static str,
    image: (PathBuf, ImageFormat),
    made: PathBuf,
    reversible: bool,
    fails_at: &'static str,
    calls: Rc<RefCell<Vec<&'static str>>>,
}

impl Volumes {
    fn step(&self, step: &'static str) -> Result<(), DiskFailure> {
        self.calls.borrow_mut().push(step);
        match self.fails_at == step {
            true => Err(DiskFailure::Hook("no room in the pool".into())),
            false => Ok(()),
        }
    }

    fn image(&self) -> Result<ImageRef, DiskFailure> {
        Ok(ImageRef::read(&self.image.0, self.image.1)?)
    }
}

impl DiskSnapshotter for Volumes {
    fn describe(&self) -> Description {
        let action = DiskAction::Hook { name: "volumes".to_owned() };
        Description {
            kind: "volumes",
            disks: vec![(self.vdev.to_owned(), action)],
            atomic: true,
            live: true,
            reversible: self.reversible,
        }
    }

    fn plan(&mut self, _deadline: Instant) -> Result<DiskPlan, PlanError> {
        let (vdev, action) = self.describe().disks.remove(0);
        if self.step("plan").is_err() {
            let source = "there is no such volume".into();
            return Err(PlanError::Refused { refusals: vec![DiskRefusal::Hook { vdev, source }] });
        }
        let chain = vec![self.image()?];
        let disk = PlannedDisk { vdev, action, chain, octets_needed: 0, warnings: vec![] };
        Ok(DiskPlan { disks: vec![disk] })
    }

    fn prepare(&mut self, _: &mut dyn CreationLog, _: Instant) -> Result<(), PrepareError> {
        self.step("prepare").map_err(|source| PrepareError::Failed {
            vdev: self.vdev.to_owned(),
            source: Box::new(source),
            left: vec![],
        })
    }

    fn commit(&mut self, _deadline: Instant) -> Result<Vec<DiskSnapshot>, CommitError> {
        self.step("commit").map_err(CommitError::Unchanged)?;
        std::fs::File::create_new(&self.made).unwrap();
        let (vdev, action) = self.describe().disks.remove(0);
        let image = self.image().map_err(CommitError::Unchanged)?;
        let (frozen, chain) = (image.clone(), vec![image.clone()]);
        let (digest, warnings) = (None, vec![]);
        Ok(vec![DiskSnapshot { vdev, action, frozen, active: image, chain, digest, warnings }])
    }

    fn rollback(&mut self, _deadline: Instant) -> RollbackReport {
        self.calls.borrow_mut().push("rollback");
        let _ = std::fs::remove_file(&self.made);
        RollbackReport::default()
    }
}

fn volumes(host: &TestHost, format: ImageFormat, fails_at: &'static str) -> Volumes {
    Volumes {
        vdev: "xvda",
        image: (host.path("web-a"), format),
        made: host.path("volume"),
        reversible: true,
        fails_at,
        calls: Rc::default(),
    }
}

/// The first disk is the hook's.
fn with_hook(mut request: SaveRequest) -> SaveRequest {
    request.disks[0].action = DiskRequestAction::Hook { name: "volumes".into() };
    request
}

#[test]
fn a_hook_that_refuses_is_a_reason_among_the_others_and_nothing_is_touched() {
    let host = start();
    let domain = host.running("web");
    let hook = volumes(&host, ImageFormat::Raw, "plan");
    let mut access = host.access();
    access.hooks.insert("volumes".into(), Box::new(hook));
    let mut request = with_hook(host.copying(&domain));
    std::fs::write(host.saved("b"), "of another").unwrap();
    request.qmp = None;
    let PlanSaveError::Refused { refusals } = plan_save(&mut access, request).unwrap_err() else {
        panic!("not refused")
    };
    assert_eq!(refusals.len(), 2, "{refusals:?}");
    let by_hook = |it: &SaveRefusal| matches!(it, SaveRefusal::Disk(DiskRefusal::Hook { .. }));
    assert!(refusals.iter().any(by_hook), "{refusals:?}");
    assert_eq!(host.saved_names(), ["b"]);
    host.assert_goes_on(&domain);
}

#[test]
fn a_hook_that_fails_is_rolled_back_with_the_copies_beside_it() {
    for fails_at in ["prepare", "commit"] {
        let host = start();
        let domain = host.running("web");
        let hook = volumes(&host, ImageFormat::Raw, fails_at);
        let calls = hook.calls.clone();
        let mut access = host.access();
        access.hooks.insert("volumes".into(), Box::new(hook));
        let request = host.with_memory(with_hook(host.copying(&domain)), MemoryFormat::Mapped);
        let plan = plan_save(&mut access, request).unwrap();
        let failure = save(&mut access, plan, &mut Observer::none()).unwrap_err();
        match fails_at {
            "prepare" => {
                assert!(matches!(failure.cause, SaveCause::Prepare { kind: "volumes", .. }))
            }
            _ => assert!(matches!(failure.cause, SaveCause::Commit { kind: "volumes", .. })),
        }
        assert_eq!(calls.borrow().last(), Some(&"rollback"), "{:?}", calls.borrow());
        assert!(!host.path("volume").exists());
        assert_undone(&host, &domain, &failure);
    }
}

/// Overlays of the second disk alone, through a proxy that has a fault, or to be made to fail by the caller.
fn mixed(host: &TestHost, domain: &DomainIdentity, first: DiskRequestAction) -> SaveRequest {
    let mut request = host.overlaying(domain);
    request.disks[0].action = first;
    host.with_memory(request, MemoryFormat::Mapped)
}

fn internal() -> DiskRequestAction {
    DiskRequestAction::InternalQcow2 { tag: "before".into(), node: None }
}

fn tags(image: &Path) -> Vec<String> {
    let shown = Command::new("qemu-img")
        .args(["snapshot", "-U", "-l", image.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(shown.status.success(), "{shown:?}");
    let text = String::from_utf8(shown.stdout).unwrap();
    let lines = text.lines().skip(2);
    lines.map(|line| line.split_whitespace().nth(1).unwrap().to_owned()).collect()
}

/// The first transaction is the one with the overlay only if nothing else goes through QEMU before.
fn fail_in_qemu(
    host: &TestHost,
    domain: &DomainIdentity,
    hook: Option<Volumes>,
    removing: bool,
) -> Box<SaveFailure> {
    let first = match &hook {
        Some(_) => DiskRequestAction::Hook { name: "volumes".into() },
        None => internal(),
    };
    let mut request = mixed(host, domain, first);
    let proxy = Proxy::start(request.qmp.as_ref().unwrap(), Fault::Abort(1));
    if !removing {
        request.qmp = Some(proxy.socket.clone());
    }
    let mut access = host.access();
    if let Some(hook) = hook {
        access.hooks.insert("volumes".into(), Box::new(hook));
    }
    let plan = plan_save(&mut access, request).unwrap();
    let overlay = host.saved("b");
    let mut progress = |progress: &Progress| {
        if removing && progress.phase == Phase::Pivot {
            std::fs::remove_file(&overlay).unwrap();
        }
    };
    let saved = save(&mut access, plan, &mut Observer::none().progress(&mut progress));
    saved.unwrap_err()
}

#[test]
fn overlays_that_qemu_aborts_take_a_committed_hook_back() {
    if !has_qemu("overlays_that_qemu_aborts_take_a_committed_hook_back") {
        return;
    }
    for removing in [false, true] {
        let host = start();
        let domain = host.running_qcow2("web");
        let hook = volumes(&host, ImageFormat::Qcow2, "never");
        let calls = hook.calls.clone();
        let failure = fail_in_qemu(&host, &domain, Some(hook), removing);
        assert!(matches!(failure.cause, SaveCause::Commit { .. }), "{failure:?}");
        assert!(calls.borrow().ends_with(&["commit", "rollback"]), "{:?}", calls.borrow());
        assert!(!host.path("volume").exists());
        assert_undone(&host, &domain, &failure);
    }
}

#[test]
fn overlays_that_qemu_refuses_take_committed_internal_snapshots_back() {
    if !has_qemu("overlays_that_qemu_refuses_take_committed_internal_snapshots_back") {
        return;
    }
    let host = start();
    let domain = host.running_qcow2("web");
    let failure = fail_in_qemu(&host, &domain, None, true);
    assert!(matches!(&failure.cause, SaveCause::Commit { .. }), "{failure:?}");
    assert_eq!(tags(&host.path("web-a")), <[&str; 0]>::default());
    assert_undone(&host, &domain, &failure);
}

#[test]
fn two_ways_that_cannot_be_undone_are_refused_in_the_plan() {
    if !has_qemu("two_ways_that_cannot_be_undone_are_refused_in_the_plan") {
        return;
    }
    let host = start();
    let domain = host.running_qcow2("web");
    let mut hook = volumes(&host, ImageFormat::Qcow2, "never");
    hook.reversible = false;
    let mut access = host.access();
    access.hooks.insert("volumes".into(), Box::new(hook));
    let request = with_hook(host.overlaying(&domain));
    let PlanSaveError::Refused { refusals } = plan_save(&mut access, request).unwrap_err() else {
        panic!("not refused")
    };
    match &refusals[..] {
        [SaveRefusal::Irreversible { kinds }] => assert_eq!(kinds.len(), 2, "{kinds:?}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(host.saved_names(), <[&str; 0]>::default());
    host.assert_goes_on(&domain);
}

fn internal_of_both(host: &TestHost, domain: &DomainIdentity) -> Snapshot {
    let mut request = mixed(host, domain, internal());
    request.disks[1].action = internal();
    host.save(request).unwrap()
}

#[test]
fn internal_snapshots_are_made_found_again_and_restored_only_on_request() {
    if !has_qemu("internal_snapshots_are_made_found_again_and_restored_only_on_request") {
        return;
    }
    let host = start();
    let domain = host.running_qcow2("web");
    let snapshot = internal_of_both(&host, &domain);
    let (a, b) = (host.path("web-a"), host.path("web-b"));
    assert_eq!((tags(&a), tags(&b)), (vec!["before".to_owned()], vec!["before".to_owned()]));
    assert!(snapshot.config_delta.is_empty());
    assert_eq!(snapshot.state_after, Some(DomainState::Running));
    host.assert_goes_on(&domain);
    assert_eq!(host.configured(&domain), [a, b]);
    verify(&snapshot, &Sources::default(), Depth::Chain, &mut Observer::none()).unwrap();
    let mut request = RestoreRequest::new(snapshot.clone());
    request.disks.insert("xvda".into(), DiskRestore::FrozenReadOnly);
    let overlay = host.saved("overlay").into();
    request.disks.insert("xvdb".into(), DiskRestore::NewOverlay { overlay });
    let refused = plan_restore(&mut host.access(), request).unwrap_err();
    let PlanRestoreError::Refused { refusals } = refused else { panic!("{refused:?}") };
    let internal = |it: &&RestoreRefusal| matches!(it, RestoreRefusal::Internal { tag, .. } if tag == "before");
    assert_eq!(refusals.iter().filter(internal).count(), 2, "{refusals:?}");
    // A snapshot that somebody deletes is missed.
    host.operator().end(soon()).unwrap();
    let deleted = Command::new("qemu-img")
        .args(["snapshot", "-d", "before", host.path("web-b").to_str().unwrap()])
        .status();
    assert!(deleted.unwrap().success());
    verify(&snapshot, &Sources::default(), Depth::Chain, &mut Observer::none()).unwrap_err();
}

#[test]
fn an_aborted_transaction_changes_no_disk() {
    if !has_qemu("an_aborted_transaction_changes_no_disk") {
        return;
    }
    for at in [0, 1, 2] {
        let host = start();
        let domain = host.running_qcow2("web");
        let mut request = host.with_memory(host.overlaying(&domain), MemoryFormat::Mapped);
        let proxy = Proxy::start(request.qmp.as_ref().unwrap(), Fault::Abort(at));
        request.qmp = Some(proxy.socket.clone());
        let failure = host.save(request).unwrap_err();
        assert!(matches!(failure.cause, SaveCause::Commit { .. }), "{failure:?}");
        assert!(failure.disks.iter().all(|disk| disk.image == ImageAfter::Old));
        assert_undone(&host, &domain, &failure);
    }
}
