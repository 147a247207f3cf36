//! Repairs of what others left, and beside what others do.

use std::sync::mpsc;
use std::time::Duration;

use xsclient::Nodes;

use super::host::{GUEST, Host, connect, hotplug, key, later};
use crate::hotplug::simulated::{Behaviour, Guest};
use crate::hotplug::{AttachError, DetachError, Mend, Mended, Timeouts, begin};
use crate::retrieve::{Attachment, DeviceClass, Missing, Presence};
use crate::template::{UserdataDir, steps};

fn xvdb() -> crate::hotplug::DeviceName {
    crate::hotplug::DeviceName::parse(DeviceClass::Disk, "xvdb").unwrap()
}

/// What `xl block-attach` of a qcow2 image does to a guest without a QEMU: it exits with 0, and nothing ever connects.
#[test]
fn a_disk_that_waits_for_a_qemu_that_is_not_there_is_half_attached_and_undone() {
    let host = Host::new().with_qemu();
    host.behave(Behaviour { backends: false, guest: Guest::Absent });
    let mut client = host.client();
    let short = Duration::from_millis(100);
    let timeouts = Timeouts { backend: short, undo: short, ..Timeouts::default() };
    // As xl leaves it: nodes and template, and nobody to undo it.
    let templates = UserdataDir::open(host.path("templates")).unwrap();
    steps::at("attach: unlocked", || panic!("as if it ended here"));
    let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let scripts = host.directory.path();
        hotplug(&mut client, &templates, scripts).attach(GUEST, &host.qcow2("xvdb"))
    }));
    assert!(died.is_err());
    for gone in ["/libxl/7/domkeep", "/local/domain/0/device-model"] {
        host.client().rm(&gone.parse().unwrap()).unwrap();
    }
    let report = host.report(DeviceClass::Disk, "xvdb").unwrap();
    let missing = Missing::BackendDriver;
    let half =
        Attachment::HalfAttached { backend_state: crate::retrieve::BackendState(1), missing };
    assert_eq!((report.presence, report.attachment), (Presence::Both, half));
    let repaired = host
        .plug(|hotplug| hotplug.timeouts(timeouts).repair(GUEST, &xvdb(), Mend::Finish))
        .unwrap();
    let Mended::Detached { because: Some(because) } = repaired.mended else {
        panic!("{repaired:?}")
    };
    assert!(because.contains("did not take the device up"), "{because}");
    host.assert_bare();
}

#[test]
fn a_repair_beside_a_running_attach_waits_for_it() {
    let host = Host::new();
    let (started, has_started) = mpsc::channel();
    let (go, may_go) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            steps::at("attach: backend waits", move || {
                started.send(()).unwrap();
                may_go.recv().unwrap();
            });
            host.plug(|mut hotplug| hotplug.attach(GUEST, &host.disk("xvdb"))).unwrap();
        });
        has_started.recv().unwrap();
        let none = Timeouts { lock: Duration::ZERO, ..Timeouts::default() };
        let claimed = host
            .plug(|hotplug| hotplug.timeouts(none).repair(GUEST, &xvdb(), Mend::Undo))
            .unwrap_err();
        assert!(matches!(claimed, DetachError::Claimed { .. }), "{claimed}");
        assert!(claimed.to_string().contains("is claimed: attach by process"), "{claimed}");
        let claimed =
            host.plug(|hotplug| hotplug.timeouts(none).detach(GUEST, &xvdb())).unwrap_err();
        assert!(matches!(claimed, DetachError::Claimed { .. }), "{claimed}");
        let repair = scope
            .spawn(|| host.plug(|mut hotplug| hotplug.repair(GUEST, &xvdb(), Mend::Undo)).unwrap());
        go.send(()).unwrap();
        let repaired = repair.join().unwrap();
        assert_eq!(repaired.mended, Mended::Nothing, "{repaired:?}");
    });
    let report = host.report(DeviceClass::Disk, "xvdb").unwrap();
    assert_eq!((report.presence, report.attachment), (Presence::Both, Attachment::Connected));
}

/// As a lost template, created again from nothing, or an old libxl leave it.
#[test]
fn a_device_that_only_one_view_has_is_brought_into_line() {
    let host = Host::new();
    let disk = host.disk("xvdb");
    let id = host.plug(|mut hotplug| hotplug.attach(GUEST, &disk)).unwrap().id;
    let mut begun = begin(&host.templates, &key(), later()).unwrap();
    begun.remove(id);
    begun.commit(later()).unwrap();
    let all = host.plug(|mut hotplug| hotplug.repair_all(GUEST, Mend::Finish)).unwrap();
    let [(of, Ok(repaired))] = &all[..] else { panic!("{all:?}") };
    assert_eq!((*of, &repaired.mended), (id, &Mended::EntryAdded));
    let report = host.report(DeviceClass::Disk, "xvdb").unwrap();
    assert_eq!((report.presence, report.changes), (Presence::Both, vec![]));
    assert_eq!(host.template().disks[0].pdev_path, Some(host.path("a.img")));
    assert!(host.plug(|mut hotplug| hotplug.repair_all(GUEST, Mend::Finish)).unwrap().is_empty());
}

/// `xl block-detach` while the script of an attach is still to run.
#[test]
fn an_attach_whose_device_is_removed_by_somebody_else_says_so() {
    let host = Host::new();
    let socket = host.socket.clone();
    steps::at("attach: script done", move || {
        let mut client = connect(&socket);
        for path in
            ["/libxl/7/device/vbd", "/local/domain/7/device/vbd", "/local/domain/0/backend/vbd"]
        {
            client.rm(&path.parse().unwrap()).unwrap();
        }
    });
    let error = host.plug(|mut hotplug| hotplug.attach(GUEST, &host.disk("xvdb"))).unwrap_err();
    let AttachError::Failed { source, left, .. } = error else { panic!("{error:?}") };
    assert!(matches!(*source, crate::hotplug::StepError::Vanished), "{source:?}");
    assert_eq!(left, crate::hotplug::Left::Nothing);
    host.assert_bare();
}
