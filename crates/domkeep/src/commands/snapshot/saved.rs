//! A snapshot in words.

use snapshot::Snapshot;
use snapshot::manifest::SavedMemoryFormat;

use crate::explain::printable;

pub(super) fn in_words(snapshot: &Snapshot) -> String {
    let mut text = String::new();
    let mut line = |words: String| {
        text.push_str(&printable(&words));
        text.push('\n');
    };
    if let Some(memory) = &snapshot.memory {
        let path = memory.location.path().map(|path| path.display().to_string());
        let format = match memory.format {
            SavedMemoryFormat::Stream => "stream",
            SavedMemoryFormat::Mapped => "mapped",
            SavedMemoryFormat::Packed => "packed",
            _ => "of an unknown format",
        };
        let path = path.unwrap_or_else(|| "a descriptor".to_owned());
        line(format!("memory: {path}, {format}, {} octets", memory.file_octets));
    }
    if let Some(xenstore) = &snapshot.xenstore {
        let path = xenstore.location.path().map(|path| path.display().to_string());
        let path = path.unwrap_or_else(|| "a descriptor".to_owned());
        line(format!("Xenstore state: {path}, {} nodes", xenstore.nodes));
    }
    for disk in &snapshot.disks {
        let (frozen, active) = (disk.frozen.path.display(), disk.active.path.display());
        line(format!("disk {}: {frozen} is as saved, the domain writes to {active}", disk.vdev));
    }
    for disk in &snapshot.skipped {
        line(format!("disk {}: not saved: {}", disk.vdev, disk.reason));
    }
    for warning in &snapshot.warnings {
        line(format!("warning: {warning}"));
    }
    if !snapshot.config_delta.is_empty() && !snapshot.config_applied {
        line("the domain's configuration still names the old images".to_owned());
    }
    let reason = snapshot.consistency_reason.as_ref().map(|reason| format!(" ({reason})"));
    let consistency = serde_json::to_value(snapshot.consistency).unwrap_or_default();
    line(format!(
        "consistency: {}{}",
        consistency.as_str().unwrap_or_default(),
        reason.unwrap_or_default()
    ));
    let domain = &snapshot.domain;
    let name = domain.name.as_deref().unwrap_or("without a name");
    let state = snapshot.state_after.map(|state| format!("; the domain is {state}"));
    line(format!(
        "snapshot {} of {name}, domain {}{}",
        snapshot.id,
        domain.identity,
        state.unwrap_or_default()
    ));
    text
}
