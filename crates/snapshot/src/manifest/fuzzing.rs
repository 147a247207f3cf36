//! What the fuzz target of manifests runs; the tests replay its corpus through the same function.

use serde_json::Value;

use super::text::sealed;
use super::{MANIFEST_VERSION, Snapshot};

/// Reads octets as a manifest, as they are and, where they are JSON of a snapshot, with a digest that is right.
///
/// # Panics
///
/// If a property does not hold: that is what a fuzzer looks for.
pub fn manifest(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    read(text);
    let Ok(mut value) = serde_json::from_str::<Value>(text) else { return };
    if let Some(snapshot) = value.get_mut("snapshot") {
        value = snapshot.take();
    }
    read(&sealed(&serde_json::json!(MANIFEST_VERSION), &value));
}

fn read(text: &str) {
    let Ok(snapshot) = Snapshot::from_json(text) else { return };
    let Ok(written) = snapshot.to_json() else { unreachable!("what was read can be written") };
    let Ok(again) = Snapshot::from_json(&written) else {
        unreachable!("what was written is a manifest: {written}")
    };
    // A number with many digits may have been read as its neighbour.
    assert_eq!(
        (again.id, again.disks, again.memory),
        (snapshot.id, snapshot.disks, snapshot.memory)
    );
    let mut cut = written;
    cut.pop();
    assert!(Snapshot::from_json(&cut).is_err(), "a manifest without its last octet is read");
}
