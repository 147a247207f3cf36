//! A store out of nodes that come one after the other, each after the one above it.

use std::collections::HashMap;
use std::sync::Arc;

use xenstore_migration::{NodePerm, PermFlags};
use xenstore_proto::{Name, Path, Perm, Perms};

use super::restore::NodeError;
use crate::interner::Interner;
use crate::limits::{PERMS_MAX, VALUE_MAX};
use crate::store::Store;
use crate::tree::Node;

/// Most different lists of permissions that are looked up by their entries: more than a host has.
const PERMS_KNOWN_MAX: usize = 4096;

/// Builds a [`Store`].
///
/// Nodes usually come in the order of a walk through the tree, so that those above the last one are kept open, and a new one is
/// put where it belongs without a search.
#[derive(Debug)]
pub(crate) struct TreeBuilder {
    store: Store,
    /// The nodes from one below the root down to the last one, each with the length of its path. The root's children that are
    /// complete are in the store.
    open: Vec<(Node, usize)>,
    /// The path of the last node.
    path: String,
    has_root: bool,
    interner: Interner,
    known: HashMap<Box<[NodePerm]>, Arc<Perms>>,
}

impl TreeBuilder {
    /// Changes are counted from `stamp`.
    pub(crate) fn new(stamp: u64) -> Self {
        let store = Store { stamp, ..Store::new() };
        Self {
            store,
            open: Vec::new(),
            path: String::new(),
            has_root: false,
            interner: Interner::default(),
            known: HashMap::new(),
        }
    }

    /// Adds a node.
    pub(crate) fn add(
        &mut self,
        path: &[u8],
        perms: &[NodePerm],
        value: &[u8],
    ) -> Result<(), NodeError> {
        if value.len() > VALUE_MAX {
            return Err(NodeError::ValueTooLong { len: value.len() });
        }
        let perms = self.perms(perms)?;
        if path == b"/" {
            if std::mem::replace(&mut self.has_root, true) {
                return Err(NodeError::Repeated);
            }
            self.store.root.set_value(value);
            self.store.root.set_perms(perms);
            return Ok(());
        }
        let path = str::from_utf8(path).map_err(|_| NodeError::NoPath)?;
        let (above, name) = path.rsplit_once('/').ok_or(NodeError::NoPath)?;
        if !path.starts_with('/') {
            return Err(NodeError::NoPath);
        }
        // All names above have been checked when their nodes came.
        let name: Name = Name::from_octets(name.as_bytes()).map_err(|_| NodeError::NoPath)?;
        if path.len() > xenstore_proto::limits::ABSOLUTE_PATH_MAX {
            return Err(NodeError::NoPath);
        }
        if !self.go_to(above) {
            return Err(NodeError::NothingAbove);
        }
        let parent = self.open.last().map_or(&self.store.root, |(node, _)| node);
        if parent.child(name.as_str()).is_some() {
            return Err(NodeError::Repeated);
        }
        self.store.stamp += 1;
        self.open.push((Node::new(name.as_str(), value, perms, self.store.stamp), path.len()));
        self.path.clear();
        self.path.push_str(path);
        Ok(())
    }

    /// The store of what was added.
    pub(crate) fn finish(mut self) -> Option<(Store, Interner)> {
        self.close_to(0);
        self.has_root.then_some((self.store, self.interner))
    }

    /// Makes the node of this path the last open one. `false` if there is none.
    fn go_to(&mut self, path: &str) -> bool {
        let is_open = |len: usize| {
            path.len() >= len
                && path.as_bytes()[..len] == self.path.as_bytes()[..len]
                && (path.len() == len || path.as_bytes()[len] == b'/')
        };
        let shared = self.open.iter().take_while(|(_, len)| is_open(*len)).count();
        self.close_to(shared);
        let from = self.open.last().map_or(0, |(_, len)| *len);
        self.path.truncate(from);
        // What was closed before is opened again: it comes out of the one above.
        for name in path[from..].split('/').filter(|name| !name.is_empty()) {
            let stamp = self.store.stamp;
            let parent = self.open.last_mut().map_or(&mut self.store.root, |(node, _)| node);
            let Some(node) = parent.remove_child(name, stamp) else { return false };
            self.path.push('/');
            self.path.push_str(name);
            self.open.push((node, self.path.len()));
        }
        true
    }

    fn close_to(&mut self, depth: usize) {
        while self.open.len() > depth
            && let Some((node, _)) = self.open.pop()
        {
            self.open.last_mut().map_or(&mut self.store.root, |(node, _)| node).add_child(node);
        }
    }

    fn perms(&mut self, entries: &[NodePerm]) -> Result<Arc<Perms>, NodeError> {
        if let Some(known) = self.known.get(entries) {
            return Ok(Arc::clone(known));
        }
        let perms = self.interner.intern(perms_of(entries)?);
        if self.known.len() < PERMS_KNOWN_MAX {
            self.known.insert(entries.into(), Arc::clone(&perms));
        }
        Ok(perms)
    }
}

/// Permissions out of a record. Entries of domains that are gone say nothing any more.
pub(crate) fn perms_of(entries: &[NodePerm]) -> Result<Perms, NodeError> {
    if entries.len() > PERMS_MAX {
        // C xenstored has a node with more than a client can read. Who is left out has fewer rights, not more.
        tracing::warn!(entries = entries.len(), "permissions cut: there may be {PERMS_MAX}");
    }
    let valid = entries.iter().take(PERMS_MAX).enumerate();
    let valid = valid.filter(|(at, entry)| *at == 0 || !entry.flags.contains(PermFlags::STALE));
    let entries: Vec<_> = valid.map(|(_, entry)| Perm::new(entry.access, entry.domid)).collect();
    Perms::new(entries).map_err(|_| NodeError::NoPerms)
}

/// A path that a record names.
pub(crate) fn path_of(octets: &[u8]) -> Result<Path, NodeError> {
    Path::from_octets(octets).map_err(|_| NodeError::NoPath)
}
