//! A frame on its way into the file.

use std::io;

use super::codec::{Encoder, encoded_max};
use super::noise::is_noise;
use super::pieces::{Piece, Pieces, take};
use super::table::{Form, FrameEntry};
use crate::image::digest::CHUNK_LEN;
use crate::image::stream::{PAGE_LEN, is_zero};
use crate::image::zeros::crc_with_zeros;

/// A mebibyte of the stream, or what is left of it, sorted into what a codec is to see and what not. Its buffers are used again.
#[derive(Default)]
pub(super) struct Frame {
    /// Octets of the stream so far.
    len: usize,
    pieces: Pieces,
    coded: Vec<u8>,
    plain: Vec<u8>,
    noise: Vec<Noise>,
    /// The pieces as they are in the file.
    map: Vec<u8>,
    /// What the codec gave, or the frame as it is.
    encoded: Vec<u8>,
    encoded_len: usize,
    entry: FrameEntry,
}

/// A whole page of noise that is in the frame.
struct Noise {
    /// Its first octets, by which it is found. They are random themselves.
    key: [u8; 8],
    /// Where in the frame it is.
    at: u32,
    /// Where among what is stored as it is.
    plain_at: usize,
}

/// What octets are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Coded,
    Zero,
    Noise,
}

impl Kind {
    pub(super) fn of_page(page: &[u8; PAGE_LEN]) -> Self {
        if is_zero(page) {
            Self::Zero
        } else if is_noise(page) {
            Self::Noise
        } else {
            Self::Coded
        }
    }
}

impl Frame {
    /// Octets of the stream in it.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// How many more it takes.
    pub(super) fn room(&self) -> usize {
        CHUNK_LEN - self.len
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
        self.pieces.clear();
        self.coded.clear();
        self.plain.clear();
        self.noise.clear();
    }

    /// Adds octets, no more than there is room for.
    pub(super) fn push(&mut self, kind: Kind, octets: &[u8]) {
        // A chunk has no more octets than a number of 21 bits.
        let number = |octets: usize| u32::try_from(octets).unwrap_or(u32::MAX);
        let len = number(octets.len());
        let piece = match kind {
            Kind::Zero => Piece::Zero(len),
            Kind::Coded => {
                self.coded.extend_from_slice(octets);
                Piece::Coded(len)
            }
            Kind::Noise => match self.repeated(octets, number(self.len)) {
                Some(at) => Piece::Repeated(at),
                None => {
                    self.plain.extend_from_slice(octets);
                    Piece::Plain(len)
                }
            },
        };
        self.pieces.add(piece);
        self.len += octets.len();
    }

    /// Where in the frame the same page is; if nowhere, it is remembered. Only one page is compared, however many a guest makes to
    /// begin alike.
    fn repeated(&mut self, octets: &[u8], at: u32) -> Option<u32> {
        let page: &[u8; PAGE_LEN] = octets.try_into().ok()?;
        let (key, _) = page.split_first_chunk()?;
        match self.noise.iter().find(|noise| noise.key == *key) {
            Some(noise) => {
                (self.plain[noise.plain_at..noise.plain_at + PAGE_LEN] == *page).then_some(noise.at)
            }
            None => {
                self.noise.push(Noise { key: *key, at, plain_at: self.plain.len() });
                None
            }
        }
    }

    /// Compresses what is to be compressed, and computes the digests.
    pub(super) fn encode(&mut self, encoder: &mut Encoder) -> io::Result<()> {
        self.encoded_len = 0;
        if !self.coded.is_empty() {
            // Not filled anew each time: nobody looks behind the length.
            if self.encoded.len() < encoded_max() {
                self.encoded.resize(encoded_max(), 0);
            }
            self.encoded_len = encoder.encode(&self.coded, &mut self.encoded)?;
        }
        self.entry.form = match self.pieces.as_slice() {
            [Piece::Zero(_) | Piece::Coded(_)] => Form::Whole,
            _ => {
                self.pieces.write(&mut self.map);
                Form::Pieces
            }
        };
        if self.stored_len() >= self.len {
            self.pieces.join(&self.coded, &self.plain, &mut self.encoded);
            self.encoded_len = self.len;
            self.entry.form = Form::Plain;
        }
        // It is no longer than its content.
        self.entry.stored_len = u32::try_from(self.stored_len()).unwrap_or(u32::MAX);
        let crc = self.stored().iter().fold(0, |crc, part| crc32c::crc32c_append(crc, part));
        self.entry.stored_crc = crc;
        self.entry.content_crc = self.crc_of_content();
        Ok(())
    }

    /// The octets that go into the file, one part behind the other.
    pub(super) fn stored(&self) -> [&[u8]; 3] {
        let encoded = &self.encoded[..self.encoded_len];
        match self.entry.form {
            Form::Whole | Form::Plain => [encoded, &[], &[]],
            Form::Pieces => [&self.map, &self.plain, encoded],
        }
    }

    fn stored_len(&self) -> usize {
        self.stored().iter().map(|part| part.len()).sum()
    }

    /// What the table says of it, once it is encoded.
    pub(super) fn entry(&self) -> FrameEntry {
        self.entry
    }

    fn crc_of_content(&self) -> u32 {
        let (mut coded, mut plain) = (&self.coded[..], &self.plain[..]);
        let mut crc = 0;
        for piece in self.pieces.as_slice() {
            let octets = match piece {
                Piece::Coded(len) => take(&mut coded, *len as usize),
                Piece::Plain(len) => take(&mut plain, *len as usize),
                Piece::Zero(len) => {
                    crc = crc_with_zeros(crc, *len as usize);
                    continue;
                }
                Piece::Repeated(at) => {
                    let noise = self.noise.iter().find(|noise| noise.at == *at);
                    noise.map_or(&[][..], |noise| &self.plain[noise.plain_at..][..PAGE_LEN])
                }
            };
            crc = crc32c::crc32c_append(crc, octets);
        }
        crc
    }
}
