//! What is to be done with a disk, and what was done.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::image::{Digest, ImageRef};

/// What a snapshot does with a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum DiskAction {
    /// Nothing.
    Skip {
        /// Why that is right.
        reason: String,
    },
    /// A new qcow2 image over the one there is, which stays as it is from then on.
    ExternalQcow2 {
        /// The new image.
        overlay: PathBuf,
    },
    /// A snapshot inside the qcow2 image.
    InternalQcow2 {
        /// Its name.
        tag: String,
    },
    /// A copy that shares the octets until one of the two is written.
    Reflink {
        /// The copy.
        destination: PathBuf,
    },
    /// A copy with holes where the image has them.
    SparseCopy {
        /// The copy.
        destination: PathBuf,
    },
    /// What the caller's own [`super::DiskSnapshotter`] does.
    Hook {
        /// Its name.
        name: String,
    },
}

/// What a snapshot would do: nothing was changed to know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskPlan {
    /// Every disk of the group.
    pub disks: Vec<PlannedDisk>,
}

/// What a snapshot would do with one disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedDisk {
    /// The disk as the domain has it, as `xvda`.
    pub vdev: String,
    /// What would be done.
    pub action: DiskAction,
    /// The active image and what it rests on.
    pub chain: Vec<ImageRef>,
    /// Octets of storage that it takes at once, at most. What the guest writes later comes on top of that.
    pub octets_needed: u64,
    /// What could not be made sure.
    pub warnings: Vec<DiskWarning>,
}

/// What was done with one disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSnapshot {
    /// The disk as the domain has it, as `xvda`.
    pub vdev: String,
    /// What was done.
    pub action: DiskAction,
    /// The image that holds the disk as it was: never to be written again, unless the action is an internal snapshot.
    pub frozen: ImageRef,
    /// The image that the domain's disk is in from now on.
    pub active: ImageRef,
    /// The frozen image and what it rests on.
    pub chain: Vec<ImageRef>,
    /// Digest of all octets of the frozen image's file, where one was asked for.
    pub digest: Option<Digest>,
    /// What could not be made sure.
    pub warnings: Vec<DiskWarning>,
}

/// Something that is probably as it should be, and could not be made sure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum DiskWarning {
    /// The descriptors of these processes cannot be seen: one of them may write an image.
    ProcessesUnseen {
        /// How many.
        count: usize,
    },
    /// Which file QEMU has open is known from its name only, since its descriptors cannot be seen.
    OpenByName,
    /// QEMU did not make the frozen image read-only.
    FrozenNotReadOnly {
        /// The node.
        node: String,
    },
    /// The connection was lost during the transaction. Asked again, QEMU told that it was carried out.
    QmpLost,
}

impl fmt::Display for DiskWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ProcessesUnseen { count } => {
                write!(f, "{count} processes may have an image open, which cannot be seen")
            }
            Self::OpenByName => f.write_str("which file QEMU has open is known by name only"),
            Self::FrozenNotReadOnly { node } => {
                write!(f, "the frozen node {node} is not read-only")
            }
            Self::QmpLost => f.write_str(
                "the connection to QEMU was lost during the transaction, and made again",
            ),
        }
    }
}
