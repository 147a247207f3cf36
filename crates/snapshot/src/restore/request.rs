//! What a domain is restored from, and as what.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use xenstore_migration::domain_state::RestorePolicy;

use crate::control::DomainIdentity;
use crate::disk::image::ImageFormat;
use crate::save::{Durability, milliseconds};
use crate::{Snapshot, Target};

/// What a domain is restored from, and as what.
#[derive(Clone, Debug)]
pub struct RestoreRequest {
    /// What is restored.
    pub snapshot: Snapshot,
    /// Where its memory image is; `None` for where the snapshot says.
    pub memory: Option<Source>,
    /// Where its Xenstore state is; `None` for where the snapshot says.
    pub xenstore: Option<Source>,
    /// Beside other domains, or in the place of one.
    pub mode: RestoreMode,
    /// Name and uuid of the new domain.
    pub identity: NewIdentity,
    /// What is different about network interfaces, by devid.
    pub nics: BTreeMap<u32, NicChange>,
    /// Which image each disk gets, by vdev. Every disk that the snapshot has must be named.
    pub disks: BTreeMap<String, DiskRestore>,
    /// Which of the saved Xenstore nodes the new domain gets; `None` for none.
    ///
    /// They are given to it as soon as it is built, so its own nodes must be there by then, as with libxl. A toolstack that writes
    /// them itself says `None` and [`Start::Paused`], and calls [`crate::xenstore_state::apply`] after it has.
    pub policy: Option<RestorePolicy>,
    /// Whether an HVM guest is told that it is a copy.
    pub generation_id: GenerationId,
    /// Whether the new domain runs.
    pub start: Start,
    /// How thoroughly the disks are checked before. Memory and Xenstore state are checked whole in any case.
    pub verify: Depth,
    /// Whether new overlays are made durable.
    pub durability: Durability,
    /// How long the parts may take.
    pub deadlines: RestoreDeadlines,
    /// Where it is written what was done, for [`crate::recover()`] after this process has died. It is the caller's to remove.
    pub journal: Option<Target>,
}

impl RestoreRequest {
    /// As a new domain with the saved name and uuid, that runs; no disk is said yet.
    pub fn new(snapshot: Snapshot) -> Self {
        Self {
            snapshot,
            memory: None,
            xenstore: None,
            mode: RestoreMode::New,
            identity: NewIdentity::default(),
            nics: BTreeMap::new(),
            disks: BTreeMap::new(),
            policy: Some(RestorePolicy::cooperative()),
            generation_id: GenerationId::default(),
            start: Start::default(),
            verify: Depth::default(),
            durability: Durability::default(),
            deadlines: RestoreDeadlines::default(),
            journal: None,
        }
    }
}

/// Where something that was saved is now.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file.
    Path(PathBuf),
    /// A descriptor of a regular file, which is read from its beginning and left open.
    Descriptor(Arc<OwnedFd>),
}

/// Beside other domains, or in the place of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum RestoreMode {
    /// Beside them.
    New,
    /// In the place of one, which is destroyed once the new one is built.
    Replace {
        /// Which.
        domain: DomainIdentity,
        /// Destroy it first: where there is no memory for both, or the new domain adopts its images. If the new one cannot be
        /// built then, neither is there.
        free_first: bool,
    },
}

/// Name and uuid of a restored domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NewIdentity {
    /// The name; `None` for the saved one.
    pub name: Option<String>,
    /// The uuid.
    pub uuid: UuidChoice,
}

/// The uuid of a restored domain. No other domain may have it, but one that is replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UuidChoice {
    /// The saved one.
    #[default]
    Keep,
    /// This one.
    New(Uuid),
}

/// What is different about a network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NicChange {
    /// The address; `None` for the saved one.
    pub mac: Option<[u8; 6]>,
    /// The bridge; `None` for the saved one.
    pub bridge: Option<String>,
}

/// Which image a disk of a restored domain gets. Nothing opens a frozen image for writing.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum DiskRestore {
    /// The frozen one, read-only.
    FrozenReadOnly,
    /// A new overlay over the frozen one.
    NewOverlay {
        /// The overlay.
        overlay: Target,
    },
    /// The image that was active after the save, with what was written since. Where the memory is restored too, nobody may have
    /// written to it.
    AdoptActive,
    /// An image of the caller's, in which the disk is as it was saved; or, for a disk that was skipped, as it has to be.
    Image {
        /// The image.
        path: PathBuf,
        /// Its format.
        format: ImageFormat,
        /// Whether it is compared with the frozen image's digest, which the snapshot must have then.
        verify: bool,
    },
    /// As the saved configuration has it: for a disk that was skipped, or that the guest cannot write.
    AsConfigured,
}

/// Whether an HVM guest is told, by another generation id, that it is a copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GenerationId {
    /// It is, if it had such an id.
    #[default]
    New,
    /// It is not: the saved domain does not exist any more and the snapshot is not restored twice.
    Keep,
}

/// Whether a restored domain runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// It does.
    #[default]
    Run,
    /// It is left paused.
    Paused,
}

/// How thoroughly what was saved is compared with what is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Depth {
    /// Headers: of the memory image, and of each frozen image.
    Header,
    /// Headers of every image in every chain.
    #[default]
    Chain,
    /// Every octet that there is a digest of.
    Full,
}

/// How long the parts of a restore may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoreDeadlines {
    /// Until the domain is built, once the images are verified.
    #[serde(rename = "build_ms", with = "milliseconds")]
    pub build: Duration,
    /// All of it.
    #[serde(rename = "total_ms", with = "milliseconds")]
    pub total: Duration,
}

/// An hour for either.
impl Default for RestoreDeadlines {
    fn default() -> Self {
        Self { build: Duration::from_secs(3600), total: Duration::from_secs(3600) }
    }
}
