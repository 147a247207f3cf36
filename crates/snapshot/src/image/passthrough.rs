//! The stream as it is, and its digests beside it.
//!
//! What Xen's own tools write has no digest of any kind, and they restore a file whose pages have changed without a word. Here the
//! stream stays theirs, so that they can read it, and a [`SideDigest`] holds the digest of each of its mebibytes. The
//! caller keeps it where it likes.

use std::io::{self, Read, Write};

use uuid::Uuid;

use super::ImageFormat;
use super::digest::{
    CHUNK_LEN, Digest, FinishedDigests, StreamDigests, chunks, from_octets, to_octets,
};
use super::error::{ImageOpenError, ImageWriteError};
use super::header::{FORMAT_VERSION, HEADER_LEN, ImageInfo, ImageState, Layout, side_digest_len};
use super::limits::Limits;
use super::open::{open_header, read_table};
use super::stream::{CheckedReader, StreamSummary, fill};

/// Copies a stream as it is, checking that it is a saved domain, and gives its digests.
///
/// The stream is read up to its END record and not an octet further. [`io::sink`] as output makes the digests of a stream
/// that is there already. Memory does not grow with the guest, except for 4 octets for each mebibyte of it.
///
/// # Errors
///
/// If the stream is no saved domain or larger than the limits, or the output fails.
pub fn copy<R: Read, W: Write>(
    input: R,
    mut output: W,
    limits: Limits,
) -> Result<(SideDigest, StreamSummary), ImageWriteError> {
    let mut digests = StreamDigests::default();
    let mut reader = CheckedReader::new(input, limits);
    let mut offset = 0;
    while let Some(event) = reader.next_event()? {
        digests.update(event.raw);
        output.write_all(event.raw).map_err(|source| ImageWriteError::Output { offset, source })?;
        offset += event.raw.len() as u64;
    }
    output.flush().map_err(|source| ImageWriteError::Output { offset, source })?;
    let summary = reader.summary();
    Ok((SideDigest::new(digests.finish(), &summary), summary))
}

/// The digests of a stream that is kept as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SideDigest {
    info: ImageInfo,
    table: Vec<u32>,
}

impl SideDigest {
    fn new(digests: FinishedDigests, summary: &StreamSummary) -> Self {
        let mut info = ImageInfo::partial(Layout::SideDigest);
        info.state = ImageState::Complete;
        info.start = summary.start;
        info.guest = summary.domain.map(|domain| domain.guest);
        info.file_len = side_digest_len(digests.table.len());
        info.stream_len = digests.len;
        info.stream_digest = digests.digest;
        let mut side = Self { info, table: digests.table };
        side.seal();
        side
    }

    /// Says which domain it is, in the header.
    #[must_use]
    pub fn with_uuid(mut self, uuid: Uuid) -> Self {
        self.info.uuid = Some(uuid);
        self.seal();
        self
    }

    fn seal(&mut self) {
        self.info.root = self.info.root_with(&to_octets(&self.table));
    }

    /// What the header says.
    pub fn info(&self) -> &ImageInfo {
        &self.info
    }

    /// The digest of the stream, the same whatever format it is kept in.
    pub fn stream_digest(&self) -> Digest {
        self.info.stream_digest
    }

    /// The octets to be kept: 4096, and 4 for each mebibyte of the stream. One that was read from a newer minor version is
    /// written as this one, without what only that has.
    pub fn to_octets(&self) -> Vec<u8> {
        let mut own = self.info.clone();
        if own.version != FORMAT_VERSION {
            own.version = FORMAT_VERSION;
            own.root = own.root_with(&to_octets(&self.table));
        }
        let mut octets = own.to_page().to_vec();
        octets.extend(to_octets(&self.table));
        octets
    }

    /// Reads what [`SideDigest::to_octets`] has given.
    ///
    /// # Errors
    ///
    /// If it is something else, was changed, or is that of a stream longer than the limits.
    pub fn from_octets(octets: &[u8], limits: Limits) -> Result<Self, ImageOpenError> {
        let (page, info) = open_header(&octets, ImageFormat::SideDigest)?;
        let (has, max) = (info.stream_len, limits.stream_max);
        if has > max {
            return Err(ImageOpenError::TooLarge { what: "a stream of", has, max });
        }
        let table_len = chunks(info.stream_len) * 4;
        if info.file_len != HEADER_LEN as u64 + table_len {
            return Err(ImageOpenError::Layout);
        }
        let table = read_table(&octets, &page, &info, HEADER_LEN as u64, table_len)?;
        let digests = FinishedDigests::new(info.stream_len, from_octets(&table));
        if digests.digest != info.stream_digest {
            return Err(ImageOpenError::Root);
        }
        Ok(Self { info, table: digests.table })
    }

    /// Checks that a stream is the one that this is the digest of. It reads the stream to its end, and no further than an octet
    /// behind where that should be.
    ///
    /// # Errors
    ///
    /// If it is another, naming the first mebibyte that is.
    pub fn verify<R: Read>(&self, mut stream: R) -> Result<(), VerifyError> {
        let mut chunk = vec![0; CHUNK_LEN];
        let mut offset = 0;
        for digest in &self.table {
            let rest = usize::try_from(self.info.stream_len - offset).unwrap_or(CHUNK_LEN);
            let chunk = &mut chunk[..rest.min(CHUNK_LEN)];
            let has =
                fill(&mut stream, chunk).map_err(|source| VerifyError::Io { offset, source })?;
            if has < chunk.len() {
                let needs = self.info.stream_len;
                return Err(VerifyError::Cut { has: offset + has as u64, needs });
            }
            if crc32c::crc32c(chunk) != *digest {
                return Err(VerifyError::Digest { offset });
            }
            offset += has as u64;
        }
        match fill(&mut stream, &mut [0]).map_err(|source| VerifyError::Io { offset, source })? {
            0 => Ok(()),
            _ => Err(VerifyError::Longer { needs: self.info.stream_len }),
        }
    }
}

/// Why a stream is not the one that a side digest is of.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// It cannot be read.
    #[error("the stream cannot be read at octet {offset}")]
    Io {
        /// Where.
        offset: u64,
        /// Why not.
        source: io::Error,
    },
    /// It is shorter.
    #[error("the stream has {has} octets instead of {needs}")]
    Cut {
        /// Its length.
        has: u64,
        /// That of the one that was saved.
        needs: u64,
    },
    /// It is longer.
    #[error("the stream has more than {needs} octets")]
    Longer {
        /// The length of the one that was saved.
        needs: u64,
    },
    /// It has other octets.
    #[error("the stream is not the one that was saved, in the mebibyte at octet {offset}")]
    Digest {
        /// Where the mebibyte begins.
        offset: u64,
    },
}
