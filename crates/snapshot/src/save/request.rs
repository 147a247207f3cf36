//! What is to be saved, and where.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Target;
use crate::control::DomainIdentity;
use crate::disk::{BackingName, CopyMethod};
use crate::image::packed::Codec;

/// What is to be saved of a domain, and where: the caller supplies every path, name and tag.
#[derive(Clone, Debug)]
pub struct SaveRequest {
    /// The domain, with the uuid that it must have.
    pub domain: DomainIdentity,
    /// What is done with each disk that the guest can write. Every one must be named exactly once.
    pub disks: Vec<DiskRequest>,
    /// The QMP socket of the domain's QEMU: for overlays and internal snapshots.
    pub qmp: Option<PathBuf>,
    /// Memory and virtual CPUs; `None` for disks alone.
    pub memory: Option<MemoryRequest>,
    /// Where what the domain has in Xenstore goes, as a migration stream; `None` not to save it.
    pub xenstore: Option<Target>,
    /// How the guest is quiesced before; `None` if it is not.
    pub quiesce: Option<QuiesceRequest>,
    /// What the guest does while its disks are frozen.
    pub hold: Hold,
    /// What becomes of the domain.
    pub after: After,
    /// What the snapshot has to achieve at least; a plan that cannot is refused.
    pub min_consistency: Consistency,
    /// Whether the files are made durable.
    pub durability: Durability,
    /// How long the parts may take.
    pub deadlines: SaveDeadlines,
    /// Whether a target without room for what may come is refused.
    pub space_check: bool,
    /// Whether Xenstore and the template are told of the disks' new images. Whoever does not, has to tell them from
    /// [`Snapshot::config_delta`](crate::Snapshot::config_delta), or loses what the guest writes from then on.
    pub config: ConfigUpdate,
    /// Where it is written what was done, for [`crate::recover()`] after this process has died. Without it files may be
    /// left that nobody knows of, which the plan warns of. It is the caller's to remove.
    pub journal: Option<Target>,
}

impl SaveRequest {
    /// Nothing yet but the domain: no memory, no disks; the guest is suspended meanwhile and goes on afterwards; all is durable.
    pub fn new(domain: DomainIdentity) -> Self {
        Self {
            domain,
            disks: Vec::new(),
            qmp: None,
            memory: None,
            xenstore: None,
            quiesce: None,
            hold: Hold::default(),
            after: After::default(),
            min_consistency: Consistency::PerDisk,
            durability: Durability::default(),
            deadlines: SaveDeadlines::default(),
            space_check: true,
            config: ConfigUpdate::default(),
            journal: None,
        }
    }
}

/// What is done with one disk.
#[derive(Clone, Debug)]
pub struct DiskRequest {
    /// The disk, as the domain's configuration names it: `xvda`.
    pub vdev: String,
    /// What is done.
    pub action: DiskRequestAction,
}

/// What is done with a disk.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum DiskRequestAction {
    /// Nothing.
    Skip {
        /// Why that is right; it is in the result.
        reason: String,
    },
    /// An empty overlay is put over the image, which is frozen by that: on the domain's running QEMU, all such disks in one
    /// transaction.
    ExternalQcow2 {
        /// The overlay. It needs a name: QEMU opens it by that.
        overlay: Target,
        /// The node of the active image; `None` to look for the one that has it open.
        node: Option<String>,
        /// The node that the overlay is to be; `None` for the vdev and the beginning of the snapshot's id.
        overlay_node: Option<String>,
        /// How the overlay names the frozen image.
        backing: BackingName,
        /// Whether the frozen image is read afterwards, for a digest of all of it.
        digest: bool,
    },
    /// A snapshot inside the qcow2 image, by the domain's running QEMU.
    InternalQcow2 {
        /// Its name.
        tag: String,
        /// The node of the active image; `None` to look for it.
        node: Option<String>,
    },
    /// A copy of the image, made while the guest is suspended.
    Copy {
        /// The copy.
        destination: Target,
        /// How it is copied.
        method: CopyMethod,
        /// Whether the copy is read again for a digest.
        digest: bool,
    },
    /// What the caller's own snapshotter of that name does, in [`crate::HostAccess::hooks`]. It must describe exactly the disks
    /// that name it.
    Hook {
        /// The name.
        name: String,
    },
}

/// Where the memory goes, and in which form.
#[derive(Clone, Debug)]
pub struct MemoryRequest {
    /// The file. A [`Target::Descriptor`] takes a stream only, and has no holes and no mark.
    pub target: Target,
    /// Its format.
    pub format: MemoryFormat,
    /// Whether the guest runs while most of it is written. Not every hypervisor and no format but the stream can.
    pub live: bool,
}

/// In which form memory is kept. See `docs/memory-images.md`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum MemoryFormat {
    /// As libxl writes it, for `xl restore` and others.
    Stream {
        /// Where the digests of its mebibytes go. The digest of the whole is in the result in any case.
        side_digest: Option<Target>,
    },
    /// Each page at a fixed place, zero pages as holes.
    Mapped,
    /// Compressed frames.
    Packed {
        /// How they are compressed.
        codec: Codec,
        /// Threads that compress.
        workers: usize,
    },
}

/// How a guest is quiesced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuiesceRequest {
    /// The name of a quiescer in [`crate::HostAccess::quiescers`].
    pub hook: String,
    /// How long it may take.
    #[serde(rename = "deadline_ms", with = "milliseconds")]
    pub deadline: Duration,
    /// What becomes of the snapshot if the guest cannot be quiesced.
    pub on_failure: OnQuiesceFailure,
}

/// What becomes of a snapshot whose guest cannot be quiesced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnQuiesceFailure {
    /// There is none.
    #[default]
    Abort,
    /// It is taken, and marked as no more than crash consistent.
    MarkCrashConsistent,
}

/// What the guest does while its disks are frozen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hold {
    /// It is suspended, from before the first until after the last.
    #[default]
    Suspended,
    /// It runs: only without memory, and only if all disks change at one moment. Configuration and Xenstore state are then of
    /// a moment shortly before.
    Running,
}

/// What becomes of a domain after it was saved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum After {
    /// It goes on as it did before: running, paused or suspended.
    #[default]
    Resume,
    /// It is paused: it continues where it was saved once it is unpaused.
    LeavePaused,
    /// It is destroyed, once everything is durable.
    Destroy,
}

/// How far what is in a snapshot goes together, from least to most. A disk that was skipped is in no snapshot, and does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Consistency {
    /// Each disk is of a moment of its own.
    PerDisk,
    /// All disks are of one moment, as after a power failure.
    CrashConsistent,
    /// All disks are of one moment, before which the guest was quiesced.
    Quiesced,
    /// Memory and all disks are of one moment: but for skipped disks, nothing is lost.
    Complete,
}

/// Whether files are made durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Durability {
    /// A file has its name only once it and its directory are synced.
    #[default]
    Full,
    /// Nothing is synced: after a loss of power files may be empty. Only for what can be made again.
    None,
}

/// Whether Xenstore and the template are told of new images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConfigUpdate {
    /// They are.
    #[default]
    Apply,
    /// They are not: the caller does.
    Leave,
}

/// How long the parts of a save may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SaveDeadlines {
    /// Until the guest has suspended; the writing of its memory is not in it.
    #[serde(rename = "suspend_ms", with = "milliseconds")]
    pub suspend: Duration,
    /// Until the disks are frozen, once it is their turn.
    #[serde(rename = "disks_ms", with = "milliseconds")]
    pub disks: Duration,
    /// All of it. What is not committed by then is undone.
    #[serde(rename = "total_ms", with = "milliseconds")]
    pub total: Duration,
}

/// A minute to suspend as libxl has it, half a minute for the disks, an hour in all.
impl Default for SaveDeadlines {
    fn default() -> Self {
        Self {
            suspend: Duration::from_secs(60),
            disks: Duration::from_secs(30),
            total: Duration::from_secs(3600),
        }
    }
}

/// Times in JSON are whole milliseconds.
pub(crate) mod milliseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Longer than anybody waits; so that adding it to a moment does not overflow.
    const YEAR_MS: u64 = 366 * 24 * 3600 * 1000;

    pub(crate) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        u64::try_from(time.as_millis()).unwrap_or(u64::MAX).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let time = u64::deserialize(from)?;
        if time > YEAR_MS {
            return Err(serde::de::Error::custom("longer than a year"));
        }
        Ok(Duration::from_millis(time))
    }
}
