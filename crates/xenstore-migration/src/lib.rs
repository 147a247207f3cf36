//! The xenstore-migration stream: what a Xenstore server hands to its successor in a live update, and what a domain takes along
//! to another host.
//!
//! The crate does no I/O of its own, reads no clock and holds no store. It reads from any [`std::io::Read`] and writes to any
//! [`std::io::Write`]; asking a running Xenstore and changing it is done elsewhere.
//!
//! ```text
//! octets -> StreamReader -> Record -> OrderChecker, PeerChecker: does it go together, and would a deployed server take it
//!                              |  `---> DomainState: what one domain owns, as a value -> translate, plan
//!                              v
//!                          Converter -> StreamWriter -> octets
//! ```
//!
//! A record is borrowed from the reader and is only as trustworthy as its own layout; [`domain_state::DomainState`] holds checked
//! paths, permissions and names.
//!
//! ```
//! use xenstore_migration::{
//!     ByteOrder, NodeData, NodePerm, NodeScope, Peer, Preamble, ReadOptions, Record, StreamReader,
//!     StreamWriter, Version,
//! };
//! use xenstore_proto::{Access, DomId};
//!
//! let preamble = Preamble::new(Version::V2, ByteOrder::Little);
//! let mut writer = StreamWriter::create(Vec::new(), preamble, Peer::Specification)?;
//! let perms = [NodePerm::new(Access::None, DomId::DOM0)];
//! let node = NodeData { scope: NodeScope::Committed, perms: &perms, path: b"/tool", value: b"" };
//! writer.write(&Record::Node(node))?;
//! let stream = writer.finish()?;
//!
//! let mut reader = StreamReader::open(&*stream, ReadOptions::default())?;
//! let placed = reader.next_record()?.ok_or("no record")?;
//! assert_eq!(placed.place.to_string(), "record 0 (NODE_DATA) at octet 16");
//! assert_eq!(placed.record, Record::Node(node));
//! assert!(reader.next_record()?.is_none());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | what | where |
//! |---|---|
//! | the records | [`Record`] and the type of each |
//! | octets to records and back | [`StreamReader`], [`StreamWriter`] |
//! | what deployed servers do otherwise | [`Peer`], [`Deviation`], [`PeerChecker`] |
//! | rules between records | [`OrderChecker`] |
//! | quotas that are handed on | [`ServerQuotas`] |
//! | another version, byte order or form | [`convert()`], [`Converter`] |
//! | one domain's state | [`domain_state`] |
//! | JSON and back, with the feature `json` | `json` |
//! | sizes | [`limits`] |
//!
//! Specified in Xen's `docs/designs/xenstore-migration.md`; the layouts are drawn at each record, and all together in this
//! project's `docs/xenstore-migration.md`.

#![forbid(unsafe_code)]

mod convert;
mod deviation;
pub mod domain_state;
mod fields;
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "json")]
pub mod json;
pub mod limits;
mod order;
mod peer;
mod peer_check;
mod preamble;
mod quotas;
mod reader;
mod record;
mod writer;
pub use convert::{ConvertError, Converted, Converter, Loss, LossKind, convert};
pub use deviation::{Deviation, Deviations};
pub use fields::{BodyError, EncodeError};
pub use order::{AssumedKind, OrderChecker, StreamKind, Violation};
pub use peer::Peer;
pub use peer_check::{PeerChecker, PeerTrouble};
pub use preamble::{ByteOrder, Preamble, PreambleError, Version};
pub use quotas::{QuotasError, ServerQuotas};
pub use reader::{
    OpenError, Place, Placed, ReadError, ReadFailure, ReadOptions, StreamReader, UnknownRecords,
};
pub use record::{
    ConnectionData, ConnectionId, ConnectionSpec, DomainData, GlobalData, GlobalQuotaData,
    NodeAccess, NodeData, NodePerm, NodeScope, OwnedRecord, PermFlags, QuotaTable, QuotaTableError,
    Quotas, Record, RecordType, TransactionData, UnknownData, WatchData, WatchDepth,
    WatchExtendedData,
};
pub use writer::{CreateError, StreamWriter, WriteError, WriteFailure};
