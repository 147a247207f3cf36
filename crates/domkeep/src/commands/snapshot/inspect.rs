//! `snapshot inspect`: what a file is, and what its headers tell.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value, json};
use snapshot::Snapshot;
use snapshot::disk::image::{Qcow2Header, RecordedBacking};
use snapshot::image::stream::{GuestType, ImageVersion, Start};
use snapshot::image::{
    ImageFormat, ImageInfo, ImageState, InspectError, Inspected, Layout, StreamInfo, inspect,
};
use snapshot::manifest::SavedMemoryFormat;

use super::error::SnapshotError;
use super::{manifest, new_file};
use crate::exit::{CommandError, Exit};
use crate::explain::printable;
use crate::output::Output;

/// The header of a qcow2 image is in its first cluster, which has no more octets than that.
const FIRST_LEN: u64 = 2 << 20;

const QCOW2_MAGIC: &[u8] = b"QFI\xfb";

/// What is told: for people a line each, for programs a member each.
pub(super) struct Told {
    kind: &'static str,
    members: Map<String, Value>,
}

impl Told {
    pub(super) fn new(kind: &'static str) -> Self {
        Self { kind, members: Map::new() }
    }

    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    fn document(self, file: &Path) -> Value {
        let mut document = json!({ "file": file.display().to_string(), "kind": self.kind });
        if let Some(members) = document.as_object_mut() {
            members.extend(self.members);
        }
        document
    }

    fn in_words(&self, file: &Path) -> String {
        let mut text = format!("{}: {}\n", printable(&file.display().to_string()), self.kind);
        for (name, value) in &self.members {
            match value {
                Value::Null => {}
                Value::Array(values) => {
                    for value in values {
                        text.push_str(&line(name, value));
                    }
                }
                value => text.push_str(&line(name, value)),
            }
        }
        text
    }
}

fn line(name: &str, value: &Value) -> String {
    let value = match value {
        Value::String(text) => printable(text),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Object(members) => {
            let members = members.iter().filter(|(_, value)| !value.is_null());
            let words = members.map(|(name, value)| match value {
                Value::String(text) => format!("{} {}", name.replace('_', " "), printable(text)),
                value => format!("{} {value}", name.replace('_', " ")),
            });
            words.collect::<Vec<_>>().join(", ")
        }
        value => value.to_string(),
    };
    format!("  {:21} {value}\n", name.replace('_', " "))
}

pub(super) fn run(file: &Path, output: &mut Output) -> Result<Exit, CommandError> {
    let told = look(file)?;
    if output.is_json() {
        output.document(&told.document(file))?;
    } else {
        output.text(told.in_words(file))?;
    }
    Ok(Exit::Done)
}

fn look(path: &Path) -> Result<Told, CommandError> {
    let mut first = Vec::new();
    let mut input = File::open(path).map_err(|source| new_file::unread(path, source))?;
    let read = Read::by_ref(&mut input).take(FIRST_LEN).read_to_end(&mut first);
    read.map_err(|source| new_file::unread(path, source))?;
    if first.starts_with(QCOW2_MAGIC) {
        let header = Qcow2Header::parse(&first)
            .map_err(|source| SnapshotError::Qcow2 { path: path.to_owned(), source })?;
        return Ok(qcow2(&header));
    }
    if manifest::is_one(&first) {
        return Ok(of_manifest(&manifest::read(path)?));
    }
    if let Some(told) = super::journal::told(path, &first)? {
        return Ok(told);
    }
    let first = &first[..first.len().min(snapshot::image::INSPECT_LEN)];
    match inspect(first) {
        Ok(Inspected::Image(info)) => Ok(image(&info)),
        Ok(Inspected::Stream(info)) => Ok(stream(&info)),
        Ok(_) => Err(unknown(path, InspectError::Unknown)),
        Err(source) => Err(unknown(path, source)),
    }
}

fn unknown(path: &Path, source: InspectError) -> CommandError {
    SnapshotError::Inspect { path: path.to_owned(), source }.into()
}

fn image(info: &ImageInfo) -> Told {
    let kind = match info.format() {
        ImageFormat::Mapped => "mapped memory image",
        ImageFormat::Packed => "packed memory image",
        ImageFormat::SideDigest => "side digest of a stream",
    };
    let complete = info.state == ImageState::Complete;
    let told = Told::new(kind).with("version", info.version.to_string()).with("complete", complete);
    if !complete {
        return told;
    }
    let told = told
        .with("starts_as", info.start.map(start))
        .with("guest", info.guest.map(guest))
        .with("uuid", info.uuid.map(|uuid| uuid.to_string()))
        .with("file_octets", info.file_len)
        .with("stream_octets", info.stream_len)
        .with("stream_digest", info.stream_digest.to_string())
        .with("root_digest", info.root.to_string());
    match info.layout {
        Layout::Mapped { pfn_end, pages, zero_pages, records_len } => told
            .with("pages", pages)
            .with("zero_pages", zero_pages)
            .with("pfn_end", pfn_end)
            .with("record_octets", records_len),
        Layout::Packed { codec, level, .. } => {
            let codec = match codec {
                1 => format!("zstd level {level}"),
                2 => "lz4".to_owned(),
                other => format!("number {other}"),
            };
            told.with("codec", codec)
        }
        _ => told,
    }
}

fn stream(info: &StreamInfo) -> Told {
    let version = info.image.map(|image| match image.version {
        ImageVersion::V2 => 2,
        ImageVersion::V3 => 3,
    });
    let xen = info.domain.map(|domain| format!("{}.{}", domain.xen_major, domain.xen_minor));
    let configuration = info.json.map(|json| if json { "libxl-json" } else { "xl.cfg" });
    Told::new("saved domain, as Xen's own tools write it")
        .with("starts_as", start(info.start))
        .with("configuration", configuration)
        .with("configuration_octets", info.optional_len)
        .with("libxc_version", version)
        .with("guest", info.domain.map(|domain| guest(domain.guest)))
        .with("xen", xen)
}

fn start(start: Start) -> &'static str {
    match start {
        Start::Xl => "xl save file",
        Start::Libxl => "libxl stream",
        Start::Libxc => "libxc image",
    }
}

fn guest(guest: GuestType) -> String {
    guest.to_string()
}

fn qcow2(header: &Qcow2Header) -> Told {
    let RecordedBacking { name, format } = match &header.backing {
        Some(backing) => backing.clone(),
        None => RecordedBacking { name: Vec::new(), format: None },
    };
    let backing = header.backing.is_some().then(|| String::from_utf8_lossy(&name).into_owned());
    Told::new("qcow2 image")
        .with("version", header.version)
        .with("virtual_octets", header.virtual_size)
        .with("cluster_octets", header.cluster_size)
        .with("backing_file", backing)
        .with("backing_format", format)
        .with("snapshots", header.snapshots)
        .with("encrypted", header.encrypted)
        .with("marked_corrupt", header.marked_corrupt)
        .with("external_data", header.external_data)
}

fn of_manifest(snapshot: &Snapshot) -> Told {
    let memory = snapshot.memory.as_ref().map(|memory| {
        let format = match memory.format {
            SavedMemoryFormat::Stream => "stream",
            SavedMemoryFormat::Mapped => "mapped",
            SavedMemoryFormat::Packed => "packed",
            _ => "unknown",
        };
        let path = memory.location.path().map(|path| path.display().to_string());
        json!({ "format": format, "path": path, "stream_octets": memory.stream_octets })
    });
    let xenstore = snapshot.xenstore.as_ref().map(|xenstore| {
        let path = xenstore.location.path().map(|path| path.display().to_string());
        json!({ "path": path, "nodes": xenstore.nodes })
    });
    let disks: Vec<_> = snapshot
        .disks
        .iter()
        .map(|disk| {
            json!({
                "vdev": disk.vdev,
                "frozen": disk.frozen.path.display().to_string(),
                "active": disk.active.path.display().to_string(),
            })
        })
        .collect();
    let skipped: Vec<_> = snapshot
        .skipped
        .iter()
        .map(|disk| json!({ "vdev": disk.vdev, "reason": disk.reason }))
        .collect();
    let domain = &snapshot.domain;
    Told::new("manifest of a snapshot")
        .with("id", snapshot.id.to_string())
        .with("created", snapshot.created)
        .with("domid", domain.identity.domid.get())
        .with("uuid", domain.identity.uuid.to_string())
        .with("name", domain.name.clone())
        .with("consistency", json!(snapshot.consistency))
        .with("state_before", json!(snapshot.state_before))
        .with("state_after", json!(snapshot.state_after))
        .with("memory", memory)
        .with("xenstore_state", xenstore)
        .with("disks", disks)
        .with("skipped", skipped)
        .with("config_applied", snapshot.config_applied)
        .with("warnings", snapshot.warnings.clone())
}
