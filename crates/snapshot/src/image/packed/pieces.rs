//! The pieces of a frame of which not all goes through the codec.

use crate::image::stream::PAGE_LEN;
use crate::image::stream::fields::u32_at;
use crate::image::zeros::crc_with_zeros;

/// Octets of the number of pieces, and of one of them.
const WORD_LEN: usize = 4;

const KIND_SHIFT: u32 = 30;
const NUMBER_MASK: u32 = (1 << KIND_SHIFT) - 1;

/// A part of what a frame holds. In the file it is one word.
///
/// ```text
/// bit  0                                                  30
///      octets, or where the page is that it repeats       0 coded, 1 zero, 2 plain, 3 repeated
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// So many octets of what the codec gives.
    Coded(u32),
    /// So many zeros.
    Zero(u32),
    /// So many octets that are stored as they are.
    Plain(u32),
    /// The page that the frame has at this octet, once more.
    Repeated(u32),
}

impl Piece {
    /// How many octets it stands for.
    pub(super) const fn len(self) -> usize {
        match self {
            Self::Coded(len) | Self::Zero(len) | Self::Plain(len) => len as usize,
            Self::Repeated(_) => PAGE_LEN,
        }
    }

    const fn to_word(self) -> u32 {
        let (kind, number) = match self {
            Self::Coded(len) => (0, len),
            Self::Zero(len) => (1, len),
            Self::Plain(len) => (2, len),
            Self::Repeated(at) => (3, at),
        };
        kind << KIND_SHIFT | number
    }

    const fn from_word(word: u32) -> Self {
        let number = word & NUMBER_MASK;
        match word >> KIND_SHIFT {
            0 => Self::Coded(number),
            1 => Self::Zero(number),
            2 => Self::Plain(number),
            _ => Self::Repeated(number),
        }
    }
}

/// The pieces of a frame, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pieces(Vec<Piece>);

impl Pieces {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn as_slice(&self) -> &[Piece] {
        &self.0
    }

    /// Adds a piece behind the others; one of the kind of the last one makes that longer.
    pub(super) fn add(&mut self, piece: Piece) {
        match (self.0.last_mut(), piece) {
            (Some(Piece::Coded(len)), Piece::Coded(more))
            | (Some(Piece::Zero(len)), Piece::Zero(more))
            | (Some(Piece::Plain(len)), Piece::Plain(more)) => *len += more,
            _ => self.0.push(piece),
        }
    }

    /// Puts them into a buffer as they are in the file: how many, then each.
    pub(super) fn write(&self, octets: &mut Vec<u8>) {
        octets.clear();
        // A frame has no more of them than octets.
        let count = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        octets.extend_from_slice(&count.to_le_bytes());
        octets.extend(self.0.iter().flat_map(|piece| piece.to_word().to_le_bytes()));
    }

    /// Reads the pieces of a frame of so many octets, and gives what is behind them; `None` if they do not make such a frame.
    pub(super) fn read<'a>(&mut self, stored: &'a [u8], content_len: usize) -> Option<&'a [u8]> {
        self.0.clear();
        let (count, rest) = stored.split_at_checked(WORD_LEN)?;
        let len = (u32_at(count, 0) as usize).checked_mul(WORD_LEN)?;
        let (words, rest) = rest.split_at_checked(len)?;
        let mut at = 0;
        for word in words.as_chunks().0 {
            let piece = Piece::from_word(u32::from_le_bytes(*word));
            let source_ends = match piece {
                Piece::Repeated(source) => source as usize + PAGE_LEN,
                _ => 0,
            };
            if piece.len() == 0 || source_ends > at {
                return None;
            }
            at += piece.len();
            self.0.push(piece);
        }
        (at == content_len).then_some(rest)
    }

    /// How many octets come out of the codec, and how many are stored as they are.
    pub(super) fn coded_and_plain(&self) -> (usize, usize) {
        self.0.iter().fold((0, 0), |(coded, plain), piece| match piece {
            Piece::Coded(len) => (coded + *len as usize, plain),
            Piece::Plain(len) => (coded, plain + *len as usize),
            Piece::Zero(_) | Piece::Repeated(_) => (coded, plain),
        })
    }

    /// Makes the frame, and gives its CRC32C, which is computed while a piece is still in the cache. `coded` and `plain` have as many octets as the pieces of their kinds, and repeated pages are behind what they
    /// repeat.
    pub(super) fn join(&self, mut coded: &[u8], mut plain: &[u8], content: &mut Vec<u8>) -> u32 {
        content.clear();
        let mut crc = 0;
        for piece in &self.0 {
            let (at, len) = (content.len(), piece.len());
            match piece {
                Piece::Coded(_) => content.extend_from_slice(take(&mut coded, len)),
                Piece::Plain(_) => content.extend_from_slice(take(&mut plain, len)),
                Piece::Zero(_) => {
                    content.resize(at + len, 0);
                    crc = crc_with_zeros(crc, len);
                    continue;
                }
                Piece::Repeated(source) => {
                    content.extend_from_within(*source as usize..*source as usize + len);
                }
            }
            crc = crc32c::crc32c_append(crc, &content[at..]);
        }
        crc
    }
}

/// The first `len` octets, which are then no longer there.
pub(super) fn take<'a>(octets: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (first, rest) = octets.split_at(len);
    *octets = rest;
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    const PAGE: u32 = 4096;

    #[test]
    fn pieces_that_do_not_make_the_frame_are_refused() {
        let zero = 1 << KIND_SHIFT;
        let plain = 2 << KIND_SHIFT;
        let repeated = 3 << KIND_SHIFT;
        let read = |stored: &[u32], len| Pieces::default().read(&words(stored), len).is_some();
        assert!(read(&[3, plain | PAGE, zero | 7, repeated], 2 * PAGE_LEN + 7));
        assert!(!read(&[3, plain | PAGE, zero | 7, repeated], 2 * PAGE_LEN + 8), "too short");
        assert!(!read(&[3, plain | PAGE, zero | 7, repeated], 2 * PAGE_LEN), "too long");
        assert!(!read(&[2, plain | PAGE, repeated | 1], 2 * PAGE_LEN), "repeats itself");
        assert!(!read(&[3, 5, zero, 3], 8), "nothing of a kind");
        assert!(!read(&[2, 8], 8), "fewer than it says");
        assert!(!read(&[u32::MAX, 8], 8), "more than there can be");
        assert!(!read(&[], 0), "no number of pieces");
    }

    #[test]
    fn what_is_written_is_read_and_what_is_behind_it_is_given() {
        let mut pieces = Pieces::default();
        for piece in [Piece::Coded(3), Piece::Coded(5), Piece::Plain(PAGE), Piece::Repeated(8)] {
            pieces.add(piece);
        }
        assert_eq!(pieces.as_slice().len(), 3);
        assert_eq!(pieces.coded_and_plain(), (8, PAGE_LEN));
        let mut stored = Vec::new();
        pieces.write(&mut stored);
        stored.extend(b"behind");
        let mut read = Pieces::default();
        assert_eq!(read.read(&stored, 8 + 2 * PAGE_LEN), Some(&b"behind"[..]));
        assert_eq!(read, pieces);
        let mut content = Vec::new();
        let crc = read.join(b"12345678", &[9; PAGE_LEN], &mut content);
        assert_eq!(crc, crc32c::crc32c(&content));
        assert_eq!(content, [&b"12345678"[..], &[9; 2 * PAGE_LEN]].concat());
    }
}
