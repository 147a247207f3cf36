//! The store as a value.

use std::fmt;
use std::sync::Arc;

use xenstore_proto::{DomId, Path, Perms};

use crate::limits::{PERMS_MAX, VALUE_MAX};
use crate::tree::Node;
use crate::walk::Nodes;

/// A tree of nodes, each with a value and permissions.
///
/// Cloning takes a snapshot and costs the same whatever the store's size: the clones share what neither changes.
/// Reading needs no connection and no lock, checks no permissions, and sees what the store held when it was cloned.
/// Relative paths are relative to `/local/domain/0`. Children keep the order of their creation.
///
/// ```
/// use xenstored::Store;
/// let mut store = Store::new();
/// store.write(&"/local/domain/7/name".parse()?, b"seven")?;
/// let snapshot = store.clone();
/// store.remove(&"/local/domain/7".parse()?)?;
/// assert_eq!(snapshot.read(&"/local/domain/7/name".parse()?), Some(&b"seven"[..]));
/// assert_eq!(store.children(&"/local/domain".parse()?), Some(vec![]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Store {
    pub(crate) root: Node,
    /// Counts changes: births of nodes and generations of directories.
    pub(crate) stamp: u64,
}

impl Store {
    /// A store that holds the root only, which only domain 0 can reach.
    pub fn new() -> Self {
        Self { root: Node::new("", b"", Arc::new(Perms::owned_by(DomId::DOM0)), 0), stamp: 1 }
    }

    /// The value of a node; `None` if there is no such node.
    pub fn read(&self, path: &Path) -> Option<&[u8]> {
        self.get(path).map(Node::value)
    }

    /// The names of a node's children in the order of their creation; `None` if there is no such node.
    pub fn children(&self, path: &Path) -> Option<Vec<&str>> {
        self.get(path).map(|node| node.children().into_iter().map(Node::name).collect())
    }

    /// The permissions of a node; `None` if there is no such node.
    pub fn perms(&self, path: &Path) -> Option<&Perms> {
        self.get(path).map(|node| &**node.perms())
    }

    /// Whether there is such a node.
    pub fn exists(&self, path: &Path) -> bool {
        self.get(path).is_some()
    }

    /// All nodes, the root first, every node before its children, children in the order of their creation.
    pub fn nodes(&self) -> Nodes<'_> {
        Nodes::of(&self.root)
    }

    /// Sets a value. Missing nodes on the way are created, empty and with the permissions of the node above them.
    pub fn write(&mut self, path: &Path, value: &[u8]) -> Result<(), StoreError> {
        if value.len() > VALUE_MAX {
            return Err(StoreError::ValueTooLong { path: path.clone(), len: value.len() });
        }
        match self.get_mut(path) {
            Some(node) => node.set_value(value),
            None => {
                let perms = Arc::clone(self.nearest(path).0.perms());
                self.create(path, value, &perms);
            }
        }
        Ok(())
    }

    /// Removes a node and everything below. `false` if there was no such node.
    pub fn remove(&mut self, path: &Path) -> Result<bool, StoreError> {
        if path.is_root() {
            return Err(StoreError::RootRemoved);
        }
        Ok(self.take(path).is_some())
    }

    /// Sets the permissions of a node.
    pub fn set_perms(
        &mut self,
        path: &Path,
        perms: impl Into<Arc<Perms>>,
    ) -> Result<(), StoreError> {
        let perms = perms.into();
        let entries = perms.entries().len();
        if entries > PERMS_MAX {
            return Err(StoreError::TooManyPerms { path: path.clone(), entries });
        }
        let node = self.get_mut(path).ok_or_else(|| StoreError::Missing { path: path.clone() })?;
        node.set_perms(perms);
        Ok(())
    }

    pub(crate) fn get(&self, path: &Path) -> Option<&Node> {
        steps(path).try_fold(&self.root, |node, name| node.child(name))
    }

    pub(crate) fn get_mut(&mut self, path: &Path) -> Option<&mut Node> {
        self.get(path)?;
        steps(path).try_fold(&mut self.root, |node, name| node.child_mut(name))
    }

    /// The last node on the way to `path` that exists, and how many steps it is short.
    pub(crate) fn nearest(&self, path: &Path) -> (&Node, usize) {
        let mut steps = steps(path);
        let mut node = &self.root;
        while let Some(name) = steps.next() {
            match node.child(name) {
                Some(child) => node = child,
                None => return (node, 1 + steps.count()),
            }
        }
        (node, 0)
    }

    /// Creates a node that does not exist, and what is missing above it.
    pub(crate) fn create(&mut self, path: &Path, value: &[u8], perms: &Arc<Perms>) {
        let (_, missing) = self.nearest(path);
        self.create_missing(path, missing, value, perms);
    }

    /// Creates a node of whose path so many names are missing.
    pub(crate) fn create_missing(
        &mut self,
        path: &Path,
        missing: usize,
        value: &[u8],
        perms: &Arc<Perms>,
    ) {
        let existing = steps(path).count() - missing;
        let mut node = &mut self.root;
        for (depth, name) in steps(path).enumerate() {
            if depth >= existing {
                self.stamp += 1;
                let value = if depth + 1 == existing + missing { value } else { b"" };
                node.add_child(Node::new(name, value, Arc::clone(perms), self.stamp));
            }
            match node.child_mut(name) {
                Some(child) => node = child,
                None => return,
            }
        }
    }

    /// Removes a node and gives it out with everything below.
    pub(crate) fn take(&mut self, path: &Path) -> Option<Node> {
        self.get(path)?;
        self.stamp += 1;
        let generation = self.stamp;
        let last = steps(path).count().checked_sub(1)?;
        let parent =
            steps(path).take(last).try_fold(&mut self.root, |node, name| node.child_mut(name))?;
        parent.remove_child(steps(path).nth(last)?, generation)
    }

    /// Whether the two share everything: nothing was changed since one was cloned from the other.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.root.is_same(&other.root)
    }
}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

/// The same nodes with the same values, permissions and orders of children.
impl PartialEq for Store {
    fn eq(&self, other: &Self) -> bool {
        self.is_same(other) || self.nodes().eq(other.nodes())
    }
}

impl Eq for Store {}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

/// The names from the root to the node.
pub(crate) fn steps(path: &Path) -> impl Iterator<Item = &str> {
    let base: &[&str] = if path.is_absolute() { &[] } else { &["local", "domain", "0"] };
    base.iter().copied().chain(path.components())
}

/// Why a store cannot be changed so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A value longer than any client could read.
    #[error("value of {len} octets for {path} is longer than the {VALUE_MAX} allowed")]
    ValueTooLong {
        /// The node.
        path: Path,
        /// Octets given.
        len: usize,
    },
    /// More permissions than any client could read.
    #[error("{entries} permissions for {path} are more than the {PERMS_MAX} allowed")]
    TooManyPerms {
        /// The node.
        path: Path,
        /// Entries given.
        entries: usize,
    },
    /// There is no such node.
    #[error("no node {path}: write it first")]
    Missing {
        /// The node.
        path: Path,
    },
    /// The root cannot be removed.
    #[error("the root cannot be removed: remove its children")]
    RootRemoved,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Path {
        text.parse().unwrap()
    }

    #[test]
    fn a_snapshot_does_not_see_later_changes() {
        let mut store = Store::new();
        store.write(&path("/a/b"), b"1").unwrap();
        let before = store.clone();
        store.write(&path("/a/b"), b"2").unwrap();
        store.write(&path("/a/c"), b"3").unwrap();
        store.set_perms(&path("/a"), "r3".parse::<Perms>().unwrap()).unwrap();
        assert_eq!(before.read(&path("/a/b")), Some(&b"1"[..]));
        assert_eq!(before.children(&path("/a")), Some(vec!["b"]));
        assert_eq!(before.perms(&path("/a")).unwrap().to_string(), "n0");
        assert_eq!(store.children(&path("/a")), Some(vec!["b", "c"]));
    }

    #[test]
    fn children_keep_the_order_of_creation() {
        let mut store = Store::new();
        for name in ["zeta", "alpha", "mid"] {
            store.write(&path("/d").join(name).unwrap(), b"").unwrap();
        }
        store.remove(&path("/d/zeta")).unwrap();
        store.write(&path("/d/zeta"), b"").unwrap();
        assert_eq!(store.children(&path("/d")), Some(vec!["alpha", "mid", "zeta"]));
    }

    #[test]
    fn the_deepest_tree_is_built_walked_and_dropped_on_a_small_stack() {
        let deepest = path(&"/x".repeat(1536));
        let work = move || {
            let mut store = Store::new();
            store.write(&deepest, b"v").unwrap();
            let snapshot = store.clone();
            store.write(&deepest, b"w").unwrap();
            assert_eq!(snapshot.nodes().count(), 1537);
            assert!(snapshot != store);
            assert!(store.remove(&path("/x")).unwrap());
            drop(snapshot);
        };
        std::thread::Builder::new().stack_size(96 << 10).spawn(work).unwrap().join().unwrap();
    }
}
