//! `docs/snapshot-schema.md`: its examples are read, and its tables have every field of them.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use snapshot::Snapshot;
use snapshot::restore::{RestoreRequest, Restored};
use snapshot::save::SaveRequest;

/// The section of the document under a heading, up to the next one.
fn section(heading: &str) -> String {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/snapshot-schema.md");
    let text = std::fs::read_to_string(document).unwrap();
    let begins = text.find(&format!("\n## {heading}")).unwrap_or_else(|| panic!("no {heading}"));
    let rest = &text[begins + 4..];
    rest[..rest.find("\n## ").unwrap_or(rest.len())].to_owned()
}

/// The JSON of a section, as it stands there.
fn example(section: &str) -> String {
    let (_, rest) = section.split_once("```json\n").unwrap();
    rest[..rest.find("```").unwrap()].to_owned()
}

/// The fields that the first table of a section has.
fn documented(section: &str) -> BTreeSet<String> {
    let rows = section.lines().skip_while(|line| !line.starts_with("| field |"));
    let rows = rows.take_while(|line| line.starts_with('|'));
    let fields = rows.filter_map(|row| row.strip_prefix("| `")?.split_once('`'));
    fields.map(|(field, _)| field.to_owned()).collect()
}

/// The fields of an example, down to where a table of their own has them.
fn fields(value: &Value, at: &str, opaque: &[&str], found: &mut BTreeSet<String>) {
    if opaque.contains(&at) {
        return;
    }
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                // Maps by devid.
                let name = if at == "nics" { "*" } else { name };
                let path = if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") };
                if !matches!(&path[..], "nics.*" | "mode.replace") {
                    found.insert(path.clone());
                }
                fields(value, &path, opaque, found);
            }
        }
        Value::Array(values) => {
            values.iter().for_each(|value| fields(value, &format!("{at}[]"), opaque, found));
        }
        _ => {}
    }
}

fn has_every_field(heading: &str, written: &str, opaque: &[&str]) {
    let mut found = BTreeSet::new();
    fields(&serde_json::from_str(written).unwrap(), "", opaque, &mut found);
    assert_eq!(documented(&section(heading)), found, "{heading}");
}

fn descriptors() -> Vec<Arc<OwnedFd>> {
    vec![Arc::new(File::open("/dev/null").unwrap().into())]
}

#[test]
fn the_save_request_is_whole_and_every_field_is_explained() {
    let text = example(&section("SaveRequest"));
    let request = SaveRequest::from_json(&text, &descriptors()).unwrap();
    let (written, fds) = request.to_json().unwrap();
    assert_eq!(format!("{written}\n"), text);
    assert_eq!(fds.len(), 1);
    let opaque = ["disks[].action", "memory.target", "memory.format", "xenstore", "journal"];
    has_every_field("SaveRequest", &written, &opaque);
}

#[test]
fn the_restore_request_is_whole_and_every_field_is_explained() {
    let manifest = example(&section("Snapshot: the manifest"));
    let text = example(&section("RestoreRequest"));
    let quoted = Value::from(manifest).to_string();
    let text = text.replacen("\"MANIFEST\"", &quoted, 1);
    let request = RestoreRequest::from_json(&text, &descriptors()).unwrap();
    let (written, _) = request.to_json().unwrap();
    assert_eq!(format!("{written}\n"), text);
    let opaque = ["disks", "memory", "xenstore", "journal", "policy", "identity.uuid"];
    has_every_field("RestoreRequest", &written, &opaque);
}

#[test]
fn the_manifest_is_whole_and_every_field_is_explained() {
    let text = example(&section("Snapshot: the manifest"));
    let snapshot = Snapshot::from_json(&text).unwrap();
    assert_eq!(snapshot.to_json().unwrap(), text);
    let opaque = [
        "snapshot.configuration",
        "snapshot.disks[].frozen",
        "snapshot.disks[].active",
        "snapshot.disks[].chain",
        "snapshot.config_delta[].from",
        "snapshot.config_delta[].to",
    ];
    has_every_field("Snapshot: the manifest", &text, &opaque);
    // The table of an image has its fields, in their order.
    let value: Value = serde_json::from_str(&text).unwrap();
    let image = value["snapshot"]["disks"][0]["frozen"].as_object().unwrap();
    let section = section("Snapshot: the manifest");
    let rows = section.lines().skip_while(|line| !line.starts_with("| image |"));
    let rows = rows.take_while(|line| line.starts_with('|'));
    let rows = rows.filter_map(|row| Some(row.strip_prefix("| `")?.split_once('`')?.0));
    assert!(rows.eq(image.keys()), "{image:?}");
}

#[test]
fn what_came_of_a_restore_is_whole_and_every_field_is_explained() {
    let text = example(&section("Restored"));
    let restored: Restored = serde_json::from_str(&text).unwrap();
    assert_eq!(format!("{}\n", serde_json::to_string_pretty(&restored).unwrap()), text);
    has_every_field("Restored", &text, &["configuration", "disks[].image"]);
}
