//! Why a stream is not read.

use std::io;

use super::Place;
use crate::deviation::Deviation;
use crate::fields::BodyError;
use crate::preamble::{PREAMBLE_LEN, PreambleError};

/// Why a stream was not begun to be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The input ends within the preamble.
    #[error("the stream ends at octet {has}, within its first {PREAMBLE_LEN} octets")]
    Cut {
        /// How many octets there are.
        has: usize,
    },
    /// The first octets are not those of a stream.
    #[error(transparent)]
    Preamble {
        /// Why not.
        source: PreambleError,
    },
    /// The input failed.
    #[error("the first octets of the stream cannot be read")]
    Io {
        /// How.
        source: io::Error,
    },
}

/// Why a stream was not read to its end.
#[derive(Debug, thiserror::Error)]
#[error("{place}")]
#[non_exhaustive]
pub struct ReadError {
    /// The record that was being read.
    pub place: Place,
    /// What is wrong.
    #[source]
    pub failure: ReadFailure,
}

impl ReadError {
    pub(super) fn new(place: Place, failure: ReadFailure) -> Self {
        Self { place, failure }
    }
}

/// What is wrong with a record.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadFailure {
    /// The stream ends before its END record.
    #[error("the stream is cut: of {needs} octets, {has} are there")]
    Cut {
        /// Octets of the record, or of its header if that was cut.
        needs: usize,
        /// How many of them there are.
        has: usize,
    },
    /// The input failed.
    #[error("the stream cannot be read")]
    Io {
        /// How.
        source: io::Error,
    },
    /// Longer than the reader takes.
    #[error("the record has {len} octets, and no more than {max} are read")]
    TooLong {
        /// What its length field says.
        len: u32,
        /// [`crate::ReadOptions::record_max`]
        max: usize,
    },
    /// A record of a type that is not known, and those are refused.
    #[error("the type of the record is not known")]
    UnknownType,
    /// The fields do not make sense.
    #[error(transparent)]
    Body {
        /// Why not.
        #[from]
        source: BodyError,
    },
    /// Some lengths of the stream count padding and some do not, so that one of them is wrong.
    #[error("the length {} padding, unlike that of {other}", if *counts { "does not count" } else { "counts" })]
    MixedLengths {
        /// Whether those before do.
        counts: bool,
        /// The first record that shows it.
        other: Place,
    },
    /// Something is not as specified, and that is refused.
    #[error("not as specified: {deviation}")]
    Deviation {
        /// What.
        deviation: Deviation,
    },
    /// The reader has failed before.
    #[error("an earlier record could not be read")]
    AfterError,
}
