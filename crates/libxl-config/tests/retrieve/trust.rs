//! Values that are hostile, broken, or written by whom they should not be.

use libxl_config::retrieve::{
    Attachment, BackendState, DeviceClass, DeviceNote, RetrieveError, Retriever, Source, Unseen,
};
use libxl_config::template::MemoryStore;
use xsclient::Request;

use crate::hosts::{self, apply, disk, retrieve, templates, vdevs, write};

fn set(path: &str, value: &[u8]) -> Request {
    Request::Write { path: path.parse().unwrap(), value: value.to_vec() }
}

#[test]
fn a_guest_cannot_point_to_the_backend_of_another_domain() {
    for says_whose in [true, false] {
        let xenstore = hosts::xenstore();
        for (path, value) in [
            ("/local/domain/9/device/vbd/51712/backend", "/local/domain/0/backend/vbd/7/51712"),
            ("/local/domain/9/name", "thief"),
        ] {
            apply(&xenstore, write(path, value));
        }
        if !says_whose {
            let frontend = "/local/domain/0/backend/vbd/7/51712/frontend";
            apply(&xenstore, Request::Rm(frontend.parse().unwrap()));
        }
        let store = MemoryStore::new();
        let mut client = hosts::client(&xenstore);
        let retrieved =
            Retriever::new(&mut client, &store).retrieve(xsclient::DomId::new(9)).unwrap();
        assert!(retrieved.config.disks.is_empty(), "{:?}", retrieved.config.disks);
        assert!(retrieved.report.devices.iter().all(|device| !device.in_configuration));
    }
}

/// No toolstack's tree says where the backend is; so the guest must not be believed about one that is not another's.
#[test]
fn a_guest_cannot_name_a_backend_that_does_not_name_it() {
    for (owner, back) in [(9, Some("/local/domain/9/device/vbd/51712")), (3, None)] {
        let xenstore = hosts::xenstore();
        let backend = format!("/local/domain/{owner}/backend/vbd/9/51712");
        for (path, value) in [
            ("/local/domain/9/name".to_owned(), "thief"),
            ("/local/domain/9/device/vbd/51712/backend".to_owned(), backend.as_str()),
            (format!("{backend}/params"), "/etc/shadow"),
            (format!("{backend}/type"), "phy"),
            (format!("{backend}/state"), "4"),
        ] {
            apply(&xenstore, write(&path, value));
        }
        if let Some(back) = back {
            apply(&xenstore, write(&format!("{backend}/frontend"), back));
        }
        let store = MemoryStore::new();
        let retrieved = Retriever::new(&mut hosts::client(&xenstore), &store)
            .retrieve(xsclient::DomId::new(9))
            .unwrap();
        assert!(retrieved.config.disks.is_empty(), "{owner}: {:?}", retrieved.config.disks);
        let [xvda] = &retrieved.report.devices[..] else { panic!("{:?}", retrieved.report) };
        assert_eq!((xvda.note, xvda.in_configuration), (Some(DeviceNote::TooLittleKnown), false));
    }
}

#[test]
fn a_guest_cannot_have_one_backend_twice() {
    let xenstore = hosts::xenstore();
    let backend = "/local/domain/3/backend/vbd/9/51712";
    for (path, value) in [
        ("/local/domain/9/device/vbd/51712/backend".to_owned(), backend),
        ("/local/domain/9/device/vbd/51728/backend".to_owned(), backend),
        (format!("{backend}/frontend"), "/local/domain/9/device/vbd/51712"),
        (format!("{backend}/params"), "/srv/a"),
        (format!("{backend}/state"), "4"),
    ] {
        apply(&xenstore, write(&path, value));
    }
    let retrieved = Retriever::new(&mut hosts::client(&xenstore), &MemoryStore::new())
        .retrieve(xsclient::DomId::new(9))
        .unwrap();
    assert_eq!(vdevs(&retrieved), ["xvda"]);
    assert_eq!(retrieved.config.disks[0].backend_domid.get(), 3);
}

/// Domkeep in a domain that may read nothing of this one, or no more than that it is there.
#[test]
fn what_the_server_refuses_to_show_is_not_taken_for_what_is_not_there() {
    let xenstore = hosts::xenstore();
    let store = templates(&["xvda"]);
    let retrieve_as = |domid| {
        let transport = xenstore.transport(xsclient::DomId::new(domid));
        let mut client = xsclient::Client::over(Box::new(transport), xsclient::Options::default());
        Retriever::new(&mut client, &store).retrieve(hosts::GUEST)
    };
    let error = retrieve_as(3).unwrap_err();
    assert!(matches!(error, RetrieveError::Refused { .. }), "{error}");
    assert_eq!(error.to_string(), "domain 7: Xenstore refuses to show /local/domain/7 (EACCES)");

    let shown = "/local/domain/7".parse().unwrap();
    apply(&xenstore, Request::SetPerms { path: shown, perms: "n0,r7".parse().unwrap() });
    let retrieved = retrieve_as(7).unwrap();
    assert_eq!(vdevs(&retrieved), ["xvda"]);
    assert_eq!(retrieved.report.devices[0].note, Some(DeviceNote::KeptUnseen));
    let refused = |unseen: &Unseen| matches!(unseen, Unseen::Refused { path, .. } if path == "/libxl/7/device");
    assert!(retrieved.report.unseen.iter().any(refused), "{:?}", retrieved.report.unseen);
}

#[test]
fn what_the_guest_writes_never_wins_over_what_the_toolstack_wrote() {
    let xenstore = hosts::xenstore();
    let frontend = "/local/domain/7/device/vbd/51712";
    for (key, value) in
        [("backend", "/local/domain/7/fake"), ("params", "/etc/shadow"), ("device-type", "cdrom")]
    {
        apply(&xenstore, write(&format!("{frontend}/{key}"), value));
    }
    let retrieved = retrieve(&xenstore, &templates(&["xvda"]));
    let xvda = retrieved.report.device(DeviceClass::Disk, "xvda").unwrap();
    assert!(xvda.changes.is_empty() && xvda.problems.is_empty(), "{xvda:?}");
    assert_eq!(xvda.attachment, Attachment::Connected);
}

#[test]
fn without_a_toolstack_tree_devices_are_found_by_their_frontends_and_the_report_says_so() {
    let xenstore = hosts::xenstore();
    apply(&xenstore, Request::Rm("/libxl/7".parse().unwrap()));
    let retrieved = retrieve(&xenstore, &MemoryStore::new());
    assert_eq!(vdevs(&retrieved), ["xvda"]);
    assert_eq!(retrieved.config.disks[0].pdev_path.as_deref(), Some("/srv/xvda.img"));
    assert!(retrieved.report.unseen.contains(&Unseen::NoToolstackTree));
}

#[test]
fn a_device_that_the_toolstack_removed_while_an_end_is_left_is_half_detached() {
    let xenstore = hosts::xenstore();
    for request in disk("xvdb", 51728, "5") {
        apply(&xenstore, request);
    }
    apply(&xenstore, Request::Rm("/libxl/7/device/vbd/51728".parse().unwrap()));
    let half = Attachment::HalfDetached { backend_state: Some(BackendState(5)) };
    let retrieved = retrieve(&xenstore, &templates(&["xvda"]));
    let xvdb = retrieved.report.device(DeviceClass::Disk, "xvdb").unwrap();
    assert_eq!(
        (&xvdb.attachment, xvdb.note, xvdb.in_configuration),
        (&half, Some(DeviceNote::Leftover), false)
    );
    // Detached, but still in the template, which libxl does not change when it unplugs.
    let retrieved = retrieve(&xenstore, &templates(&["xvda", "xvdb"]));
    let xvdb = retrieved.report.device(DeviceClass::Disk, "xvdb").unwrap();
    assert_eq!(
        (&xvdb.attachment, xvdb.note, xvdb.in_configuration),
        (&half, Some(DeviceNote::LeftOut), false)
    );
    assert_eq!(retrieved.report.devices.len(), 2);
}

/// Not every toolstack writes a `type`.
#[test]
fn a_toolstack_tree_is_one_whether_or_not_it_tells_the_type() {
    let xenstore = hosts::xenstore();
    apply(&xenstore, Request::Rm("/libxl/7/type".parse().unwrap()));
    for request in disk("xvdb", 51728, "5") {
        apply(&xenstore, request);
    }
    apply(&xenstore, Request::Rm("/libxl/7/device/vbd/51728".parse().unwrap()));
    let retrieved = retrieve(&xenstore, &templates(&["xvda"]));
    assert!(!retrieved.report.unseen.contains(&Unseen::NoToolstackTree));
    assert_eq!(vdevs(&retrieved), ["xvda"]);
    let xvdb = retrieved.report.device(DeviceClass::Disk, "xvdb").unwrap();
    assert_eq!(xvdb.note, Some(DeviceNote::Leftover));
}

#[test]
fn broken_values_of_knobs_are_named_and_the_templates_stand() {
    let xenstore = hosts::xenstore();
    for (path, value) in [
        ("/local/domain/7/name", &b"\xff\xfe\x00"[..]),
        ("/local/domain/7/memory/target", b"lots"),
        ("/local/domain/7/memory/static-max", b"99999999999999999999999999"),
        ("/local/domain/7/cpu/0/availability", b"maybe"),
        ("/local/domain/7/cpu/4000000000/availability", b"online"),
    ] {
        apply(&xenstore, set(path, value));
    }
    let retrieved = retrieve(&xenstore, &templates(&["xvda"]));
    let config = &retrieved.config;
    assert_eq!(config.c_info.name.as_deref(), Some("web"));
    assert_eq!(
        (config.b_info.target_memkb.get(), config.b_info.max_memkb.get()),
        (Some(262_144), Some(262_144))
    );
    for (field, what) in [
        ("c_info.name", "not UTF-8"),
        ("b_info.target_memkb", "\"lots\" is not a number"),
        ("b_info.max_memkb", "is not a number"),
        ("b_info.avail_vcpus[0]", "\"maybe\" is not online or offline"),
        ("b_info.avail_vcpus[4000000000]", "no such CPU"),
    ] {
        let knob = retrieved
            .report
            .knob(field)
            .unwrap_or_else(|| panic!("{field}: {:?}", retrieved.report.knobs));
        let problem = knob.problem.as_ref().unwrap_or_else(|| panic!("{knob:?}"));
        assert!(problem.what.contains(what), "{field}: {problem:?}");
    }
    assert_eq!(vdevs(&retrieved), ["xvda"]);
    assert!(!retrieved.report.is_clean());
}

#[test]
fn a_broken_knob_without_a_template_comes_from_nowhere() {
    let xenstore = hosts::xenstore();
    apply(&xenstore, write("/local/domain/7/cpu/0/availability", "maybe"));
    let retrieved = retrieve(&xenstore, &MemoryStore::new());
    let cpu = retrieved.report.knob("b_info.avail_vcpus[0]").unwrap();
    assert!(cpu.problem.is_some());
    assert_eq!(cpu.source, Source::Nowhere);
}

#[test]
fn broken_values_of_a_device_are_named_and_the_rest_of_it_is_taken() {
    let xenstore = hosts::xenstore();
    let huge = vec![b'x'; 4000];
    for (key, value) in [
        ("params", &b"/srv/\xff.img"[..]),
        ("mode", b"x"),
        ("removable", b"yes"),
        ("script", &huge),
        ("device-type", b"cdrom"),
    ] {
        apply(&xenstore, set(&format!("/libxl/7/device/vbd/51712/{key}"), value));
    }
    let retrieved = retrieve(&xenstore, &templates(&["xvda"]));
    let disk = &retrieved.config.disks[0];
    assert_eq!(
        (disk.pdev_path.as_deref(), disk.readwrite, disk.removable),
        (Some("/srv/xvda.img"), 1, 0)
    );
    assert_eq!(disk.is_cdrom, 1, "the one good difference is taken");
    let xvda = retrieved.report.device(DeviceClass::Disk, "xvda").unwrap();
    let at: Vec<&str> = xvda.problems.iter().map(|problem| problem.at.as_str()).collect();
    assert_eq!(at, ["params", "removable", "mode"]);
}

#[test]
fn devices_of_an_unknown_kind_are_counted_and_not_dropped_silently() {
    let xenstore = hosts::xenstore();
    apply(
        &xenstore,
        write("/libxl/7/device/teleporter/0/backend", "/local/domain/0/backend/teleporter/7/0"),
    );
    let retrieved = retrieve(&xenstore, &templates(&["xvda"]));
    let unknown = Unseen::UnknownKind { kind: "teleporter".into(), devices: 1 };
    assert!(retrieved.report.unseen.contains(&unknown), "{:?}", retrieved.report.unseen);
}
