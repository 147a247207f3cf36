//! What can be wrong with what was saved.

use std::fmt;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::disk::image::{ChainRefusal, ImageChange, ImageError};
use crate::image::{ImageOpenError, ImageReadError, ImageWriteError, passthrough};

/// Why a snapshot was not found as it was saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// Something is missing or different.
    #[error("{}", listed(problems))]
    Different {
        /// Everything; at least one.
        problems: Vec<Problem>,
        /// What was compared beside that.
        verified: Box<super::Verified>,
    },
    /// The observer has cancelled it.
    #[error("the comparison was cancelled")]
    Cancelled,
}

impl VerifyError {
    /// Everything that is wrong; nothing if it was cancelled.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Different { problems, .. } => problems,
            Self::Cancelled => &[],
        }
    }
}

fn listed(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A part of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Artifact {
    /// The memory image.
    Memory,
    /// The digests beside a memory image.
    SideDigest,
    /// The Xenstore state.
    Xenstore,
    /// A disk.
    Disk {
        /// Which.
        vdev: String,
    },
}

impl Artifact {
    pub(super) fn disk(vdev: &str) -> Self {
        Self::Disk { vdev: vdev.to_owned() }
    }
}

impl fmt::Display for Artifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("the memory image"),
            Self::SideDigest => f.write_str("the side digest"),
            Self::Xenstore => f.write_str("the Xenstore state"),
            Self::Disk { vdev } => write!(f, "disk {vdev}"),
        }
    }
}

/// Something that is missing, or not as it was saved.
///
/// Its text has the reason in it, so that a list of them reads well; it is in `source()` as well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// It was written to a descriptor, and nobody says where that led.
    #[error("{artifact} was written to a descriptor: say where it is")]
    NotGiven {
        /// What.
        artifact: Artifact,
    },
    /// It cannot be opened for reading.
    #[error("{artifact} cannot be opened at {place}: {source}")]
    Open {
        /// What.
        artifact: Artifact,
        /// Path, or descriptor.
        place: String,
        /// Why.
        source: io::Error,
    },
    /// It is neither a regular file nor, for a disk, a block device.
    #[error("{artifact} is at {place} no regular file")]
    NotAFile {
        /// What.
        artifact: Artifact,
        /// Path, or descriptor.
        place: String,
    },
    /// It cannot be read.
    #[error("{artifact} cannot be read: {source}")]
    Read {
        /// What.
        artifact: Artifact,
        /// Why.
        source: io::Error,
    },
    /// It is longer or shorter than it was.
    #[error("{artifact} has {has} octets, and was saved with {saved}")]
    Length {
        /// What.
        artifact: Artifact,
        /// Its length.
        has: u64,
        /// As it was saved.
        saved: u64,
    },
    /// Its header, or what is known from it, is not that of an image that was written to its end.
    #[error("{artifact} is none: {source}")]
    Image {
        /// What.
        artifact: Artifact,
        /// Why.
        source: ImageOpenError,
    },
    /// It is an image of another stream.
    #[error("{artifact} is of a stream with the digest {has}, and {saved} was saved")]
    Stream {
        /// What.
        artifact: Artifact,
        /// The digest it has.
        has: String,
        /// As it was saved.
        saved: String,
    },
    /// Something in the memory image is not as it was written.
    #[error("the memory image is not as it was written: {source}")]
    Content {
        /// What.
        source: ImageReadError,
    },
    /// The stream is not the one that its side digest is of.
    #[error("the memory image is not as it was written: {source}")]
    Side {
        /// Where.
        source: passthrough::VerifyError,
    },
    /// The stream is no saved domain.
    #[error("the memory image is not as it was written: {source}")]
    NoStream {
        /// Why.
        source: ImageWriteError,
    },
    /// Its octets are not those that were saved.
    #[error("{artifact} has the digest {has}, and was saved with {saved}")]
    Digest {
        /// What.
        artifact: Artifact,
        /// The digest it has.
        has: String,
        /// As it was saved.
        saved: String,
    },
    /// It is as it was saved, and no migration stream of one domain.
    #[error("the Xenstore state cannot be used: {source}")]
    NoState {
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An image of a disk is missing, or is none.
    #[error("disk {vdev}: {}", with_reason(source))]
    DiskImage {
        /// The disk.
        vdev: String,
        /// Why.
        source: ImageError,
    },
    /// An image of a disk is not as it was saved.
    #[error("disk {vdev}: {} is not as it was saved: {}", path.display(), changes_listed(changes))]
    DiskChanged {
        /// The disk.
        vdev: String,
        /// The image.
        path: PathBuf,
        /// What is different.
        changes: Vec<ImageChange>,
    },
    /// The chain of a disk's images breaks a rule.
    #[error("disk {vdev}: {source}")]
    DiskChain {
        /// The disk.
        vdev: String,
        /// Which.
        source: ChainRefusal,
    },
    /// An image rests on others than it did.
    #[error("disk {vdev}: the images are {}, and were saved as {}", paths(now), paths(saved))]
    DiskOrder {
        /// The disk.
        vdev: String,
        /// The images, the frozen one first.
        now: Vec<PathBuf>,
        /// As they were saved.
        saved: Vec<PathBuf>,
    },
    /// The snapshot is not in the image any more.
    #[error("disk {vdev}: there is no snapshot {tag:?} in {}", path.display())]
    NoTag {
        /// The disk.
        vdev: String,
        /// The image.
        path: PathBuf,
        /// The snapshot's name.
        tag: String,
    },
    /// The list of snapshots in an image is broken.
    #[error("disk {vdev}: the snapshots in {} cannot be read", path.display())]
    Tags {
        /// The disk.
        vdev: String,
        /// The image.
        path: PathBuf,
    },
}

fn with_reason(error: &ImageError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn changes_listed(changes: &[ImageChange]) -> String {
    changes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn paths(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" over ")
}
