//! A host of any size: its Xenstore, and its templates.

use std::fmt::Write;

use libxl_config::template::{DomId, TemplateKey, TemplateText};
use uuid::Uuid;

/// The domid of the first guest.
pub(crate) const FIRST: u16 = 1;

/// The guest number `n` as libxl 4.17 leaves it: two disks, a network card, a console.
pub(crate) fn uuid(domid: u16) -> Uuid {
    Uuid::from_u128(0x0b5e_55ed_0000_4000_8000_0000_0000_0000 | u128::from(domid))
}

/// What `xenstore-ls -fp` would print of a host with so many guests.
pub(crate) fn xenstore(guests: u16) -> String {
    let mut text = String::new();
    let mut put = |path: &str, value: &str, perms: &str| {
        writeln!(text, "{path} = \"{value}\"   ({perms})")
            .expect("writing to a string cannot fail");
    };
    for (path, value) in [
        ("/tool", ""),
        ("/local", ""),
        ("/local/domain", ""),
        ("/local/domain/0", ""),
        ("/local/domain/0/name", "Domain-0"),
        ("/local/domain/0/domid", "0"),
        ("/local/domain/0/memory", ""),
        ("/local/domain/0/memory/target", "1572864"),
        ("/local/domain/0/memory/static-max", "1572864"),
        ("/local/domain/0/backend", ""),
        ("/local/domain/0/backend/vbd", ""),
        ("/local/domain/0/backend/vif", ""),
        ("/local/domain/0/backend/console", ""),
        ("/vm", ""),
        ("/libxl", ""),
    ] {
        put(path, value, "n0");
    }
    for domid in FIRST..FIRST + guests {
        guest(domid, &mut put);
    }
    text
}

fn guest(d: u16, put: &mut impl FnMut(&str, &str, &str)) {
    let uuid = uuid(d);
    let (shown, guests, both) = (format!("n0,r{d}"), format!("n{d}"), format!("n{d},r0"));
    let base = format!("/local/domain/{d}");
    for (key, value) in [
        ("", String::new()),
        ("/vm", format!("/vm/{uuid}")),
        ("/name", format!("guest{d}")),
        ("/domid", d.to_string()),
        ("/cpu", String::new()),
        ("/cpu/0", String::new()),
        ("/cpu/0/availability", "online".into()),
        ("/cpu/1", String::new()),
        ("/cpu/1/availability", "online".into()),
        ("/memory", String::new()),
        ("/memory/static-max", "262144".into()),
        ("/memory/target", "262144".into()),
        ("/memory/videoram", "0".into()),
        ("/device", String::new()),
        ("/device/suspend", String::new()),
        ("/device/vbd", String::new()),
        ("/device/vif", String::new()),
        ("/control", String::new()),
        ("/store", String::new()),
        ("/store/port", "1".into()),
        ("/console", String::new()),
        ("/console/backend", format!("/local/domain/0/backend/console/{d}/0")),
        ("/console/type", "xenconsoled".into()),
    ] {
        put(&format!("{base}{key}"), &value, &shown);
    }
    put(&format!("{base}/data"), "", &guests);
    put(&format!("/libxl/{d}"), "", "n0");
    put(&format!("/libxl/{d}/type"), "pv", "n0");
    put(&format!("/libxl/{d}/dm-version"), "qemu_xen", "n0");
    for kind in ["", "/vbd", "/vif", "/console"] {
        put(&format!("/libxl/{d}/device{kind}"), "", "n0");
    }
    for kind in ["vbd", "vif", "console"] {
        put(&format!("/local/domain/0/backend/{kind}/{d}"), "", "n0");
    }
    put(&format!("/vm/{uuid}"), "", &shown);
    put(&format!("/vm/{uuid}/uuid"), &uuid.to_string(), &shown);
    put(&format!("/vm/{uuid}/name"), &format!("guest{d}"), &shown);

    let mut device =
        |kind: &str, id: u32, frontend: &str, keys: &[(&str, String)], status: &str| {
            let backend = format!("/local/domain/0/backend/{kind}/{d}/{id}");
            let generic = [
                ("frontend", frontend.to_owned()),
                ("frontend-id", d.to_string()),
                ("online", "1".to_owned()),
            ];
            put(&backend, "", &shown);
            let copy = format!("/libxl/{d}/device/{kind}/{id}");
            put(&copy, "", "n0");
            put(&format!("{copy}/backend"), &backend, "n0");
            put(&format!("{copy}/state"), "1", "n0");
            for (key, value) in generic
                .iter()
                .map(|(key, value)| (*key, value))
                .chain(keys.iter().map(|(k, v)| (*k, v)))
            {
                put(&format!("{backend}/{key}"), value, &shown);
                put(&format!("{copy}/{key}"), value, "n0");
            }
            put(&format!("{backend}/state"), if kind == "console" { "1" } else { "4" }, &shown);
            if !status.is_empty() {
                put(&format!("{backend}/hotplug-status"), status, &shown);
                put(&format!("{backend}/feature-persistent"), "1", &shown);
                put(frontend, "", &both);
                put(&format!("{frontend}/backend"), &backend, &both);
                put(&format!("{frontend}/state"), "4", &both);
                put(&format!("{frontend}/event-channel"), "8", &both);
            }
        };
    for (number, vdev) in [(51712, "xvda"), (51728, "xvdb")] {
        let keys = [
            ("params", format!("/srv/{d}-{vdev}.img")),
            ("script", "/etc/xen/scripts/block".into()),
            ("removable", "0".into()),
            ("bootable", "1".into()),
            ("dev", vdev.into()),
            ("type", "phy".into()),
            ("mode", "w".into()),
            ("device-type", "disk".into()),
            ("discard-enable", "1".into()),
            ("specification", "xen".into()),
        ];
        device("vbd", number, &format!("{base}/device/vbd/{number}"), &keys, "connected");
    }
    let nic = [
        ("script", "/etc/xen/scripts/vif-bridge".to_owned()),
        ("mac", mac(d)),
        ("bridge", "xenbr0".into()),
        ("handle", "0".into()),
        ("type", "vif".into()),
    ];
    device("vif", 0, &format!("{base}/device/vif/0"), &nic, "connected");
    device("console", 0, &format!("{base}/console"), &[("protocol", "vt100".to_owned())], "");
}

fn mac(d: u16) -> String {
    format!("00:16:3e:00:{:02x}:{:02x}", d >> 8, d & 0xff)
}

/// The template of a guest, as libxl 4.17 writes it.
pub(crate) fn template(d: u16) -> (TemplateKey, TemplateText) {
    let json = format!(
        r#"{{
    "c_info": {{ "type": "pv", "name": "guest{d}", "domid": 4294967295, "uuid": "{uuid}", "run_hotplug_scripts": "True" }},
    "b_info": {{
        "max_vcpus": 2, "avail_vcpus": [0, 1], "max_memkb": 262144, "target_memkb": 262144, "video_memkb": 0,
        "sched_params": {{}}, "claim_mode": "True", "kernel": "/boot/vmlinuz", "cmdline": "root=/dev/xvda console=hvc0",
        "type.pv": {{}}, "arch_arm": {{}}, "arch_x86": {{ "msr_relaxed": "False" }}
    }},
    "disks": [
        {{ "pdev_path": "/srv/{d}-xvda.img", "vdev": "xvda", "format": "raw", "readwrite": 1 }},
        {{ "pdev_path": "/srv/{d}-xvdb.img", "vdev": "xvdb", "format": "raw", "readwrite": 1 }}
    ],
    "nics": [{{ "devid": 0, "mac": "{mac}", "bridge": "xenbr0", "nictype": "vif" }}],
    "on_reboot": "restart"
}}
"#,
        uuid = uuid(d),
        mac = mac(d),
    );
    let text = TemplateText::new(json).expect("written out above, not empty and not long");
    (TemplateKey::new(DomId::new(d), uuid(d)), text)
}
