//! A state to a stream of one domain.

use std::io::Write;

use xenstore_proto::{Features, Path, PathOrSpecial, Perms, Token};

use super::ownership::can_be_owned;
use super::{ConnectionState, DomainState, NodeState, PendingNode, WatchState};
use crate::convert::Converter;
use crate::order::{OrderChecker, StreamKind, Violation};
use crate::peer::Peer;
use crate::peer_check::{PeerChecker, PeerTrouble};
use crate::preamble::{Preamble, Version};
use crate::record::{
    ConnectionData, ConnectionId, ConnectionSpec, DomainData, NodeAccess, NodeData, NodePerm,
    NodeScope, QuotaTable, Record, TransactionData, WatchData, WatchDepth, WatchExtendedData,
};
use crate::writer::{StreamWriter, WriteError};

/// The number of the only connection.
const CONNECTION: ConnectionId = ConnectionId(std::num::NonZeroU32::MIN);

impl DomainState {
    /// Writes the records of a stream of one domain, but for END: a ring connection, its watches and open transactions, the
    /// nodes with parents before their children, what the transactions did, and DOMAIN_DATA if there are quotas or
    /// features. What is lost on the way is listed.
    ///
    /// The event channel's port is written as 0 and no unique id is, since both are a host's own. Without a connection in
    /// the state there is none in the stream; if the own node is missing as well, a DOMAIN_DATA record says which domain it is.
    ///
    /// # Errors
    ///
    /// If [`DomainState::from_stream`] would not take the stream; then nothing was written. If a record cannot be written,
    /// or the output fails; then the stream is to be thrown away.
    pub fn to_stream<W: Write>(
        &self,
        writer: &mut StreamWriter<W>,
    ) -> Result<Vec<StreamLoss>, ToStreamError> {
        let (preamble, peer) = (writer.preamble(), writer.peer());
        self.check_nodes()?;
        let mut order = OrderChecker::new(preamble, StreamKind::Domain);
        self.each_record(preamble, peer, |record| {
            // Both are a form of the peer's, and what it takes away is listed.
            let form = |v: &Violation| {
                matches!(v, Violation::DepthUntold | Violation::LaterVersion { .. })
            };
            match order.check(record).into_iter().find(|violation| !form(violation)) {
                Some(violation) => Err(ToStreamError::State { violation }),
                None => Ok(()),
            }
        })?;
        let mut peers_view = PeerChecker::new(preamble, peer);
        let mut troubles = peers_view.check_preamble();
        let mut losses = self.each_record(preamble, peer, |record| {
            troubles.extend(peers_view.check(record));
            writer.write(record).map_err(|source| ToStreamError::Write { source })
        })?;
        let untold = |root: &&Path| {
            let below_another = root.parent().is_some_and(|above| self.nodes.contains_key(&above));
            below_another || !self.nodes.contains_key(root)
        };
        losses.extend(
            self.roots.iter().filter(untold).map(|path| StreamLoss::Root { path: path.clone() }),
        );
        losses.extend(troubles.into_iter().map(|trouble| StreamLoss::Peer { trouble }));
        Ok(losses)
    }

    /// Whether the nodes are what one domain can own, each below a root with everything between.
    fn check_nodes(&self) -> Result<(), ToStreamError> {
        for path in self.nodes.keys() {
            if path.is_absolute() && !can_be_owned(path, self.domid) {
                return Err(ToStreamError::NotOwned { path: path.clone() });
            }
            let has_parent = path.parent().is_some_and(|parent| self.nodes.contains_key(&parent));
            if !has_parent && !self.roots.contains(path) {
                return Err(ToStreamError::Orphan { path: path.clone() });
            }
        }
        Ok(())
    }

    fn each_record(
        &self,
        preamble: Preamble,
        peer: Peer,
        mut visit: impl FnMut(&Record<'_>) -> Result<(), ToStreamError>,
    ) -> Result<Vec<StreamLoss>, ToStreamError> {
        let mut losses = Vec::new();
        if let Some(connection) = &self.connection {
            visit(&self.connection_record(connection))?;
            let converter = Converter::new(preamble, preamble, peer);
            for watch in &connection.watches {
                let (record, carried) = watch_record(watch, converter);
                visit(&record)?;
                if carried != watch.depth {
                    let (path, token) = (watch.path.clone(), watch.token.clone());
                    losses.push(StreamLoss::Depth { path, token, depth: watch.depth, carried });
                }
            }
            for transaction in &connection.transactions {
                let transaction = transaction.id;
                visit(&Record::Transaction(TransactionData {
                    connection: CONNECTION,
                    transaction,
                }))?;
            }
        }
        let mut perms = Vec::new();
        for (path, node) in &self.nodes {
            visit(&node_record(NodeScope::Committed, path, Some(node), &mut perms))?;
        }
        for transaction in self.connection.iter().flat_map(|connection| &connection.transactions) {
            for (path, pending) in &transaction.nodes {
                let (access, node) = match pending {
                    PendingNode::Removed => (NodeAccess::REMOVED, None),
                    PendingNode::Missed => (NodeAccess::READ, None),
                    PendingNode::Seen { access, node } => (*access, Some(node)),
                };
                let (connection, transaction) = (CONNECTION, transaction.id);
                let scope = NodeScope::Pending { connection, transaction, access };
                visit(&node_record(scope, path, node, &mut perms))?;
            }
        }
        losses.extend(self.write_domain(preamble.version, &mut visit)?);
        Ok(losses)
    }

    fn connection_record<'a>(&self, connection: &'a ConnectionState) -> Record<'a> {
        let spec = ConnectionSpec::Ring { domid: self.domid, target: connection.target, port: 0 };
        Record::Connection(ConnectionData {
            id: CONNECTION,
            spec,
            input: &connection.input,
            output_rest: connection.output_rest,
            output: &connection.output,
            unique_id: None,
        })
    }

    /// DOMAIN_DATA, if there is something to say or nothing else says which domain it is.
    fn write_domain(
        &self,
        version: Version,
        visit: &mut impl FnMut(&Record<'_>) -> Result<(), ToStreamError>,
    ) -> Result<Option<StreamLoss>, ToStreamError> {
        let own = Path::of_domain(self.domid);
        let named = self.connection.is_some() || self.nodes.contains_key(&own);
        let carried = self.features.filter(|_| version >= Version::V2);
        let loss = match self.features {
            Some(features) if carried.is_none() => Some(StreamLoss::Features { features }),
            _ => None,
        };
        if carried.is_none() && self.quotas.is_empty() && named {
            return Ok(loss);
        }
        let table = QuotaTable::of_domain(&self.quotas);
        let (domid, quotas) = (self.domid, table.quotas());
        visit(&Record::Domain(DomainData { domid, features: carried, quotas }))?;
        let invented = version >= Version::V2 && self.features.is_none();
        Ok(if invented { Some(StreamLoss::FeaturesUntold) } else { loss })
    }
}

/// The record of a watch, and the depth that a reader finds in it.
fn watch_record(watch: &WatchState, converter: Converter) -> (Record<'_>, Option<WatchDepth>) {
    let (path, token) = (watch.path.as_str().as_bytes(), watch.token.as_octets());
    let plain = Record::Watch(WatchData { connection: CONNECTION, path, token });
    let Some(depth) = watch.depth else { return (plain, None) };
    let depth = match depth {
        WatchDepth::Levels(u16::MAX) => WatchDepth::Unlimited,
        depth => depth,
    };
    let extended = WatchExtendedData { connection: CONNECTION, depth, path, token };
    match converter.convert(Record::WatchExtended(extended)).record {
        Some(record @ Record::WatchExtended(WatchExtendedData { depth, .. })) => {
            (record, Some(depth))
        }
        _ => (plain, None),
    }
}

fn node_record<'a>(
    scope: NodeScope,
    path: &'a Path,
    node: Option<&'a NodeState>,
    perms: &'a mut Vec<NodePerm>,
) -> Record<'a> {
    let entries = node.map(|node| &node.perms).map_or(&[][..], Perms::entries);
    perms.clear();
    perms.extend(entries.iter().map(|entry| NodePerm::new(entry.access, entry.domid)));
    let value = node.map_or(&[][..], |node| &node.value);
    Record::Node(NodeData { scope, perms, path: path.as_str().as_bytes(), value })
}

/// What a stream does not say of a state that was written to it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamLoss {
    /// A watch has another depth. Without one, it covers all below its path.
    #[error(
        "the watch on {path} with token {token} has no longer the depth {depth:?} but {carried:?}"
    )]
    Depth {
        /// What is watched.
        path: PathOrSpecial,
        /// Its token.
        token: Token,
        /// The depth it has.
        depth: Option<WatchDepth>,
        /// The depth that the stream tells.
        carried: Option<WatchDepth>,
    },
    /// What the domain has been offered is not told, since version 1 cannot.
    #[error("the features, {:#x}, are not told in version 1", features.0)]
    Features {
        /// What it has been offered.
        features: Features,
    },
    /// What the domain has been offered is told to be nothing, although it is not known.
    #[error("the features are not known and are told to be none")]
    FeaturesUntold,
    /// A root is not told: it has no node, so that nobody learns that there is none, or its parent is in the state as well.
    #[error("that {path} is a root is not told")]
    Root {
        /// The root.
        path: Path,
    },
    /// The stream tells it, but whom it is written for loses it, gets it wrong, or refuses the stream.
    #[error("{trouble}")]
    Peer {
        /// What it does.
        trouble: PeerTrouble,
    },
}

/// Why a state was not written as a stream.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ToStreamError {
    /// A node cannot be one domain's own. Nothing was written.
    #[error("node {path} cannot be one domain's own")]
    NotOwned {
        /// The node.
        path: Path,
    },
    /// A node is no root, and its parent is not there. Nothing was written.
    #[error("node {path} is no root, and its parent is not in the state")]
    Orphan {
        /// The node.
        path: Path,
    },
    /// The state does not go together. Nothing was written.
    #[error("the state does not go together: {violation}")]
    State {
        /// What is wrong with it.
        violation: Violation,
    },
    /// A record was not written.
    #[error("the state cannot be written")]
    Write {
        /// Which, and why not.
        source: WriteError,
    },
}
