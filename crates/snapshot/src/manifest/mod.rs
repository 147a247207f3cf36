//! What was saved: the result of a save, which a caller keeps where it likes.

pub(crate) mod fuzzing;
#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
mod text;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::control::{DomainIdentity, DomainKind, DomainState};
use crate::disk::DiskSnapshot;
use crate::disk::image::{Digest, ImageFormat};
use crate::save::Consistency;

pub use text::{MANIFEST_FORMAT, MANIFEST_MAX, MANIFEST_VERSION, ManifestError};

/// What was saved of a domain, and where it is: all that a restore needs to know.
///
/// As text it is a manifest ([`to_json`](Self::to_json)), with a digest of its own. Requests say what is wanted; nothing of a
/// request is in here but what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Snapshot {
    /// Tells snapshots apart. Temporary files, journal and overlay nodes have it in their names.
    pub id: Uuid,
    /// When the guest was suspended, or its disks were frozen: seconds since 1970-01-01 UTC.
    pub created: u64,
    /// The domain that was saved.
    pub domain: SavedDomain,
    /// What was achieved, whatever was asked for.
    pub consistency: Consistency,
    /// Why it is not more, if it is not [`Consistency::Complete`].
    pub consistency_reason: Option<String>,
    /// The domain's state before.
    pub state_before: DomainState,
    /// The state that it was found in afterwards; `None` if nobody could find out.
    pub state_after: Option<DomainState>,
    /// Memory and virtual CPUs, if they were saved.
    pub memory: Option<MemoryArtifact>,
    /// What the domain had in Xenstore, if it was saved.
    pub xenstore: Option<XenstoreArtifact>,
    /// The disks that were saved.
    pub disks: Vec<DiskSnapshot>,
    /// The disks that were not.
    pub skipped: Vec<SkippedDisk>,
    /// The configuration at the moment of the save, as libxl-json: with the images from **before**.
    pub configuration: serde_json::Value,
    /// Disks whose active image is another one now.
    pub config_delta: Vec<ImageMove>,
    /// Whether Xenstore and the template name the images of `config_delta`.
    pub config_applied: bool,
    /// How long it took.
    pub timings: Timings,
    /// What could not be made sure, in words.
    pub warnings: Vec<String>,
}

/// Which domain was saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedDomain {
    /// Its number and uuid.
    #[serde(flatten)]
    pub identity: DomainIdentity,
    /// Its name, if it had one.
    pub name: Option<String>,
    /// Its kind.
    pub kind: DomainKind,
}

/// Where something is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Location {
    /// A file, by its absolute path.
    Path(PathBuf),
    /// Wherever the descriptor led that the caller gave.
    Descriptor,
}

impl Location {
    /// The path, if there is one.
    pub fn path(&self) -> Option<&std::path::Path> {
        match self {
            Self::Path(path) => Some(path),
            Self::Descriptor => None,
        }
    }
}

/// A saved memory image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryArtifact {
    /// Where it is.
    pub location: Location,
    /// Its format.
    pub format: SavedMemoryFormat,
    /// Octets of the stream that it gives back.
    pub stream_octets: u64,
    /// Octets of the file, holes included.
    pub file_octets: u64,
    /// Octets that the file takes on its disk, as far as they are known.
    pub stored_octets: Option<u64>,
    /// Digest of the stream, the same whatever the format.
    pub stream_digest: Digest,
    /// Where the digests of its mebibytes are, if they were asked for beside a stream.
    pub side_digest: Option<Location>,
}

/// In which format memory was saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SavedMemoryFormat {
    /// As libxl writes it.
    Stream,
    /// Each page at a fixed place.
    Mapped,
    /// Compressed frames.
    Packed,
}

/// Saved Xenstore state: a migration stream of one domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct XenstoreArtifact {
    /// Where it is.
    pub location: Location,
    /// Its length.
    pub octets: u64,
    /// Digest of all of it.
    pub digest: Digest,
    /// How many nodes are in it.
    pub nodes: u64,
    /// What the domain may have had and is not in it, in words.
    pub missing: Vec<String>,
}

/// A disk that was not saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedDisk {
    /// Which.
    pub vdev: String,
    /// The caller's reason.
    pub reason: String,
}

/// A disk whose active image is another one now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageMove {
    /// Which disk.
    pub vdev: String,
    /// The image it was in, which is frozen now.
    pub from: NamedImage,
    /// The image it is in.
    pub to: NamedImage,
}

/// An image as a configuration names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedImage {
    /// Its path.
    pub path: PathBuf,
    /// Its format.
    pub format: ImageFormat,
}

/// How long a save took, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timings {
    /// All of it.
    pub total_us: u64,
    /// From the request to suspend until the guest ran again; without that, until the disks were frozen.
    pub held_us: u64,
    /// Suspending and writing the memory, which on libxl are one call.
    pub memory_us: u64,
    /// Freezing the disks.
    pub disks_us: u64,
}
