//! Killed at every step: each view names the old images or the new ones, `retrieve` says which, and the same call again
//! completes what is missing.

use std::path::Path;
use std::time::{Duration, Instant};

use xenstored::{Embedded, Store};
use xsclient::{Client, DomId, Endpoint, Nodes, Options};

use super::{Image, ReplaceImage, Replacement};
use crate::model::DiskFormat;
use crate::retrieve::{DeviceClass, Retriever};
use crate::template::processes::{Player, await_parent, role};
use crate::template::steps::DIE_AFTER;
use crate::template::{TemplateKey, TemplateStore, TemplateText, UserdataDir, create};

/// The test that the killed processes are.
const REPLACER: &str = "replace_image::crashes::a_replacer_to_be_killed";

const GUEST: DomId = DomId::new(7);

const TEMPLATE: &str = r#"{
    "c_info": { "type": "pv", "name": "web", "uuid": "5a1f0c5e-8a3d-4b52-9f0e-0d6a4a3a7c11" },
    "b_info": { "type.pv": { } },
    "disks": [
        { "pdev_path": "/srv/a.img", "vdev": "xvda", "format": "raw", "readwrite": 1, "tier": 1.50 },
        { "pdev_path": "/srv/b.img", "vdev": "xvdb", "format": "raw", "readwrite": 1 }
    ]
}"#;

fn key() -> TemplateKey {
    TemplateKey::new(GUEST, "5a1f0c5e-8a3d-4b52-9f0e-0d6a4a3a7c11".parse().unwrap())
}

fn xenstore() -> Embedded {
    let mut store = Store::new();
    let mut put = |path: String, value: &str| {
        store.write(&path.parse().unwrap(), value.as_bytes()).unwrap();
    };
    put("/local/domain/7/vm".into(), "/vm/5a1f0c5e-8a3d-4b52-9f0e-0d6a4a3a7c11");
    put("/local/domain/7/name".into(), "web");
    for (number, vdev, image) in [(51712, "xvda", "/srv/a.img"), (51728, "xvdb", "/srv/b.img")] {
        let backend = format!("/local/domain/0/backend/qdisk/7/{number}");
        let toolstack = format!("/libxl/7/device/vbd/{number}");
        let frontend = format!("/local/domain/7/device/vbd/{number}");
        for directory in [&backend, &toolstack] {
            put(format!("{directory}/params"), &format!("aio:{image}"));
            put(format!("{directory}/dev"), vdev);
            put(format!("{directory}/type"), "qdisk");
            put(format!("{directory}/mode"), "w");
            put(format!("{directory}/frontend"), &frontend);
            put(format!("{directory}/device-type"), "disk");
            put(format!("{directory}/online"), "1");
            put(format!("{directory}/state"), "4");
        }
        put(format!("{toolstack}/backend"), &backend);
        put(format!("{frontend}/backend"), &backend);
        put(format!("{frontend}/state"), "4");
    }
    Embedded::new(store)
}

fn asked() -> [Replacement; 2] {
    ["a", "b"].map(|disk| {
        let overlay = Image::new(format!("/srv/{disk}-1.qcow2"), DiskFormat::Qcow2);
        Replacement::new(format!("xvd{disk}"), overlay)
    })
}

fn client(directory: &Path) -> Client {
    Client::open(Endpoint::UnixSocket(directory.join("socket")), Options::default()).unwrap()
}

fn later() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

#[test]
fn a_replacer_to_be_killed() {
    let Some((_, directory)) = role() else { return };
    await_parent();
    let templates = UserdataDir::open(&directory).unwrap();
    let mut client = client(&directory);
    ReplaceImage::new(&mut client, &templates).replace(GUEST, &asked()).unwrap();
}

/// What `params` of both disks name, in both places.
fn live(directory: &Path) -> Vec<String> {
    let mut client = client(directory);
    let mut params = Vec::new();
    for number in [51712, 51728] {
        for place in ["/libxl/7/device/vbd", "/local/domain/0/backend/qdisk/7"] {
            let path = format!("{place}/{number}/params").parse().unwrap();
            params.push(client.read_text(&path).unwrap());
        }
    }
    params
}

#[test]
fn killed_at_every_step_each_view_is_old_or_new_and_the_same_call_completes_it() {
    let old = ["aio:/srv/a.img", "aio:/srv/a.img", "aio:/srv/b.img", "aio:/srv/b.img"];
    let new = [
        "qcow2:/srv/a-1.qcow2",
        "qcow2:/srv/a-1.qcow2",
        "qcow2:/srv/b-1.qcow2",
        "qcow2:/srv/b-1.qcow2",
    ];
    for (step, live_is_new, template_is_new) in [
        ("userdata: locked", false, false),
        ("replace: locked", false, false),
        ("replace: written in the transaction", false, false),
        ("replace: committed", true, false),
        ("userdata: next written", true, false),
        ("userdata: next synced", true, false),
        ("userdata: renamed", true, true),
        ("userdata: names synced", true, true),
        ("replace: template written", true, true),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let xenstore = xenstore();
        let _server = xenstore.serve_unix(path.join("socket")).unwrap();
        let templates = UserdataDir::open(path).unwrap();
        create(&templates, &key(), &TemplateText::new(TEMPLATE).unwrap(), later()).unwrap();

        let mut replacer = Player::start(REPLACER, "replacer", path, &[(DIE_AFTER, step)]);
        replacer.go_on();
        assert!(!replacer.end().success(), "{step} was not reached");

        assert_eq!(live(path), if live_is_new { new } else { old }, "{step}");
        let found = templates.load(&key(), later()).unwrap().unwrap();
        assert_eq!(found.octets == TEMPLATE.as_bytes(), !template_is_new, "{step}");
        let mut client = client(path);
        let retrieved = Retriever::new(&mut client, &templates).retrieve(GUEST).unwrap();
        let named = retrieved.config.disks[0].pdev_path.as_deref();
        assert_eq!(named, Some(if live_is_new { "/srv/a-1.qcow2" } else { "/srv/a.img" }));
        let report = retrieved.report.device(DeviceClass::Disk, "xvdb").unwrap();
        assert_eq!(
            !report.changes.is_empty(),
            live_is_new != template_is_new,
            "{step}: {report:?}"
        );

        let replaced = ReplaceImage::new(&mut client, &templates).replace(GUEST, &asked()).unwrap();
        assert_eq!(replaced.before == replaced.after, template_is_new, "{step}");
        assert_eq!(live(path), new, "{step}");
        let expected = TEMPLATE
            .replace("a.img", "a-1.qcow2")
            .replace("b.img", "b-1.qcow2")
            .replace("\"raw\"", "\"qcow2\"");
        let found = templates.load(&key(), later()).unwrap().unwrap();
        assert_eq!(String::from_utf8(found.octets).unwrap(), expected, "{step}");
    }
}
