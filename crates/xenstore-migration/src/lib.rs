//! The xenstore-migration stream.
#![forbid(unsafe_code)]
mod convert;
mod deviation;
pub mod domain_state;
mod fields;
pub mod limits;
mod order;
mod peer;
mod peer_check;
mod preamble;
mod reader;
mod record;
mod writer;
pub use convert::{ConvertError, Converted, Converter, Loss, LossKind, convert};
pub use deviation::{Deviation, Deviations};
pub use fields::{BodyError, EncodeError};
pub use order::{OrderChecker, StreamKind, Violation};
pub use peer::Peer;
pub use peer_check::{PeerChecker, PeerTrouble};
pub use preamble::{ByteOrder, Preamble, PreambleError, Version};
pub use reader::{
    OpenError, Place, Placed, ReadError, ReadFailure, ReadOptions, StreamReader, UnknownRecords,
};
pub use record::{
    ConnectionData, ConnectionId, ConnectionSpec, DomainData, GlobalData, GlobalQuotaData,
    NodeAccess, NodeData, NodePerm, NodeScope, PermFlags, QuotaTable, QuotaTableError, Quotas,
    Record, RecordType, TransactionData, UnknownData, WatchData, WatchDepth, WatchExtendedData,
};
pub use writer::{CreateError, StreamWriter, WriteError, WriteFailure};
