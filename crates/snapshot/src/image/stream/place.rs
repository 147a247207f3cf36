//! Where in a stream something is.

use std::fmt;

use super::{LibxcType, LibxlType};

/// Where in a stream a header or a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// What it is.
    pub part: Part,
    /// How many octets of the stream come before it, those of the xl header included.
    pub offset: u64,
}

/// A header or a record of a stream. Records are counted from 0, those of libxl and those of libxc apart; the type is `None` where
/// the record is cut before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Part {
    /// The first octets, as long as it is not known whose they are.
    Start,
    /// The header of an `xl save` file, with its optional data.
    XlHeader,
    /// The header of a libxl stream.
    LibxlHeader,
    /// A record of it.
    LibxlRecord {
        /// How many come before it.
        index: u64,
        /// What it says it is.
        record_type: Option<LibxlType>,
    },
    /// The header of a libxc image.
    ImageHeader,
    /// The domain's header behind it.
    DomainHeader,
    /// A record of the image.
    LibxcRecord {
        /// How many come before it.
        index: u64,
        /// What it says it is.
        record_type: Option<LibxcType>,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at octet {}", self.part, self.offset)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => f.write_str("start of the stream"),
            Self::XlHeader => f.write_str("xl header"),
            Self::LibxlHeader => f.write_str("libxl header"),
            Self::LibxlRecord { index, record_type: Some(record_type) } => {
                write!(f, "libxl record {index} ({record_type})")
            }
            Self::LibxlRecord { index, record_type: None } => write!(f, "libxl record {index}"),
            Self::ImageHeader => f.write_str("libxc image header"),
            Self::DomainHeader => f.write_str("libxc domain header"),
            Self::LibxcRecord { index, record_type: Some(record_type) } => {
                write!(f, "libxc record {index} ({record_type})")
            }
            Self::LibxcRecord { index, record_type: None } => write!(f, "libxc record {index}"),
        }
    }
}
