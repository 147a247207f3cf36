//! Records to the parts of a state, each checked.

use std::collections::{BTreeMap, HashSet};

use xenstore_proto::{
    DomId, Features, Path, PathOrSpecial, Perm, Perms, QuotaName, Token, TokenError, TxId,
};

use super::{ConnectionState, NodeState, PendingNode, TransactionState, WatchState};
use crate::order::{Violation, check_messages};
use crate::quotas::QuotasError;
use crate::record::{
    ConnectionData, ConnectionId, DomainData, NodeAccess, NodeData, NodePerm, PermFlags,
    RecordType, WatchDepth,
};

/// A permission that was left out, since the domain it names is gone: a later domain with the same id has no right by it
/// (XSA-322).
///
/// If it was the owner's, the node belongs to domain 0 now, as it does with C xenstored; what it lets others do has stayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StalePerm {
    /// The node.
    pub path: Path,
    /// Which entry of its permissions, from 0; 0 is the owner's.
    pub number: usize,
    /// What it said.
    pub perm: Perm,
}

/// What is wrong with a record of a stream that is to be a domain's state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordFault {
    /// It does not make sense, itself or where it stands.
    #[error(transparent)]
    Violation {
        /// Why not.
        #[from]
        source: Violation,
    },
    /// A node that cannot be one domain's own: a directory that domains share, the tree of another domain, or a special name.
    #[error("node {path} cannot be one domain's own")]
    NotOwned {
        /// The node.
        path: PathOrSpecial,
    },
    /// A permission with bits whose meaning is not known, so that it may not mean what it says.
    #[error("permission {number} of node {path} has flags {:#04x}, which are not known", flags.0)]
    PermFlags {
        /// The node.
        path: Path,
        /// Which entry, from 0.
        number: usize,
        /// The flags.
        flags: PermFlags,
    },
    /// A token that is none.
    #[error("the token of the watch on {path} is none")]
    Token {
        /// What is watched.
        path: PathOrSpecial,
        /// Why not.
        source: TokenError,
    },
}

/// What has been read so far of one domain's state.
#[derive(Debug, Default)]
pub(super) struct Collector {
    connection: Option<(ConnectionId, ConnectionState)>,
    watches: HashSet<(PathOrSpecial, Token)>,
    transactions: BTreeMap<TxId, usize>,
    pub(super) nodes: BTreeMap<Path, NodeState>,
    domain: Option<(BTreeMap<QuotaName, u32>, Option<Features>)>,
    pub(super) stale: Vec<StalePerm>,
}

/// What has been read.
pub(super) struct Collected {
    pub(super) nodes: BTreeMap<Path, NodeState>,
    pub(super) stale: Vec<StalePerm>,
    pub(super) connection: Option<ConnectionState>,
    pub(super) quotas: BTreeMap<QuotaName, u32>,
    pub(super) features: Option<Features>,
}

impl Collector {
    /// Whether `id` is the domain's connection.
    pub(super) fn is_connection(&self, id: ConnectionId) -> bool {
        self.connection.as_ref().is_some_and(|(known, _)| *known == id)
    }

    /// Whether the domain's connection is known.
    pub(super) fn connection_is_known(&self) -> bool {
        self.connection.is_some()
    }

    /// Whether anything is known of the domain besides nodes.
    pub(super) fn knows_domain(&self) -> bool {
        self.connection.is_some() || self.domain.is_some()
    }

    /// Takes the ring connection of the domain. Port and unique id are the old host's own and are not kept.
    pub(super) fn connection(
        &mut self,
        data: &ConnectionData<'_>,
        domid: DomId,
        target: Option<DomId>,
    ) -> Result<(), RecordFault> {
        if self.is_connection(data.id) {
            return Err(Violation::RepeatedConnection { connection: data.id }.into());
        }
        if self.connection.is_some() {
            return Err(Violation::RepeatedRing { domid }.into());
        }
        if let Some(violation) = check_messages(data) {
            return Err(violation.into());
        }
        let state = ConnectionState {
            target,
            input: data.input.to_vec(),
            output_rest: data.output_rest,
            output: data.output.to_vec(),
            watches: Vec::new(),
            transactions: Vec::new(),
        };
        self.connection = Some((data.id, state));
        Ok(())
    }

    pub(super) fn watch(
        &mut self,
        id: ConnectionId,
        path: &[u8],
        token: &[u8],
        depth: Option<WatchDepth>,
    ) -> Result<(), RecordFault> {
        let path = PathOrSpecial::from_octets(path)
            .map_err(|reason| Violation::Path { path: path.into(), reason })?;
        let token = match Token::from_octets(token) {
            Ok(token) => token,
            Err(source) => return Err(RecordFault::Token { path, source }),
        };
        let state = connection_of(&mut self.connection, id)?;
        if !self.watches.insert((path.clone(), token.clone())) {
            let path = path.as_str().as_bytes().into();
            return Err(Violation::RepeatedWatch { connection: id, path }.into());
        }
        state.watches.push(WatchState { path, token, depth });
        Ok(())
    }

    pub(super) fn transaction(&mut self, id: ConnectionId, tx: TxId) -> Result<(), RecordFault> {
        let state = connection_of(&mut self.connection, id)?;
        if tx == TxId::NONE {
            return Err(Violation::TransactionZero.into());
        }
        if self.transactions.insert(tx, state.transactions.len()).is_some() {
            return Err(Violation::RepeatedTransaction { connection: id, transaction: tx }.into());
        }
        state.transactions.push(TransactionState { id: tx, nodes: BTreeMap::new() });
        Ok(())
    }

    /// Takes what a transaction did to a node.
    pub(super) fn pending(
        &mut self,
        id: ConnectionId,
        tx: TxId,
        access: NodeAccess,
        node: &NodeData<'_>,
    ) -> Result<(), RecordFault> {
        let path = absolute(node.path)?;
        let absent = node.perms.is_empty();
        let removed = access == NodeAccess::REMOVED;
        let missed = absent && access == NodeAccess::READ;
        if absent != (removed || missed) || (absent && !node.value.is_empty()) {
            return Err(Violation::HalfRemoved { path: node.path.into() }.into());
        }
        let state = connection_of(&mut self.connection, id)?;
        let unknown = Violation::UnknownTransaction { connection: id, transaction: tx };
        let number = self.transactions.get(&tx).ok_or(unknown)?;
        let nodes = &mut state.transactions[*number].nodes;
        if nodes.contains_key(&path) {
            return Err(Violation::RepeatedNode { path: node.path.into() }.into());
        }
        let pending = if removed {
            PendingNode::Removed
        } else if missed {
            PendingNode::Missed
        } else {
            let perms = live_perms(&path, node.perms, &mut self.stale)?;
            PendingNode::Seen { access, node: NodeState { value: node.value.to_vec(), perms } }
        };
        nodes.insert(path, pending);
        Ok(())
    }

    /// Takes a committed node.
    pub(super) fn node(&mut self, path: &Path, node: &NodeData<'_>) -> Result<(), RecordFault> {
        if self.nodes.contains_key(path) {
            return Err(Violation::RepeatedNode { path: node.path.into() }.into());
        }
        if node.perms.is_empty() {
            return Err(Violation::NoOwner { path: node.path.into() }.into());
        }
        let perms = live_perms(path, node.perms, &mut self.stale)?;
        self.nodes.insert(path.clone(), NodeState { value: node.value.to_vec(), perms });
        Ok(())
    }

    pub(super) fn domain(&mut self, data: &DomainData<'_>) -> Result<(), RecordFault> {
        if self.domain.is_some() {
            return Err(Violation::RepeatedDomain { domid: data.domid }.into());
        }
        let quotas = data.quotas_by_name().map_err(|error| match error {
            QuotasError::Name { name } => Violation::QuotaName { name },
            QuotasError::Repeated { name } => {
                Violation::RepeatedQuota { name: name.as_str().as_bytes().into() }
            }
        })?;
        self.domain = Some((quotas, data.features));
        Ok(())
    }

    /// What was read, but for `nodes` and `stale`, which the caller takes.
    pub(super) fn finish(self) -> Collected {
        let (quotas, features) = self.domain.unwrap_or_default();
        let Self { nodes, stale, connection, .. } = self;
        let connection = connection.map(|(_, state)| state);
        Collected { nodes, stale, connection, quotas, features }
    }
}

/// The path of a node, which is absolute.
pub(super) fn absolute(path: &[u8]) -> Result<Path, RecordFault> {
    match PathOrSpecial::from_octets(path) {
        Ok(PathOrSpecial::Node(node)) if node.is_absolute() => Ok(node),
        Ok(PathOrSpecial::Node(_)) => Err(Violation::RelativeNode { path: path.into() }.into()),
        Ok(path) => Err(RecordFault::NotOwned { path }),
        Err(reason) => Err(Violation::Path { path: path.into(), reason }.into()),
    }
}

/// A record that no stream of one domain holds.
pub(super) fn not_of_a_domain(record_type: RecordType) -> RecordFault {
    Violation::NotOfADomain { record_type }.into()
}

fn connection_of(
    connection: &mut Option<(ConnectionId, ConnectionState)>,
    id: ConnectionId,
) -> Result<&mut ConnectionState, Violation> {
    match connection {
        Some((known, state)) if *known == id => Ok(state),
        _ => Err(Violation::UnknownConnection { connection: id }),
    }
}

/// The permissions that count. There is at least one entry.
fn live_perms(
    path: &Path,
    entries: &[NodePerm],
    stale: &mut Vec<StalePerm>,
) -> Result<Perms, RecordFault> {
    let mut live = Vec::with_capacity(entries.len());
    for (number, entry) in entries.iter().enumerate() {
        let perm = Perm::new(entry.access, entry.domid);
        match entry.flags {
            PermFlags::NONE => live.push(perm),
            PermFlags::STALE => {
                stale.push(StalePerm { path: path.clone(), number, perm });
                if number == 0 {
                    live.push(Perm::new(entry.access, DomId::DOM0));
                }
            }
            flags => return Err(RecordFault::PermFlags { path: path.clone(), number, flags }),
        }
    }
    Perms::new(live)
        .map_err(|_| Violation::NoOwner { path: path.as_str().as_bytes().into() }.into())
}
