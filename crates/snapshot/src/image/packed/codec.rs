//! The codecs of packed images.

use std::fmt;
use std::io;

use zstd::zstd_safe::CParameter;

use crate::image::digest::CHUNK_LEN;

/// The level of zstd when nothing else is said: the fastest of those that are levels.
pub const ZSTD_LEVEL_DEFAULT: i32 = 1;

/// How frames are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Codec {
    /// zstd; each frame is one zstd frame.
    Zstd {
        /// From 1, the fastest, to 22; lower ones are faster still.
        level: i32,
    },
    /// lz4; each frame is one block, without a header.
    Lz4,
}

impl Default for Codec {
    fn default() -> Self {
        Self::Zstd { level: ZSTD_LEVEL_DEFAULT }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zstd { level } => write!(f, "zstd level {level}"),
            Self::Lz4 => f.write_str("lz4"),
        }
    }
}

impl Codec {
    /// The numbers of codec and level in a header.
    pub(crate) const fn numbers(self) -> (u32, i32) {
        match self {
            Self::Zstd { level } => (1, level),
            Self::Lz4 => (2, 0),
        }
    }

    pub(crate) const fn from_numbers(codec: u32, level: i32) -> Option<Self> {
        match (codec, level) {
            (1, level) => Some(Self::Zstd { level }),
            (2, 0) => Some(Self::Lz4),
            _ => None,
        }
    }
}

/// Compresses frames.
pub(super) enum Encoder {
    Zstd(Box<zstd::bulk::Compressor<'static>>),
    Lz4,
}

impl Encoder {
    pub(super) fn new(codec: Codec) -> io::Result<Self> {
        Ok(match codec {
            Codec::Zstd { level } => {
                let mut compressor = zstd::bulk::Compressor::new(level)?;
                if level == ZSTD_LEVEL_DEFAULT {
                    // For a frame of which little is coded zstd would take what the level has for small files, whose shorter matches
                    // cost more time than they save room. The table of this size is the largest that stays in a first-level
                    // cache: a real guest's image is 0.9 % longer, and packed a quarter faster.
                    compressor.set_parameter(CParameter::MinMatch(7))?;
                    compressor.set_parameter(CParameter::HashLog(13))?;
                }
                Self::Zstd(Box::new(compressor))
            }
            Codec::Lz4 => Self::Lz4,
        })
    }

    /// Compresses into a buffer of [`encoded_max`], and gives how much of it is in use.
    pub(super) fn encode(&mut self, content: &[u8], encoded: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Zstd(compressor) => compressor.compress_to_buffer(content, encoded),
            Self::Lz4 => lz4_flex::block::compress_into(content, encoded).map_err(io::Error::other),
        }
    }
}

/// Octets of the longest encoded frame, whatever the codec.
pub(super) fn encoded_max() -> usize {
    let lz4 = lz4_flex::block::get_maximum_output_size(CHUNK_LEN);
    lz4.max(zstd::zstd_safe::compress_bound(CHUNK_LEN))
}

/// Decompresses frames.
pub(super) enum Decoder {
    Zstd(Box<zstd::bulk::Decompressor<'static>>),
    Lz4,
}

impl Decoder {
    pub(super) fn new(codec: Codec) -> io::Result<Self> {
        Ok(match codec {
            Codec::Zstd { .. } => Self::Zstd(Box::new(zstd::bulk::Decompressor::new()?)),
            Codec::Lz4 => Self::Lz4,
        })
    }

    /// Decompresses to exactly as many octets as `content` has; whether that came about.
    pub(super) fn decode(&mut self, encoded: &[u8], content: &mut [u8]) -> bool {
        let wanted = content.len();
        let has = match self {
            Self::Zstd(decompressor) => decompressor.decompress_to_buffer(encoded, content).ok(),
            Self::Lz4 => lz4_flex::block::decompress_into(encoded, content).ok(),
        };
        has == Some(wanted)
    }
}
