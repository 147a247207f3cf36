//! A guest with disks that QEMU serves, and what all of its two views say.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use libxl_config::model::DiskFormat;
use libxl_config::replace_image::{
    Image, ReplaceError, ReplaceImage, Replaced, Replacement, ViewState,
};
use libxl_config::retrieve::{Retrieved, Retriever};
use libxl_config::template::{
    DomId, MemoryStore, TemplateKey, TemplateStore, TemplateText, create,
};
use xenstored::{Embedded, Store};
use xsclient::{Client, Nodes, Options, Path, Reply, Request};

pub(crate) const GUEST: DomId = DomId::new(7);

pub(crate) fn key() -> TemplateKey {
    TemplateKey::new(GUEST, "5a1f0c5e-8a3d-4b52-9f0e-0d6a4a3a7c11".parse().unwrap())
}

pub(crate) fn later() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// A PV guest with the disks xvda and xvdb, on `/srv/a.img` and `/srv/b.img`, as libxl leaves it.
pub(crate) fn xenstore() -> Embedded {
    let mut lines = Vec::new();
    let mut put = |path: &str, value: &str, perms: &str| {
        lines.push(format!("{path} = \"{value}\"   ({perms})"));
    };
    put("/local/domain/0/name", "Domain-0", "n0");
    for (key, value) in [
        ("", ""),
        ("/vm", "/vm/5a1f0c5e-8a3d-4b52-9f0e-0d6a4a3a7c11"),
        ("/name", "web"),
        ("/cpu/0/availability", "online"),
        ("/memory/static-max", "262144"),
        ("/memory/target", "262144"),
        ("/memory/videoram", "0"),
    ] {
        put(&format!("/local/domain/7{key}"), value, "n0,r7");
    }
    put("/libxl/7", "", "n0");
    put("/libxl/7/type", "pv", "n0");
    for (number, vdev, image) in [(51712, "xvda", "/srv/a.img"), (51728, "xvdb", "/srv/b.img")] {
        let frontend = format!("/local/domain/7/device/vbd/{number}");
        let backend = format!("/local/domain/0/backend/qdisk/7/{number}");
        let toolstack = format!("/libxl/7/device/vbd/{number}");
        for (tree, state, perms) in [(&backend, "4", "n0,r7"), (&toolstack, "1", "n0")] {
            for (key, value) in [
                ("frontend", &*frontend),
                ("params", &format!("aio:{image}")),
                ("frontend-id", "7"),
                ("online", "1"),
                ("removable", "0"),
                ("bootable", "1"),
                ("state", state),
                ("dev", vdev),
                ("type", "qdisk"),
                ("mode", "w"),
                ("device-type", "disk"),
                ("discard-enable", "1"),
                ("specification", "xen"),
            ] {
                put(&format!("{tree}/{key}"), value, perms);
            }
        }
        put(&format!("{toolstack}/backend"), &backend, "n0");
        put(&format!("{frontend}/backend"), &backend, "n7,r0");
        put(&format!("{frontend}/backend-id"), "0", "n7,r0");
        put(&format!("{frontend}/state"), "4", "n7,r0");
    }
    Embedded::new(Store::from_text(lines.join("\n")).unwrap())
}

/// The guest's template, with keys that libxl does not know.
pub(crate) const TEMPLATE: &str = r#"{
    "c_info": { "type": "pv", "name": "web", "uuid": "5a1f0c5e-8a3d-4b52-9f0e-0d6a4a3a7c11" },
    "b_info": {
        "max_vcpus": 1, "avail_vcpus": [0], "max_memkb": 262144, "target_memkb": 262144, "video_memkb": 0,
        "sched_params": {}, "type.pv": {}, "arch_arm": {}, "arch_x86": {}
    },
    "disks": [
        { "pdev_path": "/srv/a.img", "vdev": "xvda", "format": "raw",   "readwrite": 1, "tier": 1.50 },
        {"format":"raw","readwrite":1,"vdev":"xvdb","pdev_path":"/srv/b.img"}
    ],
    "owner": "ops"
}"#;

pub(crate) fn templates() -> MemoryStore {
    let templates = MemoryStore::new();
    fill(&templates, TEMPLATE);
    templates
}

pub(crate) fn fill(templates: &dyn TemplateStore, text: &str) {
    create(templates, &key(), &TemplateText::new(text).unwrap(), later()).unwrap();
}

/// The template's octets, which are text.
pub(crate) fn text(templates: &dyn TemplateStore) -> String {
    String::from_utf8(templates.load(&key(), later()).unwrap().unwrap().octets).unwrap()
}

pub(crate) fn client(xenstore: &Embedded) -> Client {
    Client::over(Box::new(xenstore.transport(DomId::DOM0)), Options::default())
}

pub(crate) fn qcow2(vdev: &str, path: &str) -> Replacement {
    Replacement::new(vdev, Image::new(path, DiskFormat::Qcow2))
}

/// Both disks to overlays.
pub(crate) fn overlays() -> [Replacement; 2] {
    [qcow2("xvda", "/srv/a-1.qcow2"), qcow2("xvdb", "/srv/b-1.qcow2")]
}

/// [`TEMPLATE`] with the overlays.
pub(crate) fn template_with_overlays() -> String {
    let text = TEMPLATE.replace("/srv/a.img", "/srv/a-1.qcow2");
    text.replace("/srv/b.img", "/srv/b-1.qcow2").replace("\"raw\"", "\"qcow2\"")
}

pub(crate) fn replace(
    xenstore: &Embedded,
    templates: &dyn TemplateStore,
    asked: &[Replacement],
) -> Result<Replaced, ReplaceError> {
    ReplaceImage::new(&mut client(xenstore), templates).replace(GUEST, asked)
}

pub(crate) fn retrieve(client: &mut Client, templates: &dyn TemplateStore) -> Retrieved {
    Retriever::new(client, templates).retrieve(GUEST).unwrap()
}

/// The images of a configuration's disks: `xvda qcow2:/srv/a-1.qcow2`.
pub(crate) fn images(retrieved: &Retrieved) -> Vec<String> {
    let disks = retrieved.config.disks.iter();
    disks
        .map(|disk| {
            let (vdev, path) = (disk.vdev.as_deref().unwrap(), disk.pdev_path.as_deref().unwrap());
            format!("{vdev} {}:{path}", disk.format)
        })
        .collect()
}

pub(crate) fn apply(xenstore: &Embedded, request: Request) {
    assert_eq!(xenstore.apply(request), Reply::Ok);
}

pub(crate) fn write(path: &str, value: &str) -> Request {
    Request::Write { path: path.parse().unwrap(), value: value.as_bytes().to_vec() }
}

pub(crate) fn rm(path: &str) -> Request {
    Request::Rm(path.parse().unwrap())
}

/// The nodes that name the images of [`xenstore`].
pub(crate) fn params(vdev: &str) -> [String; 2] {
    let number = if vdev == "xvda" { 51712 } else { 51728 };
    [
        format!("/libxl/7/device/vbd/{number}/params"),
        format!("/local/domain/0/backend/qdisk/7/{number}/params"),
    ]
}

/// Every node with value and permissions.
pub(crate) type Whole = BTreeMap<String, (Vec<u8>, String)>;

/// The whole store of any server.
pub(crate) fn whole(client: &mut Client) -> Whole {
    let mut whole = Whole::new();
    let mut open: Vec<Path> =
        ["/local", "/libxl", "/vm"].map(|root| root.parse().unwrap()).to_vec();
    while let Some(path) = open.pop() {
        let Some(value) = client.read_optional(&path).unwrap() else { continue };
        let perms = client.get_perms(&path.clone().into()).unwrap().to_string();
        for name in client.directory(&path).unwrap() {
            open.push(path.join(name.as_str()).unwrap());
        }
        whole.insert(path.to_string(), (value, perms));
    }
    whole
}

/// Which nodes have another value; nodes and permissions must be the same.
pub(crate) fn changed(before: &Whole, after: &Whole) -> BTreeMap<String, String> {
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    let mut changed = BTreeMap::new();
    for ((path, (old, old_perms)), (new, new_perms)) in before.iter().zip(after.values()) {
        assert_eq!(old_perms, new_perms, "{path}");
        if old != new {
            changed.insert(path.clone(), String::from_utf8(new.clone()).unwrap());
        }
    }
    changed
}

/// Which images the live view of [`xenstore`] names, of [`overlays`].
pub(crate) fn live(xenstore: &Embedded) -> ViewState {
    let store = xenstore.snapshot();
    let mut values = Vec::new();
    for vdev in ["xvda", "xvdb"] {
        for path in params(vdev) {
            values.push(String::from_utf8(store.read(&path.parse().unwrap()).unwrap().into()));
        }
    }
    let values: Vec<String> = values.into_iter().map(Result::unwrap).collect();
    let twice = |a: &str, b: &str| [a, a, b, b].map(str::to_owned).to_vec();
    if values == twice("aio:/srv/a.img", "aio:/srv/b.img") {
        ViewState::Old
    } else if values == twice("qcow2:/srv/a-1.qcow2", "qcow2:/srv/b-1.qcow2") {
        ViewState::New
    } else {
        ViewState::Other
    }
}

/// Which images the template names, of [`overlays`].
pub(crate) fn template(templates: &dyn TemplateStore) -> ViewState {
    match text(templates) {
        text if text == TEMPLATE => ViewState::Old,
        text if text == template_with_overlays() => ViewState::New,
        _ => ViewState::Other,
    }
}
