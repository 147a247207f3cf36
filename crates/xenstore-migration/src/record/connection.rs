//! CONNECTION_DATA.

use std::fmt;
use std::num::NonZeroU32;

use xenstore_proto::DomId;

use crate::fields::{Body, BodyError, EncodeError, Fields, len_u16};

/// The number by which other records name a connection; it means nothing outside of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub NonZeroU32);

impl ConnectionId {
    /// A number that is not zero.
    pub const fn new(number: u32) -> Option<Self> {
        match NonZeroU32::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0.get()
    }

    pub(crate) fn decode(fields: &mut Fields<'_>) -> Result<Self, BodyError> {
        Self::new(fields.u32("conn-id")?).ok_or(BodyError::ConnectionZero)
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A connection, with what it has sent and not been answered, and what it has not read yet.
///
/// ```text
/// octet  0            4              6           8
///        conn-id u32  conn-type u16  fields u16  conn-spec, 8 octets
///        16               18                20                24
///        in-data-len u16  out-resp-len u16  out-data-len u32  in-data, out-data
///                                  if bit 0 of fields: zeros up to a multiple of 8, unique-id u64
/// ```
///
/// This is the layout in use; that of the first draft had flags and a frame number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionData<'a> {
    /// How other records name it.
    pub id: ConnectionId,
    /// What kind it is, and where.
    pub spec: ConnectionSpec,
    /// Octets received and not handled: whole requests that were put off, then at most one incomplete one. At most 65535.
    pub input: &'a [u8],
    /// How many octets at the start of `output` belong to a message whose beginning has been sent already.
    pub output_rest: u16,
    /// Octets to be sent: the rest of a message, then whole messages.
    pub output: &'a [u8],
    /// A number that no other domain of the host has had, to tell a domain from a later one with its id.
    pub unique_id: Option<u64>,
}

/// The bit of `fields` that announces a unique-id.
const UNIQUE_ID: u16 = 1;

/// Numbers of conn-type.
const RING: u16 = 0;
const SOCKET: u16 = 1;

impl<'a> ConnectionData<'a> {
    pub(super) fn decode(fields: &mut Fields<'a>) -> Result<Self, BodyError> {
        let id = ConnectionId::decode(fields)?;
        let kind = fields.u16("conn-type")?;
        let additional = fields.u16("fields")?;
        if additional & !UNIQUE_ID != 0 {
            return Err(BodyError::UnknownFields { fields: additional });
        }
        let spec = ConnectionSpec::decode(kind, fields)?;
        let input = fields.len("in-data-len")?;
        let output_rest = fields.u16("out-resp-len")?;
        let output = fields.u32("out-data-len")?;
        // More than there can be, where octets are counted in fewer bits.
        let output = usize::try_from(output).unwrap_or(usize::MAX);
        if usize::from(output_rest) > output {
            return Err(BodyError::OutputRest { rest: output_rest, output });
        }
        let input = fields.octets(input, "in-data")?;
        let output = fields.octets(output, "out-data")?;
        let unique_id = if additional & UNIQUE_ID == 0 {
            None
        } else {
            fields.align()?;
            Some(fields.u64("unique-id")?)
        };
        Ok(Self { id, spec, input, output_rest, output, unique_id })
    }

    pub(super) fn encode(&self, body: &mut Body<'_>) -> Result<(), EncodeError> {
        if usize::from(self.output_rest) > self.output.len() {
            let (rest, output) = (self.output_rest, self.output.len());
            return Err(EncodeError::OutputRest { rest, output });
        }
        let output = u32::try_from(self.output.len()).map_err(|_| EncodeError::TooLong {
            field: "out-data",
            len: self.output.len(),
            max: usize::try_from(u32::MAX).unwrap_or(usize::MAX),
        })?;
        body.u32(self.id.get());
        self.spec.encode(if self.unique_id.is_some() { UNIQUE_ID } else { 0 }, body)?;
        body.u16(len_u16(self.input.len(), "in-data")?);
        body.u16(self.output_rest);
        body.u32(output);
        body.octets(self.input);
        body.octets(self.output);
        if let Some(unique_id) = self.unique_id {
            body.align();
            body.u64(unique_id);
        }
        Ok(())
    }
}

/// What kind of connection it is, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionSpec {
    /// A page shared with a domain.
    ///
    /// ```text
    /// octet  0          2           4
    ///        domid u16  tdomid u16  evtchn u32
    /// ```
    Ring {
        /// The domain.
        domid: DomId,
        /// The domain on whose behalf it acts, after SET_TARGET; on the wire [`DomId::INVALID`] stands for none.
        target: Option<DomId>,
        /// The server's own port of the event channel.
        port: u32,
    },
    /// A client on the same machine, for a live update, in which its socket stays open.
    ///
    /// ```text
    /// octet  0              4
    ///        socket-fd i32  zeros
    /// ```
    Socket {
        /// The descriptor.
        fd: i32,
    },
    /// A kind reserved for the future.
    Unknown {
        /// conn-type.
        kind: u16,
        /// conn-spec, as it stands in the record.
        octets: [u8; 8],
    },
}

impl ConnectionSpec {
    fn decode(kind: u16, fields: &mut Fields<'_>) -> Result<Self, BodyError> {
        Ok(match kind {
            RING => {
                let domid = DomId::new(fields.u16("domid")?);
                let target = DomId::new(fields.u16("tdomid")?);
                let port = fields.u32("evtchn")?;
                Self::Ring { domid, target: (target != DomId::INVALID).then_some(target), port }
            }
            SOCKET => {
                let fd = fields.i32("socket-fd")?;
                fields.padding(4)?;
                Self::Socket { fd }
            }
            kind => {
                let mut octets = [0; 8];
                octets.copy_from_slice(fields.octets(8, "conn-spec")?);
                Self::Unknown { kind, octets }
            }
        })
    }

    fn encode(&self, additional: u16, body: &mut Body<'_>) -> Result<(), EncodeError> {
        let kind = match self {
            Self::Ring { .. } => RING,
            Self::Socket { .. } => SOCKET,
            Self::Unknown { kind: RING | SOCKET, .. } => return Err(EncodeError::KnownType),
            Self::Unknown { kind, .. } => *kind,
        };
        body.u16(kind);
        body.u16(additional);
        match self {
            Self::Ring { domid, target, port } => {
                body.u16(domid.get());
                body.u16(target.unwrap_or(DomId::INVALID).get());
                body.u32(*port);
            }
            Self::Socket { fd } => {
                body.i32(*fd);
                body.u32(0);
            }
            Self::Unknown { octets, .. } => body.octets(octets),
        }
        Ok(())
    }
}
