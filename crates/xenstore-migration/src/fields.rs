//! The fields of a record, in either byte order: the one reader and the one writer of the format.

use crate::preamble::{ByteOrder, Preamble, Version};

/// Every record begins at a multiple of this, and so does what follows the data of a connection.
pub(crate) const ALIGNMENT: usize = 8;

/// The next multiple of [`ALIGNMENT`].
pub(crate) const fn aligned(len: usize) -> usize {
    len.next_multiple_of(ALIGNMENT)
}

/// The body of a record, being read from its start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a> {
    body: &'a [u8],
    at: usize,
    preamble: Preamble,
    dirty_padding: bool,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(body: &'a [u8], preamble: Preamble) -> Self {
        Self { body, at: 0, preamble, dirty_padding: false }
    }

    pub(crate) fn version(&self) -> Version {
        self.preamble.version
    }

    pub(crate) fn byte_order(&self) -> ByteOrder {
        self.preamble.byte_order
    }

    /// How many octets have been read.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// Whether padding was skipped that is not zero.
    pub(crate) fn dirty_padding(&self) -> bool {
        self.dirty_padding
    }

    pub(crate) fn body(&self) -> &'a [u8] {
        self.body
    }

    #[inline]
    pub(crate) fn octets(
        &mut self,
        len: usize,
        field: &'static str,
    ) -> Result<&'a [u8], BodyError> {
        let rest = self.body.get(self.at..).unwrap_or_default();
        let Some(octets) = rest.get(..len) else {
            return Err(BodyError::Short { field, at: self.at, needs: len, has: rest.len() });
        };
        self.at += len;
        Ok(octets)
    }

    #[inline]
    pub(crate) fn array<const N: usize>(
        &mut self,
        field: &'static str,
    ) -> Result<[u8; N], BodyError> {
        let (at, has) = (self.at, self.body.len().saturating_sub(self.at));
        let short = BodyError::Short { field, at, needs: N, has };
        let octets = self.body.get(at..).and_then(|rest| rest.first_chunk::<N>()).ok_or(short)?;
        self.at += N;
        Ok(*octets)
    }

    #[inline]
    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, BodyError> {
        Ok(self.preamble.byte_order.u16(self.array(field)?))
    }

    #[inline]
    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, BodyError> {
        Ok(self.preamble.byte_order.u32(self.array(field)?))
    }

    pub(crate) fn i32(&mut self, field: &'static str) -> Result<i32, BodyError> {
        self.u32(field).map(u32::cast_signed)
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, BodyError> {
        let octets = self.array(field)?;
        Ok(match self.preamble.byte_order {
            ByteOrder::Little => u64::from_le_bytes(octets),
            ByteOrder::Big => u64::from_be_bytes(octets),
        })
    }

    /// A length field.
    #[inline]
    pub(crate) fn len(&mut self, field: &'static str) -> Result<usize, BodyError> {
        self.u16(field).map(usize::from)
    }

    /// A text of so many octets, the NUL at its end counted and not given.
    #[inline]
    pub(crate) fn text(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], BodyError> {
        let at = self.at;
        match self.octets(len, field)?.split_last() {
            Some((0, text)) if !text.contains(&0) => Ok(text),
            Some((0, text)) => {
                let nul = text.iter().take_while(|octet| **octet != 0).count();
                Err(BodyError::InnerNul { field, at: at + nul })
            }
            _ => Err(BodyError::NotTerminated { field, at: at + len.saturating_sub(1) }),
        }
    }

    /// Octets that say nothing.
    pub(crate) fn padding(&mut self, len: usize) -> Result<(), BodyError> {
        let octets = self.octets(len, "padding")?;
        self.dirty_padding |= octets.iter().any(|octet| *octet != 0);
        Ok(())
    }

    /// A field that says nothing here.
    pub(crate) fn ignored(&mut self, is_zero: bool) {
        self.dirty_padding |= !is_zero;
    }

    /// Octets that say nothing, up to the next multiple of [`ALIGNMENT`].
    pub(crate) fn align(&mut self) -> Result<(), BodyError> {
        self.padding(aligned(self.at) - self.at)
    }
}

impl ByteOrder {
    pub(crate) fn u16(self, octets: [u8; 2]) -> u16 {
        match self {
            Self::Little => u16::from_le_bytes(octets),
            Self::Big => u16::from_be_bytes(octets),
        }
    }

    pub(crate) fn u16_octets(self, number: u16) -> [u8; 2] {
        match self {
            Self::Little => number.to_le_bytes(),
            Self::Big => number.to_be_bytes(),
        }
    }

    pub(crate) fn u32(self, octets: [u8; 4]) -> u32 {
        match self {
            Self::Little => u32::from_le_bytes(octets),
            Self::Big => u32::from_be_bytes(octets),
        }
    }

    pub(crate) fn u32_octets(self, number: u32) -> [u8; 4] {
        match self {
            Self::Little => number.to_le_bytes(),
            Self::Big => number.to_be_bytes(),
        }
    }
}

/// The body of a record, being written behind what `out` holds already.
#[derive(Debug)]
pub(crate) struct Body<'o> {
    out: &'o mut Vec<u8>,
    start: usize,
    preamble: Preamble,
}

impl<'o> Body<'o> {
    pub(crate) fn new(out: &'o mut Vec<u8>, preamble: Preamble) -> Self {
        let start = out.len();
        Self { out, start, preamble }
    }

    pub(crate) fn version(&self) -> Version {
        self.preamble.version
    }

    pub(crate) fn byte_order(&self) -> ByteOrder {
        self.preamble.byte_order
    }

    pub(crate) fn len(&self) -> usize {
        self.out.len() - self.start
    }

    #[inline]
    pub(crate) fn octets(&mut self, octets: &[u8]) {
        self.out.extend_from_slice(octets);
    }

    #[inline]
    pub(crate) fn u16(&mut self, number: u16) {
        self.octets(&self.preamble.byte_order.u16_octets(number));
    }

    #[inline]
    pub(crate) fn u32(&mut self, number: u32) {
        self.octets(&self.preamble.byte_order.u32_octets(number));
    }

    pub(crate) fn i32(&mut self, number: i32) {
        self.u32(number.cast_unsigned());
    }

    pub(crate) fn u64(&mut self, number: u64) {
        self.octets(&match self.preamble.byte_order {
            ByteOrder::Little => number.to_le_bytes(),
            ByteOrder::Big => number.to_be_bytes(),
        });
    }

    /// A text and its NUL.
    #[inline]
    pub(crate) fn text(&mut self, text: &[u8]) {
        self.octets(text);
        self.octets(&[0]);
    }

    pub(crate) fn align(&mut self) {
        let padding = aligned(self.len()) - self.len();
        self.octets(&[0; ALIGNMENT][..padding]);
    }
}

/// A length for a field of 16 bits.
pub(crate) fn len_u16(len: usize, field: &'static str) -> Result<u16, EncodeError> {
    u16::try_from(len).map_err(|_| EncodeError::TooLong { field, len, max: u16::MAX.into() })
}

/// The length of a text with its NUL.
pub(crate) fn text_len(text: &[u8], field: &'static str) -> Result<u16, EncodeError> {
    if text.contains(&0) {
        return Err(EncodeError::Nul { field });
    }
    len_u16(text.len() + 1, field)
}

/// Why the body of a record is not what its type says. Offsets count from the start of the body, which is 8 octets behind
/// that of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// A field reaches over the end.
    #[error("{field} at octet {at} of the body needs {needs} octets, and {has} are left")]
    Short {
        /// The field, by its name in the specification.
        field: &'static str,
        /// Where it begins.
        at: usize,
        /// Its length.
        needs: usize,
        /// What is left of the body.
        has: usize,
    },
    /// The record's own length is not that of its fields, nor that rounded up to a multiple of 8.
    #[error("the record's length is {len}, and its fields take {fields} octets")]
    Length {
        /// What the record says.
        len: usize,
        /// What its fields add up to.
        fields: usize,
    },
    /// A text does not end where its length says.
    #[error("{field} does not end in NUL at octet {at} of the body")]
    NotTerminated {
        /// The field.
        field: &'static str,
        /// Where the NUL should be.
        at: usize,
    },
    /// A text ends before its length says.
    #[error("{field} has a NUL in it, at octet {at} of the body")]
    InnerNul {
        /// The field.
        field: &'static str,
        /// Where the NUL is.
        at: usize,
    },
    /// A quota without a name.
    #[error("quota {number} has no name")]
    NoQuotaName {
        /// Which, from 0.
        number: usize,
    },
    /// conn-id 0 where a connection has to be named.
    #[error("conn-id is zero")]
    ConnectionZero,
    /// More of a message is left to be sent than there is to be sent.
    #[error("out-resp-len is {rest}, more than out-data-len, {output}")]
    OutputRest {
        /// out-resp-len
        rest: u16,
        /// out-data-len
        output: usize,
    },
    /// A connection with additional fields that are not known here, and cannot be skipped.
    #[error("the bits {fields:#06x} announce fields that are not known")]
    UnknownFields {
        /// fields
        fields: u16,
    },
    /// A permission that is none of `n`, `r`, `w`, `b`.
    #[error("permission {number} is {letter:#04x}, none of `n`, `r`, `w`, `b`")]
    Access {
        /// Which, from 0.
        number: usize,
        /// The octet.
        letter: u8,
    },
    /// A record of a later version.
    #[error("a record of version 2 in a stream of version 1")]
    Version,
}

/// Why a record cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// Longer than its length field can say, or than [`crate::limits::RECORD_MAX`].
    #[error("{field} has {len} octets or entries, and no more than {max} can be written")]
    TooLong {
        /// The field, by its name in the specification.
        field: &'static str,
        /// Its length as it would be written.
        len: usize,
        /// The most that can be written.
        max: usize,
    },
    /// A text with a NUL.
    #[error("{field} has a NUL in it")]
    Nul {
        /// The field.
        field: &'static str,
    },
    /// More of a message is left to be sent than there is to be sent.
    #[error("{rest} octets of a message are left to be sent, and only {output} are to be sent")]
    OutputRest {
        /// [`crate::ConnectionData::output_rest`]
        rest: u16,
        /// Octets of [`crate::ConnectionData::output`]
        output: usize,
    },
    /// A descriptor that stands for none.
    #[error("descriptor -1 stands for none")]
    NoDescriptor,
    /// A depth that would be read as something else.
    #[error("a watch of depth {depth:?} cannot be written here")]
    Depth {
        /// The depth.
        depth: crate::WatchDepth,
    },
    /// A path that no server takes, where only a path tells the forms of a record apart.
    #[error("the path of the watch is none, so that {peer} could not have written the record")]
    WatchPath {
        /// For whom the stream is written.
        peer: crate::Peer,
    },
    /// A record of a later version.
    #[error("a record of version 2 in a stream of version 1")]
    Version,
    /// An unknown record whose type has a meaning.
    #[error("an unknown record has the type of a known one")]
    KnownType,
    /// A record at which the peer would give up.
    #[error("{peer} cannot read such a record")]
    Peer {
        /// For whom the stream is written.
        peer: crate::Peer,
    },
}
