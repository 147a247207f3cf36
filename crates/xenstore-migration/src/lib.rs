//! The xenstore-migration stream.
#![forbid(unsafe_code)]
pub mod domain_state;
mod preamble;
mod record;
pub use preamble::{ByteOrder, Preamble, PreambleError, Version};
pub use record::{
    ConnectionData, ConnectionId, ConnectionSpec, DomainData, GlobalData, GlobalQuotaData,
    NodeAccess, NodeData, NodePerm, NodeScope, PermFlags, QuotaTable, QuotaTableError, Quotas,
    Record, RecordType, TransactionData, UnknownData, WatchData, WatchDepth, WatchExtendedData,
};
