//! The xenstore-migration stream.
#![forbid(unsafe_code)]
mod deviation;
pub mod domain_state;
mod fields;
#[doc(hidden)]
pub mod fuzzing;
pub mod limits;
mod peer;
mod preamble;
mod reader;
mod record;
mod writer;
pub use deviation::{Deviation, Deviations};
pub use fields::{BodyError, EncodeError};
pub use peer::Peer;
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
