//! Overlays for a domain that does not run.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use snapshot::NoLog;
use snapshot::disk::image::{ChainRule, ImageFormat};
use snapshot::disk::qemu_img::{QemuImg, QemuImgError};
use snapshot::disk::{
    BackingName, CommitError, DiskAction, DiskFailure, DiskRefusal, DiskSnapshot, DiskSnapshotter,
    LeftReason, OfflineOverlay, OfflineOverlays, PlanError, PrepareError, snapshot,
};

use crate::programs::{StorageDaemon, available, content, deadline, files, qemu_img};

fn disk(directory: &Path, name: &str) -> OfflineOverlay {
    OfflineOverlay {
        vdev: name.to_owned(),
        image: directory.join(format!("{name}.raw")),
        format: ImageFormat::Raw,
        overlay: directory.join(format!("{name}-1.qcow2")),
        backing: BackingName::Absolute,
    }
}

fn raw_disks(directory: &Path) -> Vec<OfflineOverlay> {
    for name in ["a", "b"] {
        fs::write(directory.join(format!("{name}.raw")), name.repeat(4096)).unwrap();
    }
    ["a", "b"].map(|name| disk(directory, name)).to_vec()
}

#[test]
fn overlays_show_what_the_images_hold_and_are_for_their_owner_only() {
    const TEST: &str = "overlays_show_what_the_images_hold_and_are_for_their_owner_only";
    if !available(TEST, &["qemu-img"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut disks = raw_disks(directory.path());
    disks[1].backing = BackingName::As("b.raw".into());
    let mut overlays = OfflineOverlays::new(disks);
    let plan = overlays.plan(deadline()).unwrap();
    assert_eq!(files(directory.path()), ["a.raw", "b.raw"], "a plan makes nothing");
    let done = snapshot(&mut overlays, deadline()).unwrap();
    for (planned, disk) in plan.disks.iter().zip(&done) {
        assert_eq!(planned.chain, disk.chain);
        assert_eq!(disk.action, DiskAction::ExternalQcow2 { overlay: disk.active.path.clone() });
        assert_eq!(content(&disk.active.path, "qcow2", 4096), disk.vdev.repeat(4096).as_bytes());
        let mode = disk.active.path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let json = serde_json::to_string(disk).unwrap();
        assert_eq!(&serde_json::from_str::<DiskSnapshot>(&json).unwrap(), disk);
        let check = QemuImg::default().check(&disk.active.path, deadline()).unwrap();
        assert_eq!((check.corruptions, check.leaks), (0, 0));
    }
    // Nobody has used them yet, so that they can go.
    let report = overlays.rollback(deadline());
    assert_eq!(report.removed.len(), 2);
    assert_eq!(files(directory.path()), ["a.raw", "b.raw"]);
}

#[test]
fn an_overlay_that_was_written_stays() {
    const TEST: &str = "an_overlay_that_was_written_stays";
    if !available(TEST, &["qemu-img"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut overlays = OfflineOverlays::new(raw_disks(directory.path()));
    snapshot(&mut overlays, deadline()).unwrap();
    qemu_img(directory.path(), &["snapshot", "-c", "used", "a-1.qcow2"]);
    let report = overlays.rollback(deadline());
    assert_eq!(report.removed, [directory.path().join("b-1.qcow2")]);
    assert!(matches!(&report.left[..], [left] if matches!(left.reason, LeftReason::Written)));
}

#[test]
fn when_a_later_disk_cannot_be_prepared_nothing_is_left_of_the_earlier() {
    const TEST: &str = "when_a_later_disk_cannot_be_prepared_nothing_is_left_of_the_earlier";
    if !available(TEST, &["qemu-img"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut disks = raw_disks(directory.path());
    disks[1].backing = BackingName::As("a.raw".into());
    let error = OfflineOverlays::new(disks).prepare(&mut NoLog, deadline()).unwrap_err();
    let PrepareError::Failed { vdev, source, left } = error else { panic!("{error:?}") };
    assert_eq!(vdev, "b");
    assert!(matches!(*source, DiskFailure::OtherBacking { .. }), "{source:?}");
    assert!(left.is_empty());
    assert_eq!(files(directory.path()), ["a.raw", "b.raw"]);
}

#[test]
fn a_base_that_changes_between_the_steps_is_noticed() {
    const TEST: &str = "a_base_that_changes_between_the_steps_is_noticed";
    if !available(TEST, &["qemu-img"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut overlays = OfflineOverlays::new(raw_disks(directory.path()));
    overlays.prepare(&mut NoLog, deadline()).unwrap();
    fs::write(directory.path().join("b.raw"), "c".repeat(4096)).unwrap();
    let error = overlays.commit(deadline()).unwrap_err();
    assert!(matches!(error, CommitError::Unchanged(DiskFailure::Changed { .. })), "{error:?}");
    assert_eq!(overlays.rollback(deadline()).removed.len(), 2);
}

#[test]
fn a_running_domains_disk_and_one_that_is_named_twice_are_refused_together() {
    const TEST: &str = "a_running_domains_disk_and_one_that_is_named_twice_are_refused_together";
    if !available(TEST, &["qemu-img", "qemu-storage-daemon"]) {
        return;
    }
    let daemon = StorageDaemon::start(&["a"]);
    let mut running = disk(daemon.directory.path(), "a");
    (running.image, running.format) = (daemon.path("a.qcow2"), ImageFormat::Qcow2);
    let twice = vec![running.clone(), running];
    let PlanError::Refused { refusals } = OfflineOverlays::new(twice).plan(deadline()).unwrap_err()
    else {
        panic!("not refused");
    };
    let written = |refusal: &&DiskRefusal| matches!(refusal, DiskRefusal::Chain { source, .. } if source.rule() == ChainRule::NoOtherWriter);
    assert_eq!(refusals.iter().filter(written).count(), 2, "{refusals:?}");
    let twice = |refusal: &&DiskRefusal| matches!(refusal, DiskRefusal::Twice { .. });
    assert_eq!(refusals.iter().filter(twice).count(), 2, "{refusals:?}");
}

/// A program in the place of `qemu-img`.
fn script(directory: &Path, text: &str) -> PathBuf {
    let path = directory.join("script");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn a_qemu_img_that_fails_or_hangs_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let check = |program: PathBuf, limit: Duration, expected: fn(&QemuImgError) -> bool| {
        let qemu_img = QemuImg::new(program);
        let mut overlays =
            OfflineOverlays::new(raw_disks(directory.path())).with_qemu_img(qemu_img);
        let error = overlays.prepare(&mut NoLog, Instant::now() + limit).unwrap_err();
        let PrepareError::Failed { source, .. } = error else { panic!("{error:?}") };
        let DiskFailure::QemuImg(error) = &*source else { panic!("{source:?}") };
        assert!(expected(error), "{error:?}");
        let left = files(directory.path());
        assert_eq!(left.iter().filter(|name| name.contains("qcow2")).count(), 0, "{left:?}");
    };
    let minute = Duration::from_mins(1);
    check(directory.path().join("none"), minute, |error| {
        matches!(error, QemuImgError::Start { .. })
    });
    let fails = "echo half >&0; echo \"qemu-img: no $LC_ALL $HOME\" >&2; exit 1";
    check(
        script(directory.path(), fails),
        minute,
        |error| matches!(error, QemuImgError::Failed { command: "create", stderr, .. } if stderr == "no C"),
    );
    check(script(directory.path(), "exec sleep 100"), Duration::from_millis(100), |error| {
        matches!(error, QemuImgError::TooSlow { command: "create" })
    });
}
