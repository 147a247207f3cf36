//! A domain's part of the server's state.

use std::collections::{BTreeMap, BTreeSet};

use xenstore_migration::domain_state::{
    ConnectionState, DomainState, NodeState, PendingNode, TransactionState, WatchState,
};
use xenstore_migration::{
    ConnectionId as StreamId, NodeData, NodePerm, NodeScope, Record, WatchDepth,
};
use xenstore_proto::{DomId, Errno, Path, PathOrSpecial, Perm, Perms, Token};

use crate::live_update::{write_transactions, write_watches};
use crate::server::Server;
use crate::tree::Node;

/// How the records of the only connection call it.
pub(super) const CONNECTION: StreamId = match StreamId::new(1) {
    Some(number) => number,
    None => panic!("one is not zero"),
};

impl Server {
    /// What a domain has on its connection: watches, open transactions, what waits to be sent, its target, quotas and features; and
    /// the nodes that the transactions rely on.
    ///
    /// What has been received and not handled, and the rest of a message of which a part has been sent, is with
    /// whoever carries the connection, and not in it.
    pub(crate) fn domain_state(&self, domid: DomId) -> Result<DomainState, Errno> {
        let number = self.connection_of_domain(domid)?;
        let output = self.connections.get(&number).ok_or(Errno::ENOENT)?.output.waiting().to_vec();
        let target = self.domains.subject(domid).target;
        let mut connection = ConnectionState { target, output, ..ConnectionState::default() };
        let mut take = |record: &Record<'_>| take(&mut connection, record).ok_or(Errno::EIO);
        write_watches(self, number, CONNECTION, &mut take)?;
        write_transactions(self, number, CONNECTION, &mut take)?;
        let mut quotas = self.accounts.quotas(domid).by_name();
        self.handed_on.complete(&mut quotas);
        let mut state = DomainState {
            domid,
            roots: BTreeSet::new(),
            nodes: BTreeMap::new(),
            connection: Some(connection),
            quotas,
            features: Some(self.domains.features(domid)),
        };
        state.nodes = self.relied_on(&state);
        let is_root =
            |path: &&Path| !path.parent().is_some_and(|above| state.nodes.contains_key(&above));
        state.roots = state.nodes.keys().filter(is_root).cloned().collect();
        Ok(state)
    }

    /// As [`DomainState::relied_on`], of a state whose nodes are in the store.
    fn relied_on(&self, state: &DomainState) -> BTreeMap<Path, NodeState> {
        let mut nodes = BTreeMap::new();
        let mut rely = |path: Path, node: &Node| {
            if state.can_own(&path) {
                nodes.entry(path).or_insert_with(|| node_state(node));
            }
        };
        let open = state.connection.iter().flat_map(|connection| &connection.transactions);
        for (path, read) in open.flat_map(TransactionState::reliance) {
            let (node, missing) = self.store.nearest(path);
            if read && missing == 0 {
                for child in node.children() {
                    // One whose path is too long has not been named to anybody.
                    path.join(child.name()).into_iter().for_each(|path| rely(path, child));
                }
            }
            let mut upwards = std::iter::successors(Some(path.clone()), Path::parent);
            upwards.nth(missing).into_iter().for_each(|path| rely(path, node));
        }
        nodes
    }
}

fn node_state(node: &Node) -> NodeState {
    NodeState { value: node.value().to_vec(), perms: (**node.perms()).clone() }
}

/// Takes a record about the connection in; `None` if it says what cannot be.
fn take(connection: &mut ConnectionState, record: &Record<'_>) -> Option<()> {
    match record {
        Record::Watch(watch) => {
            connection.watches.push(watch_state(watch.path, watch.token, None)?);
        }
        Record::WatchExtended(watch) => {
            let depth = Some(watch.depth);
            connection.watches.push(watch_state(watch.path, watch.token, depth)?);
        }
        Record::Transaction(open) => {
            let nodes = BTreeMap::new();
            connection.transactions.push(TransactionState { id: open.transaction, nodes });
        }
        Record::Node(node) => {
            let open = connection.transactions.last_mut()?;
            let (path, pending) = pending_node(node)?;
            // Each node is told once: of one that was read and removed, that it is removed says both.
            open.nodes.insert(path, pending);
        }
        _ => return None,
    }
    Some(())
}

fn watch_state(path: &[u8], token: &[u8], depth: Option<WatchDepth>) -> Option<WatchState> {
    let path = PathOrSpecial::from_octets(path).ok()?;
    Some(WatchState { path, token: Token::from_octets(token).ok()?, depth })
}

fn pending_node(node: &NodeData<'_>) -> Option<(Path, PendingNode)> {
    let NodeScope::Pending { access, .. } = node.scope else { return None };
    let path = Path::from_octets(node.path).ok()?;
    let pending = if node.perms.is_empty() {
        if access.0 == 0 { PendingNode::Removed } else { PendingNode::Missed }
    } else {
        let entry = |entry: &NodePerm| Perm::new(entry.access, entry.domid);
        let perms = Perms::new(node.perms.iter().map(entry).collect::<Vec<_>>()).ok()?;
        PendingNode::Seen { access, node: NodeState { value: node.value.to_vec(), perms } }
    };
    Some((path, pending))
}
