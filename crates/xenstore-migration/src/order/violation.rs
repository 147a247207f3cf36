//! What can be wrong with a record where it stands.

use xenstore_proto::{DomId, PathError, TxId};

use crate::record::{ConnectionId, RecordType};

/// What is wrong with a record where it stands. Names and paths are as they stand in the stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A record that is in a stream at most once.
    #[error("a second record of its type")]
    Repeated {
        /// Which.
        record_type: RecordType,
    },
    /// conn-id names two connections.
    #[error("a second connection {connection}")]
    RepeatedConnection {
        /// Which.
        connection: ConnectionId,
    },
    /// A domain has two connections.
    #[error("a second connection of domain {domid}")]
    RepeatedRing {
        /// Which.
        domid: DomId,
    },
    /// A watch that the connection has already.
    #[error("a second watch of connection {connection} on {} with the same token", path.escape_ascii())]
    RepeatedWatch {
        /// Whose.
        connection: ConnectionId,
        /// On what.
        path: Box<[u8]>,
    },
    /// A transaction that the connection has already.
    #[error("a second transaction {transaction} of connection {connection}")]
    RepeatedTransaction {
        /// Whose.
        connection: ConnectionId,
        /// Which.
        transaction: TxId,
    },
    /// A node that has been told of before.
    #[error("a second record of node {}", path.escape_ascii())]
    RepeatedNode {
        /// Which.
        path: Box<[u8]>,
    },
    /// A domain that has been told of before.
    #[error("a second record of domain {domid}")]
    RepeatedDomain {
        /// Which.
        domid: DomId,
    },
    /// A quota that has been told of in the same record.
    #[error("a second value of quota {}", name.escape_ascii())]
    RepeatedQuota {
        /// Which.
        name: Box<[u8]>,
    },
    /// No such connection has been told of before.
    #[error("connection {connection} was not told of before")]
    UnknownConnection {
        /// Which.
        connection: ConnectionId,
    },
    /// No such transaction has been told of before.
    #[error("transaction {transaction} of connection {connection} was not told of before")]
    UnknownTransaction {
        /// Whose.
        connection: ConnectionId,
        /// Which.
        transaction: TxId,
    },
    /// tx-id 0, which stands for no transaction.
    #[error("transaction 0")]
    TransactionZero,
    /// No node above has been told of before.
    #[error("node {} comes before its parent, or without one", path.escape_ascii())]
    NoParent {
        /// Which.
        path: Box<[u8]>,
    },
    /// A node comes behind its children.
    #[error("node {} comes behind a child of it", path.escape_ascii())]
    ParentLater {
        /// Which.
        path: Box<[u8]>,
    },
    /// A node that nobody owns.
    #[error("node {} has no permissions, so no owner", path.escape_ascii())]
    NoOwner {
        /// Which.
        path: Box<[u8]>,
    },
    /// A node that a transaction has removed and that has a value or permissions, or the other way round.
    #[error("node {} is removed by a transaction and is not", path.escape_ascii())]
    HalfRemoved {
        /// Which.
        path: Box<[u8]>,
    },
    /// The path of a node is relative.
    #[error("the path of node {} is relative", path.escape_ascii())]
    RelativeNode {
        /// Which.
        path: Box<[u8]>,
    },
    /// A path that is none.
    #[error("{} is no path: {reason}", path.escape_ascii())]
    Path {
        /// As it stands in the stream.
        path: Box<[u8]>,
        /// Why not.
        reason: PathError,
    },
    /// The name of a quota that is none.
    #[error("{} is no name of a quota", name.escape_ascii())]
    QuotaName {
        /// As it stands in the stream.
        name: Box<[u8]>,
    },
    /// What a connection has sent is not whole requests and a part of one.
    #[error("what connection {connection} has sent are no requests")]
    Input {
        /// Whose.
        connection: ConnectionId,
    },
    /// What a connection is to be sent is not the rest of a message and whole ones.
    #[error("what connection {connection} is to be sent are no messages")]
    Output {
        /// Whose.
        connection: ConnectionId,
    },
    /// A kind of connection reserved for the future.
    #[error("connections of kind {kind} are not known")]
    ConnectionKind {
        /// conn-type
        kind: u16,
    },
    /// A type of record that is not known.
    #[error("records of {record_type} are not known")]
    UnknownType {
        /// Which.
        record_type: RecordType,
    },
    /// A record of a later version.
    #[error("{record_type} is not in version 1")]
    LaterVersion {
        /// Which.
        record_type: RecordType,
    },
    /// An extended watch that does not say its depth.
    #[error("an extended watch without a depth")]
    DepthUntold,
    /// Something that a stream of one domain does not hold.
    #[error("a stream of one domain has one ring connection and nothing of the server's own")]
    NotOfADomain {
        /// Which.
        record_type: RecordType,
    },
    /// In a stream of one domain, something of another.
    #[error("domain {domid} is not the domain of the stream")]
    OtherDomain {
        /// Which.
        domid: DomId,
    },
}
