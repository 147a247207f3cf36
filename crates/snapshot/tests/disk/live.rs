//! Overlays on a running `qemu-storage-daemon`.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use snapshot::NoLog;
use snapshot::disk::image::{ChainRule, ImageFormat};
use snapshot::disk::{
    BackingName, CommitError, DiskFailure, DiskRefusal, DiskSnapshotter, LeftReason, LiveOverlay,
    LiveOverlays, PlanError, PrepareError, SnapshotFailed, snapshot,
};

use crate::nbd::NbdDisk;
use crate::programs::{DISK, StorageDaemon, available, content, deadline, files};
use crate::proxy::{Fault, Proxy};

const PROGRAMS: [&str; 2] = ["qemu-img", "qemu-storage-daemon"];

fn overlay(daemon: &StorageDaemon, disk: &str, number: u32) -> LiveOverlay {
    let node = if number == 1 { format!("{disk}-qcow2") } else { format!("{disk}-{}", number - 1) };
    let path = daemon.path(&format!("{disk}-{number}.qcow2"));
    LiveOverlay::new(disk, node, path, format!("{disk}-{number}"))
}

fn overlays(daemon: &StorageDaemon, disks: &[&str]) -> LiveOverlays {
    let disks = disks.iter().map(|disk| overlay(daemon, disk, 1)).collect();
    LiveOverlays::new(daemon.qmp(), disks)
}

fn refusals(snapshotter: &mut dyn DiskSnapshotter) -> Vec<DiskRefusal> {
    match snapshotter.plan(deadline()).unwrap_err() {
        PlanError::Refused { refusals } => refusals,
        other => panic!("{other:?}"),
    }
}

fn tick(image: &std::path::Path) -> u64 {
    u64::from_be_bytes(content(image, "qcow2", 8).try_into().unwrap())
}

/// A guest that writes a number to disk A and, once that is done, to disk B. Whatever moment both disks are frozen at, A is at
/// most one ahead, and never behind. Four pivots in a row, each of which has to hold that.
#[test]
fn two_disks_are_frozen_at_one_moment_under_writes() {
    const TEST: &str = "two_disks_are_frozen_at_one_moment_under_writes";
    if !available(TEST, &PROGRAMS) {
        return;
    }
    let daemon = StorageDaemon::start(&["a", "b"]);
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let (mut frozen, mut longest) = (Vec::new(), Duration::ZERO);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut a = NbdDisk::open(&daemon.nbd(), "a");
            let mut b = NbdDisk::open(&daemon.nbd(), "b");
            for tick in 1.. {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                // Somewhere else as well, so that clusters are allocated all the time.
                for disk in [&mut a, &mut b] {
                    disk.write(tick * 4096 % DISK / 2 + DISK / 2, &[1; 512]).unwrap();
                    disk.write(0, &tick.to_be_bytes().repeat(64)).unwrap();
                }
                written.store(tick, Ordering::SeqCst);
            }
        });
        for number in 1..=4 {
            let before = written.load(Ordering::SeqCst);
            while written.load(Ordering::SeqCst) < before + 20 && !writer.is_finished() {
                thread::yield_now();
            }
            let disks = ["a", "b"].map(|disk| overlay(&daemon, disk, number));
            let mut overlays = LiveOverlays::new(daemon.qmp(), disks.to_vec());
            let at_least = written.load(Ordering::SeqCst);
            let prepared = overlays.prepare(&mut NoLog, deadline());
            let begin = Instant::now();
            let done = overlays.commit(deadline());
            longest = longest.max(begin.elapsed());
            stop.store(prepared.is_err() || done.is_err(), Ordering::SeqCst);
            prepared.unwrap();
            let done = done.unwrap();
            let at_most = written.load(Ordering::SeqCst) + 1;
            assert_eq!(done.len(), 2);
            for (disk, snapshot) in disks.iter().zip(&done) {
                assert_eq!(snapshot.active.path, disk.overlay);
                assert_eq!(snapshot.chain.len(), number as usize);
                assert_eq!(snapshot.chain[0], snapshot.frozen);
                assert_eq!(snapshot.warnings, [], "{snapshot:?}");
            }
            frozen.push((done, at_least, at_most));
        }
        stop.store(true, Ordering::SeqCst);
        writer.join().unwrap();
    });
    for (done, at_least, at_most) in frozen {
        let [a, b] = [&done[0], &done[1]].map(|disk| tick(&disk.frozen.path));
        assert!(a - b <= 1, "{a} on one disk and {b} on the other");
        assert!(
            (at_least..=at_most).contains(&a),
            "{a} was frozen, not within {at_least}..={at_most}"
        );
        for disk in &done {
            let again =
                snapshot::disk::image::ImageRef::read(&disk.frozen.path, ImageFormat::Qcow2);
            assert_eq!(
                again.unwrap().changes_since(&disk.frozen),
                [],
                "a frozen image was written"
            );
            let json = serde_json::to_string(disk).unwrap();
            assert_eq!(&serde_json::from_str::<snapshot::disk::DiskSnapshot>(&json).unwrap(), disk);
        }
    }
    let written = written.load(Ordering::SeqCst);
    println!("{TEST}: {written} writes to each disk; the longest commit took {longest:?}");
}

#[test]
fn whichever_action_fails_the_graph_is_as_before_and_the_overlays_are_removed() {
    const TEST: &str = "whichever_action_fails_the_graph_is_as_before_and_the_overlays_are_removed";
    if !available(TEST, &PROGRAMS) {
        return;
    }
    for at in 0..=2 {
        let daemon = StorageDaemon::start(&["a", "b"]);
        let before = daemon.graph();
        let proxy = Proxy::start(&daemon.qmp(), Fault::Abort(at));
        let disks = ["a", "b"].map(|disk| overlay(&daemon, disk, 1)).to_vec();
        let mut overlays = LiveOverlays::new(&proxy.socket, disks);
        let error = snapshot(&mut overlays, deadline()).unwrap_err();
        let SnapshotFailed::Commit { source, rollback } = error else { panic!("{error:?}") };
        assert!(matches!(*source, CommitError::Unchanged(DiskFailure::Qmp(_))), "{source:?}");
        assert_eq!(rollback.removed, [daemon.path("a-1.qcow2"), daemon.path("b-1.qcow2")]);
        assert!(rollback.left.is_empty(), "{rollback:?}");
        assert_eq!(files(daemon.directory.path()), ["a.qcow2", "b.qcow2"]);
        assert_eq!(daemon.graph(), before);
        // Nothing is in the way of trying again.
        drop(proxy);
        snapshot(&mut self::overlays(&daemon, &["a", "b"]), deadline()).unwrap();
    }
}

#[test]
fn a_file_that_is_in_the_way_is_refused_with_all_other_reasons_and_not_touched() {
    const TEST: &str =
        "a_file_that_is_in_the_way_is_refused_with_all_other_reasons_and_not_touched";
    if !available(TEST, &PROGRAMS) {
        return;
    }
    let daemon = StorageDaemon::start(&["a", "b"]);
    fs::write(daemon.path("a-1.qcow2"), b"precious").unwrap();
    let mut wrong = overlay(&daemon, "b", 1);
    wrong.node = "no-such-node".to_owned();
    wrong.overlay_node = "a-qcow2".to_owned();
    wrong.overlay = daemon.path("no-such-directory/b.qcow2");
    let mut overlays = LiveOverlays::new(daemon.qmp(), vec![overlay(&daemon, "a", 1), wrong]);
    let found = refusals(&mut overlays);
    let [
        DiskRefusal::TargetExists { path, .. },
        DiskRefusal::Twice { .. },
        DiskRefusal::Target { .. },
        DiskRefusal::NodeTaken { .. },
        DiskRefusal::NoNode { .. },
    ] = &found[..]
    else {
        panic!("{found:?}");
    };
    assert_eq!(*path, daemon.path("a-1.qcow2"));
    assert!(matches!(
        snapshot(&mut overlays, deadline()),
        Err(SnapshotFailed::Prepare(PrepareError::Plan(PlanError::Refused { .. })))
    ));
    assert_eq!(fs::read(daemon.path("a-1.qcow2")).unwrap(), b"precious");
    assert_eq!(files(daemon.directory.path()), ["a-1.qcow2", "a.qcow2", "b.qcow2"]);
}

#[test]
fn an_overlay_over_another_disk_is_refused_when_it_is_made_and_when_it_was_changed_later() {
    const TEST: &str =
        "an_overlay_over_another_disk_is_refused_when_it_is_made_and_when_it_was_changed_later";
    if !available(TEST, &PROGRAMS) {
        return;
    }
    let daemon = StorageDaemon::start(&["a", "b"]);
    let before = daemon.graph();
    let mut wrong = overlay(&daemon, "b", 1);
    wrong.backing = BackingName::As("a.qcow2".into());
    let mut wrong = LiveOverlays::new(daemon.qmp(), vec![overlay(&daemon, "a", 1), wrong]);
    let error = wrong.prepare(&mut NoLog, deadline()).unwrap_err();
    let PrepareError::Failed { source, left, .. } = error else { panic!("{error:?}") };
    assert!(matches!(*source, DiskFailure::OtherBacking { .. }), "{source:?}");
    assert!(left.is_empty());
    assert_eq!(files(daemon.directory.path()), ["a.qcow2", "b.qcow2"]);

    let mut overlays = overlays(&daemon, &["a", "b"]);
    overlays.prepare(&mut NoLog, deadline()).unwrap();
    // Not by a program that heeds QEMU's locks.
    let path = daemon.path("b-1.qcow2");
    let mut octets = fs::read(&path).unwrap();
    let at = octets.windows(8).position(|name| name == b"/b.qcow2").unwrap();
    octets[at + 1] = b'a';
    fs::write(&path, octets).unwrap();
    let error = overlays.commit(deadline()).unwrap_err();
    assert!(matches!(error, CommitError::Unchanged(DiskFailure::Changed { .. })), "{error:?}");
    let report = overlays.rollback(deadline());
    assert_eq!(daemon.graph(), before);
    assert_eq!(report.removed, [daemon.path("a-1.qcow2")]);
    // What somebody else has written to is not ours to remove any more.
    assert!(matches!(report.left[..], [ref left] if matches!(left.reason, LeftReason::Written)));
}

#[test]
fn an_image_that_was_replaced_under_its_name_is_not_what_qemu_has_open() {
    const TEST: &str = "an_image_that_was_replaced_under_its_name_is_not_what_qemu_has_open";
    if !available(TEST, &PROGRAMS) {
        return;
    }
    let daemon = StorageDaemon::start(&["a"]);
    fs::rename(daemon.path("a.qcow2"), daemon.path("moved.qcow2")).unwrap();
    fs::copy(daemon.path("moved.qcow2"), daemon.path("a.qcow2")).unwrap();
    let found = refusals(&mut overlays(&daemon, &["a"]));
    assert!(matches!(found[..], [DiskRefusal::NotTheOpenFile { .. }]), "{found:?}");
}

#[test]
fn a_base_that_was_replaced_after_the_plan_is_noticed_at_the_commit() {
    const TEST: &str = "a_base_that_was_replaced_after_the_plan_is_noticed_at_the_commit";
    if !available(TEST, &PROGRAMS) {
        return;
    }
    let daemon = StorageDaemon::start(&["a"]);
    let before = daemon.graph();
    let mut overlays = overlays(&daemon, &["a"]);
    overlays.prepare(&mut NoLog, deadline()).unwrap();
    fs::rename(daemon.path("a.qcow2"), daemon.path("moved.qcow2")).unwrap();
    fs::copy(daemon.path("moved.qcow2"), daemon.path("a.qcow2")).unwrap();
    let error = overlays.commit(deadline()).unwrap_err();
    assert!(matches!(error, CommitError::Unchanged(DiskFailure::Refused { .. })), "{error:?}");
    assert_eq!(overlays.rollback(deadline()).removed, [daemon.path("a-1.qcow2")]);
    assert_eq!(daemon.graph(), before);
}

#[test]
fn an_image_that_a_second_program_writes_is_refused() {
    const TEST: &str = "an_image_that_a_second_program_writes_is_refused";
    if !available(TEST, &PROGRAMS) {
        return;
    }
    let daemon = StorageDaemon::start(&["a"]);
    let _writer = fs::OpenOptions::new().write(true).open(daemon.path("a.qcow2")).unwrap();
    let found = refusals(&mut overlays(&daemon, &["a"]));
    let [DiskRefusal::Chain { source, .. }] = &found[..] else { panic!("{found:?}") };
    assert_eq!(source.rule(), ChainRule::NoOtherWriter);
}

#[test]
fn a_disk_behind_a_filter_is_refused() {
    const TEST: &str = "a_disk_behind_a_filter_is_refused";
    if !available(TEST, &PROGRAMS) {
        return;
    }
    let (directory, node) = crate::qmp::faulty_disk("flush_to_disk");
    let daemon = StorageDaemon::start_in(directory, &["a"], &[node]);
    let found = refusals(&mut overlays(&daemon, &["a"]));
    assert!(matches!(found[..], [DiskRefusal::NodeFile { .. }]), "{found:?}");
}

#[test]
fn an_overlay_that_is_gone_at_the_commit_changes_nothing() {
    const TEST: &str = "an_overlay_that_is_gone_at_the_commit_changes_nothing";
    if !available(TEST, &PROGRAMS) {
        return;
    }
    let daemon = StorageDaemon::start(&["a", "b"]);
    let before = daemon.graph();
    let mut overlays = overlays(&daemon, &["a", "b"]);
    overlays.prepare(&mut NoLog, deadline()).unwrap();
    fs::remove_file(daemon.path("b-1.qcow2")).unwrap();
    let error = overlays.commit(deadline()).unwrap_err();
    assert!(matches!(error, CommitError::Unchanged(DiskFailure::Image(_))), "{error:?}");
    overlays.rollback(deadline());
    assert_eq!(daemon.graph(), before);
    assert_eq!(files(daemon.directory.path()), ["a.qcow2", "b.qcow2"]);
}

/// As Xen's block backend in QEMU opens images: without locks, and here raw. The overlay names its image relatively.
#[test]
fn a_raw_image_without_locks_gets_an_overlay_that_records_its_format() {
    const TEST: &str = "a_raw_image_without_locks_gets_an_overlay_that_records_its_format";
    if !available(TEST, &PROGRAMS) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("a.raw"), vec![5; 1 << 20]).unwrap();
    let filename = directory.path().join("a.raw");
    let file = serde_json::json!({ "driver": "file", "filename": filename, "locking": "off" });
    let node = serde_json::json!({ "driver": "raw", "node-name": "a-qcow2", "file": file });
    let daemon = StorageDaemon::start_in(directory, &["a"], &[node]);
    let mut disk = overlay(&daemon, "a", 1);
    disk.backing = BackingName::As("a.raw".into());
    let done = snapshot(&mut LiveOverlays::new(daemon.qmp(), vec![disk]), deadline()).unwrap();
    assert_eq!(done[0].frozen.format, ImageFormat::Raw);
    assert_eq!(done[0].warnings, []);
    NbdDisk::open(&daemon.nbd(), "a").write(0, &[6; 512]).unwrap();
    assert_eq!(fs::read(daemon.path("a.raw")).unwrap(), vec![5; 1 << 20]);
    // And once more, over an overlay whose node QEMU can only describe.
    let next = LiveOverlays::new(daemon.qmp(), vec![overlay(&daemon, "a", 2)]);
    let done = snapshot(&mut { next }, deadline()).unwrap();
    assert_eq!(done[0].chain.len(), 2);
    assert_eq!(content(&done[0].frozen.path, "qcow2", 1024), [[6; 512], [5; 512]].concat());
}

#[test]
fn a_chain_that_would_be_too_deep_is_refused() {
    const TEST: &str = "a_chain_that_would_be_too_deep_is_refused";
    if !available(TEST, &PROGRAMS) {
        return;
    }
    let daemon = StorageDaemon::start(&["a"]);
    let mut first = overlays(&daemon, &["a"]).with_depth(2);
    snapshot(&mut first, deadline()).unwrap();
    assert!(
        matches!(&first.rollback(deadline()).left[..], [left] if matches!(left.reason, LeftReason::Active))
    );
    let second = LiveOverlays::new(daemon.qmp(), vec![overlay(&daemon, "a", 2)]);
    let found = refusals(&mut second.with_depth(2));
    let [DiskRefusal::Chain { source, .. }] = &found[..] else { panic!("{found:?}") };
    assert_eq!(source.rule(), ChainRule::Depth);
}
