//! What libxl wrote on a real host, beside the templates it wrote it from.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use xsclient::DomId;

use super::scene::Nodes;
use crate::retrieve::Policy;
use crate::retrieve::report::{DeviceClass, DeviceNote, Presence, Unseen};
use crate::{DomainConfig, Mode};

const ARRAYS: [&str; 15] = [
    "disks",
    "nics",
    "pcidevs",
    "vfbs",
    "vkbs",
    "virtios",
    "vtpms",
    "p9s",
    "pvcallsifs",
    "vdispls",
    "vsnds",
    "channels",
    "usbctrls",
    "usbdevs",
    "rdms",
];

/// Names of the folders with captures; none where there are none.
fn captures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/captures/xen-4.17");
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut captures: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    captures.sort();
    captures
}

/// The templates of a capture, but for Dom0's.
fn templates(capture: &Path) -> BTreeMap<u16, DomainConfig> {
    let mut templates = BTreeMap::new();
    for entry in fs::read_dir(capture).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let Some(domid) = name.strip_prefix("userdata-d.").and_then(|rest| rest.split('.').next())
        else {
            continue;
        };
        let octets = fs::read(&path).unwrap();
        let template = DomainConfig::read_userdata(&octets, Mode::Strict).unwrap().config;
        templates.insert(domid.parse().unwrap(), template);
    }
    templates.remove(&0);
    templates
}

#[test]
fn what_libxl_wrote_for_a_template_changes_nothing_in_it() {
    let captures = captures();
    if captures.is_empty() {
        println!("skipped: what_libxl_wrote_for_a_template_changes_nothing_in_it: no captures");
        return;
    }
    let mut compared = 0;
    for capture in captures {
        let mut nodes = Nodes::default();
        nodes.add(&fs::read_to_string(capture.join("xenstore.txt")).unwrap());
        for (domid, template) in templates(&capture) {
            let outcome = nodes.merge(DomId::new(domid), template.clone(), None, Policy::LiveWins);
            let place = format!("{} domain {domid}", capture.display());
            for report in &outcome.reports {
                let is_clean = report.changes.is_empty() && report.problems.is_empty();
                assert!(is_clean, "{place}: {report:#?}");
                let known = match report.class {
                    // The main console has taken the place of the first channel; a plain keyboard comes with HVM.
                    DeviceClass::Channel => matches!(report.note, None | Some(DeviceNote::Kept)),
                    DeviceClass::Console | DeviceClass::Vkb
                        if report.presence != Presence::Both =>
                    {
                        report.note == Some(DeviceNote::MadeByLibxl)
                    }
                    _ => report.presence == Presence::Both,
                };
                assert!(known, "{place}: {report:#?}");
                compared += 1;
            }
            for array in ARRAYS {
                let of = |config: &DomainConfig| -> Value {
                    serde_json::to_value(config).unwrap().get(array).cloned().unwrap_or_default()
                };
                assert_eq!(of(&outcome.config), of(&template), "{place}: {array}");
            }
            let is_kind = |unseen: &Unseen| matches!(unseen, Unseen::UnknownKind { .. });
            assert!(!outcome.unseen.iter().any(is_kind), "{place}: {:?}", outcome.unseen);
        }
    }
    assert!(compared > 20, "{compared} devices");
}
