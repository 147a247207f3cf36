//! What is asked for, and what was done.

use std::fmt;

use crate::model::DiskFormat;
use crate::retrieve::disks;
use crate::template::{Revision, TemplateKey};

use super::Refusal;

/// A disk image: a file, and how to read it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Image {
    /// The absolute path, as the domain with the backend sees it.
    pub path: String,
    /// The format.
    pub format: DiskFormat,
}

impl Image {
    /// An image at a path, in a format.
    pub fn new(path: impl Into<String>, format: DiskFormat) -> Self {
        Self { path: path.into(), format }
    }

    /// What libxl writes under `params`, where QEMU or tapdisk serves the image.
    pub(super) fn params(&self) -> String {
        disks::params(&self.format, &self.path)
    }

    pub(super) fn of_params(params: &str) -> Result<Self, String> {
        let (format, path) = disks::parse_params(params)?;
        Ok(Self::new(path, format))
    }
}

/// `qcow2:/srv/a.qcow2`
impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.format, self.path)
    }
}

/// One disk and the image it is on by now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// The disk, by any name of its number: `xvda`, `d0p0`, `51712`.
    pub vdev: String,
    /// The new image.
    pub image: Image,
}

impl Replacement {
    /// A disk with another image.
    pub fn new(vdev: impl Into<String>, image: Image) -> Self {
        Self { vdev: vdev.into(), image }
    }
}

/// What replacing would do, or why it would not.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Plan {
    /// Whose template it is about.
    pub key: TemplateKey,
    /// The template as it is now: for [`ReplaceImage::expecting`](super::ReplaceImage::expecting).
    pub before: Revision,
    /// The disks that can be changed, in the order asked for.
    pub disks: Vec<ReplacedDisk>,
    /// Everything that speaks against it; with any of these, nothing would be done.
    pub refusals: Vec<Refusal>,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Replaced {
    /// Whose template was changed.
    pub key: TemplateKey,
    /// The template that was there.
    pub before: Revision,
    /// The template that is there now; the same if it named the new images already.
    pub after: Revision,
    /// The disks, in the order asked for.
    pub disks: Vec<ReplacedDisk>,
}

impl Replaced {
    /// What would put the images back that the live view named.
    pub fn undoing(&self) -> Vec<Replacement> {
        let back = |disk: &ReplacedDisk| Replacement::new(&*disk.vdev, disk.live.clone());
        self.disks.iter().map(back).collect()
    }
}

/// One disk with the images that the views named and the one they name now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplacedDisk {
    /// The disk, as the template calls it.
    pub vdev: String,
    /// The image that the template named.
    pub template: Image,
    /// The image that the live view named.
    pub live: Image,
    /// The image that both name now.
    pub image: Image,
}
