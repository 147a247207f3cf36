//! Small hosts to retrieve from.

use std::time::{Duration, Instant};

use libxl_config::retrieve::{Retrieved, Retriever};
use libxl_config::template::{DomId, MemoryStore, TemplateKey, TemplateText, create};
use uuid::Uuid;
use xenstored::{Embedded, Store};
use xsclient::{Client, Options, Reply, Request};

/// The guest of [`xenstore`].
pub(crate) const GUEST: DomId = DomId::new(7);

pub(crate) fn uuid() -> Uuid {
    "5a1f0c5e-8a3d-4b52-9f0e-0d6a4a3a7c11".parse().unwrap()
}

pub(crate) fn key() -> TemplateKey {
    TemplateKey::new(GUEST, uuid())
}

pub(crate) fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

/// A PV guest with the disk xvda, as libxl leaves it.
pub(crate) fn xenstore() -> Embedded {
    let mut text =
        String::from("/local/domain/0/name = \"Domain-0\"   (n0)\n/libxl = \"\"   (n0)\n");
    for (path, value) in [
        ("/local/domain/7", ""),
        ("/local/domain/7/vm", "/vm/5a1f0c5e-8a3d-4b52-9f0e-0d6a4a3a7c11"),
        ("/local/domain/7/name", "web"),
        ("/local/domain/7/cpu/0/availability", "online"),
        ("/local/domain/7/memory/static-max", "262144"),
        ("/local/domain/7/memory/target", "262144"),
        ("/local/domain/7/memory/videoram", "0"),
        ("/libxl/7/type", "pv"),
        ("/libxl/7/dm-version", "qemu_xen"),
    ] {
        text += &format!("{path} = \"{value}\"   (n0,r7)\n");
    }
    // Loading needs parents first.
    let mut store = Store::new();
    for line in text.lines() {
        let (path, rest) = line.split_once(" = \"").unwrap();
        let value = rest.split_once("\"   (").unwrap().0;
        store.write(&path.parse().unwrap(), value.as_bytes()).unwrap();
    }
    let xenstore = Embedded::new(store);
    disk("xvda", 51712, "4").into_iter().for_each(|request| apply(&xenstore, request));
    xenstore
}

/// What plugging a disk writes.
pub(crate) fn disk(vdev: &str, number: u32, state: &str) -> Vec<Request> {
    let frontend = format!("/local/domain/7/device/vbd/{number}");
    let backend = format!("/local/domain/0/backend/vbd/7/{number}");
    let toolstack = format!("/libxl/7/device/vbd/{number}");
    let params = format!("/srv/{vdev}.img");
    let mut writes = Vec::new();
    let mut put = |directory: &str, key: &str, value: &str| {
        let path = format!("{directory}/{key}").parse().unwrap();
        writes.push(Request::Write { path, value: value.as_bytes().to_vec() });
    };
    for tree in [&backend, &toolstack] {
        for (key, value) in [
            ("frontend", frontend.as_str()),
            ("params", &params),
            ("script", "/etc/xen/scripts/block"),
            ("frontend-id", "7"),
            ("online", "1"),
            ("removable", "0"),
            ("bootable", "1"),
            ("dev", vdev),
            ("type", "phy"),
            ("mode", "w"),
            ("device-type", "disk"),
            ("discard-enable", "1"),
            ("specification", "xen"),
        ] {
            put(tree, key, value);
        }
    }
    put(&backend, "state", state);
    put(&backend, "hotplug-status", "connected");
    put(&toolstack, "state", "1");
    put(&toolstack, "backend", &backend);
    put(&frontend, "backend", &backend);
    put(&frontend, "backend-id", "0");
    put(&frontend, "state", state);
    writes
}

pub(crate) fn apply(xenstore: &Embedded, request: Request) {
    assert_eq!(xenstore.apply(request), Reply::Ok);
}

pub(crate) fn write(path: &str, value: &str) -> Request {
    Request::Write { path: path.parse().unwrap(), value: value.as_bytes().to_vec() }
}

/// The template of the guest with these disks.
pub(crate) fn template(vdevs: &[&str]) -> TemplateText {
    let disks = vdevs.iter().map(|vdev| {
        format!(r#"{{ "pdev_path": "/srv/{vdev}.img", "vdev": "{vdev}", "format": "raw", "readwrite": 1 }}"#)
    });
    let disks = disks.collect::<Vec<_>>().join(", ");
    let json = format!(
        r#"{{
            "c_info": {{ "type": "pv", "name": "web", "uuid": "{}" }},
            "b_info": {{
                "max_vcpus": 1, "avail_vcpus": [0], "max_memkb": 262144, "target_memkb": 262144, "video_memkb": 0,
                "sched_params": {{}}, "type.pv": {{}}, "arch_arm": {{}}, "arch_x86": {{}}
            }},
            "disks": [{disks}]
        }}"#,
        uuid(),
    );
    TemplateText::new(json).unwrap()
}

pub(crate) fn templates(vdevs: &[&str]) -> MemoryStore {
    let templates = MemoryStore::new();
    create(&templates, &key(), &template(vdevs), deadline()).unwrap();
    templates
}

pub(crate) fn client(xenstore: &Embedded) -> Client {
    Client::over(Box::new(xenstore.transport(DomId::DOM0)), Options::default())
}

/// One plain retrieve of the guest.
pub(crate) fn retrieve(xenstore: &Embedded, templates: &MemoryStore) -> Retrieved {
    Retriever::new(&mut client(xenstore), templates).retrieve(GUEST).unwrap()
}

pub(crate) fn vdevs(retrieved: &Retrieved) -> Vec<&str> {
    retrieved.config.disks.iter().map(|disk| disk.vdev.as_deref().unwrap()).collect()
}
