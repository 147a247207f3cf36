//! Why a stream cannot be read.

use std::io;

use super::libxc::LibxcHeaderError;
use super::libxl::LibxlHeaderError;
use super::record::BodyError;
use super::xl::XlHeaderError;
use super::{GuestType, Place};

/// Why a stream was not read to its end.
#[derive(Debug, thiserror::Error)]
#[error("{place}")]
#[non_exhaustive]
pub struct StreamError {
    /// What was being read.
    pub place: Place,
    /// What is wrong.
    #[source]
    pub failure: StreamFailure,
}

impl StreamError {
    pub(crate) fn new(place: Place, failure: impl Into<StreamFailure>) -> Self {
        Self { place, failure: failure.into() }
    }
}

/// What is wrong with a header or a record.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamFailure {
    /// The stream ends before its END record.
    #[error("the stream is cut: of {needs} octets, {has} are there")]
    Cut {
        /// Octets of what was being read.
        needs: u64,
        /// How many of them there are.
        has: u64,
    },
    /// The input failed.
    #[error("the stream cannot be read")]
    Io {
        /// How.
        source: io::Error,
    },
    /// Neither an xl file nor a libxl stream nor a libxc image.
    #[error("the first octets are those of no saved domain")]
    Unknown,
    /// The xl header cannot be read.
    #[error(transparent)]
    XlHeader {
        /// Why not.
        #[from]
        source: XlHeaderError,
    },
    /// The libxl header cannot be read.
    #[error(transparent)]
    LibxlHeader {
        /// Why not.
        #[from]
        source: LibxlHeaderError,
    },
    /// A header of the libxc image cannot be read.
    #[error(transparent)]
    LibxcHeader {
        /// Why not.
        #[from]
        source: LibxcHeaderError,
    },
    /// A record is longer than the reader takes.
    #[error("the record has {len} octets, and no more than {max} are taken")]
    TooLong {
        /// What its length field says.
        len: u32,
        /// [`Limits::record_max`](crate::image::Limits::record_max)
        max: usize,
    },
    /// A record has more pages than the reader takes.
    #[error("the record has {count} pages, and no more than {max} are taken")]
    TooManyPages {
        /// What its count says.
        count: u32,
        /// [`Limits::batch_max`](crate::image::Limits::batch_max)
        max: u32,
    },
    /// The stream is longer than the reader takes.
    #[error("the stream has more than {max} octets")]
    StreamTooLong {
        /// [`Limits::stream_max`](crate::image::Limits::stream_max)
        max: u64,
    },
    /// A record that must be understood and is not known.
    #[error("the type of the record is not known, and it is not optional")]
    UnknownMandatory,
    /// The fields do not make sense.
    #[error(transparent)]
    Body {
        /// Why not.
        #[from]
        source: BodyError,
    },
    /// Octets that only fill up are not zero.
    #[error("the padding of the record is not zero")]
    Padding,
    /// A record that belongs to a running stream of checkpoints, not to a saved domain.
    #[error("the record belongs to checkpoints, which no saved domain has")]
    Checkpoint,
    /// A record that the other kind of guest has.
    #[error("an {guest} guest has no such record")]
    OtherGuest {
        /// Which kind it is.
        guest: GuestType,
    },
    /// A record that there is once was there before.
    #[error("there is such a record already")]
    Twice,
    /// A record that has to come before this one did not.
    #[error("{missing} has to come before it")]
    Before {
        /// Which.
        missing: &'static str,
    },
    /// A record that has to come before another one comes after it.
    #[error("it has to come before {other}")]
    After {
        /// Which.
        other: &'static str,
    },
    /// A page beyond the guest's memory.
    #[error("page {pfn:#x} is beyond the last one, {max:#x}")]
    PfnBeyond {
        /// Its number.
        pfn: u64,
        /// The highest number that can be.
        max: u64,
    },
    /// The reader has failed before.
    #[error("an earlier part of the stream could not be read")]
    AfterError,
}
