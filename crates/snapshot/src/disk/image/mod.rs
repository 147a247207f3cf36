//! Images: what one is, and what it rests on.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

mod chain;
mod holders;
mod qcow2_header;

pub(super) use chain::recorded;
pub use chain::{Chain, ChainRefusal, ChainRule, ChainRules, DEPTH_DEFAULT, Writers};
pub use holders::Holders;
pub(super) use holders::OpenFiles;
pub use qcow2_header::{BACKING_NAME_MAX, Qcow2Header, Qcow2HeaderError, RecordedBacking};

/// Octets at the beginning of an image that [`ImageRef::header_digest`] covers, or all of a shorter one: the header of a
/// qcow2 image with the name of its backing file, the partition table of a raw one.
pub const HEADER_OCTETS: u64 = 64 << 10;

/// What an image file is. It is always said, never guessed: a guest that writes a qcow2 header into a raw image would choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageFormat {
    /// The octets of the disk.
    Raw,
    /// QEMU's copy-on-write format, version 2 or 3.
    Qcow2,
}

impl ImageFormat {
    /// The name that QEMU has for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }

    /// The format that QEMU calls so, if it is one of these.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Raw, Self::Qcow2].into_iter().find(|format| format.name() == name)
    }
}

impl fmt::Display for ImageFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An image as it was when it was looked at: enough to know it again, and to see that it has been changed.
///
/// What the guest's content is, it does not tell: a write into a cluster that is there already shows in the modification time alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRef {
    /// As the caller or the image above names it.
    pub path: PathBuf,
    /// Its format.
    pub format: ImageFormat,
    /// Device number of the file system.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Octets of the file or block device.
    pub size: u64,
    /// Octets that the guest sees.
    pub virtual_size: u64,
    /// Last modification: nanoseconds since 1970. A block device has none that means anything.
    pub mtime_ns: i64,
    /// Digest of the first [`HEADER_OCTETS`].
    pub header_digest: Digest,
}

impl ImageRef {
    /// Looks at an image. It is opened for reading only.
    ///
    /// # Errors
    ///
    /// If it cannot be opened or read, is neither a regular file nor a block device, or has no header of its format.
    pub fn read(path: impl Into<PathBuf>, format: ImageFormat) -> Result<Self, ImageError> {
        Ok(OpenImage::open(path.into(), format)?.image)
    }

    /// Whether both are the same file, whatever their names.
    pub fn is_same_file(&self, other: &Self) -> bool {
        (self.dev, self.ino) == (other.dev, other.ino)
    }

    /// What is different from when it was looked at before.
    pub fn changes_since(&self, earlier: &Self) -> Vec<ImageChange> {
        let Self { path: _, format, dev, ino, size, virtual_size, mtime_ns, header_digest } = self;
        let changes = [
            ((*dev, *ino) != (earlier.dev, earlier.ino), ImageChange::OtherFile),
            (*format != earlier.format, ImageChange::Format),
            (*size != earlier.size, ImageChange::Size),
            (*virtual_size != earlier.virtual_size, ImageChange::VirtualSize),
            (*mtime_ns != earlier.mtime_ns, ImageChange::Modified),
            (*header_digest != earlier.header_digest, ImageChange::Header),
        ];
        changes.into_iter().filter_map(|(changed, change)| changed.then_some(change)).collect()
    }
}

/// How an image is different from what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ImageChange {
    /// Another file has its name.
    OtherFile,
    /// It is said to be of another format.
    Format,
    /// Octets of the file.
    Size,
    /// Octets that the guest sees.
    VirtualSize,
    /// Somebody has written to it.
    Modified,
    /// The first octets.
    Header,
}

impl fmt::Display for ImageChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OtherFile => "another file has its name",
            Self::Format => "the format is another",
            Self::Size => "the size is another",
            Self::VirtualSize => "the virtual size is another",
            Self::Modified => "it was written to",
            Self::Header => "the header is another",
        })
    }
}

/// An image with the descriptor that all is known from, so that nothing can be put in its place in between.
#[derive(Debug)]
pub(super) struct OpenImage {
    pub(super) image: ImageRef,
    /// Of a qcow2 image.
    pub(super) header: Option<Qcow2Header>,
    pub(super) file: File,
}

impl OpenImage {
    pub(super) fn open(path: PathBuf, format: ImageFormat) -> Result<Self, ImageError> {
        // Without O_NONBLOCK a FIFO in the place of an image would hang.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(descriptor) => Self::of(descriptor.into(), path, format),
            Err(errno) => Err(ImageError::Open { path, source: errno.into() }),
        }
    }

    pub(super) fn of(
        mut file: File,
        path: PathBuf,
        format: ImageFormat,
    ) -> Result<Self, ImageError> {
        let cluster = usize::try_from(qcow2_header::CLUSTER_MAX).unwrap_or(usize::MAX);
        let mut first = Vec::with_capacity(cluster.min(64 << 10));
        let looked = file.metadata().and_then(|metadata| {
            let kind = metadata.file_type();
            if !kind.is_file() && !kind.is_block_device() {
                return Ok(None);
            }
            // A block device has its size only in its end.
            let size = file.seek(SeekFrom::End(0))?;
            file.seek(SeekFrom::Start(0))?;
            let wanted = if format == ImageFormat::Qcow2 {
                qcow2_header::CLUSTER_MAX
            } else {
                HEADER_OCTETS
            };
            (&mut file).take(wanted).read_to_end(&mut first)?;
            Ok(Some((metadata, size)))
        });
        let (metadata, size) = match looked {
            Ok(Some(seen)) => seen,
            Ok(None) => return Err(ImageError::NotAFile { path }),
            Err(source) => return Err(ImageError::Read { path, source }),
        };
        let header = match format {
            ImageFormat::Raw => None,
            ImageFormat::Qcow2 => match Qcow2Header::parse(&first) {
                Ok(header) => Some(header),
                Err(source) => return Err(ImageError::Header { path, source }),
            },
        };
        let covered = usize::try_from(HEADER_OCTETS).unwrap_or(usize::MAX).min(first.len());
        let mtime_ns = metadata.mtime().saturating_mul(1_000_000_000) + metadata.mtime_nsec();
        let image = ImageRef {
            path,
            format,
            dev: metadata.dev(),
            ino: metadata.ino(),
            size,
            // QEMU's disks are whole sectors, also where a raw file is not.
            virtual_size: header
                .as_ref()
                .map_or_else(|| size.next_multiple_of(512), |header| header.virtual_size),
            mtime_ns,
            header_digest: Digest::of(&first[..covered]),
        };
        Ok(Self { image, header, file })
    }
}

/// A BLAKE3 digest; 64 hexadecimal digits as text and in serialised results.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of octets.
    pub fn of(octets: &[u8]) -> Self {
        Self(blake3::hash(octets).into())
    }

    /// A digest that was taken elsewhere.
    pub(crate) const fn from_octets(octets: [u8; 32]) -> Self {
        Self(octets)
    }

    pub(super) fn finished(hasher: &blake3::Hasher) -> Self {
        Self(hasher.finalize().into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(blake3::Hash::from(self.0).to_hex().as_str())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let hash = blake3::Hash::from_hex(text.as_bytes()).map_err(serde::de::Error::custom)?;
        Ok(Self(hash.into()))
    }
}

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// It cannot be opened for reading.
    #[error("cannot open {}", path.display())]
    Open {
        /// The image.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The image.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A directory, a FIFO or the like.
    #[error("{} is neither a regular file nor a block device", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// It has no usable header of the format it is said to have.
    #[error("{} is no usable qcow2 image", path.display())]
    Header {
        /// The image.
        path: PathBuf,
        /// Why.
        source: Qcow2HeaderError,
    },
}

impl ImageError {
    /// The image.
    pub fn path(&self) -> &Path {
        match self {
            Self::Open { path, .. }
            | Self::Read { path, .. }
            | Self::NotAFile { path }
            | Self::Header { path, .. } => path,
        }
    }
}
