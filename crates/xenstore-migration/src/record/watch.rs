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
    /// record's lengths agree with them and what would be the path looks like one. A form whose padding is zero goes before
    /// those whose padding is not.
    pub(crate) fn form(fields: &mut Fields<'a>) -> Result<FoundForm, BodyError> {
        let start = *fields;
        let specified = Self::decode_as(ExtendedForm::Specified, fields);
        let mut dirty = None;
        for form in [ExtendedForm::Specified, ExtendedForm::WithoutPad, ExtendedForm::WithoutDepth]
        {
            let mut decoded = start;
            let Ok(watch) = Self::decode_as(form, &mut decoded) else { continue };
            if let Some(found) = watch.fits(form, &mut decoded) {
                if !decoded.dirty_padding() {
                    *fields = decoded;
                    return Ok(found);
                }
                dirty.get_or_insert((found, decoded));
            }
        }
        if let Some((found, decoded)) = dirty {
            *fields = decoded;
            return Ok(found);
        }
        let len = fields.body().len();
        // If it is only the record's length that is wrong, whoever compares it with that of the fields says so.
        let found = FoundForm { form: ExtendedForm::Specified, fields: fields.at(), taken: len };
        specified.map(|_| found)
    }

    /// Whether the record's length can be that of this form, whose fields have been read; the padding is read then.
    fn fits(&self, form: ExtendedForm, fields: &mut Fields<'a>) -> Option<FoundForm> {
        let (len, at) = (fields.body().len(), fields.at());
        let claimed = aligned(at + form.counted_too_much());
        let (fits, taken) = match form {
            ExtendedForm::Specified => (at == len || claimed == len, len),
            _ => (claimed == len && self.path.iter().all(|octet| is_in_paths(*octet)), aligned(at)),
        };
        if !fits {
            return None;
        }
        fields.padding(taken - at).ok()?;
        Some(FoundForm { form, fields: at, taken })
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
