//! Records that own what they say.

use xenstore_proto::{DomId, Features};

use super::{
    ConnectionData, ConnectionId, ConnectionSpec, DomainData, GlobalData, GlobalQuotaData,
    NodeData, NodePerm, NodeScope, QuotaTable, Record, RecordType, TransactionData, UnknownData,
    WatchData, WatchDepth, WatchExtendedData,
};

/// A [`Record`] that owns what it says, for whoever makes records up instead of reading them. Its variants and their fields are those
/// of [`Record`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnedRecord {
    /// As [`GlobalData`].
    Global(GlobalData),
    /// As [`ConnectionData`].
    Connection {
        /// As [`ConnectionData::id`].
        id: ConnectionId,
        /// As [`ConnectionData::spec`].
        spec: ConnectionSpec,
        /// As [`ConnectionData::unique_id`].
        unique_id: Option<u64>,
        /// As [`ConnectionData::output_rest`].
        output_rest: u16,
        /// As [`ConnectionData::input`].
        input: Vec<u8>,
        /// As [`ConnectionData::output`].
        output: Vec<u8>,
    },
    /// As [`WatchData`]: whose, the path and the token.
    Watch(ConnectionId, Vec<u8>, Vec<u8>),
    /// As [`WatchExtendedData`]: whose, the depth, the path and the token.
    WatchExtended(ConnectionId, WatchDepth, Vec<u8>, Vec<u8>),
    /// As [`TransactionData`].
    Transaction(TransactionData),
    /// As [`NodeData`]: in which tree, the permissions, the path and the value.
    Node(NodeScope, Vec<NodePerm>, Vec<u8>, Vec<u8>),
    /// As [`GlobalQuotaData`]: of each domain, and of all together.
    GlobalQuota(QuotaTable, QuotaTable),
    /// As [`DomainData`].
    Domain(DomId, Option<Features>, QuotaTable),
    /// As [`UnknownData`].
    Unknown(RecordType, Vec<u8>),
}

impl OwnedRecord {
    /// The record, as writers take it.
    pub fn record(&self) -> Record<'_> {
        match self {
            Self::Global(global) => Record::Global(*global),
            Self::Connection { id, spec, unique_id, output_rest, input, output } => {
                let (id, spec, unique_id, output_rest) = (*id, *spec, *unique_id, *output_rest);
                Record::Connection(ConnectionData {
                    id,
                    spec,
                    input,
                    output_rest,
                    output,
                    unique_id,
                })
            }
            Self::Watch(connection, path, token) => {
                Record::Watch(WatchData { connection: *connection, path, token })
            }
            Self::WatchExtended(connection, depth, path, token) => {
                let (connection, depth) = (*connection, *depth);
                Record::WatchExtended(WatchExtendedData { connection, depth, path, token })
            }
            Self::Transaction(transaction) => Record::Transaction(*transaction),
            Self::Node(scope, perms, path, value) => {
                Record::Node(NodeData { scope: *scope, perms, path, value })
            }
            Self::GlobalQuota(per_domain, global) => Record::GlobalQuota(GlobalQuotaData {
                per_domain: per_domain.quotas(),
                global: global.quotas(),
            }),
            Self::Domain(domid, features, quotas) => {
                let (domid, features) = (*domid, *features);
                Record::Domain(DomainData { domid, features, quotas: quotas.quotas() })
            }
            Self::Unknown(record_type, body) => {
                Record::Unknown(UnknownData { record_type: *record_type, body })
            }
        }
    }
}
