//! A commit whose process died: what QEMU is found to show, and what is undone.

use snapshot::NoLog;
use snapshot::disk::qmp::{QmpClient, TransactionAction};
use snapshot::disk::{
    DiskAction, DiskFailure, DiskSnapshotter, LiveInternal, LiveInternalSnapshot, LiveOverlay,
    LiveOverlays, OverlayIntent, OverlaysAre, PivotState, pivot_state, recover_internal,
    recover_overlays, snapshot,
};

use crate::nbd::NbdDisk;
use crate::programs::{StorageDaemon, available, content, deadline, files};
use crate::proxy::{Fault, Proxy};

const PROGRAMS: [&str; 2] = ["qemu-img", "qemu-storage-daemon"];

/// Prepares, and dies: only what a journal would keep is left, and the files.
fn prepared(daemon: &StorageDaemon) -> Vec<OverlayIntent> {
    let disks = ["a", "b"].map(|disk| {
        let path = daemon.path(&format!("{disk}-1.qcow2"));
        LiveOverlay::new(disk, format!("{disk}-qcow2"), path, format!("{disk}-1"))
    });
    let mut overlays = LiveOverlays::new(daemon.qmp(), disks.to_vec());
    overlays.intents().unwrap_err();
    overlays.prepare(&mut NoLog, deadline()).unwrap();
    let journal = serde_json::to_string(&overlays.intents().unwrap()).unwrap();
    serde_json::from_str(&journal).unwrap()
}

fn client(daemon: &StorageDaemon) -> QmpClient {
    QmpClient::connect(&daemon.qmp(), deadline()).unwrap()
}

/// As if QEMU had not been asked to open these.
fn unopened(daemon: &StorageDaemon, intents: &[OverlayIntent]) {
    let mut client = client(daemon);
    for OverlayIntent { overlay_node, .. } in intents {
        client.delete_node(overlay_node, deadline()).unwrap();
    }
}

/// Does what a commit does.
fn put_in_place(daemon: &StorageDaemon, intents: &[OverlayIntent]) {
    let action = |intent: &OverlayIntent| TransactionAction::Snapshot {
        node: intent.node.clone(),
        overlay: intent.overlay_node.clone(),
    };
    let actions: Vec<_> = intents.iter().map(action).collect();
    client(daemon).transaction(&actions, deadline()).unwrap();
}

fn state(daemon: &StorageDaemon, intent: &OverlayIntent) -> PivotState {
    pivot_state(&daemon.qmp(), intent, deadline()).unwrap()
}

#[test]
fn killed_before_the_commit_nothing_has_changed() {
    const TEST: &str = "killed_before_the_commit_nothing_has_changed";
    if !available(TEST, &PROGRAMS) {
        return;
    }
    let daemon = StorageDaemon::start(&["a", "b"]);
    let before = daemon.graph();
    let intents = prepared(&daemon);
    assert_ne!(daemon.graph(), before, "QEMU has the overlays open");
    assert_eq!(state(&daemon, &intents[0]), PivotState::Old { leftover: true });
    for _ in 0..2 {
        let found = recover_overlays(&daemon.qmp(), &intents, deadline()).unwrap();
        assert_eq!(found, OverlaysAre::Unchanged);
    }
    assert_eq!(daemon.graph(), before);
}

#[test]
fn killed_between_opening_the_overlays_and_the_transaction_they_are_closed_again() {
    const TEST: &str =
        "killed_between_opening_the_overlays_and_the_transaction_they_are_closed_again";
    if !available(TEST, &PROGRAMS) {
        return;
    }
    for opened in 0..=2 {
        let daemon = StorageDaemon::start(&["a", "b"]);
        let before = daemon.graph();
        let intents = prepared(&daemon);
        unopened(&daemon, &intents[opened..]);
        for (at, intent) in intents.iter().enumerate() {
            assert_eq!(state(&daemon, intent), PivotState::Old { leftover: at < opened });
        }
        let found = recover_overlays(&daemon.qmp(), &intents, deadline()).unwrap();
        assert_eq!(found, OverlaysAre::Unchanged);
        assert_eq!(daemon.graph(), before);
        for OverlayIntent { overlay, .. } in &intents {
            let file = snapshot::CreatedFile {
                path: overlay.path.clone(),
                dev: overlay.dev,
                ino: overlay.ino,
                born_ns: None,
            };
            // Not while QEMU has it open.
            file.remove().unwrap();
        }
        assert_eq!(files(daemon.directory.path()), ["a.qcow2", "b.qcow2"]);
        // Nothing is in the way of the next one.
        put_in_place(&daemon, &prepared(&daemon));
    }
}

#[test]
fn killed_after_the_transaction_it_is_told_as_the_commit_would_have() {
    const TEST: &str = "killed_after_the_transaction_it_is_told_as_the_commit_would_have";
    if !available(TEST, &PROGRAMS) {
        return;
    }
    let daemon = StorageDaemon::start(&["a", "b"]);
    let mut guest = NbdDisk::open(&daemon.nbd(), "a");
    guest.write(0, &[1; 512]).unwrap();
    let intents = prepared(&daemon);
    put_in_place(&daemon, &intents);
    guest.write(0, &[2; 512]).unwrap();
    for _ in 0..2 {
        let found = recover_overlays(&daemon.qmp(), &intents, deadline()).unwrap();
        let OverlaysAre::Pivoted(done) = found else { panic!("{found:?}") };
        for (intent, disk) in intents.iter().zip(&done) {
            let overlay = intent.overlay.path.clone();
            assert_eq!(disk.action, DiskAction::ExternalQcow2 { overlay });
            assert!(disk.active.is_same_file(&intent.overlay));
            assert!(disk.frozen.is_same_file(&intent.base));
            assert_eq!(disk.warnings, []);
            assert_eq!(
                state(&daemon, intent),
                PivotState::New { node: intent.overlay_node.clone() }
            );
        }
        // What the guest wrote since is in the overlay.
        assert_eq!(content(&done[0].frozen.path, "qcow2", 512), [1; 512]);
    }
}

/// The real commit, killed by way of its connection, which its process would take along.
#[test]
fn a_commit_whose_answer_never_came_is_found_carried_out() {
    const TEST: &str = "a_commit_whose_answer_never_came_is_found_carried_out";
    if !available(TEST, &PROGRAMS) {
        return;
    }
    let daemon = StorageDaemon::start(&["a"]);
    let proxy = Proxy::start(&daemon.qmp(), Fault::LoseAnswerForGood);
    let disk = LiveOverlay::new("a", "a-qcow2", daemon.path("a-1.qcow2"), "a-1");
    let mut overlays = LiveOverlays::new(&proxy.socket, vec![disk])
        .with_recheck(std::time::Duration::from_millis(50));
    overlays.prepare(&mut NoLog, deadline()).unwrap();
    let intents = overlays.intents().unwrap();
    overlays.commit(deadline()).unwrap_err();
    let found = recover_overlays(&daemon.qmp(), &intents, deadline()).unwrap();
    assert!(matches!(found, OverlaysAre::Pivoted(done) if done.len() == 1));
}

#[test]
fn disks_of_which_only_one_is_in_its_overlay_are_nobodys_to_undo() {
    const TEST: &str = "disks_of_which_only_one_is_in_its_overlay_are_nobodys_to_undo";
    if !available(TEST, &PROGRAMS) {
        return;
    }
    let daemon = StorageDaemon::start(&["a", "b"]);
    let intents = prepared(&daemon);
    put_in_place(&daemon, &intents[..1]);
    let before = daemon.graph();
    let error = recover_overlays(&daemon.qmp(), &intents, deadline()).unwrap_err();
    let DiskFailure::Mixed { pivoted, others } = error else { panic!("{error:?}") };
    assert_eq!((pivoted, others), (vec!["a".to_owned()], vec!["b".to_owned()]));
    assert_eq!(daemon.graph(), before, "something was undone");
}

#[test]
fn a_disk_that_is_in_another_image_is_neither() {
    const TEST: &str = "a_disk_that_is_in_another_image_is_neither";
    if !available(TEST, &PROGRAMS) {
        return;
    }
    let daemon = StorageDaemon::start(&["a", "b"]);
    let mut intents = prepared(&daemon);
    let before = daemon.graph();
    intents[0].node = "b-qcow2".to_owned();
    assert_eq!(state(&daemon, &intents[0]), PivotState::Neither);
    let error = recover_overlays(&daemon.qmp(), &intents, deadline()).unwrap_err();
    assert!(matches!(error, DiskFailure::Graph { .. }), "{error:?}");
    // Another node than that of the journal has the overlay open.
    intents[0].node = "a-qcow2".to_owned();
    intents[0].overlay_node = "a-2".to_owned();
    assert_eq!(state(&daemon, &intents[0]), PivotState::Neither);
    assert_eq!(daemon.graph(), before, "something was undone");
}

#[test]
fn internal_snapshots_of_a_dead_commit_are_deleted_and_no_others() {
    const TEST: &str = "internal_snapshots_of_a_dead_commit_are_deleted_and_no_others";
    if !available(TEST, &PROGRAMS) {
        return;
    }
    let daemon = StorageDaemon::start(&["a", "b"]);
    let disks = |tag: &str| {
        let disk = |disk: &str| LiveInternalSnapshot {
            vdev: disk.to_owned(),
            node: format!("{disk}-qcow2"),
            tag: tag.to_owned(),
        };
        vec![disk("a"), disk("b")]
    };
    snapshot(&mut LiveInternal::new(daemon.qmp(), disks("kept")), deadline()).unwrap();
    let mut internal = LiveInternal::new(daemon.qmp(), disks("dead"));
    internal.intents().unwrap_err();
    internal.prepare(&mut NoLog, deadline()).unwrap();
    let journal = serde_json::to_string(&internal.intents().unwrap()).unwrap();
    let mut intents: Vec<snapshot::disk::TagIntent> = serde_json::from_str(&journal).unwrap();
    let none = recover_internal(&daemon.qmp(), &intents, deadline()).unwrap();
    assert!(none.is_empty());
    internal.commit(deadline()).unwrap();
    drop(internal);
    let tags = || {
        let mut client = QmpClient::connect(&daemon.qmp(), deadline()).unwrap();
        let nodes = client.nodes(deadline()).unwrap();
        let nodes = nodes.into_iter().filter(|node| node.driver == "qcow2");
        let tags = nodes.flat_map(|node| node.image.snapshots).map(|snapshot| snapshot.name);
        tags.collect::<Vec<_>>()
    };
    assert_eq!(tags(), ["kept", "dead", "kept", "dead"]);
    assert_eq!(recover_internal(&daemon.qmp(), &intents, deadline()).unwrap(), ["a", "b"]);
    assert_eq!(tags(), ["kept", "kept"]);
    intents[0].tag = "kept".to_owned();
    intents[0].node = "b-qcow2".to_owned();
    let error = recover_internal(&daemon.qmp(), &intents, deadline()).unwrap_err();
    assert!(matches!(error, DiskFailure::Refused { .. }), "{error:?}");
    assert_eq!(tags(), ["kept", "kept"]);
}
