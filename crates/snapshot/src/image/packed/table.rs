//! The table of frames.

use crate::image::digest::CHUNK_LEN;
use crate::image::header::HEADER_LEN;
use crate::image::stream::fields::u32_at;

/// Octets of one entry.
pub(super) const ENTRY_LEN: usize = 12;

/// The frame is stored as it is.
const STORED_PLAIN: u32 = 1 << 31;

/// The frame is stored in pieces.
const STORED_IN_PIECES: u32 = 1 << 30;

/// Entries of which one is kept with its place in the file; the others are counted from there.
const STRIDE: usize = 64;

/// What the table says of a frame.
///
/// ```text
/// octet  0                                            4                    8
///        octets in the file u32 (bits 30, 31: form)   their CRC32C u32     that of the content u32
/// ```
///
/// A frame with no octets in the file is all zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FrameEntry {
    pub(super) stored_len: u32,
    pub(super) form: Form,
    pub(super) stored_crc: u32,
    pub(super) content_crc: u32,
}

/// How a frame is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Form {
    /// All of it through the codec.
    #[default]
    Whole,
    /// As it is.
    Plain,
    /// Its pieces, what is plain of it, and the rest through the codec.
    Pieces,
}

impl Form {
    const fn bits(self) -> u32 {
        match self {
            Self::Whole => 0,
            Self::Plain => STORED_PLAIN,
            Self::Pieces => STORED_IN_PIECES,
        }
    }
}

impl FrameEntry {
    pub(super) fn to_octets(self) -> [u8; ENTRY_LEN] {
        let mut octets = [0; ENTRY_LEN];
        let len = self.stored_len | self.form.bits();
        octets[..4].copy_from_slice(&len.to_le_bytes());
        octets[4..8].copy_from_slice(&self.stored_crc.to_le_bytes());
        octets[8..].copy_from_slice(&self.content_crc.to_le_bytes());
        octets
    }

    /// With both bits of the form set it is plain, and longer than any frame.
    fn from_octets(octets: &[u8; ENTRY_LEN]) -> Self {
        let len = u32_at(octets, 0);
        let form = match len {
            plain if plain & STORED_PLAIN != 0 => Form::Plain,
            pieces if pieces & STORED_IN_PIECES != 0 => Form::Pieces,
            _ => Form::Whole,
        };
        Self {
            stored_len: len & !form.bits(),
            form,
            stored_crc: u32_at(octets, 4),
            content_crc: u32_at(octets, 8),
        }
    }
}

/// The table of an image whose lengths go together.
#[derive(Debug)]
pub(super) struct FrameTable {
    entries: Vec<u8>,
    /// Where every [`STRIDE`]th frame begins in the file.
    starts: Vec<u64>,
    stream_len: u64,
}

impl FrameTable {
    /// A table; `None` if it does not fit the stream, or its frames do not end where the table begins.
    pub(super) fn new(entries: Vec<u8>, stream_len: u64, table_at: u64) -> Option<Self> {
        let mut table = Self { entries, starts: Vec::new(), stream_len };
        let mut at = HEADER_LEN as u64;
        for index in 0..table.len() {
            if index.is_multiple_of(STRIDE) {
                table.starts.push(at);
            }
            let entry = table.entry(index)?;
            let content = table.content_len(index);
            let stored = entry.stored_len as usize;
            let fits = match entry.form {
                Form::Whole | Form::Pieces => stored < content,
                Form::Plain => stored == content,
            };
            if !fits {
                return None;
            }
            at += u64::from(entry.stored_len);
        }
        (at == table_at).then_some(table)
    }

    /// How many frames there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len() / ENTRY_LEN
    }

    pub(super) fn entry(&self, index: usize) -> Option<FrameEntry> {
        self.entries.as_chunks().0.get(index).map(FrameEntry::from_octets)
    }

    /// Octets of the stream in a frame.
    pub(super) fn content_len(&self, index: usize) -> usize {
        let begins = index as u64 * CHUNK_LEN as u64;
        let rest = self.stream_len.saturating_sub(begins);
        usize::try_from(rest).map_or(CHUNK_LEN, |rest| rest.min(CHUNK_LEN))
    }

    /// Where in the file a frame begins.
    pub(super) fn offset(&self, index: usize) -> Option<u64> {
        let near = index / STRIDE * STRIDE;
        let start = *self.starts.get(index / STRIDE)?;
        let before = (near..index).filter_map(|index| self.entry(index));
        Some(start + before.map(|entry| u64::from(entry.stored_len)).sum::<u64>())
    }
}
