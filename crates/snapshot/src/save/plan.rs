//! What a save would do: nothing was changed to know it.

use std::path::PathBuf;

use serde::Serialize;
use uuid::Uuid;

use super::{Consistency, SaveRequest};
use crate::control::{DomainIdentity, DomainState};
use crate::disk::PlannedDisk;
use crate::disk::image::ImageFormat;
use crate::manifest::{SavedDomain, SkippedDisk};

/// What a save would do. [`save`](super::save()) does it, once, if the world is still the same then.
///
/// As JSON it is for people and tools; the request is not in it.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct SavePlan {
    /// The snapshot's id. Temporary files and overlay nodes have it in their names.
    pub id: Uuid,
    /// The domain.
    pub domain: SavedDomain,
    /// Every disk that would be saved.
    pub disks: Vec<PlannedDisk>,
    /// The disks that would not.
    pub skipped: Vec<SkippedDisk>,
    /// Files that would be created.
    pub files: Vec<PlannedFile>,
    /// What room there is for them, one entry for each file system.
    pub space: Vec<SpaceNeed>,
    /// What can be achieved.
    pub consistency: Consistency,
    /// Why it is not more, if it is not [`Consistency::Complete`].
    pub consistency_reason: Option<String>,
    /// What may go wrong, in words.
    pub warnings: Vec<String>,
    /// What must be the same when it is carried out.
    pub fingerprint: Fingerprint,
    #[serde(skip)]
    pub(super) request: SaveRequest,
}

impl SavePlan {
    /// What it is the plan of.
    pub fn request(&self) -> &SaveRequest {
        &self.request
    }
}

/// A file that would be created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedFile {
    /// What it is of: `memory`, `xenstore`, a vdev.
    pub what: String,
    /// Where it would be.
    pub path: PathBuf,
    /// Octets that it may take at once, at most. It is a guess for memory that compresses or has holes.
    pub octets_needed: u64,
}

/// What is needed of a file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SpaceNeed {
    /// One of the files.
    pub path: PathBuf,
    /// Octets that may be needed.
    pub needed: u64,
    /// Octets that are free.
    pub free: u64,
}

/// What a plan depends on. Sizes and times are not in it: the guest runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fingerprint {
    /// Which domain.
    pub domain: DomainIdentity,
    /// Its state.
    pub state: DomainState,
    /// Whether it is paused.
    pub paused: bool,
    /// Its disks, in the order of the configuration.
    pub disks: Vec<DiskFingerprint>,
}

/// What a plan depends on of one disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DiskFingerprint {
    /// Which.
    pub vdev: String,
    /// Its image, as the configuration names it.
    pub path: PathBuf,
    /// The image's format.
    pub format: Option<ImageFormat>,
    /// Device and inode of each image of its chain; empty for a disk that is not saved.
    pub chain: Vec<(u64, u64)>,
}

impl Fingerprint {
    /// What is another than in the earlier one.
    pub(super) fn changed_since(&self, earlier: &Self) -> Option<&'static str> {
        let Self { domain, state, paused, disks } = self;
        let images = |disks: &[DiskFingerprint]| -> Vec<_> {
            disks.iter().map(|disk| (disk.vdev.clone(), disk.path.clone(), disk.format)).collect()
        };
        if *domain != earlier.domain {
            Some("the domain")
        } else if (*state, *paused) != (earlier.state, earlier.paused) {
            Some("the domain's state")
        } else if images(disks) != images(&earlier.disks) {
            Some("which disks there are, or their images,")
        } else if *disks != earlier.disks {
            Some("what a disk's image rests on")
        } else {
            None
        }
    }
}
