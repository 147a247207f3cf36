//! What is written beside what libxl 4.17 wrote for the same device on a real host.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use xsclient::DomId;

use crate::hotplug::plan::{Facts, Plan};
use crate::hotplug::refusal::DeviceModel;
use crate::hotplug::{Device, DeviceId};
use crate::template::{TemplateStore, UserdataDir};
use crate::{DomainConfig, Mode};

fn capture(name: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/captures/xen-4.17");
    Some(folder.join(name)).filter(|path| path.is_dir())
}

/// Nodes of one directory as the capture has them.
fn captured(text: &str, directory: &str) -> Vec<String> {
    let of =
        |line: &&str| line.strip_prefix(directory).is_some_and(|rest| rest.starts_with([' ', '/']));
    text.lines().filter(of).map(str::to_owned).collect()
}

/// What the drivers, scripts and QEMU write later, and the states that they change.
fn is_toolstacks(line: &str, domid: u16) -> bool {
    let later = [
        "feature-",
        "multi-queue",
        "max-ring",
        "node ",
        "physical-",
        "hotplug-status",
        "discard-gran",
        "discard-align",
        "discard-secure",
        "sectors",
        "info ",
        "sector-size",
        "ring-ref",
        "event-channel",
        "versions",
        "max-rings",
        "state ",
        "tx-ring",
        "rx-ring",
        "request-",
    ];
    let key = line.split(" = ").next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
    let key = format!("{key} ");
    let of_vif = line.contains("/vif/") && line.starts_with("/libxl");
    let status = key.starts_with("hotplug-status") && of_vif;
    let state = key == "state " && line.starts_with(&format!("/libxl/{domid}"));
    status || state || !later.iter().any(|one| key.starts_with(one))
}

#[test]
fn the_keys_and_permissions_are_those_that_libxl_wrote() {
    let mut compared = 0;
    for (name, domid) in
        [("02-block-attach", 1), ("14-create-pvq", 3), ("19-create-pvh", 4), ("19-create-pvh", 5)]
    {
        let Some(capture) = capture(name) else {
            println!("skipped: the_keys_and_permissions_are_those_that_libxl_wrote: no captures");
            return;
        };
        let text = fs::read_to_string(capture.join("xenstore.txt")).unwrap();
        let templates = UserdataDir::open(&capture).unwrap();
        let domid = DomId::new(domid);
        let later = Instant::now() + std::time::Duration::from_secs(20);
        let keys = templates.keys_of(domid, later).unwrap();
        let Some(key) = keys.first() else { continue };
        // Reading a captured template needs its lock, which would be written beside it.
        let file = format!("userdata-d.{domid}.{}.libxl-json", key.uuid);
        let octets = fs::read(capture.join(file)).unwrap();
        let config = DomainConfig::read_userdata(&octets, Mode::Lenient).unwrap().config;
        let kind = text.lines().find_map(|line| {
            line.strip_prefix(&format!("/libxl/{domid}/type = \""))?.split('"').next()
        });
        let facts = Facts {
            domain_type: kind.map(str::to_owned),
            device_model: DeviceModel::Running { pid: None },
            script_directory: "/etc/xen/scripts".to_owned(),
        };
        let devices = (config.disks.iter().cloned().map(Device::Disk))
            .chain(config.nics.iter().cloned().map(Device::from))
            .chain(config.p9s.iter().cloned().map(Device::P9));
        for device in devices {
            // The host's images and scripts are not here.
            let plan = Plan::unchecked(&device, &facts);
            let devid = device.devid().unwrap_or_default();
            let id = DeviceId::new(device.class(), devid).unwrap();
            let place = plan.place(domid, id);
            let mut written = Vec::new();
            for directory in plan.directories(&place) {
                let perms = directory.perms;
                written.push(format!("{} = \"\"   ({perms})", directory.path));
                for (key, value) in directory.keys {
                    written.push(format!("{}/{key} = \"{value}\"   ({perms})", directory.path));
                }
            }
            let (perms, read_only) = plan.read_only(&place);
            for (key, value) in read_only {
                written.push(format!("{}/{key} = \"{value}\"   ({perms})", place.frontend()));
            }
            for directory in [place.toolstack(), place.backend(), place.frontend()] {
                let directory = directory.as_str();
                let mut theirs = captured(&text, directory);
                let mut ours = captured(&written.join("\n"), directory);
                assert!(!theirs.is_empty(), "{name}: {directory}");
                for nodes in [&mut theirs, &mut ours] {
                    nodes.retain(|line| is_toolstacks(line, domid.get()));
                    nodes.sort();
                }
                assert_eq!(ours, theirs, "{name}: {directory}");
                compared += 1;
            }
        }
    }
    assert!(compared >= 15, "only {compared} directories were compared");
}
