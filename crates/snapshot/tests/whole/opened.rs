//! Overlays that QEMU has open before the guest is suspended: whatever ends the save, they are closed and their files removed.

use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use snapshot::control::{CancelToken, DomainIdentity, DomainState};
use snapshot::disk::LeftReason;
use snapshot::disk::qmp::QmpClient;
use snapshot::recover::Recovered;
use snapshot::save::{DiskRequestAction, MemoryFormat, SaveCause};
use snapshot::simulated::check;
use snapshot::{Observer, Phase, Progress, plan_save, recover, save};

use crate::hosts::{TestHost, has_qemu, soon, start};
use crate::save_failures::assert_undone;

/// The qcow2 nodes of a QEMU but those that the domain began with.
pub(crate) fn added_nodes(qmp: &Path) -> Vec<String> {
    let nodes = QmpClient::connect(qmp, soon()).unwrap().nodes(soon()).unwrap();
    let added = nodes.into_iter().filter(|node| node.driver == "qcow2" && node.name.contains('-'));
    let mut names: Vec<_> = added.map(|node| node.name).collect();
    names.retain(|name| !name.ends_with("-qcow2"));
    names.sort();
    names
}

fn qmp(host: &TestHost, domain: &DomainIdentity) -> std::path::PathBuf {
    host.inspect(domain).qmp.unwrap()
}

#[test]
fn a_save_of_overlays_is_cancelled_in_every_phase_before_the_pivot_and_qemu_closes_them() {
    if !has_qemu(
        "a_save_of_overlays_is_cancelled_in_every_phase_before_the_pivot_and_qemu_closes_them",
    ) {
        return;
    }
    for phase in [
        Phase::Prepare,
        Phase::Suspend,
        Phase::Memory,
        Phase::Capture,
        Phase::Sync,
        Phase::Name,
        Phase::Pivot,
    ] {
        let host = start();
        let domain = host.running_qcow2("web");
        let (qmp, mut open) = (qmp(&host, &domain), Vec::new());
        let mut access = host.access();
        let request = host.with_memory(host.overlaying(&domain), MemoryFormat::Mapped);
        let plan = plan_save(&mut access, request).unwrap();
        let token = CancelToken::new().unwrap();
        let mut progress = |progress: &Progress| {
            // From the suspend on, the save is QEMU's one client.
            if progress.phase == phase.min(Phase::Suspend) && !token.is_cancelled() {
                open = added_nodes(&qmp);
            }
            if progress.phase == phase {
                token.cancel();
            }
        };
        let mut observer = Observer::none().progress(&mut progress).cancel(&token);
        let failure = save(&mut access, plan, &mut observer).unwrap_err();
        assert!(matches!(failure.cause, SaveCause::Cancelled), "{phase}: {failure}");
        assert_eq!(open.len(), if phase == Phase::Prepare { 0 } else { 2 }, "{phase}");
        assert_eq!(added_nodes(&qmp), <[&str; 0]>::default(), "{phase}");
        assert_undone(&host, &domain, &failure);
    }
}

#[test]
fn an_overlay_that_qemu_refuses_to_open_leaves_nothing_and_the_guest_is_not_suspended() {
    if !has_qemu(
        "an_overlay_that_qemu_refuses_to_open_leaves_nothing_and_the_guest_is_not_suspended",
    ) {
        return;
    }
    let host = start();
    let domain = host.running_qcow2("web");
    let mut request = host.overlaying(&domain);
    let DiskRequestAction::ExternalQcow2 { overlay_node, .. } = &mut request.disks[1].action else {
        panic!("{:?}", request.disks);
    };
    *overlay_node = Some("no name of a node".into());
    let mut phases = Vec::new();
    let mut progress = |progress: &Progress| phases.push(progress.phase);
    let mut access = host.access();
    let plan = plan_save(&mut access, request).unwrap();
    let failure = save(&mut access, plan, &mut Observer::none().progress(&mut progress));
    let failure = failure.unwrap_err();
    assert!(matches!(failure.cause, SaveCause::Prepare { .. }), "{failure:?}");
    assert!(!phases.contains(&Phase::Suspend), "{phases:?}");
    assert_eq!(added_nodes(&qmp(&host, &domain)), <[&str; 0]>::default());
    assert_undone(&host, &domain, &failure);
}

#[test]
fn a_qemu_that_ends_between_preparation_and_pivot_leaves_no_file() {
    if !has_qemu("a_qemu_that_ends_between_preparation_and_pivot_leaves_no_file") {
        return;
    }
    let host = start();
    let domain = host.running_qcow2("web");
    let qemu = QmpClient::connect(&qmp(&host, &domain), soon()).unwrap().listener().unwrap();
    let qemu = Pid::from_raw(i32::try_from(qemu).unwrap()).unwrap();
    let mut is_there = true;
    let mut progress = |progress: &Progress| {
        if progress.phase == Phase::Capture && std::mem::take(&mut is_there) {
            kill_process(qemu, Signal::KILL).unwrap();
        }
    };
    let mut access = host.access();
    let plan = plan_save(&mut access, host.overlaying(&domain)).unwrap();
    let failure = save(&mut access, plan, &mut Observer::none().progress(&mut progress));
    let failure = failure.unwrap_err();
    assert!(matches!(failure.cause, SaveCause::Commit { .. }), "{failure:?}");
    // A guest without disks does not run for long.
    assert_ne!(failure.domain, Some(DomainState::Suspended), "{failure}");
    assert!(failure.left.is_empty() && failure.journal.is_none(), "{failure:?}");
    assert_eq!(failure.removed.len(), 2);
    assert_eq!(host.saved_names(), <[&str; 0]>::default());
}

#[test]
fn overlays_of_a_qemu_that_is_not_reached_are_left_while_the_guest_goes_on_until_a_recovery() {
    if !has_qemu(
        "overlays_of_a_qemu_that_is_not_reached_are_left_while_the_guest_goes_on_until_a_recovery",
    ) {
        return;
    }
    let host = start();
    let domain = host.running_qcow2("web");
    let (qmp, link) = (qmp(&host, &domain), host.path("link"));
    std::os::unix::fs::symlink(&qmp, &link).unwrap();
    let mut request = host.with_memory(host.overlaying(&domain), MemoryFormat::Mapped);
    request.qmp = Some(link.clone());
    let mut progress = |progress: &Progress| {
        if progress.phase == Phase::Memory && link.is_symlink() {
            std::fs::remove_file(&link).unwrap();
        }
    };
    let mut access = host.access();
    let plan = plan_save(&mut access, request).unwrap();
    let failure = save(&mut access, plan, &mut Observer::none().progress(&mut progress));
    let failure = failure.unwrap_err();
    assert!(matches!(failure.cause, SaveCause::Commit { .. }), "{failure:?}");
    assert_eq!(failure.domain, Some(DomainState::Running), "{failure}");
    assert_eq!(failure.left.len(), 2, "{failure:?}");
    for left in &failure.left {
        assert!(matches!(left.reason, LeftReason::Open { .. }), "{left}");
    }
    assert_eq!(host.saved_names(), ["a", "b"]);
    assert_eq!(added_nodes(&qmp).len(), 2);
    host.assert_goes_on(&domain);
    let journal = failure.journal.expect("there is something to recover");
    // Another save meanwhile, to other files, is in nobody's way.
    let mut another = host.overlaying(&domain);
    another.journal = Some(host.path("another-journal").into());
    for (disk, name) in another.disks.iter_mut().zip(["c", "d"]) {
        if let DiskRequestAction::ExternalQcow2 { overlay, .. } = &mut disk.action {
            *overlay = host.saved(name).into();
        }
    }
    let snapshot = host.save(another).unwrap();
    std::os::unix::fs::symlink(&qmp, &link).unwrap();
    for time in 0..2 {
        let recovered = recover(&mut host.access(), &journal, &mut Observer::none()).unwrap();
        let Recovered::RolledBack { removed, left, .. } = recovered else {
            panic!("{recovered:?}")
        };
        assert!(left.is_empty(), "{left:?}");
        assert_eq!(removed.len(), if time == 0 { 2 } else { 0 });
        assert_eq!(host.saved_names(), ["c", "d"]);
        assert_eq!(added_nodes(&qmp).len(), 2, "those of the other save");
    }
    host.assert_goes_on(&domain);
    check::crash_consistent(&host.frozen_ticks(&snapshot)).unwrap();
    assert_eq!(host.configured(&domain), [host.saved("c"), host.saved("d")]);
}
