//! The records of a stream, as values.

mod connection;
mod node;
mod owned;
mod quota;
mod watch;

use std::fmt;

use crate::fields::{Body, BodyError, EncodeError, Fields};
use crate::peer::Peer;

pub use connection::{ConnectionData, ConnectionId, ConnectionSpec};
pub use node::{NodeAccess, NodeData, NodePerm, NodeScope, PermFlags};
pub use owned::OwnedRecord;
pub use quota::{DomainData, GlobalQuotaData, QuotaTable, QuotaTableError, Quotas};
pub use watch::{WatchData, WatchDepth, WatchExtendedData};
use xenstore_proto::TxId;

/// One record of a stream, borrowed from whoever holds its octets: a reader on the way in, the caller on the way out.
///
/// What it says has been checked only as far as its own layout goes: that every length fits, that texts end where their
/// length says. Whether a path is one, and whether the records go together, is checked by [`crate::OrderChecker`] and by
/// [`crate::domain_state::DomainState`]. The END record is not among them: readers answer with none, writers write it when they finish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// Descriptors of the server itself.
    Global(GlobalData),
    /// A connection.
    Connection(ConnectionData<'a>),
    /// A watch of any depth.
    Watch(WatchData<'a>),
    /// A watch with a depth; version 2.
    WatchExtended(WatchExtendedData<'a>),
    /// An open transaction.
    Transaction(TransactionData),
    /// A node, or what a transaction did to one.
    Node(NodeData<'a>),
    /// Quotas of the server.
    GlobalQuota(GlobalQuotaData<'a>),
    /// Features and quotas of a domain.
    Domain(DomainData<'a>),
    /// A record of a type that this version of the library does not know.
    Unknown(UnknownData<'a>),
}

impl Record<'_> {
    /// The type under which the record is written.
    pub fn record_type(&self) -> RecordType {
        match self {
            Self::Global(_) => RecordType::GLOBAL_DATA,
            Self::Connection(_) => RecordType::CONNECTION_DATA,
            Self::Watch(_) => RecordType::WATCH_DATA,
            Self::WatchExtended(_) => RecordType::WATCH_DATA_EXTENDED,
            Self::Transaction(_) => RecordType::TRANSACTION_DATA,
            Self::Node(_) => RecordType::NODE_DATA,
            Self::GlobalQuota(_) => RecordType::GLOBAL_QUOTA_DATA,
            Self::Domain(_) => RecordType::DOMAIN_DATA,
            Self::Unknown(unknown) => unknown.record_type,
        }
    }
}

/// What a record borrows from beside its own octets: entries in the machine's byte order.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    perms: Vec<NodePerm>,
    values: Vec<u32>,
}

impl<'a> Record<'a> {
    /// Reads what is not an extended watch, of which there are several forms.
    #[inline]
    pub(crate) fn decode(
        record_type: RecordType,
        fields: &mut Fields<'a>,
        scratch: &'a mut Scratch,
    ) -> Result<Self, BodyError> {
        Ok(match record_type {
            RecordType::GLOBAL_DATA => Self::Global(GlobalData::decode(fields)?),
            RecordType::CONNECTION_DATA => Self::Connection(ConnectionData::decode(fields)?),
            RecordType::WATCH_DATA => Self::Watch(WatchData::decode(fields)?),
            RecordType::TRANSACTION_DATA => Self::Transaction(TransactionData::decode(fields)?),
            RecordType::NODE_DATA => Self::Node(NodeData::decode(fields, &mut scratch.perms)?),
            RecordType::GLOBAL_QUOTA_DATA => {
                Self::GlobalQuota(GlobalQuotaData::decode(fields, &mut scratch.values)?)
            }
            RecordType::DOMAIN_DATA => {
                Self::Domain(DomainData::decode(fields, &mut scratch.values)?)
            }
            _ => {
                let body = fields.octets(fields.body().len(), "body")?;
                Self::Unknown(UnknownData { record_type, body })
            }
        })
    }

    /// Writes the fields, and gives the length that the record claims if it is not theirs.
    pub(crate) fn encode(
        &self,
        body: &mut Body<'_>,
        peer: Peer,
    ) -> Result<Option<usize>, EncodeError> {
        match self {
            Self::Global(global) => global.encode(body)?,
            Self::Connection(connection) => connection.encode(body)?,
            Self::Watch(watch) => watch.encode(body)?,
            Self::WatchExtended(watch) => return watch.encode(body, peer),
            Self::Transaction(transaction) => transaction.encode(body),
            Self::Node(node) => node.encode(body)?,
            Self::GlobalQuota(quota) => quota.encode(body)?,
            Self::Domain(domain) => domain.encode(body)?,
            Self::Unknown(unknown) => unknown.encode(body, peer)?,
        }
        Ok(None)
    }
}

/// The number that says what a record is. Numbers without a name here are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordType(pub u32);

impl RecordType {
    /// The end of the stream.
    pub const END: Self = Self(0);
    /// [`GlobalData`]
    pub const GLOBAL_DATA: Self = Self(1);
    /// [`ConnectionData`]
    pub const CONNECTION_DATA: Self = Self(2);
    /// [`WatchData`]
    pub const WATCH_DATA: Self = Self(3);
    /// [`TransactionData`]
    pub const TRANSACTION_DATA: Self = Self(4);
    /// [`NodeData`]
    pub const NODE_DATA: Self = Self(5);
    /// [`GlobalQuotaData`]
    pub const GLOBAL_QUOTA_DATA: Self = Self(6);
    /// [`DomainData`]
    pub const DOMAIN_DATA: Self = Self(7);
    /// [`WatchExtendedData`]
    pub const WATCH_DATA_EXTENDED: Self = Self(8);

    /// The name in the specification, if there is one.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::END => "END",
            Self::GLOBAL_DATA => "GLOBAL_DATA",
            Self::CONNECTION_DATA => "CONNECTION_DATA",
            Self::WATCH_DATA => "WATCH_DATA",
            Self::TRANSACTION_DATA => "TRANSACTION_DATA",
            Self::NODE_DATA => "NODE_DATA",
            Self::GLOBAL_QUOTA_DATA => "GLOBAL_QUOTA_DATA",
            Self::DOMAIN_DATA => "DOMAIN_DATA",
            Self::WATCH_DATA_EXTENDED => "WATCH_DATA_EXTENDED",
            _ => return None,
        })
    }
}

impl fmt::Display for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "type {:#x}", self.0),
        }
    }
}

/// Descriptors of the server itself, for a live update, in which they stay open.
///
/// ```text
/// octet  0                 4
///        rw-socket-fd i32  evtchn-fd i32     -1: none
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GlobalData {
    /// The socket that accepts connections.
    pub socket_fd: Option<i32>,
    /// The handle on the event channel device.
    pub event_channel_fd: Option<i32>,
}

impl GlobalData {
    fn decode(fields: &mut Fields<'_>) -> Result<Self, BodyError> {
        let told = |fd: i32| (fd != NO_DESCRIPTOR).then_some(fd);
        Ok(Self {
            socket_fd: told(fields.i32("rw-socket-fd")?),
            event_channel_fd: told(fields.i32("evtchn-fd")?),
        })
    }

    fn encode(&self, body: &mut Body<'_>) -> Result<(), EncodeError> {
        for fd in [self.socket_fd, self.event_channel_fd] {
            if fd == Some(NO_DESCRIPTOR) {
                return Err(EncodeError::NoDescriptor);
            }
            body.i32(fd.unwrap_or(NO_DESCRIPTOR));
        }
        Ok(())
    }
}

/// What stands in the place of a descriptor where there is none.
const NO_DESCRIPTOR: i32 = -1;

/// An open transaction of a connection that has been told of before.
///
/// ```text
/// octet  0            4
///        conn-id u32  tx-id u32
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionData {
    /// Whose.
    pub connection: ConnectionId,
    /// The id that the connection was given.
    pub transaction: TxId,
}

impl TransactionData {
    fn decode(fields: &mut Fields<'_>) -> Result<Self, BodyError> {
        let connection = ConnectionId::decode(fields)?;
        Ok(Self { connection, transaction: TxId(fields.u32("tx-id")?) })
    }

    fn encode(&self, body: &mut Body<'_>) {
        body.u32(self.connection.get());
        body.u32(self.transaction.0);
    }
}

/// A record of a type that is not known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownData<'a> {
    /// None of those with a name in [`RecordType`].
    pub record_type: RecordType,
    /// What the record's length covers.
    pub body: &'a [u8],
}

impl UnknownData<'_> {
    fn encode(&self, body: &mut Body<'_>, peer: Peer) -> Result<(), EncodeError> {
        if self.record_type.name().is_some() {
            return Err(EncodeError::KnownType);
        }
        if peer.counts_padding() && self.body.is_empty() {
            // C xenstored takes this for the end of a stream that was cut.
            return Err(EncodeError::Peer { peer });
        }
        body.octets(self.body);
        Ok(())
    }
}
