//! What nodes cost whom: the owner is charged, in numbers that may be negative on the way.
//!
//! A node counts one, and its octets are C xenstored's: 16, 8 for each entry of the permissions, the value, the names of
//! its children with a NUL each, and its path.

use xenstore_proto::{DomId, Path, Perms};

use crate::store::Store;
use crate::tree::Node;

/// Octets of a node beside what it holds.
const NODE_OCTETS: usize = 16;

/// Octets of an entry of a node's permissions.
const PERM_OCTETS: usize = 8;

/// Nodes and octets, by owner. Sums only: what one change takes away another may have added (XSA-440).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Charges {
    /// Of one owner, as nearly always: most changes cost one, and nothing is allocated for it.
    first: Option<(DomId, Held)>,
    others: Vec<(DomId, Held)>,
}

/// Nodes, and their octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) nodes: i64,
    pub(crate) octets: i64,
}

impl Charges {
    /// All nodes of a store.
    pub(crate) fn of_store(store: &Store) -> Self {
        let mut charges = Self::default();
        charges.add_tree("/".len(), &store.root, 1);
        charges
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (DomId, Held)> {
        let all = self.first.iter().chain(&self.others).copied();
        all.filter(|(_, held)| *held != Held::default())
    }

    pub(crate) fn add(&mut self, owner: DomId, nodes: i64, octets: i64) {
        let first = self.first.get_or_insert((owner, Held::default()));
        let held = if first.0 == owner {
            &mut first.1
        } else if let Some(at) = self.others.iter().position(|(domid, _)| *domid == owner) {
            &mut self.others[at].1
        } else {
            self.others.push((owner, Held { nodes, octets }));
            return;
        };
        held.nodes += nodes;
        held.octets += octets;
    }

    pub(crate) fn add_all(&mut self, other: &Self) {
        for (owner, held) in other.iter() {
            self.add(owner, held.nodes, held.octets);
        }
    }

    /// A node gets another value.
    pub(crate) fn written(node: &Node, value: &[u8]) -> Self {
        let mut charges = Self::default();
        charges.add(node.perms().owner(), 0, signed(value.len()) - signed(node.value().len()));
        charges
    }

    /// A node gets other permissions, and with them maybe another owner.
    pub(crate) fn perms_set(path: &Path, node: &Node, perms: &Perms) -> Self {
        let mut charges = Self::default();
        let now = signed(octets(node, path.as_str().len()));
        let grown = PERM_OCTETS * perms.entries().len();
        let then = now + signed(grown) - signed(PERM_OCTETS * node.perms().entries().len());
        charges.add(node.perms().owner(), -1, -now);
        charges.add(perms.owner(), 1, then);
        charges
    }

    /// Nodes are created down to `path`, the first of them as a child of `nearest`.
    pub(crate) fn created(
        path: &Path,
        missing: usize,
        nearest: &Node,
        perms: &Perms,
        value: &[u8],
    ) -> Self {
        let mut charges = Self::default();
        let existing = path.components().count() - missing;
        let mut len = 0;
        for (depth, name) in path.components().enumerate() {
            len += 1 + name.len();
            if depth < existing {
                continue;
            }
            let above = if depth == existing { nearest.perms() } else { perms };
            charges.add(above.owner(), 0, signed(name.len() + 1));
            charges.add(perms.owner(), 1, signed(size(perms, 0, 0) + len));
        }
        charges.add(perms.owner(), 0, signed(value.len()));
        charges
    }

    /// A node was removed with what was below it, as a child of `above`.
    pub(crate) fn removed(path: &Path, gone: &Node, above: &Node) -> Self {
        let mut charges = Self::default();
        charges.add_tree(path.as_str().len(), gone, -1);
        charges.add(above.perms().owner(), 0, -signed(gone.name().len() + 1));
        charges
    }

    fn add_tree(&mut self, path_len: usize, top: &Node, sign: i64) {
        let mut pending = Vec::new();
        let mut next = Some((top, path_len));
        while let Some((node, len)) = next {
            self.add(node.perms().owner(), sign, sign * signed(octets(node, len)));
            // The root's path ends with the slash of its children's.
            let above = if len == 1 { 0 } else { len };
            let children = node.children_by_name();
            pending.extend(children.map(|child| (child, above + 1 + child.name().len())));
            next = pending.pop();
        }
    }
}

/// What is limited of a node: all its octets but for the path.
pub(crate) fn size(perms: &Perms, value: usize, child_names: usize) -> usize {
    NODE_OCTETS + PERM_OCTETS * perms.entries().len() + value + child_names
}

fn octets(node: &Node, path_len: usize) -> usize {
    size(node.perms(), node.value().len(), node.child_names_octets()) + path_len
}

fn signed(octets: usize) -> i64 {
    i64::try_from(octets).unwrap_or(i64::MAX)
}
