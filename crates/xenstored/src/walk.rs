//! Walking all nodes of a store without recursion.

use std::fmt;

use xenstore_proto::{Path, Perms};

use crate::tree::Node;

/// All nodes of a store: the root first, every node before its children.
///
/// What it keeps grows with the siblings still to come, not with the store.
pub struct Nodes<'a> {
    /// Still to visit, the next one last, with the length of the path of the node above.
    pending: Vec<(&'a Node, usize)>,
    path: String,
}

/// One node of a store, with where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRef<'a> {
    /// Where the node is.
    pub path: Path,
    /// Its value.
    pub value: &'a [u8],
    /// Its permissions.
    pub perms: &'a Perms,
}

impl<'a> Nodes<'a> {
    pub(crate) fn of(root: &'a Node) -> Self {
        Self { pending: vec![(root, 0)], path: String::new() }
    }

    /// The nodes below the one at `path`, which has to be `top`. Not the root.
    pub(crate) fn below(path: &Path, top: &'a Node) -> Self {
        let here = path.as_str().len();
        let pending = top.children_by_name().map(|child| (child, here)).collect();
        Self { pending, path: path.as_str().to_owned() }
    }

    /// The next node, with its path as text: `""` for the root.
    pub(crate) fn advance(&mut self) -> Option<(&str, &'a Node)> {
        let (node, above) = self.pending.pop()?;
        self.path.truncate(above);
        if !node.name().is_empty() {
            self.path.push('/');
            self.path.push_str(node.name());
        }
        let here = self.path.len();
        self.pending.extend(node.children().into_iter().rev().map(|child| (child, here)));
        Some((&self.path, node))
    }
}

impl<'a> Iterator for Nodes<'a> {
    type Item = NodeRef<'a>;

    fn next(&mut self) -> Option<NodeRef<'a>> {
        let (path, node) = self.advance()?;
        let path = if path.is_empty() { "/" } else { path };
        let path = path.parse().expect("nodes are only created at the paths they are walked at");
        Some(NodeRef { path, value: node.value(), perms: node.perms() })
    }
}

impl fmt::Debug for Nodes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nodes").field("path", &self.path).finish_non_exhaustive()
    }
}
