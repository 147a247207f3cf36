//! The connection to QEMU is lost during the transaction: what QEMU then tells decides.

use std::time::{Duration, Instant};

use snapshot::NoLog;
use snapshot::disk::qmp::QmpError;
use snapshot::disk::{
    CommitError, DiskFailure, DiskSnapshotter, DiskWarning, LeftReason, LiveInternal,
    LiveInternalSnapshot, LiveOverlay, LiveOverlays, snapshot,
};

use crate::programs::{StorageDaemon, available, deadline, files};
use crate::proxy::{Fault, Proxy};

const PROGRAMS: [&str; 2] = ["qemu-img", "qemu-storage-daemon"];

fn prepared(daemon: &StorageDaemon, socket: &std::path::Path) -> LiveOverlays {
    let disks = ["a", "b"].map(|disk| {
        let path = daemon.path(&format!("{disk}-1.qcow2"));
        LiveOverlay::new(disk, format!("{disk}-qcow2"), path, format!("{disk}-1"))
    });
    let mut overlays = LiveOverlays::new(socket, disks.to_vec());
    overlays.prepare(&mut NoLog, deadline()).unwrap();
    overlays
}

#[test]
fn a_transaction_whose_answer_is_lost_was_carried_out() {
    const TEST: &str = "a_transaction_whose_answer_is_lost_was_carried_out";
    if !available(TEST, &PROGRAMS) {
        return;
    }
    let daemon = StorageDaemon::start(&["a", "b"]);
    let proxy = Proxy::start(&daemon.qmp(), Fault::LoseAnswer);
    let mut overlays = prepared(&daemon, &proxy.socket);
    let done = overlays.commit(deadline()).unwrap();
    for disk in done {
        assert_eq!(disk.warnings, [DiskWarning::QmpLost]);
        assert_eq!(disk.active.path, daemon.path(&format!("{}-1.qcow2", disk.vdev)));
    }
    let report = overlays.rollback(deadline());
    assert!(report.removed.is_empty());
    assert_eq!(report.left.len(), 2);
}

#[test]
fn a_transaction_that_never_arrived_is_undone_for_good() {
    const TEST: &str = "a_transaction_that_never_arrived_is_undone_for_good";
    if !available(TEST, &PROGRAMS) {
        return;
    }
    let daemon = StorageDaemon::start(&["a", "b"]);
    let before = daemon.graph();
    let proxy = Proxy::start(&daemon.qmp(), Fault::LoseRequest);
    let mut overlays = prepared(&daemon, &proxy.socket);
    let error = overlays.commit(deadline()).unwrap_err();
    assert!(
        matches!(error, CommitError::Unchanged(DiskFailure::Qmp(QmpError::Closed { .. }))),
        "{error:?}"
    );
    assert_eq!(overlays.rollback(deadline()).removed.len(), 2);
    assert_eq!(daemon.graph(), before);
    assert_eq!(files(daemon.directory.path()), ["a.qcow2", "b.qcow2"]);
}

#[test]
fn when_nobody_can_be_asked_the_outcome_is_unknown_and_nothing_is_removed() {
    const TEST: &str = "when_nobody_can_be_asked_the_outcome_is_unknown_and_nothing_is_removed";
    if !available(TEST, &PROGRAMS) {
        return;
    }
    let daemon = StorageDaemon::start(&["a", "b"]);
    let proxy = Proxy::start(&daemon.qmp(), Fault::LoseAnswerForGood);
    let mut overlays = prepared(&daemon, &proxy.socket).with_recheck(Duration::from_secs(2));
    let error = overlays.commit(deadline()).unwrap_err();
    assert!(matches!(error, CommitError::Unknown { .. }), "{error:?}");
    let report = overlays.rollback(deadline());
    assert!(report.removed.is_empty());
    for left in &report.left {
        assert!(matches!(left.reason, LeftReason::Unknown), "{left}");
    }
    assert_eq!(files(daemon.directory.path()), ["a-1.qcow2", "a.qcow2", "b-1.qcow2", "b.qcow2"]);
}

/// QEMU hangs: the plan ends at its deadline, and the commit does as well, with nothing changed.
#[test]
fn a_qemu_that_hangs_is_not_waited_for() {
    const TEST: &str = "a_qemu_that_hangs_is_not_waited_for";
    if !available(TEST, &PROGRAMS) {
        return;
    }
    let daemon = StorageDaemon::start(&["a", "b"]);
    let mut overlays = prepared(&daemon, &daemon.qmp());
    let frozen = daemon.freeze();
    let error = overlays.commit(Instant::now() + Duration::from_millis(200)).unwrap_err();
    assert!(
        matches!(error, CommitError::Unchanged(DiskFailure::Qmp(QmpError::TooSlow { .. }))),
        "{error:?}"
    );
    drop(frozen);
    assert_eq!(overlays.commit(deadline()).unwrap().len(), 2, "and it can be tried again");
}

#[test]
fn an_internal_snapshot_whose_answer_is_lost_is_found() {
    const TEST: &str = "an_internal_snapshot_whose_answer_is_lost_is_found";
    if !available(TEST, &PROGRAMS) {
        return;
    }
    for (fault, made) in [(Fault::LoseAnswer, true), (Fault::LoseRequest, false)] {
        let daemon = StorageDaemon::start(&["a"]);
        let proxy = Proxy::start(&daemon.qmp(), fault);
        let disk = LiveInternalSnapshot {
            vdev: "a".to_owned(),
            node: "a-qcow2".to_owned(),
            tag: "before".to_owned(),
        };
        let done = snapshot(&mut LiveInternal::new(&proxy.socket, vec![disk]), deadline());
        assert_eq!(done.is_ok(), made, "{fault:?}: {done:?}");
        if let Ok(done) = done {
            assert_eq!(done[0].warnings, [DiskWarning::QmpLost]);
        }
    }
}
