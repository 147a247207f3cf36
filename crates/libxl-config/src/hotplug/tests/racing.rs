//! Several at once: in this process, in others, and with libxl's lock protocol.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::host::{GUEST, Host, connect, hotplug, key, later};
use crate::hotplug::simulated::{Behaviour, Guest};
use crate::hotplug::{AttachError, DeviceName, Mend, begin, spec};
use crate::retrieve::{Attachment, DeviceClass, Presence};
use crate::template::UserdataDir;
use crate::template::processes::{Player, await_parent, role};

#[test]
fn of_two_that_attach_one_disk_at_once_one_does() {
    let host = Host::new();
    let attached: Vec<_> = std::thread::scope(|scope| {
        let run = || host.plug(|mut hotplug| hotplug.attach(GUEST, &host.disk("xvdb")));
        let all: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(attached.iter().filter(|one| one.is_ok()).count(), 1, "{attached:?}");
    for error in attached.into_iter().filter_map(Result::err) {
        let told = matches!(error, AttachError::Exists { .. } | AttachError::Claimed { .. });
        assert!(told, "{error:?}");
    }
    let report = host.report(DeviceClass::Disk, "xvdb").unwrap();
    assert_eq!((report.presence, report.attachment), (Presence::Both, Attachment::Connected));
    assert_eq!(host.template().disks.len(), 1);
}

#[test]
fn nics_that_come_at_once_get_numbers_of_their_own() {
    let host = Host::new();
    let nic = spec::nic("").unwrap().into();
    let devids: BTreeSet<u32> = std::thread::scope(|scope| {
        let run = || host.plug(|mut hotplug| hotplug.attach(GUEST, &nic)).unwrap().id.devid;
        let all: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(devids, BTreeSet::from([0, 1, 2, 3]));
    assert_eq!(host.template().nics.len(), 4);
    host.assert_truthful();
}

#[test]
fn attach_and_detach_of_one_disk_at_once_end_in_one_of_both() {
    let host = Host::new();
    let xvdb = DeviceName::parse(DeviceClass::Disk, "xvdb").unwrap();
    for _ in 0..5 {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                host.plug(|mut hotplug| hotplug.attach(GUEST, &host.disk("xvdb")).is_ok())
            });
            scope.spawn(|| host.plug(|mut hotplug| hotplug.detach(GUEST, &xvdb).is_ok()));
        });
        match host.report(DeviceClass::Disk, "xvdb") {
            None => host.assert_bare(),
            Some(report) => {
                let both = (Presence::Both, Attachment::Connected);
                assert_eq!((report.presence, report.attachment), both);
                host.plug(|mut hotplug| hotplug.detach(GUEST, &xvdb)).unwrap();
            }
        }
        host.assert_bare();
    }
}

const WRITER: &str = "hotplug::tests::racing::a_writer_beside";

/// Adds its own disks one by one, under libxl's lock, as xl does.
#[test]
fn a_writer_beside() {
    let Some((_, directory)) = role() else { return };
    await_parent();
    let templates = UserdataDir::open(directory.join("templates")).unwrap();
    for number in 0..10 {
        let mut begun = begin(&templates, &key(), later()).unwrap();
        let disk = spec::disk(&format!("vdev=xvdz{number},target=/srv/x")).unwrap();
        begun.add(&disk.into()).unwrap();
        begun.commit(later()).unwrap();
    }
}

#[test]
fn a_process_that_heeds_the_lock_and_writes_at_the_same_time_loses_nothing_and_neither_does_this() {
    let host = Host::new();
    let mut writer = Player::start(WRITER, "writer", host.directory.path(), &[]);
    writer.go_on();
    for letter in ["b", "c", "d", "e", "f"] {
        let disk = host.disk(&format!("xvd{letter}"));
        host.plug(|mut hotplug| hotplug.attach(GUEST, &disk)).unwrap();
    }
    assert!(writer.end().success());
    assert_eq!(host.template().disks.len(), 15);
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Attach(u8),
    Detach(u8),
    Repair(u8),
    Scripts(bool),
    Holds(bool),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (0..3_u8).prop_map(Act::Attach),
        2 => (0..3_u8).prop_map(Act::Detach),
        1 => (0..3_u8).prop_map(Act::Repair),
        1 => any::<bool>().prop_map(Act::Scripts),
        1 => any::<bool>().prop_map(Act::Holds),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn after_any_sequence_both_views_agree_or_the_report_says_so(acts in prop::collection::vec(act(), 1..8)) {
        let host = Host::new();
        let mut client = connect(&host.socket);
        let short = crate::hotplug::Timeouts {
            let_go: std::time::Duration::from_millis(50),
            undo: std::time::Duration::from_millis(50),
            ..crate::hotplug::Timeouts::default()
        };
        let vdev = |n: u8| format!("xvd{}", char::from(b'b' + n));
        let name = |n: u8| DeviceName::parse(DeviceClass::Disk, &vdev(n)).unwrap();
        for act in acts {
            let mut hotplug =
                hotplug(&mut client, &host.templates, host.directory.path()).timeouts(short);
            match act {
                Act::Attach(n) => drop(hotplug.attach(GUEST, &host.disk(&vdev(n)))),
                Act::Detach(n) => drop(hotplug.detach(GUEST, &name(n))),
                Act::Repair(n) => drop(hotplug.repair(GUEST, &name(n), Mend::Finish)),
                Act::Scripts(work) => host.scripts(if work { "ok" } else { "fail" }),
                Act::Holds(holds) => host.behave(Behaviour {
                    guest: if holds { Guest::Holds } else { Guest::Connects },
                    ..Behaviour::default()
                }),
            }
            host.assert_truthful();
        }
        host.scripts("ok");
        host.behave(Behaviour::default());
        for n in 0..3 {
            // What is half detached is finished; what is attached is detached.
            drop(hotplug(&mut client, &host.templates, host.directory.path()).detach(GUEST, &name(n)));
        }
        host.assert_bare();
    }
}
