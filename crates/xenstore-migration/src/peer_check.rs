//! What a deployed server would make of a stream.

use std::collections::HashSet;

use xenstore_proto::{DomId, TxId};

use crate::fields::aligned;
use crate::peer::Peer;
use crate::preamble::{ByteOrder, Preamble};
use crate::record::{
    ConnectionId, ConnectionSpec, NodeScope, PermFlags, Record, RecordType, WatchDepth,
    WatchExtendedData,
};

/// Checks record by record what a peer would refuse, lose or get wrong, although it is in order.
///
/// For [`Peer::Specification`] there is nothing to find.
#[derive(Debug)]
pub struct PeerChecker {
    peer: Peer,
    preamble: Preamble,
    /// Domains with a connection so far.
    connected: HashSet<DomId>,
}

impl PeerChecker {
    /// Nothing has been seen yet.
    pub fn new(preamble: Preamble, peer: Peer) -> Self {
        // The server's own domain needs no connection.
        Self { peer, preamble, connected: HashSet::from([DomId::DOM0]) }
    }

    /// What the peer would make of the stream as such.
    pub fn check_preamble(&self) -> Vec<PeerTrouble> {
        let mut found = Vec::new();
        if self.peer == Peer::Specification {
            return found;
        }
        if !self.peer.knows(self.preamble.version) {
            found.push(PeerTrouble::Version);
        }
        if self.preamble.byte_order != ByteOrder::NATIVE {
            found.push(PeerTrouble::ByteOrder);
        }
        found
    }

    /// What the peer would make of the next record.
    pub fn check(&mut self, record: &Record<'_>) -> Vec<PeerTrouble> {
        let mut found = Vec::new();
        if self.peer == Peer::Specification {
            return found;
        }
        match record {
            Record::Connection(connection) => match connection.spec {
                ConnectionSpec::Ring { domid, target, .. } => {
                    self.connected.insert(domid);
                    if let Some(target) = target.filter(|target| !self.connected.contains(target)) {
                        found.push(PeerTrouble::TargetLater { domid, target });
                    }
                }
                ConnectionSpec::Socket { .. } => {}
                ConnectionSpec::Unknown { kind, .. } => {
                    found.push(PeerTrouble::ConnectionKind { kind });
                }
            },
            Record::Transaction(transaction) => {
                let (connection, transaction) = (transaction.connection, transaction.transaction);
                found.push(PeerTrouble::Transaction { connection, transaction });
            }
            Record::Node(node) => {
                if node.scope != NodeScope::Committed {
                    found.push(PeerTrouble::PendingNode { path: node.path.into() });
                }
                if let Some(owner) = node.perms.first().map(|perm| perm.domid)
                    && !self.connected.contains(&owner)
                {
                    found.push(PeerTrouble::OwnerNotConnected { path: node.path.into(), owner });
                }
                for perm in node.perms.iter().skip(1) {
                    let counts = perm.domid.is_real() && !perm.flags.contains(PermFlags::STALE);
                    if counts && !self.connected.contains(&perm.domid) {
                        let (path, domid) = (node.path.into(), perm.domid);
                        found.push(PeerTrouble::RightLost { path, domid });
                    }
                }
            }
            Record::Domain(domain) if !self.connected.contains(&domain.domid) => {
                found.push(PeerTrouble::DomainNotConnected { domid: domain.domid });
            }
            Record::WatchExtended(watch) => {
                if self.peer == Peer::C417 {
                    found.push(PeerTrouble::Skipped { record_type: record.record_type() });
                } else if self.peer == Peer::C2026Written && claims_too_much(watch) {
                    found.push(PeerTrouble::WayLost { path: watch.path.into() });
                } else if self.peer == Peer::C2026Written || watch.depth == WatchDepth::Untold {
                    found.push(PeerTrouble::WatchMisread { path: watch.path.into() });
                }
            }
            Record::Unknown(unknown) if unknown.body.is_empty() => {
                found.push(PeerTrouble::UnknownEmpty { record_type: unknown.record_type });
            }
            Record::Unknown(unknown) => {
                found.push(PeerTrouble::Skipped { record_type: unknown.record_type });
            }
            _ => {}
        }
        found
    }
}

/// Whether the length of an extended watch, in the form without depth, counts octets of the next record.
fn claims_too_much(watch: &WatchExtendedData<'_>) -> bool {
    let fields = 8 + watch.path.len() + 1 + watch.token.len() + 1;
    aligned(fields + 4) > aligned(fields)
}

/// What a peer would make of a stream that is in order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerTrouble {
    /// It knows version 1 only.
    #[error("it refuses the stream: it does not know its version")]
    Version,
    /// It reads only its own machine's byte order.
    #[error("it refuses the stream: it reads only the byte order of its own machine")]
    ByteOrder,
    /// It takes a node only if the owner has a connection.
    #[error(
        "it refuses the stream: domain {owner}, which owns {}, has no connection before it",
        path.escape_ascii()
    )]
    OwnerNotConnected {
        /// The node.
        path: Box<[u8]>,
        /// Its owner.
        owner: DomId,
    },
    /// It takes what a domain has only if the domain has a connection.
    #[error("it refuses the stream: domain {domid} has no connection before it")]
    DomainNotConnected {
        /// The domain.
        domid: DomId,
    },
    /// It takes a record without a body that it does not know for the end of a cut stream.
    #[error("it refuses the stream: an empty record of unknown {record_type}")]
    UnknownEmpty {
        /// The record.
        record_type: RecordType,
    },
    /// It looks for the domain when it reads the connection, and forgets what it does not find.
    #[error(
        "domain {domid} no longer acts for domain {target}, whose connection comes later or not at all"
    )]
    TargetLater {
        /// Who acts.
        domid: DomId,
        /// For whom.
        target: DomId,
    },
    /// It takes a domain without a connection for gone, and a later one with the same id for another.
    #[error(
        "the right of domain {domid} to {} is lost: it has no connection before it",
        path.escape_ascii()
    )]
    RightLost {
        /// The node.
        path: Box<[u8]>,
        /// Whose right.
        domid: DomId,
    },
    /// It ignores open transactions.
    #[error("transaction {transaction} of connection {connection} is lost")]
    Transaction {
        /// Whose.
        connection: ConnectionId,
        /// Which.
        transaction: TxId,
    },
    /// It takes for committed what a transaction has done.
    #[error("node {} becomes what a transaction made of it and did not commit", path.escape_ascii())]
    PendingNode {
        /// The node.
        path: Box<[u8]>,
    },
    /// It loses or mistakes an extended watch.
    #[error("the watch on {} is read wrongly and lost", path.escape_ascii())]
    WatchMisread {
        /// The watch's path.
        path: Box<[u8]>,
    },
    /// It takes the first octets of the next record for a part of an extended watch, and what follows for something else.
    #[error("the watch on {} is read wrongly, and all that follows it", path.escape_ascii())]
    WayLost {
        /// The watch's path.
        path: Box<[u8]>,
    },
    /// It skips records that it does not know.
    #[error("{record_type} is skipped")]
    Skipped {
        /// The record.
        record_type: RecordType,
    },
    /// It takes every connection that is not a socket for a ring.
    #[error("a connection of kind {kind} is taken for a ring")]
    ConnectionKind {
        /// conn-type
        kind: u16,
    },
}

impl PeerTrouble {
    /// Whether the peer refuses the whole stream for it, or cannot make sense of the rest, as opposed to losing something.
    pub const fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Version
                | Self::ByteOrder
                | Self::OwnerNotConnected { .. }
                | Self::DomainNotConnected { .. }
                | Self::UnknownEmpty { .. }
                | Self::WayLost { .. }
        )
    }
}
