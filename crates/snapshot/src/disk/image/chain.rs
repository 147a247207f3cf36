//! What an image rests on, and the rules that a chain has to keep.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Holders, ImageError, ImageFormat, ImageRef, OpenFiles, OpenImage, RecordedBacking};

/// Most images in a chain, when nothing else is said. Each one is opened by QEMU, and looked through for what is not in those above.
pub const DEPTH_DEFAULT: usize = 32;

/// An image and what it rests on: the active image first, each followed by its backing file.
///
/// It is read out of the images' own headers, each through one descriptor that tells the identity as well. `qemu-img info` would
/// open by name a second time, and guesses a backing format that is not recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    images: Vec<ImageRef>,
    /// Of each image, unless nobody looked for them.
    holders: Vec<Holders>,
}

/// What a chain has to keep besides being sound.
#[derive(Clone, Copy, Debug)]
pub struct ChainRules {
    /// Most images.
    pub depth: usize,
    /// Who may write the images.
    pub writers: Writers,
}

/// Who may have images of a chain open for writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writers {
    /// Nobody: the domain does not run.
    Nobody,
    /// The QEMU with this process id. It may write the active image; a backing file it may have open for writing from earlier, but
    /// not hold the permission to.
    Only(u32),
    /// Whoever does is not looked for.
    Anybody,
}

impl Default for ChainRules {
    fn default() -> Self {
        Self { depth: DEPTH_DEFAULT, writers: Writers::Nobody }
    }
}

impl Chain {
    /// Reads and checks the chain of an image. Everything is opened for reading only.
    ///
    /// # Errors
    ///
    /// All rules that the chain breaks, as far as it can be followed.
    pub fn read(
        path: &Path,
        format: ImageFormat,
        rules: ChainRules,
    ) -> Result<Self, Vec<ChainRefusal>> {
        let open = match rules.writers {
            Writers::Anybody => None,
            Writers::Nobody | Writers::Only(_) => match OpenFiles::look() {
                Ok(open) => Some(open),
                Err(source) => {
                    let path = path.to_owned();
                    return Err(vec![ChainRefusal::Image(ImageError::Read { path, source })]);
                }
            },
        };
        Self::read_among(path, format, rules, open.as_ref())
    }

    /// Reads and checks the chain, with what was seen to be open before; nobody's use is looked at without.
    pub(in crate::disk) fn read_among(
        path: &Path,
        format: ImageFormat,
        rules: ChainRules,
        open: Option<&OpenFiles>,
    ) -> Result<Self, Vec<ChainRefusal>> {
        let mut chain = Self { images: Vec::new(), holders: Vec::new() };
        let mut refusals = Vec::new();
        let mut next = Some((path.to_owned(), format));
        while let Some((path, format)) = next.take() {
            if chain.images.len() >= rules.depth {
                refusals.push(ChainRefusal::TooDeep { path, depth: rules.depth });
                break;
            }
            let opened = match OpenImage::open(path, format) {
                Ok(opened) => opened,
                Err(error) => {
                    refusals.push(ChainRefusal::Image(error));
                    break;
                }
            };
            let path = &opened.image.path;
            if let Some(again) = chain.images.iter().find(|above| above.is_same_file(&opened.image))
            {
                refusals
                    .push(ChainRefusal::Cyclic { path: path.clone(), first: again.path.clone() });
                break;
            }
            if let Some(open) = open {
                chain.check_use(&opened, rules.writers, open, &mut refusals);
            }
            if let Some(header) = &opened.header {
                let marks = [
                    (header.encrypted, ChainRefusal::Encrypted { path: path.clone() }),
                    (header.marked_corrupt, ChainRefusal::MarkedCorrupt { path: path.clone() }),
                    (header.external_data, ChainRefusal::ExternalData { path: path.clone() }),
                ];
                refusals
                    .extend(marks.into_iter().filter_map(|(is, refusal)| is.then_some(refusal)));
                match header.backing.as_ref().map(|backing| recorded(path, backing)) {
                    Some(Ok(backing)) => next = Some(backing),
                    Some(Err(refusal)) => refusals.push(refusal),
                    None => {}
                }
            }
            chain.images.push(opened.image);
        }
        if refusals.is_empty() { Ok(chain) } else { Err(refusals) }
    }

    /// The images: the active one first. There is at least one.
    pub fn images(&self) -> &[ImageRef] {
        &self.images
    }

    /// The image on top.
    pub fn active(&self) -> &ImageRef {
        // `read` gives no chain without the image it began with.
        &self.images[0]
    }

    /// Who has each of the images open; nothing if [`Writers::Anybody`] may.
    pub fn holders(&self) -> &[Holders] {
        &self.holders
    }

    /// Processes that could not be asked whether they have an image open.
    pub fn unseen(&self) -> usize {
        self.holders.iter().map(|holders| holders.unseen).max().unwrap_or_default()
    }

    /// The images, the active one first.
    pub fn into_images(self) -> Vec<ImageRef> {
        self.images
    }

    /// Whether both are the same files in the same order.
    pub fn is_same_files(&self, other: &Self) -> bool {
        self.images.len() == other.images.len()
            && self.images.iter().zip(&other.images).all(|(image, other)| image.is_same_file(other))
    }

    fn check_use(
        &mut self,
        opened: &OpenImage,
        writers: Writers,
        open: &OpenFiles,
        refusals: &mut Vec<ChainRefusal>,
    ) {
        let path = &opened.image.path;
        if writers == Writers::Anybody {
            return;
        }
        let holders = match open.holders(&opened.file) {
            Ok(holders) => holders,
            Err(source) => {
                let path = path.clone();
                refusals.push(ChainRefusal::Image(ImageError::Read { path, source }));
                return;
            }
        };
        let allowed = if let Writers::Only(pid) = writers { Some(pid) } else { None };
        let others = holders.writing.iter().filter(|pid| Some(**pid) != allowed);
        refusals.extend(
            others.map(|pid| ChainRefusal::Written { path: path.clone(), pid: Some(*pid) }),
        );
        let is_active = self.images.is_empty();
        let locked_by_other = holders.writing.is_empty() || (allowed.is_some() && !is_active);
        if holders.write_locked && locked_by_other {
            refusals.push(ChainRefusal::Written { path: path.clone(), pid: None });
        }
        self.holders.push(holders);
    }
}

/// The file that QEMU would open for a recorded name: one that is relative is meant from where the image is.
pub(in crate::disk) fn recorded(
    path: &Path,
    backing: &RecordedBacking,
) -> Result<(PathBuf, ImageFormat), ChainRefusal> {
    let name = Path::new(OsStr::from_bytes(&backing.name));
    let directory_end = backing.name.iter().position(|octet| *octet == b'/');
    let has_protocol = backing.name[..directory_end.unwrap_or(backing.name.len())].contains(&b':');
    if has_protocol {
        let name = backing.name.escape_ascii().to_string();
        return Err(ChainRefusal::NotAPath { path: path.to_owned(), backing: name });
    }
    let found = path.parent().unwrap_or(Path::new("")).join(name);
    let Some(format) = &backing.format else {
        return Err(ChainRefusal::FormatUnrecorded { path: path.to_owned(), backing: found });
    };
    match ImageFormat::from_name(format) {
        Some(format) => Ok((found, format)),
        None => Err(ChainRefusal::FormatUnknown { path: path.to_owned(), format: format.clone() }),
    }
}

/// A rule of chains that an image breaks.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChainRefusal {
    /// An image cannot be used at all.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The chain comes back to an image.
    #[error("{} is {} again, so that the chain has no end", path.display(), first.display())]
    Cyclic {
        /// The image as it is named the second time.
        path: PathBuf,
        /// And the first time.
        first: PathBuf,
    },
    /// There are more images than allowed.
    #[error("{} would be one image more than the {depth} that a chain may have", path.display())]
    TooDeep {
        /// The first one too many.
        path: PathBuf,
        /// Images allowed.
        depth: usize,
    },
    /// What is recorded is no path: a protocol or a JSON description.
    #[error("{} records the backing file {backing:?}, which is no path", path.display())]
    NotAPath {
        /// The image.
        path: PathBuf,
        /// What it records, escaped.
        backing: String,
    },
    /// The format of a backing file is not recorded, so that QEMU would guess it.
    #[error("{} does not record the format of its backing file {}", path.display(), backing.display())]
    FormatUnrecorded {
        /// The image.
        path: PathBuf,
        /// Its backing file.
        backing: PathBuf,
    },
    /// The format of a backing file is none of [`ImageFormat`].
    #[error("{} rests on an image of the format {format:?}, which is not supported", path.display())]
    FormatUnknown {
        /// The image.
        path: PathBuf,
        /// The format it records.
        format: String,
    },
    /// Nobody else may write an image that a snapshot rests on.
    #[error("{} is open for writing{}", path.display(), by(*pid))]
    Written {
        /// The image.
        path: PathBuf,
        /// The process, unless only its lock can be seen.
        pid: Option<u32>,
    },
    /// An overlay would keep in the open what the image keeps encrypted.
    #[error("{} is encrypted", path.display())]
    Encrypted {
        /// The image.
        path: PathBuf,
    },
    /// A program found it corrupt.
    #[error("{} is marked as corrupt", path.display())]
    MarkedCorrupt {
        /// The image.
        path: PathBuf,
    },
    /// Its content is in a file that no [`ImageRef`] tells of.
    #[error("{} keeps its content in another file", path.display())]
    ExternalData {
        /// The image.
        path: PathBuf,
    },
}

fn by(pid: Option<u32>) -> String {
    pid.map_or_else(|| " by a QEMU program".to_owned(), |pid| format!(" by process {pid}"))
}

impl ChainRefusal {
    /// The rule that is broken.
    pub fn rule(&self) -> ChainRule {
        match self {
            Self::Image(ImageError::Header { .. }) => ChainRule::Header,
            Self::Image(_) => ChainRule::Present,
            Self::Cyclic { .. } => ChainRule::Acyclic,
            Self::TooDeep { .. } => ChainRule::Depth,
            Self::NotAPath { .. } => ChainRule::BackingIsAPath,
            Self::FormatUnrecorded { .. } | Self::FormatUnknown { .. } => ChainRule::FormatExplicit,
            Self::Written { .. } => ChainRule::NoOtherWriter,
            Self::Encrypted { .. } => ChainRule::NotEncrypted,
            Self::MarkedCorrupt { .. } => ChainRule::NotCorrupt,
            Self::ExternalData { .. } => ChainRule::OneFile,
        }
    }
}

/// What every chain has to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ChainRule {
    /// Every image is there and can be read.
    Present,
    /// A qcow2 image has a header that the format allows.
    Header,
    /// No image comes twice.
    Acyclic,
    /// There are not more images than allowed.
    Depth,
    /// A backing file is recorded as a path.
    BackingIsAPath,
    /// The format of every backing file is recorded, and a known one.
    FormatExplicit,
    /// Nobody writes an image but who has to.
    NoOtherWriter,
    /// No image is encrypted.
    NotEncrypted,
    /// No image is marked as corrupt.
    NotCorrupt,
    /// An image is in one file.
    OneFile,
}

impl fmt::Display for ChainRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Present => "present",
            Self::Header => "header",
            Self::Acyclic => "acyclic",
            Self::Depth => "depth",
            Self::BackingIsAPath => "backing_is_a_path",
            Self::FormatExplicit => "format_explicit",
            Self::NoOtherWriter => "no_other_writer",
            Self::NotEncrypted => "not_encrypted",
            Self::NotCorrupt => "not_corrupt",
            Self::OneFile => "one_file",
        })
    }
}
