//! One device at a time, and everything that can go wrong with it.

use std::time::Duration;

use stock_xenstore::Kind;
use xsclient::Nodes;

use super::host::{GUEST, Host, TEMPLATE, key, later, nodes};
use crate::hotplug::simulated::{Behaviour, Guest};
use crate::hotplug::{
    AttachError, DetachError, Device, DeviceId, DeviceName, Left, Refusal, ScriptError, StepError,
    Timeouts, begin, spec,
};
use crate::retrieve::{Attachment, DeviceClass, Presence};
use crate::template::TemplateStore;

fn name(class: DeviceClass, text: &str) -> DeviceName {
    DeviceName::parse(class, text).unwrap()
}

fn plugged_and_unplugged(host: &Host) {
    let nic: Device = spec::nic("bridge=br1,mac=00:16:3e:00:00:01").unwrap().into();
    for (device, label) in [
        (host.disk("xvdb"), "xvdb"),
        (host.qcow2("xvdc"), "xvdc"),
        (nic, "0"),
        (host.share("share"), "0"),
    ] {
        let attached = host.plug(|mut hotplug| hotplug.attach(GUEST, &device)).unwrap();
        assert_eq!(attached.attachment, Attachment::Connected, "{label}");
        assert_eq!(attached.id.to_string(), format!("{} {label}", device.class()));
        let report = host.report(device.class(), label).unwrap();
        assert_eq!((report.presence, report.attachment), (Presence::Both, Attachment::Connected));
        assert_eq!((report.changes, report.problems), (vec![], vec![]), "{label}");
        let again = host.plug(|mut hotplug| hotplug.attach(GUEST, &with_id(&device, attached.id)));
        assert!(matches!(again, Err(AttachError::Exists { .. })), "{again:?}");
        let detached = host.plug(|mut hotplug| hotplug.detach(GUEST, &attached.id.into())).unwrap();
        assert!(detached.was_in_template && detached.was_in_xenstore, "{detached:?}");
        assert_eq!(detached.script_error, None);
        host.assert_bare();
    }
}

/// The device with the number that was chosen for it.
fn with_id(device: &Device, id: DeviceId) -> Device {
    let devid = crate::model::DevId::new(i32::try_from(id.devid).unwrap());
    match device.clone() {
        Device::Nic(nic) => crate::model::Nic { devid, ..*nic }.into(),
        Device::P9(p9) => Device::P9(crate::model::P9 { devid, ..p9 }),
        disk @ Device::Disk(_) => disk,
    }
}

#[test]
fn every_kind_of_device_comes_and_goes_in_both_views() {
    let host = Host::new().with_qemu();
    plugged_and_unplugged(&host);
    let calls = host.calls();
    assert_eq!(
        calls,
        [
            "block add backend/vbd/7/51728 ",
            "block remove backend/vbd/7/51728 ",
            "vif-bridge online type_if=vif backend/vif/7/0 vif7.0",
            "vif-bridge offline type_if=vif backend/vif/7/0 vif7.0",
        ]
    );
}

#[test]
fn every_kind_of_device_comes_and_goes_on_the_stock_daemons() {
    let test = "every_kind_of_device_comes_and_goes_on_the_stock_daemons";
    for kind in [Kind::C, Kind::OCaml] {
        let Some(host) = Host::stock(test, kind) else { return };
        plugged_and_unplugged(&host.with_qemu());
    }
}

#[test]
fn nics_and_shares_without_a_number_get_one_that_nobody_has() {
    let host = Host::new().with_qemu();
    let nic: Device = spec::nic("").unwrap().into();
    for expected in [0, 1] {
        let attached = host.plug(|mut hotplug| hotplug.attach(GUEST, &nic)).unwrap();
        assert_eq!(attached.id.devid, expected);
    }
    for (expected, tag) in [(0, "a"), (1, "b")] {
        let attached = host.plug(|mut hotplug| hotplug.attach(GUEST, &host.share(tag))).unwrap();
        assert_eq!(attached.id.devid, expected);
    }
    let nics = host.template().nics;
    assert_eq!(nics[1].devid.get(), Some(1));
    assert!(nics[0].mac.to_string().starts_with("00:16:3e:") && nics[0].mac != nics[1].mac);
    let mac = name(DeviceClass::Nic, &nics[0].mac.to_string());
    host.plug(|mut hotplug| hotplug.detach(GUEST, &mac)).unwrap();
    host.plug(|mut hotplug| hotplug.detach(GUEST, &name(DeviceClass::P9, "a"))).unwrap();
    host.assert_truthful();
    assert_eq!(host.report(DeviceClass::P9, "1").unwrap().presence, Presence::Both);
    assert_eq!(host.report(DeviceClass::Nic, "1").unwrap().presence, Presence::Both);
}

#[test]
fn what_needs_a_qemu_is_refused_without_one_and_without_a_trace() {
    let host = Host::new();
    for device in [host.qcow2("xvdb"), host.share("share")] {
        let error = host.plug(|mut hotplug| hotplug.attach(GUEST, &device)).unwrap_err();
        assert!(
            error.to_string().contains("needs a QEMU that serves the domain already"),
            "{error}"
        );
        host.assert_bare();
    }
    let host = host.with_qemu();
    let gone = "/local/domain/7/image/device-model-pid".parse().unwrap();
    host.client().write(&gone, b"4194305").unwrap();
    let error = host.plug(|mut hotplug| hotplug.attach(GUEST, &host.qcow2("xvdb"))).unwrap_err();
    assert!(error.to_string().contains("it was process 4194305, which is gone"), "{error}");
}

#[test]
fn everything_that_speaks_against_a_device_is_said_at_once() {
    let host = Host::new();
    let refused = |text: &str| {
        let device: Device = spec::disk(text).unwrap().into();
        match host.plug(|mut hotplug| hotplug.attach(GUEST, &device)) {
            Err(AttachError::Refused { refusals, .. }) => refusals,
            other => panic!("{text}: {other:?}"),
        }
    };
    let several = refused("vdev=xvdb,backend=4,target=/nosuch");
    assert!(matches!(
        several[..],
        [Refusal::DriverDomain { .. }, Refusal::NoImage { kind: std::io::ErrorKind::NotFound, .. }]
    ));
    assert!(matches!(refused("vdev=xvdb,target=/dev/null")[..], [Refusal::NotAnImage { .. }]));
    assert!(matches!(
        refused("vdev=hdc,cdrom,target=/dev/null")[..],
        [Refusal::Unsupported { field: "is_cdrom", .. }, ..]
    ));
    let image = host.path("a.img");
    assert!(matches!(
        refused(&format!("vdev=xvdb,script=nosuch,target={image}"))[..],
        [Refusal::NoScript { .. }]
    ));
    let qcow2 = format!("vdev=xvdb,backendtype=phy,format=qcow2,target={image}");
    assert!(matches!(refused(&qcow2)[..], [Refusal::NotRaw { .. }]));
    host.assert_bare();
}

#[test]
fn a_domain_or_template_that_is_not_there_is_named() {
    let host = Host::new();
    let other = "9".parse().unwrap();
    let error = host.plug(|mut hotplug| hotplug.attach(other, &host.disk("xvdb"))).unwrap_err();
    assert!(error.to_string().contains("no domain 9"), "{error}");
    crate::template::forget(&host.templates, &key(), later()).unwrap();
    let error = host.plug(|mut hotplug| hotplug.attach(GUEST, &host.disk("xvdb"))).unwrap_err();
    assert!(error.to_string().contains("the store has none"), "{error}");
    assert_eq!(host.nodes_below("/libxl/7/device").len(), 1);
}

#[test]
fn a_failing_script_is_undone_and_its_words_are_in_the_error() {
    let host = Host::new();
    host.scripts("fail");
    let error = host.plug(|mut hotplug| hotplug.attach(GUEST, &host.disk("xvdb"))).unwrap_err();
    let AttachError::Failed { left: Left::Nothing, source, .. } = error else {
        panic!("{error:?}")
    };
    let StepError::Script { source: ScriptError::Failed { status, said, .. }, .. } = *source else {
        panic!("{source:?}")
    };
    assert_eq!((status.code(), said.as_str()), (Some(3), "no loop device"));
    host.assert_bare();
    host.scripts("lie");
    let error = host.plug(|mut hotplug| hotplug.attach(GUEST, &host.disk("xvdb"))).unwrap_err();
    let AttachError::Failed { left: Left::Nothing, source, .. } = error else {
        panic!("{error:?}")
    };
    assert!(matches!(*source, StepError::HotplugError { error } if error == "no loop device"));
    host.assert_bare();
}

#[test]
fn a_script_that_hangs_is_killed_and_undone() {
    let host = Host::new();
    host.scripts("hang");
    let timeouts = Timeouts { script: Duration::from_millis(300), ..Timeouts::default() };
    let error = host
        .plug(|hotplug| hotplug.timeouts(timeouts).attach(GUEST, &host.disk("xvdb")))
        .unwrap_err();
    let AttachError::Failed { left: Left::Nothing, source, .. } = error else {
        panic!("{error:?}")
    };
    assert!(matches!(*source, StepError::Script { source: ScriptError::TimedOut { .. }, .. }));
    host.assert_bare();
}

#[test]
fn a_backend_that_does_not_begin_is_undone() {
    let host = Host::new();
    host.behave(Behaviour { backends: false, ..Behaviour::default() });
    let short = Duration::from_millis(200);
    let timeouts = Timeouts { backend: short, undo: short, ..Timeouts::default() };
    let error = host
        .plug(|hotplug| hotplug.timeouts(timeouts).attach(GUEST, &host.disk("xvdb")))
        .unwrap_err();
    let AttachError::Failed { left: Left::Nothing, source, .. } = error else {
        panic!("{error:?}")
    };
    assert!(matches!(*source, StepError::NoBackend { state: Some(1), .. }), "{source:?}");
    host.assert_bare();
}

#[test]
fn a_guest_without_a_driver_keeps_the_device_and_it_is_said() {
    let host = Host::new();
    host.behave(Behaviour { guest: Guest::Absent, ..Behaviour::default() });
    let timeouts = Timeouts { connect: Duration::from_millis(200), ..Timeouts::default() };
    let attached =
        host.plug(|hotplug| hotplug.timeouts(timeouts).attach(GUEST, &host.disk("xvdb"))).unwrap();
    assert_eq!(attached.attachment, Attachment::WaitingForFrontend);
    let report = host.report(DeviceClass::Disk, "xvdb").unwrap();
    assert_eq!(report.attachment, Attachment::WaitingForFrontend);
    host.plug(|mut hotplug| hotplug.detach(GUEST, &attached.id.into())).unwrap();
    host.assert_bare();
}

#[test]
fn a_guest_that_holds_a_device_is_named_and_it_can_be_taken_away() {
    let host = Host::new();
    host.plug(|mut hotplug| hotplug.attach(GUEST, &host.disk("xvdb"))).unwrap();
    host.behave(Behaviour { guest: Guest::Holds, ..Behaviour::default() });
    let xvdb = name(DeviceClass::Disk, "xvdb");
    let timeouts = Timeouts { let_go: Duration::from_millis(200), ..Timeouts::default() };
    let held = host.plug(|hotplug| hotplug.timeouts(timeouts).detach(GUEST, &xvdb)).unwrap_err();
    let DetachError::Failed { source, .. } = held else { panic!("{held:?}") };
    assert!(matches!(*source, StepError::NotLetGo { backend: Some(5), frontend: Some(4) }));
    let report = host.report(DeviceClass::Disk, "xvdb").unwrap();
    assert!(matches!(report.attachment, Attachment::HalfDetached { .. }), "{report:?}");
    assert_eq!(host.template().disks.len(), 1);
    host.plug(|hotplug| hotplug.force(true).detach(GUEST, &xvdb)).unwrap();
    host.assert_bare();
}

#[test]
fn a_backend_that_writes_over_the_request_to_close_is_asked_again() {
    let host = Host::new();
    let id = host.plug(|mut hotplug| hotplug.attach(GUEST, &host.disk("xvdb"))).unwrap().id;
    host.behave(Behaviour { guest: Guest::Holds, ..Behaviour::default() });
    let state: xsclient::Path = "/local/domain/0/backend/vbd/7/51728/state".parse().unwrap();
    let mut client = host.client();
    let watch = client.watch(state.clone(), None).unwrap();
    std::thread::scope(|scope| {
        let detaching = scope.spawn(|| host.plug(|mut hotplug| hotplug.detach(GUEST, &id.into())));
        while client.read(&state).unwrap() != b"5" {
            client.next_event(&watch, Duration::from_secs(20)).unwrap().expect("it is closed");
        }
        client.write(&state, b"4").unwrap();
        host.behave(Behaviour::default());
        detaching.join().unwrap().unwrap();
    });
    host.assert_bare();
}

#[test]
fn a_device_of_one_view_only_is_taken_out_of_that() {
    let host = Host::new();
    let disk = host.disk("xvdb");
    let id = host.plug(|mut hotplug| hotplug.attach(GUEST, &disk)).unwrap().id;
    let mut begun = begin(&host.templates, &key(), later()).unwrap();
    begun.remove(id).unwrap();
    begun.commit(later()).unwrap();
    let detached = host.plug(|mut hotplug| hotplug.detach(GUEST, &id.into())).unwrap();
    assert!(detached.was_in_xenstore && !detached.was_in_template);
    host.assert_bare();
    let mut begun = begin(&host.templates, &key(), later()).unwrap();
    begun.add(&disk).unwrap();
    begun.commit(later()).unwrap();
    let detached = host.plug(|mut hotplug| hotplug.detach(GUEST, &id.into())).unwrap();
    assert!(!detached.was_in_xenstore && detached.was_in_template);
    host.assert_bare();
    let nothing = host.plug(|mut hotplug| hotplug.detach(GUEST, &id.into()));
    assert!(matches!(nothing, Err(DetachError::NoSuchDevice { .. })), "{nothing:?}");
}

/// What `xl block-detach` leaves: it does not write the template.
#[test]
fn a_stale_entry_is_replaced_and_put_back_when_attaching_fails() {
    let stale =
        r#""disks": [{ "pdev_path": "/srv/old", "vdev": "xvdb", "format": "raw" }], "owner""#;
    let host = Host::of(&nodes(), &TEMPLATE.replace("\"owner\"", stale));
    host.scripts("fail");
    host.plug(|mut hotplug| hotplug.attach(GUEST, &host.disk("xvdb"))).unwrap_err();
    assert_eq!(host.template().disks[0].pdev_path.as_deref(), Some("/srv/old"));
    host.scripts("ok");
    let attached = host.plug(|mut hotplug| hotplug.attach(GUEST, &host.disk("xvdb"))).unwrap();
    assert!(attached.replaced_entry);
    assert_eq!(host.template().disks.len(), 1);
    assert_eq!(host.template().disks[0].pdev_path, Some(host.path("a.img")));
}

#[test]
fn what_is_left_of_a_removed_device_is_not_overwritten() {
    let host = Host::new();
    let left = "/local/domain/0/backend/vbd/7/51728/state".parse().unwrap();
    host.client().write(&left, b"5").unwrap();
    let error = host.plug(|mut hotplug| hotplug.attach(GUEST, &host.disk("xvdb"))).unwrap_err();
    assert!(matches!(error, AttachError::Occupied { .. }), "{error}");
}

#[test]
fn a_begun_change_that_is_dropped_leaves_the_template_and_its_lock() {
    let host = Host::new();
    let before = host.templates.load(&key(), later()).unwrap();
    let mut begun = begin(&host.templates, &key(), later()).unwrap();
    begun.add(&host.disk("xvdb")).unwrap();
    assert_eq!(begun.config().disks.len(), 1);
    assert!(begin(&host.templates, &key(), std::time::Instant::now()).is_err(), "it is locked");
    drop(begun);
    assert_eq!(host.templates.load(&key(), later()).unwrap(), before);
    let mut begun = begin(&host.templates, &key(), later()).unwrap();
    begun.add(&host.disk("xvdb")).unwrap();
    begun.abort();
    assert_eq!(host.templates.load(&key(), later()).unwrap(), before);
}
