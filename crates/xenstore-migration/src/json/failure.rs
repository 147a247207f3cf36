//! Why a stream is no document, or a document no stream.

use std::cmp::Ordering;
use std::fmt;

use crate::fields::EncodeError;
use crate::limits::DOCUMENT_MAX;
use crate::order::Violation;
use crate::preamble::Version;
use crate::reader::{OpenError, ReadError};
use crate::record::RecordType;
use crate::writer::{CreateError, WriteError};

/// Why a stream was not decoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// It does not begin as one.
    #[error(transparent)]
    Open {
        /// Why not.
        #[from]
        source: OpenError,
    },
    /// It cannot be read to its end.
    #[error(transparent)]
    Read {
        /// Why not.
        #[from]
        source: ReadError,
    },
    /// The document would be longer than one that is encoded again.
    #[error("the records up to {records} take more than the {DOCUMENT_MAX} octets of a document")]
    TooLong {
        /// How many records it has up to there.
        records: u64,
    },
}

/// Why a document was not encoded. Places are those in the JSON, as `records[7].perms[0]`; in the form of lines, records
/// are counted from 0 too.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// Longer than any.
    #[error("a document has at most {DOCUMENT_MAX} octets, and this has {octets}")]
    TooLong {
        /// Its length.
        octets: usize,
    },
    /// It is no JSON, or has something that does not belong there.
    #[error("{}: {}", Shown(at), Shown(reason))]
    Json {
        /// Where; `.` for all of it.
        at: String,
        /// What.
        reason: serde_json::Error,
    },
    /// A field outside of the records does not say what it has to.
    #[error("{field}: is none of {choice}")]
    Choice {
        /// The field.
        field: &'static str,
        /// What there is to choose from.
        choice: &'static str,
    },
    /// The peer is `null`: no known server writes such a stream, so that its octets cannot be had again.
    #[error(
        "peer: is null, as for a stream that no known server writes; name one, and its form is taken"
    )]
    NoPeer,
    /// Lines without the last one, as of a file that was cut.
    #[error("the lines end without the one that ends a stream, with `records` and `peer`")]
    NoEnd,
    /// Lines of a stream that could not be read to its end.
    #[error("the lines are of a stream that broke off")]
    BrokenOff,
    /// A field of a record.
    #[error("{}: {reason}", Shown(at))]
    Field {
        /// Where.
        at: String,
        /// What is wrong with it.
        reason: FieldError,
    },
    /// A record that cannot be written in this stream.
    #[error("{at}: {reason}")]
    Record {
        /// Where.
        at: String,
        /// Why not.
        reason: EncodeError,
    },
    /// A record that the specification does not allow where it stands.
    #[error("{at}: {reason}")]
    Order {
        /// Where.
        at: String,
        /// What is wrong.
        reason: Violation,
    },
    /// The stream was not begun: the peer does not know the version, or the output failed.
    #[error(transparent)]
    Create {
        /// Which of them.
        source: CreateError,
    },
    /// The output failed.
    #[error(transparent)]
    Write {
        /// How.
        source: WriteError,
    },
}

/// What is wrong with a field of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FieldError {
    /// The record has to have it.
    #[error("is missing")]
    Missing,
    /// A record of another type has it, or a connection of another kind.
    #[error("is no field of such a {record_type}")]
    NotOfType {
        /// The record's type.
        record_type: RecordType,
    },
    /// Octets as text and in hexadecimal.
    #[error("is there as `{text}` already")]
    Twice {
        /// The field with the text.
        text: &'static str,
    },
    /// Octets that are none.
    #[error("is not two hexadecimal digits for each octet")]
    Hexadecimal,
    /// A type that is none.
    #[error("is no type of a record, as `NODE_DATA`, or `type 0x21` for one without a name")]
    Type,
    /// A connection that is none.
    #[error("is zero, which stands for no connection")]
    ConnectionZero,
    /// A kind of connection that is none.
    #[error("is neither `ring` nor `socket` nor the number, from 2, of another kind")]
    Kind,
    /// conn-spec has another length.
    #[error("is not 8 octets in hexadecimal")]
    Spec,
    /// A descriptor that stands for none.
    #[error("is -1, which stands for no descriptor: that is null")]
    NoDescriptor,
    /// A domain that stands for none.
    #[error("is 32756, which stands for no domain: that is null")]
    NoTarget,
    /// A depth that is none.
    #[error("is neither levels up to 65534 nor `unlimited` nor null")]
    Depth,
    /// What a transaction did, and it is nothing of that.
    #[error("is neither `removed` nor some of `read`, `written` and other bits as `0x10`")]
    Access,
    /// A permission that is none.
    #[error("is no permission: one of n, r, w, b and a domid up to 65535, as `n0` or `r3(stale)`")]
    Perm,
    /// The name of a quota is empty or has a NUL in it.
    #[error("is empty or has a NUL in it")]
    QuotaName,
    /// Version 1 has no features, version 2 always.
    #[error(
        "{}",
        if *version < Version::V2 { "is told in version 2 only: in version 1 it is null" }
        else { "is null, and version 2 always tells it" }
    )]
    Features {
        /// That of the stream.
        version: Version,
    },
}

/// Text that somebody else chose: all on one line, nothing in it that a terminal would obey, and no more than is read.
struct Shown<T>(T);

/// Characters of a text that are shown.
const SHOWN: usize = 300;

impl<T: fmt::Display> fmt::Display for Shown<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;

        struct Short<'f, 'g> {
            to: &'f mut fmt::Formatter<'g>,
            shown: usize,
        }
        impl Write for Short<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                for c in text.chars() {
                    self.shown += 1;
                    match self.shown.cmp(&(SHOWN + 1)) {
                        Ordering::Less if c.is_control() => {
                            write!(self.to, "{}", c.escape_default())?;
                        }
                        Ordering::Less => self.to.write_char(c)?,
                        Ordering::Equal => self.to.write_str("...")?,
                        Ordering::Greater => return Ok(()),
                    }
                }
                Ok(())
            }
        }
        write!(Short { to: f, shown: 0 }, "{}", self.0)
    }
}
