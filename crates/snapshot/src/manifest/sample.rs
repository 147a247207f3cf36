//! A snapshot with something in every field.

use std::path::{Path, PathBuf};

use serde_json::json;
use uuid::Uuid;
use xsclient::DomId;

use super::{
    ImageMove, Location, MemoryArtifact, NamedImage, SavedDomain, SavedMemoryFormat, SkippedDisk,
    Snapshot, Timings, XenstoreArtifact,
};
use crate::control::{DomainIdentity, DomainKind, DomainState};
use crate::disk::image::{Digest, ImageFormat, ImageRef};
use crate::disk::{DiskAction, DiskSnapshot, DiskWarning};
use crate::save::Consistency;

pub(crate) const DOMAIN: Uuid = Uuid::from_u128(0x7d1c_2a90_2b6d_4f1e_9a51_0c7a_63d1_f3b4);

/// Of a domain with a disk that has an overlay, one with an internal snapshot and one that was skipped.
pub(crate) fn snapshot() -> Snapshot {
    let (root, overlay) = (image("/images/root.qcow2", 11), image("/images/root-1.qcow2", 12));
    let base = ImageRef { format: ImageFormat::Raw, ..image("/images/base.raw", 10) };
    let data = image("/images/data.qcow2", 13);
    Snapshot {
        id: Uuid::from_u128(0x0192_f8c0_5b8e_7c3a_8f6e_21d4_a9b7_c650),
        created: 1_795_264_875,
        domain: SavedDomain {
            identity: DomainIdentity::new(DomId::new(7), DOMAIN),
            name: Some("web \u{1f40c} \"1\"\\\n".into()),
            kind: DomainKind::Pv,
        },
        consistency: Consistency::Complete,
        consistency_reason: Some("because".into()),
        state_before: DomainState::Running,
        state_after: Some(DomainState::Paused),
        memory: Some(MemoryArtifact {
            location: Location::Path("/saved/memory".into()),
            format: SavedMemoryFormat::Packed,
            stream_octets: u64::MAX,
            file_octets: 269_000_111,
            stored_octets: Some(i64::MAX.cast_unsigned()),
            stream_digest: Digest::of(b"stream"),
            side_digest: Some(Location::Descriptor),
        }),
        xenstore: Some(XenstoreArtifact {
            location: Location::Path("/saved/xenstore".into()),
            octets: 4096,
            digest: Digest::of(b"xenstore"),
            nodes: 57,
            missing: vec!["watches".into()],
        }),
        disks: vec![
            DiskSnapshot {
                vdev: "xvda".into(),
                action: DiskAction::ExternalQcow2 { overlay: overlay.path.clone() },
                frozen: root.clone(),
                active: overlay.clone(),
                chain: vec![root.clone(), base],
                digest: Some(Digest::of(b"root")),
                warnings: vec![DiskWarning::ProcessesUnseen { count: 2 }, DiskWarning::QmpLost],
            },
            DiskSnapshot {
                vdev: "xvdb".into(),
                action: DiskAction::InternalQcow2 { tag: "before-upgrade".into() },
                frozen: data.clone(),
                active: data.clone(),
                chain: vec![data],
                digest: None,
                warnings: Vec::new(),
            },
        ],
        skipped: vec![SkippedDisk { vdev: "xvdc".into(), reason: "swap".into() }],
        configuration: json!({
            "c_info": { "type": "pv", "name": "web", "uuid": DOMAIN, "run_hotplug_scripts": "True" },
            "b_info": { "max_memkb": 131_072, "shadow": -1, "rate": 0.25, "big": u64::MAX, "none": null },
            "disks": [{ "pdev_path": "/images/root.qcow2", "vdev": "xvda", "readwrite": 1 }],
        }),
        config_delta: vec![ImageMove {
            vdev: "xvda".into(),
            from: named(&root),
            to: named(&overlay),
        }],
        config_applied: true,
        timings: Timings { total_us: 900_000, held_us: 700_000, memory_us: 600_000, disks_us: 4 },
        warnings: vec!["nobody resumes the domain if the saver dies".into()],
    }
}

/// Of no memory, no Xenstore state and no disks yet.
pub(crate) fn empty() -> Snapshot {
    let rich = snapshot();
    Snapshot { memory: None, xenstore: None, disks: Vec::new(), skipped: Vec::new(), ..rich }
}

fn image(path: &str, ino: u64) -> ImageRef {
    ImageRef {
        path: PathBuf::from(path),
        format: ImageFormat::Qcow2,
        dev: 2049,
        ino,
        size: 8 << 20,
        virtual_size: 8 << 30,
        mtime_ns: -1_234_567_890_123,
        header_digest: Digest::of(path.as_bytes()),
    }
}

fn named(image: &ImageRef) -> NamedImage {
    NamedImage { path: Path::new(&image.path).to_owned(), format: image.format }
}
