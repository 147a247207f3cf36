//! Why images cannot be written, opened or read.

use std::io;

use super::header::{HeaderError, ImageFormat};
use super::stream::{Place, StreamError, StreamFailure};

/// Why an image was not written. What is in the file then is not complete, and says so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageWriteError {
    /// The input is no saved domain.
    #[error("the stream cannot be saved")]
    Stream {
        /// Why not.
        #[from]
        source: StreamError,
    },
    /// There is something in the file, which would show through holes.
    #[error("the file to write into has {len} octets already")]
    NotEmpty {
        /// How many.
        len: u64,
    },
    /// A page is told of more than once, as in a live migration; a mapped image has one place for each.
    #[error("{place}: page {pfn:#x} was there before, and a mapped image has one place for it")]
    Duplicate {
        /// The record.
        place: Place,
        /// The page.
        pfn: u64,
    },
    /// The pages' order has more gaps than are kept track of.
    #[error("{place}: the pages come in more than {max} pieces")]
    Scattered {
        /// The record.
        place: Place,
        /// How many pieces are kept track of.
        max: usize,
    },
    /// The output failed.
    #[error("the image cannot be written at octet {offset}")]
    Output {
        /// Where.
        offset: u64,
        /// How.
        source: io::Error,
    },
    /// What has been written reads back otherwise.
    #[error("the image reads back otherwise than it was written, at octet {offset}")]
    ReadsOtherwise {
        /// The mebibyte that does.
        offset: u64,
    },
    /// The codec failed.
    #[error("the codec failed")]
    Codec {
        /// How.
        source: io::Error,
    },
}

/// Why a file is no image that can be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageOpenError {
    /// The file cannot be read.
    #[error("the image cannot be read at octet {offset}")]
    Io {
        /// Where.
        offset: u64,
        /// Why not.
        source: io::Error,
    },
    /// Its header is none.
    #[error("the image's header cannot be read")]
    Header {
        /// Why not.
        #[from]
        source: HeaderError,
    },
    /// It was not written to its end.
    #[error("the image was not written to its end")]
    Partial,
    /// It is of another format.
    #[error("the image is {found}, not {wanted}")]
    Format {
        /// Of which.
        found: ImageFormat,
        /// Of which it should be.
        wanted: ImageFormat,
    },
    /// The file is longer or shorter than its header says.
    #[error("the image has {has} octets, and its header says {says}")]
    Length {
        /// The file's length.
        has: u64,
        /// The header's.
        says: u64,
    },
    /// Lengths in the header do not go together.
    #[error("the lengths in the image's header do not go together")]
    Layout,
    /// The image is larger than the limits allow.
    #[error("the image has {what} {has}, and no more than {max} are taken")]
    TooLarge {
        /// Of what it has too much.
        what: &'static str,
        /// How much.
        has: u64,
        /// The limit.
        max: u64,
    },
    /// The header and the table of digests are not those that were written.
    #[error("the digest of the image's header and table is not the one in the header")]
    Root,
}

/// Why what is in an image was not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageReadError {
    /// The file cannot be read.
    #[error("the image cannot be read at octet {offset}")]
    Io {
        /// Where.
        offset: u64,
        /// Why not.
        source: io::Error,
    },
    /// A piece of the image is not the one that was written.
    #[error("the {area} of the image at octet {offset} are not what was written")]
    Digest {
        /// Which part of the image.
        area: Area,
        /// Where the piece begins.
        offset: u64,
    },
    /// A piece does not decode to what was encoded.
    #[error("the frame at octet {offset} does not decode to what was encoded")]
    Frame {
        /// Where the frame begins.
        offset: u64,
    },
    /// There is no such frame.
    #[error("there is no frame {index}: the image has {frames}")]
    NoFrame {
        /// Which.
        index: u64,
        /// How many there are.
        frames: u64,
    },
    /// The records in the image are no saved domain.
    #[error("the image does not hold a saved domain")]
    Stream {
        /// Why not.
        source: StreamError,
    },
    /// What comes out is not what the image was made of.
    #[error("the stream in the image is not the one that it was made of")]
    OtherStream,
    /// The output failed.
    #[error("the stream cannot be written out")]
    Output {
        /// How.
        source: io::Error,
    },
}

impl From<StreamError> for ImageReadError {
    /// What the image's own reading failed with comes through the reader of the stream, and is given as what it was.
    fn from(error: StreamError) -> Self {
        let StreamError { place, failure } = error;
        match failure {
            StreamFailure::Io { source } => match source.downcast::<Self>() {
                Ok(own) => own,
                Err(source) => Self::Io { offset: place.offset, source },
            },
            failure => Self::Stream { source: StreamError { place, failure } },
        }
    }
}

/// A part of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Area {
    /// The guest's memory.
    Pages,
    /// Everything in the stream that is not memory.
    Records,
    /// The table of pages' types.
    Types,
    /// Encoded pieces of the stream.
    Frames,
}

impl std::fmt::Display for Area {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Pages => "pages",
            Self::Records => "records",
            Self::Types => "types of pages",
            Self::Frames => "frames",
        })
    }
}
