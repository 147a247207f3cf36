//! Overlays that QEMU has open, and that no disk uses yet.

use std::io;
use std::time::{Duration, Instant};

use snapshot::disk::image::{ImageFormat, ImageRef};
use snapshot::disk::qmp::QmpError;
use snapshot::disk::{
    CommitError, DiskFailure, DiskSnapshotter, LeftReason, LiveOverlay, LiveOverlays,
    OverlayIntent, OverlaysAre, PrepareError, recover_overlays, snapshot,
};
use snapshot::{CreatedFile, CreationLog, NoLog};

use crate::nbd::NbdDisk;
use crate::programs::{StorageDaemon, available, content, deadline, files};
use crate::proxy::{Fault, Proxy};

const PROGRAMS: [&str; 2] = ["qemu-img", "qemu-storage-daemon"];

fn disks(daemon: &StorageDaemon) -> Vec<LiveOverlay> {
    let disk = |disk: &str| {
        let path = daemon.path(&format!("{disk}-1.qcow2"));
        LiveOverlay::new(disk, format!("{disk}-qcow2"), path, format!("{disk}-1"))
    };
    vec![disk("a"), disk("b")]
}

/// Remembers what QEMU shows while it is told what is about to be opened, or fails.
struct Log<'d> {
    daemon: &'d StorageDaemon,
    told: Vec<OverlayIntent>,
    shown: Vec<(String, Option<String>)>,
    fails: bool,
}

impl CreationLog for Log<'_> {
    fn prefix(&self) -> &str {
        ".partial-7-"
    }

    fn created(&mut self, _file: &CreatedFile) -> io::Result<()> {
        Ok(())
    }

    fn opening(&mut self, overlays: &[OverlayIntent]) -> io::Result<()> {
        self.shown = self.daemon.graph();
        self.told = overlays.to_vec();
        if self.fails { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

#[test]
fn a_log_is_told_of_all_overlays_before_qemu_opens_one() {
    const TEST: &str = "a_log_is_told_of_all_overlays_before_qemu_opens_one";
    if !available(TEST, &PROGRAMS) {
        return;
    }
    for fails in [false, true] {
        let daemon = StorageDaemon::start(&["a", "b"]);
        let before = daemon.graph();
        let mut log = Log { daemon: &daemon, told: vec![], shown: vec![], fails };
        let mut overlays = LiveOverlays::new(daemon.qmp(), disks(&daemon));
        let prepared = overlays.prepare(&mut log, deadline());
        assert_eq!(log.shown, before);
        assert_eq!(log.told.len(), 2);
        if fails {
            assert!(matches!(prepared, Err(PrepareError::Failed { left, .. }) if left.is_empty()));
            assert_eq!(daemon.graph(), before);
            assert_eq!(files(daemon.directory.path()), ["a.qcow2", "b.qcow2"]);
        } else {
            prepared.unwrap();
            assert_eq!(log.told, overlays.intents().unwrap());
            assert_eq!(daemon.graph().len(), before.len() + 2);
            assert_eq!(overlays.commit(deadline()).unwrap().len(), 2);
        }
    }
}

#[test]
fn an_overlay_that_qemu_does_not_open_leaves_none_open_and_no_file() {
    const TEST: &str = "an_overlay_that_qemu_does_not_open_leaves_none_open_and_no_file";
    if !available(TEST, &PROGRAMS) {
        return;
    }
    let daemon = StorageDaemon::start(&["a", "b"]);
    let before = daemon.graph();
    let mut wrong = disks(&daemon);
    wrong[1].overlay_node = "no name of a node".into();
    let mut overlays = LiveOverlays::new(daemon.qmp(), wrong);
    let error = overlays.prepare(&mut NoLog, deadline()).unwrap_err();
    let PrepareError::Failed { vdev, source, left } = error else { panic!("{error:?}") };
    assert_eq!(vdev, "b");
    let is_refusal = matches!(*source, DiskFailure::Qmp(QmpError::Refused { .. }));
    assert!(is_refusal && left.is_empty(), "{source:?} {left:?}");
    assert_eq!(daemon.graph(), before);
    assert_eq!(files(daemon.directory.path()), ["a.qcow2", "b.qcow2"]);
    assert!(overlays.rollback(deadline()).left.is_empty());
    let again = LiveOverlays::new(daemon.qmp(), disks(&daemon));
    snapshot(&mut { again }, deadline()).unwrap();
}

/// QEMU opens the second overlay, and nobody hears of it.
#[test]
fn a_qemu_that_is_lost_while_it_opens_overlays_is_asked_again_and_closes_them() {
    const TEST: &str = "a_qemu_that_is_lost_while_it_opens_overlays_is_asked_again_and_closes_them";
    if !available(TEST, &PROGRAMS) {
        return;
    }
    let daemon = StorageDaemon::start(&["a", "b"]);
    let before = daemon.graph();
    let proxy = Proxy::start(&daemon.qmp(), Fault::LoseOpened);
    let mut overlays = LiveOverlays::new(&proxy.socket, disks(&daemon));
    let error = overlays.prepare(&mut NoLog, deadline()).unwrap_err();
    let PrepareError::Failed { vdev, left, .. } = error else { panic!("{error:?}") };
    assert!(vdev == "b" && left.is_empty(), "{vdev} {left:?}");
    assert_eq!(daemon.graph(), before);
    assert_eq!(files(daemon.directory.path()), ["a.qcow2", "b.qcow2"]);
}

#[test]
fn a_qemu_that_ends_before_the_commit_has_nothing_open_and_the_files_go() {
    const TEST: &str = "a_qemu_that_ends_before_the_commit_has_nothing_open_and_the_files_go";
    if !available(TEST, &PROGRAMS) {
        return;
    }
    let mut daemon = StorageDaemon::start(&["a", "b"]);
    let mut overlays = LiveOverlays::new(daemon.qmp(), disks(&daemon));
    overlays.prepare(&mut NoLog, deadline()).unwrap();
    daemon.end();
    let error = overlays.commit(deadline()).unwrap_err();
    assert!(
        matches!(error, CommitError::Unchanged(DiskFailure::Qmp(QmpError::Connect { .. }))),
        "{error:?}"
    );
    let report = overlays.rollback(deadline());
    assert!(report.left.is_empty(), "{report:?}");
    assert_eq!(files(daemon.directory.path()), ["a.qcow2", "b.qcow2"]);
}

#[test]
fn a_qemu_that_does_not_close_an_overlay_keeps_its_file_until_it_does() {
    const TEST: &str = "a_qemu_that_does_not_close_an_overlay_keeps_its_file_until_it_does";
    if !available(TEST, &PROGRAMS) {
        return;
    }
    let daemon = StorageDaemon::start(&["a", "b"]);
    let before = daemon.graph();
    let mut overlays = LiveOverlays::new(daemon.qmp(), disks(&daemon));
    overlays.prepare(&mut NoLog, deadline()).unwrap();
    let frozen = daemon.freeze();
    let report = overlays.rollback(Instant::now() + Duration::from_millis(200));
    assert!(report.removed.is_empty(), "{report:?}");
    for left in &report.left {
        assert!(matches!(left.reason, LeftReason::Refused(_)), "{left}");
    }
    let all = ["a-1.qcow2", "a.qcow2", "b-1.qcow2", "b.qcow2"];
    assert_eq!(files(daemon.directory.path()), all);
    drop(frozen);
    let report = overlays.rollback(deadline());
    assert!(report.removed.len() == 2, "{report:?}");
    assert_eq!(daemon.graph(), before);
    assert_eq!(files(daemon.directory.path()), ["a.qcow2", "b.qcow2"]);
}

#[test]
fn a_guest_writes_on_whether_overlays_are_left_open_or_closed_and_is_saved_later() {
    const TEST: &str =
        "a_guest_writes_on_whether_overlays_are_left_open_or_closed_and_is_saved_later";
    if !available(TEST, &PROGRAMS) {
        return;
    }
    let daemon = StorageDaemon::start(&["a", "b"]);
    let mut guest = NbdDisk::open(&daemon.nbd(), "a");
    guest.write(0, &[1; 512]).unwrap();
    let mut dies = LiveOverlays::new(daemon.qmp(), disks(&daemon));
    dies.prepare(&mut NoLog, deadline()).unwrap();
    let intents = dies.intents().unwrap();
    drop(dies);
    guest.write(512, &[2; 512]).unwrap();
    for OverlayIntent { overlay, .. } in &intents {
        let now = ImageRef::read(&overlay.path, ImageFormat::Qcow2).unwrap();
        assert_eq!(now.changes_since(overlay), [], "what no disk uses was written");
    }
    // Others meanwhile, under other names.
    let another = |number: u32| {
        let mut others = disks(&daemon);
        for disk in &mut others {
            let before = if number == 2 { "qcow2".into() } else { (number - 1).to_string() };
            disk.node = format!("{}-{before}", disk.vdev);
            disk.overlay = daemon.path(&format!("{}-{number}.qcow2", disk.vdev));
            disk.overlay_node = format!("{}-{number}", disk.vdev);
        }
        snapshot(&mut LiveOverlays::new(daemon.qmp(), others), deadline()).unwrap()
    };
    let done = another(2);
    guest.write(1024, &[3; 512]).unwrap();
    let expected = [[1; 512], [2; 512], [0; 512]].concat();
    assert_eq!(content(&done[0].frozen.path, "qcow2", 1536), expected);
    // The disks are in other images by now, which is as good.
    let found = recover_overlays(&daemon.qmp(), &intents, deadline()).unwrap();
    assert_eq!(found, OverlaysAre::Unchanged);
    guest.write(1536, &[4; 512]).unwrap();
    let nodes = daemon.graph();
    assert!(!nodes.iter().any(|(name, _)| name.ends_with("-1")), "{nodes:?}");
    let done = another(3);
    let expected = [[1; 512], [2; 512], [3; 512], [4; 512]].concat();
    assert_eq!(content(&done[0].frozen.path, "qcow2", 2048), expected);
}

#[test]
fn a_transaction_that_qemu_has_all_of_but_its_end_is_forgotten_with_its_connection() {
    const TEST: &str =
        "a_transaction_that_qemu_has_all_of_but_its_end_is_forgotten_with_its_connection";
    if !available(TEST, &PROGRAMS) {
        return;
    }
    let daemon = StorageDaemon::start(&["a", "b"]);
    let before = daemon.graph();
    let mut dies = LiveOverlays::new(daemon.qmp(), disks(&daemon));
    dies.prepare(&mut NoLog, deadline()).unwrap();
    let intents = dies.intents().unwrap();
    dies.approach(deadline());
    drop(dies);
    let found = recover_overlays(&daemon.qmp(), &intents, deadline()).unwrap();
    assert_eq!(found, OverlaysAre::Unchanged);
    assert_eq!(daemon.graph(), before);
}

#[test]
fn what_was_asked_ahead_of_a_commit_that_fails_is_asked_again_or_rolled_back() {
    const TEST: &str = "what_was_asked_ahead_of_a_commit_that_fails_is_asked_again_or_rolled_back";
    if !available(TEST, &PROGRAMS) {
        return;
    }
    for again in [true, false] {
        let daemon = StorageDaemon::start(&["a", "b"]);
        let before = daemon.graph();
        let mut overlays = LiveOverlays::new(daemon.qmp(), disks(&daemon));
        overlays.approach(deadline());
        overlays.prepare(&mut NoLog, deadline()).unwrap();
        let frozen = daemon.freeze();
        overlays.approach(deadline());
        let error = overlays.commit(Instant::now() + Duration::from_millis(200)).unwrap_err();
        assert!(
            matches!(error, CommitError::Unchanged(DiskFailure::Qmp(QmpError::TooSlow { .. }))),
            "{error:?}"
        );
        drop(frozen);
        if again {
            overlays.approach(deadline());
            overlays.approach(deadline());
            assert_eq!(overlays.commit(deadline()).unwrap().len(), 2);
        } else {
            overlays.approach(deadline());
            assert_eq!(overlays.rollback(deadline()).removed.len(), 2);
            assert_eq!(daemon.graph(), before);
        }
    }
}
