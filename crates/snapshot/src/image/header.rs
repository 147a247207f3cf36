//! The page that every image of Domkeep's own formats begins with.

use std::fmt;

use uuid::Uuid;

use super::digest::{CHUNK_LEN, Digest};
use super::stream::fields::{array, u16_at, u32_at, u64_at};
use super::stream::{GuestType, PAGE_LEN, Start};

/// The eight octets that every image begins with: no text, and broken by whatever changes line ends.
pub const IMAGE_MAGIC: [u8; 8] = *b"\x8eDomImg\n";

/// Octets of the header.
pub const HEADER_LEN: usize = PAGE_LEN;

/// Where the state is, which is written last of all.
pub(crate) const STATE_AT: u64 = 8;

const PARTIAL: [u8; 8] = *b"PARTIAL\0";
const COMPLETE: [u8; 8] = *b"COMPLETE";

/// The version that is written.
pub const FORMAT_VERSION: FormatVersion = FormatVersion { major: 1, minor: 0 };

const LITTLE_ENDIAN: u32 = 1;
const CRC_AT: usize = 24;
const ROOT_AT: usize = 112;
const FORMAT_AT: usize = 144;
/// Octets of the fields of a format.
const FORMAT_LEN: usize = 32;

/// What the header of an image says; all that can be known without reading more than [`HEADER_LEN`] octets.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageInfo {
    /// Of which version of the format the image is.
    pub version: FormatVersion,
    /// Whether it was written to its end. Of one that was not, nothing else is known but version and format.
    pub state: ImageState,
    /// Of which format, and what only that one says.
    pub layout: Layout,
    /// What the stream starts with.
    pub start: Option<Start>,
    /// The kind of guest.
    pub guest: Option<GuestType>,
    /// Which domain it is, if whoever saved it knew.
    pub uuid: Option<Uuid>,
    /// Octets of the whole image.
    pub file_len: u64,
    /// Octets of the stream that it was made of, and that comes out of it.
    pub stream_len: u64,
    /// The digest of that stream, which is the same whatever the format.
    pub stream_digest: Digest,
    /// The digest of the header and the table of digests, and so of everything in the image.
    pub root: Digest,
}

/// A version of an image's format. Readers take their own major version, with any minor one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FormatVersion {
    /// Changes with what older readers would read wrongly.
    pub major: u16,
    /// Changes with what older readers can leave unread.
    pub minor: u16,
}

impl fmt::Display for FormatVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// How far an image has been written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ImageState {
    /// Not to its end.
    Partial,
    /// All of it, and synced before it was marked.
    Complete,
}

/// A format of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ImageFormat {
    /// Pages at fixed places.
    Mapped,
    /// Compressed frames.
    Packed,
    /// The digests of a stream that is kept as it is.
    SideDigest,
}

impl fmt::Display for ImageFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mapped => "a mapped image",
            Self::Packed => "a packed image",
            Self::SideDigest => "a side digest",
        })
    }
}

/// What the header says that only one format has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Layout {
    /// Of a mapped image.
    Mapped {
        /// One more than the highest number of a page.
        pfn_end: u64,
        /// Pages that have content.
        pages: u64,
        /// How many of them are zero, and not stored.
        zero_pages: u64,
        /// Octets of everything in the stream that is not a page.
        records_len: u64,
    },
    /// Of a packed image.
    Packed {
        /// The number of the codec: 1 zstd, 2 lz4.
        codec: u32,
        /// The level it was asked for.
        level: i32,
        /// Where the table of frames begins.
        table_at: u64,
    },
    /// Of a side digest.
    SideDigest,
}

impl Layout {
    /// Which format it is of.
    pub const fn format(&self) -> ImageFormat {
        match self {
            Self::Mapped { .. } => ImageFormat::Mapped,
            Self::Packed { .. } => ImageFormat::Packed,
            Self::SideDigest => ImageFormat::SideDigest,
        }
    }

    const fn number(&self) -> u32 {
        match self {
            Self::Mapped { .. } => 1,
            Self::Packed { .. } => 2,
            Self::SideDigest => 3,
        }
    }

    fn to_octets(self) -> [u8; FORMAT_LEN] {
        let mut octets = [0; FORMAT_LEN];
        match self {
            Self::Mapped { pfn_end, pages, zero_pages, records_len } => {
                let numbers = [pfn_end, pages, zero_pages, records_len];
                for (field, number) in octets.as_chunks_mut::<8>().0.iter_mut().zip(numbers) {
                    *field = number.to_le_bytes();
                }
            }
            Self::Packed { codec, level, table_at } => {
                octets[..4].copy_from_slice(&codec.to_le_bytes());
                octets[4..8].copy_from_slice(&level.to_le_bytes());
                octets[8..16].copy_from_slice(&table_at.to_le_bytes());
            }
            Self::SideDigest => {}
        }
        octets
    }

    fn from_octets(number: u32, octets: &[u8]) -> Option<Self> {
        Some(match number {
            1 => Self::Mapped {
                pfn_end: u64_at(octets, 0),
                pages: u64_at(octets, 8),
                zero_pages: u64_at(octets, 16),
                records_len: u64_at(octets, 24),
            },
            2 => Self::Packed {
                codec: u32_at(octets, 0),
                level: i32::from_le_bytes(array(octets, 4)),
                table_at: u64_at(octets, 8),
            },
            3 => Self::SideDigest,
            _ => return None,
        })
    }
}

impl ImageInfo {
    /// What an image says of itself while it is being written.
    pub(crate) fn partial(layout: Layout) -> Self {
        Self {
            version: FORMAT_VERSION,
            state: ImageState::Partial,
            layout,
            start: None,
            guest: None,
            uuid: None,
            file_len: 0,
            stream_len: 0,
            stream_digest: Digest::ZERO,
            root: Digest::ZERO,
        }
    }

    /// The format.
    pub const fn format(&self) -> ImageFormat {
        self.layout.format()
    }

    /// The root digest of this header with a table of digests.
    pub(crate) fn root_with(&self, table: &[u8]) -> Digest {
        root_of(&self.to_page(), table)
    }

    /// The octets of the header.
    pub(crate) fn to_page(&self) -> [u8; HEADER_LEN] {
        let mut page = [0; HEADER_LEN];
        let mut put =
            |at: usize, octets: &[u8]| page[at..at + octets.len()].copy_from_slice(octets);
        put(0, &IMAGE_MAGIC);
        put(8, if self.state == ImageState::Complete { &COMPLETE } else { &PARTIAL });
        put(16, &self.version.major.to_le_bytes());
        put(18, &self.version.minor.to_le_bytes());
        put(20, &self.layout.number().to_le_bytes());
        put(28, &self.start.map_or(0, number_of_start).to_le_bytes());
        put(32, &LITTLE_ENDIAN.to_le_bytes());
        put(36, &self.guest.map_or(0, GuestType::number).to_le_bytes());
        put(40, self.uuid.unwrap_or_default().as_bytes());
        put(56, &4096u32.to_le_bytes());
        put(60, &(1u32 << 20).to_le_bytes());
        put(64, &self.file_len.to_le_bytes());
        put(72, &self.stream_len.to_le_bytes());
        put(80, &self.stream_digest.0);
        put(ROOT_AT, &self.root.0);
        put(FORMAT_AT, &self.layout.to_octets());
        reseal(&mut page, None);
        page
    }

    /// Reads the octets of a header.
    pub(crate) fn from_page(page: &[u8; HEADER_LEN]) -> Result<Self, HeaderError> {
        if array::<8>(page, 0) != IMAGE_MAGIC {
            return Err(HeaderError::Magic);
        }
        let version = FormatVersion { major: u16_at(page, 16), minor: u16_at(page, 18) };
        // First: the digest of another version may be elsewhere.
        if version.major != FORMAT_VERSION.major {
            return Err(HeaderError::Version { version });
        }
        if u32_at(page, CRC_AT) != crc_of(page) {
            return Err(HeaderError::Crc);
        }
        let state = match array::<8>(page, 8) {
            COMPLETE => ImageState::Complete,
            PARTIAL => ImageState::Partial,
            _ => return Err(HeaderError::Field { field: "state" }),
        };
        let format = u32_at(page, 20);
        let layout = Layout::from_octets(format, &page[FORMAT_AT..])
            .ok_or(HeaderError::Field { field: "format" })?;
        let start = match u32_at(page, 28) {
            0 => None,
            1 => Some(Start::Xl),
            2 => Some(Start::Libxl),
            3 => Some(Start::Libxc),
            _ => return Err(HeaderError::Field { field: "start" }),
        };
        let guest = match u32_at(page, 36) {
            0 => None,
            number => {
                Some(GuestType::from_number(number).ok_or(HeaderError::Field { field: "guest" })?)
            }
        };
        let uuid = Uuid::from_bytes(array(page, 40));
        let info = Self {
            version,
            state,
            layout,
            start,
            guest,
            uuid: (!uuid.is_nil()).then_some(uuid),
            file_len: u64_at(page, 64),
            stream_len: u64_at(page, 72),
            stream_digest: Digest(array(page, 80)),
            root: Digest(array(page, ROOT_AT)),
        };
        // Byte order, page and chunk size have one value, and what is not in use is zero, until a minor version uses it.
        let known = if version.minor > FORMAT_VERSION.minor { 64 } else { HEADER_LEN };
        if info.to_page()[28..known] != page[28..known] {
            return Err(HeaderError::Field { field: "reserved" });
        }
        Ok(info)
    }
}

/// The digest of a header, without what is not known before it, and a table of digests.
pub(crate) fn root_of(page: &[u8; HEADER_LEN], table: &[u8]) -> Digest {
    let mut page = *page;
    page[8..16].fill(0);
    page[CRC_AT..CRC_AT + 4].fill(0);
    page[ROOT_AT..ROOT_AT + 32].fill(0);
    Digest(blake3::Hasher::new().update(&page).update(table).finalize().into())
}

/// Puts the root digest, if any, and then the digest of the header into a header.
pub(crate) fn reseal(page: &mut [u8; HEADER_LEN], root: Option<Digest>) {
    if let Some(root) = root {
        page[ROOT_AT..ROOT_AT + 32].copy_from_slice(&root.0);
    }
    let crc = crc_of(page);
    page[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
}

/// The digest of a header alone; neither it nor the state count.
fn crc_of(page: &[u8; HEADER_LEN]) -> u32 {
    let crc = crc32c::crc32c(&page[..8]);
    let crc = crc32c::crc32c_append(crc, &page[16..CRC_AT]);
    crc32c::crc32c_append(crc, &page[CRC_AT + 4..])
}

const fn number_of_start(start: Start) -> u32 {
    match start {
        Start::Xl => 1,
        Start::Libxl => 2,
        Start::Libxc => 3,
    }
}

/// The state that is written last.
pub(crate) const fn complete() -> [u8; 8] {
    COMPLETE
}

/// How long a file with a table of so many mebibytes' digests is.
pub(crate) fn side_digest_len(chunks: usize) -> u64 {
    (HEADER_LEN + chunks * 4) as u64
}

/// Pages of one mebibyte.
pub(crate) const PAGES_OF_CHUNK: u64 = (CHUNK_LEN / PAGE_LEN) as u64;

/// Why octets are no header of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The first octets are others.
    #[error("the first 8 octets are not those of an image")]
    Magic,
    /// Of a version that is not known.
    #[error("the image is of version {version}, and version {}.x is read", FORMAT_VERSION.major)]
    Version {
        /// Which.
        version: FormatVersion,
    },
    /// Not as it was written.
    #[error("the header's digest is another")]
    Crc,
    /// A field has a value that it cannot have.
    #[error("the field `{field}` of the header has a value that it cannot have")]
    Field {
        /// Which.
        field: &'static str,
    },
}
