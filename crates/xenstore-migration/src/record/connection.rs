//! CONNECTION_DATA.

use std::fmt;
use std::num::NonZeroU32;

use xenstore_proto::DomId;

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
