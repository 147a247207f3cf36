//! Snapshots inside the images.

use std::path::Path;

use snapshot::NoLog;
use snapshot::disk::image::ImageFormat;
use snapshot::disk::qemu_img::QemuImg;
use snapshot::disk::{
    CommitError, DiskRefusal, DiskSnapshotter, LiveInternal, LiveInternalSnapshot, OfflineInternal,
    OfflineInternalSnapshot, PlanError, SnapshotFailed, snapshot,
};

use crate::nbd::NbdDisk;
use crate::programs::{StorageDaemon, available, deadline, qemu_img};
use crate::proxy::{Fault, Proxy};

const PROGRAMS: [&str; 2] = ["qemu-img", "qemu-storage-daemon"];

fn tags(image: &Path) -> Vec<String> {
    let info = QemuImg::default().info(image, ImageFormat::Qcow2, true, deadline()).unwrap();
    info.snapshots.into_iter().map(|snapshot| snapshot.name).collect()
}

fn live(disk: &str, tag: &str) -> LiveInternalSnapshot {
    LiveInternalSnapshot {
        vdev: disk.to_owned(),
        node: format!("{disk}-qcow2"),
        tag: tag.to_owned(),
    }
}

fn offline(directory: &Path, tag: &str) -> Vec<OfflineInternalSnapshot> {
    let disk = |disk: &str| OfflineInternalSnapshot {
        vdev: disk.to_owned(),
        image: directory.join(format!("{disk}.qcow2")),
        tag: tag.to_owned(),
    };
    vec![disk("a"), disk("b")]
}

fn images() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for name in ["a.qcow2", "b.qcow2"] {
        qemu_img(directory.path(), &["create", "-q", "-f", "qcow2", name, "8M"]);
    }
    directory
}

#[test]
fn offline_snapshots_are_made_and_taken_back() {
    const TEST: &str = "offline_snapshots_are_made_and_taken_back";
    if !available(TEST, &["qemu-img"]) {
        return;
    }
    let directory = images();
    let mut internal = OfflineInternal::new(offline(directory.path(), "before"));
    let done = snapshot(&mut internal, deadline()).unwrap();
    for disk in &done {
        assert_eq!(tags(&disk.frozen.path), ["before"]);
        assert_eq!(disk.frozen, disk.active);
    }
    assert!(internal.rollback(deadline()).left.is_empty());
    for disk in &done {
        assert!(tags(&disk.frozen.path).is_empty());
    }
}

#[test]
fn when_a_later_disk_fails_the_earlier_snapshot_is_deleted() {
    const TEST: &str = "when_a_later_disk_fails_the_earlier_snapshot_is_deleted";
    if !available(TEST, &["qemu-img"]) {
        return;
    }
    let directory = images();
    let mut internal = OfflineInternal::new(offline(directory.path(), "before"));
    internal.prepare(&mut NoLog, deadline()).unwrap();
    qemu_img(directory.path(), &["snapshot", "-c", "of another", "b.qcow2"]);
    let error = internal.commit(deadline()).unwrap_err();
    assert!(matches!(&error, CommitError::Partly { done, .. } if done.len() == 1), "{error:?}");
    assert_eq!(tags(&directory.path().join("a.qcow2")), ["before"]);
    assert!(internal.rollback(deadline()).left.is_empty());
    assert!(tags(&directory.path().join("a.qcow2")).is_empty());
    assert_eq!(tags(&directory.path().join("b.qcow2")), ["of another"]);
}

#[test]
fn tags_that_are_taken_or_could_be_ids_are_refused() {
    const TEST: &str = "tags_that_are_taken_or_could_be_ids_are_refused";
    if !available(TEST, &["qemu-img"]) {
        return;
    }
    let directory = images();
    qemu_img(directory.path(), &["snapshot", "-c", "taken", "a.qcow2"]);
    for (tag, taken) in [("taken", true), ("1", false), ("", false), ("-l", false)] {
        let mut internal = OfflineInternal::new(offline(directory.path(), tag));
        let PlanError::Refused { refusals } = internal.plan(deadline()).unwrap_err() else {
            panic!("not refused");
        };
        let expected = |refusal: &DiskRefusal| match refusal {
            DiskRefusal::TagTaken { .. } => taken,
            DiskRefusal::TagUnusable { .. } => !taken,
            _ => false,
        };
        assert!(refusals.iter().all(expected), "{tag}: {refusals:?}");
    }
}

#[test]
fn live_snapshots_are_made_in_all_disks_and_taken_back() {
    const TEST: &str = "live_snapshots_are_made_in_all_disks_and_taken_back";
    if !available(TEST, &PROGRAMS) {
        return;
    }
    let daemon = StorageDaemon::start(&["a", "b"]);
    NbdDisk::open(&daemon.nbd(), "a").write(0, &[1; 512]).unwrap();
    let mut internal =
        LiveInternal::new(daemon.qmp(), vec![live("a", "before"), live("b", "before")]);
    let done = snapshot(&mut internal, deadline()).unwrap();
    for disk in &done {
        assert_eq!(tags(&disk.frozen.path), ["before"]);
        assert_eq!(disk.warnings, []);
    }
    let mut again = LiveInternal::new(daemon.qmp(), vec![live("a", "before")]);
    let error = again.plan(deadline()).unwrap_err();
    assert!(
        matches!(&error, PlanError::Refused { refusals } if matches!(refusals[..], [DiskRefusal::TagTaken { .. }])),
        "{error:?}"
    );
    let report = internal.rollback(deadline());
    assert!(report.left.is_empty(), "{report:?}");
    assert!(tags(&daemon.path("a.qcow2")).is_empty());
}

#[test]
fn whichever_action_fails_no_image_has_a_snapshot() {
    const TEST: &str = "whichever_action_fails_no_image_has_a_snapshot";
    if !available(TEST, &PROGRAMS) {
        return;
    }
    for at in 0..=2 {
        let daemon = StorageDaemon::start(&["a", "b"]);
        let proxy = Proxy::start(&daemon.qmp(), Fault::Abort(at));
        let disks = vec![live("a", "before"), live("b", "before")];
        let error = snapshot(&mut LiveInternal::new(&proxy.socket, disks), deadline()).unwrap_err();
        assert!(
            matches!(&error, SnapshotFailed::Commit { source, .. } if matches!(**source, CommitError::Unchanged(_))),
            "{error:?}"
        );
        for image in ["a.qcow2", "b.qcow2"] {
            assert!(tags(&daemon.path(image)).is_empty(), "action {at}");
        }
    }
}
