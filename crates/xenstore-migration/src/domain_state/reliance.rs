//! What open transactions rely on.

use std::collections::{BTreeMap, BTreeSet};

use xenstore_proto::Path;

use super::ownership::can_be_owned;
use super::{DomainState, NodeState, PendingNode, TransactionState};
use crate::record::NodeAccess;

impl DomainState {
    /// The nodes that the open transactions rely on and that the state holds: what is to be given along with them, so that
    /// whoever opens them again can tell whether all is still as they found it.
    ///
    /// These are, of each node that a transaction has read or removed, the node and its children, since a stream does not
    /// tell whether the list of them was read; and of each that it has written, the node or else the nearest above it.
    pub fn relied_on(&self) -> BTreeMap<Path, NodeState> {
        let open = self.connection.iter().flat_map(|connection| &connection.transactions);
        let pending: BTreeMap<&Path, bool> = open.flat_map(TransactionState::reliance).fold(
            BTreeMap::new(),
            |mut all, (path, read)| {
                *all.entry(path).or_default() |= read;
                all
            },
        );
        let mut nodes: BTreeSet<&Path> = BTreeSet::new();
        for path in pending.keys() {
            let upwards = std::iter::successors(Some((*path).clone()), Path::parent);
            let found = upwards.filter_map(|at| self.nodes.get_key_value(&at)).map(|(at, _)| at);
            nodes.extend({ found }.next());
        }
        for path in self.nodes.keys() {
            let parent = path.parent();
            if parent.is_some_and(|above| pending.get(&above).is_some_and(|read| *read)) {
                nodes.insert(path);
            }
        }
        nodes.into_iter().map(|path| (path.clone(), self.nodes[path].clone())).collect()
    }

    /// Whether a node can be part of what this domain owns: `/local/domain/DOMID` of its own, and whatever lies below a
    /// directory that domains share, as `/vm/UUID`.
    pub fn can_own(&self, path: &Path) -> bool {
        can_be_owned(path, self.domid)
    }
}

impl TransactionState {
    /// The nodes that it has touched, and of each whether it is to be as the transaction found it: a node that it has only
    /// written need not be, but of one that it has removed nobody knows whether it has looked at it before.
    pub fn reliance(&self) -> impl Iterator<Item = (&Path, bool)> {
        self.nodes.iter().map(|(path, pending)| {
            let read = match pending {
                PendingNode::Removed | PendingNode::Missed => true,
                PendingNode::Seen { access, .. } => access.contains(NodeAccess::READ),
            };
            (path, read)
        })
    }
}

#[cfg(test)]
mod tests {
    use xenstore_proto::{DomId, TxId};

    use super::*;
    use crate::domain_state::ConnectionState;

    fn path(text: &str) -> Path {
        text.parse().unwrap()
    }

    fn node() -> NodeState {
        NodeState { value: b"v".to_vec(), perms: "n3".parse().unwrap() }
    }

    #[test]
    fn transactions_rely_on_what_they_read_with_its_children_and_on_what_is_above_what_they_write()
    {
        let seen = |access| PendingNode::Seen { access, node: node() };
        let nodes = [
            ("/local/domain/3/read", seen(NodeAccess::READ)),
            ("/local/domain/3/written", seen(NodeAccess::WRITTEN)),
            ("/local/domain/3/new/deep/er", seen(NodeAccess::WRITTEN)),
            ("/local/domain/3/removed", PendingNode::Removed),
            ("/local/domain/3/missed", PendingNode::Missed),
            ("/elsewhere/read", seen(NodeAccess::READ)),
        ];
        let nodes = nodes.map(|(at, pending)| (path(at), pending)).into();
        let transactions = vec![TransactionState { id: TxId(1), nodes }];
        let connection = Some(ConnectionState { transactions, ..ConnectionState::default() });
        let below =
            ["", "/read", "/read/a", "/read/a/b", "/written", "/written/a", "/removed/a", "/new"];
        let nodes = below.map(|below| (path(&format!("/local/domain/3{below}")), node())).into();
        let (roots, quotas) = ([path("/local/domain/3")].into(), BTreeMap::new());
        let domid = DomId::new(3);
        let state = DomainState { domid, roots, nodes, connection, quotas, features: None };
        let relied_on = state.relied_on();
        let found: Vec<_> = relied_on.keys().map(Path::as_str).collect();
        let expected = ["", "/new", "/read", "/read/a", "/removed/a", "/written"];
        assert_eq!(found, expected.map(|below| format!("/local/domain/3{below}")));
    }
}
