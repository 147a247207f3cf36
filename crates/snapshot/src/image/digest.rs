//! Digests: one for each mebibyte, and one for all.

use std::fmt;

/// Octets that one digest of a table stands for.
pub const CHUNK_LEN: usize = 1 << 20;

/// Says what is hashed, so that no digest of something else is the same.
const STREAM_CONTEXT: &[u8; 16] = b"domkeep stream 1";

/// A BLAKE3 digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    pub(crate) const ZERO: Self = Self([0; 32]);
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The CRC32C of each mebibyte of a stream, the last of which may be shorter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StreamDigests {
    len: u64,
    table: Vec<u32>,
    crc: u32,
    in_chunk: usize,
}

impl StreamDigests {
    pub(crate) fn update(&mut self, mut octets: &[u8]) {
        while !octets.is_empty() {
            let (now, later) = octets.split_at(octets.len().min(CHUNK_LEN - self.in_chunk));
            self.crc = crc32c::crc32c_append(self.crc, now);
            self.in_chunk += now.len();
            self.len += now.len() as u64;
            if self.in_chunk == CHUNK_LEN {
                self.end_chunk();
            }
            octets = later;
        }
    }

    /// Takes a mebibyte whose digest is known. Only the last one may be shorter.
    pub(crate) fn chunk(&mut self, len: usize, crc: u32) {
        self.len += len as u64;
        self.table.push(crc);
    }

    fn end_chunk(&mut self) {
        self.table.push(self.crc);
        self.crc = 0;
        self.in_chunk = 0;
    }

    pub(crate) fn finish(mut self) -> FinishedDigests {
        if self.in_chunk > 0 {
            self.end_chunk();
        }
        FinishedDigests::new(self.len, self.table)
    }
}

/// The digests of a whole stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FinishedDigests {
    pub(crate) len: u64,
    pub(crate) table: Vec<u32>,
    pub(crate) digest: Digest,
}

impl FinishedDigests {
    pub(crate) fn new(len: u64, table: Vec<u32>) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(STREAM_CONTEXT).update(&len.to_le_bytes()).update(&to_octets(&table));
        Self { len, table, digest: Digest(hasher.finalize().into()) }
    }
}

/// A table as it is in a file.
pub(crate) fn to_octets(table: &[u32]) -> Vec<u8> {
    table.iter().flat_map(|crc| crc.to_le_bytes()).collect()
}

/// A table out of a file.
pub(crate) fn from_octets(octets: &[u8]) -> Vec<u32> {
    octets.as_chunks().0.iter().map(|crc| u32::from_le_bytes(*crc)).collect()
}

/// Mebibytes that so many octets begin.
pub(crate) const fn chunks(len: u64) -> u64 {
    len.div_ceil(CHUNK_LEN as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_stream_is_cut_into_pieces_does_not_change_its_digests() {
        let octets: Vec<u8> =
            (0..3 * CHUNK_LEN + 17).map(|at| (at % 251).to_le_bytes()[0]).collect();
        let mut whole = StreamDigests::default();
        whole.update(&octets);
        let mut pieces = StreamDigests::default();
        octets.chunks(70_001).for_each(|piece| pieces.update(piece));
        let mut known = StreamDigests::default();
        octets.chunks(CHUNK_LEN).for_each(|chunk| known.chunk(chunk.len(), crc32c::crc32c(chunk)));
        let whole = whole.finish();
        assert_eq!(whole.table.len(), 4);
        assert_eq!(pieces.finish(), whole);
        assert_eq!(known.finish(), whole);
    }
}
