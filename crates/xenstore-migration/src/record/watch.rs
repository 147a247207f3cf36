//! WATCH_DATA and WATCH_DATA_EXTENDED.

use super::ConnectionId;
use crate::fields::{Body, BodyError, EncodeError, Fields, aligned, text_len};
use crate::peer::{ExtendedForm, Peer};
use crate::preamble::Version;

/// A watch of a connection that has been told of before, on everything at and below its path.
///
/// ```text
/// octet  0            4              6              8
///        conn-id u32  wpath-len u16  token-len u16  wpath, token; both with NUL, which the lengths count
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchData<'a> {
    /// Whose.
    pub connection: ConnectionId,
    /// What is watched, as WATCH was given it: absolute, relative or special. Without the NUL; at most 65534 octets.
    pub path: &'a [u8],
    /// What comes with each event. Without the NUL; at most 65534 octets.
    pub token: &'a [u8],
}

impl<'a> WatchData<'a> {
    pub(super) fn decode(fields: &mut Fields<'a>) -> Result<Self, BodyError> {
        let connection = ConnectionId::decode(fields)?;
        let path = fields.len("wpath-len")?;
        let token = fields.len("token-len")?;
        let path = fields.text(path, "wpath")?;
        Ok(Self { connection, path, token: fields.text(token, "token")? })
    }

    pub(super) fn encode(&self, body: &mut Body<'_>) -> Result<(), EncodeError> {
        body.u32(self.connection.get());
        body.u16(text_len(self.path, "wpath")?);
        body.u16(text_len(self.token, "token")?);
        body.text(self.path);
        body.text(self.token);
        Ok(())
    }
}

/// A watch with a depth, in version 2.
///
/// ```text
/// octet  0            4              6              8          10      12
///        conn-id u32  wpath-len u16  token-len u16  depth u16  zeros   wpath, token; both with NUL
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchExtendedData<'a> {
    /// Whose.
    pub connection: ConnectionId,
    /// How far below the path.
    pub depth: WatchDepth,
    /// What is watched. Without the NUL; at most 65534 octets.
    pub path: &'a [u8],
    /// What comes with each event. Without the NUL; at most 65534 octets.
    pub token: &'a [u8],
}

/// The form in which an extended watch was found in a record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FoundForm {
    pub(crate) form: ExtendedForm,
    /// Octets of the record's fields.
    pub(crate) fields: usize,
    /// Octets of its body with the padding behind; in one form 8 fewer than the record's length can say.
    pub(crate) taken: usize,
}

impl<'a> WatchExtendedData<'a> {
    /// Finds the form that the record is in. The specified one comes first; the others count only if all of the
    /// record's lengths agree with them and what would be the path looks like one.
    pub(crate) fn form(fields: &mut Fields<'a>) -> Result<FoundForm, BodyError> {
        let len = fields.body().len();
        let start = *fields;
        let specified = Self::decode_as(ExtendedForm::Specified, fields);
        let found = FoundForm { form: ExtendedForm::Specified, fields: fields.at(), taken: len };
        if specified.is_ok() && (fields.at() == len || aligned(fields.at()) == len) {
            return Ok(found);
        }
        for form in [ExtendedForm::WithoutPad, ExtendedForm::WithoutDepth] {
            let mut other = start;
            let Ok(watch) = Self::decode_as(form, &mut other) else { continue };
            let claimed = aligned(other.at() + form.counted_too_much());
            if claimed == len && watch.path.iter().copied().all(is_in_paths) {
                *fields = other;
                return Ok(FoundForm { form, fields: other.at(), taken: aligned(other.at()) });
            }
        }
        // If it is only the record's length that is wrong, whoever compares it with that of the fields says so.
        specified.map(|_| found)
    }

    pub(crate) fn decode_as(
        form: ExtendedForm,
        fields: &mut Fields<'a>,
    ) -> Result<Self, BodyError> {
        let connection = ConnectionId::decode(fields)?;
        let path = fields.len("wpath-len")?;
        let token = fields.len("token-len")?;
        let depth = match form {
            ExtendedForm::WithoutDepth => WatchDepth::Untold,
            _ => WatchDepth::from_wire(fields.u16("depth")?),
        };
        if form == ExtendedForm::Specified {
            fields.padding(2)?;
        }
        let path = fields.text(path, "wpath")?;
        Ok(Self { connection, depth, path, token: fields.text(token, "token")? })
    }

    /// Gives the length that the record claims, if it is not that of its fields.
    pub(super) fn encode(
        &self,
        body: &mut Body<'_>,
        peer: Peer,
    ) -> Result<Option<usize>, EncodeError> {
        let form = peer.extended_watch().ok_or(EncodeError::Peer { peer })?;
        if body.version() < Version::V2 && form != ExtendedForm::WithoutDepth {
            return Err(EncodeError::Version);
        }
        if form != ExtendedForm::Specified && !self.path.iter().copied().all(is_in_paths) {
            return Err(EncodeError::WatchPath { peer });
        }
        body.u32(self.connection.get());
        body.u16(text_len(self.path, "wpath")?);
        body.u16(text_len(self.token, "token")?);
        match (form, self.depth.to_wire()) {
            (ExtendedForm::WithoutDepth, None) if self.depth == WatchDepth::Untold => {}
            (ExtendedForm::WithoutPad, Some(depth)) => body.u16(depth),
            (ExtendedForm::Specified, Some(depth)) => {
                body.u16(depth);
                body.u16(0);
            }
            _ => return Err(EncodeError::Depth { depth: self.depth }),
        }
        body.text(self.path);
        body.text(self.token);
        let claimed = aligned(body.len() + form.counted_too_much());
        Ok((form == ExtendedForm::WithoutDepth).then_some(claimed))
    }
}

impl ExtendedForm {
    /// Octets that the record's length counts and that are not there.
    const fn counted_too_much(self) -> usize {
        match self {
            Self::WithoutDepth => 4,
            Self::Specified | Self::WithoutPad => 0,
        }
    }
}

/// Whether paths and special names are made of such octets.
fn is_in_paths(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'/' | b'-' | b'_' | b'@')
}

/// How many levels below its path a watch covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WatchDepth {
    /// So many; 0 is the node itself alone. At most 65534.
    Levels(u16),
    /// All; on the wire 65535.
    Unlimited,
    /// The record did not say: C xenstored writes extended watches without the field.
    Untold,
}

impl WatchDepth {
    /// What stands for no limit.
    const UNLIMITED: u16 = u16::MAX;

    fn from_wire(depth: u16) -> Self {
        if depth == Self::UNLIMITED { Self::Unlimited } else { Self::Levels(depth) }
    }

    fn to_wire(self) -> Option<u16> {
        match self {
            Self::Levels(Self::UNLIMITED) | Self::Untold => None,
            Self::Levels(depth) => Some(depth),
            Self::Unlimited => Some(Self::UNLIMITED),
        }
    }
}
