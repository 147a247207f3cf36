//! Where a store is kept while no server runs.

mod difference;
#[cfg(feature = "sled")]
mod records;
#[cfg(feature = "sled")]
mod sled;

use std::collections::HashMap;
use std::error::Error;
use std::fmt;

use xenstore_proto::{DomId, Name, Path, PathOrSpecial, Perms, Token};

pub(crate) use difference::difference;
#[cfg(feature = "sled")]
pub use sled::{SledBackend, SyncMode};

use crate::interner::Interner;
use crate::limits::{PERMS_MAX, VALUE_MAX};
use crate::store::Store;
use crate::tree::Node;

/// Keeps a store.
///
/// The server hands every change in before it answers, and answers EIO and stays as it was if that fails: what a
/// client was told has happened is kept, as well as the backend keeps anything. A transaction is one call.
pub trait Backend: Send + fmt::Debug {
    /// All nodes that are kept, in any order; none if nothing has ever been kept.
    fn load(&mut self) -> Result<Vec<KeptNode>, BackendError>;

    /// Keeps these changes: all of them at once, so that no crash leaves some only.
    ///
    /// # Errors
    ///
    /// None of them may be visible to a later call of [`Backend::load`] unless the backend refuses all further changes:
    /// the server goes on without them.
    fn keep(&mut self, changes: &[NodeChange]) -> Result<(), BackendError>;

    /// The watches of domains that are kept, in any order.
    fn load_watches(&mut self) -> Result<Vec<KeptWatch>, BackendError> {
        Ok(Vec::new())
    }

    /// Keeps what becomes of a domain's watches, for a server that goes on after this one has died.
    ///
    /// # Errors
    ///
    /// As [`Backend::keep`].
    fn keep_watch(&mut self, _change: &WatchChange) -> Result<(), BackendError> {
        Ok(())
    }

    /// Whether there is any use in calling [`Backend::keep`].
    fn is_durable(&self) -> bool {
        true
    }
}

/// Keeps nothing: what the store holds goes with the server.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryBackend;

impl Backend for MemoryBackend {
    fn load(&mut self) -> Result<Vec<KeptNode>, BackendError> {
        Ok(Vec::new())
    }

    fn keep(&mut self, _changes: &[NodeChange]) -> Result<(), BackendError> {
        Ok(())
    }

    fn is_durable(&self) -> bool {
        false
    }
}

/// A node as backends keep it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptNode {
    /// Its number, which no other node ever has. Children's are higher than their parent's, and siblings are ordered by them.
    /// The root's is 0.
    pub id: u64,
    /// The number of the node above; of the root, 0.
    pub parent: u64,
    /// Its name; of the root, empty.
    pub name: Box<str>,
    /// Its value.
    pub value: Vec<u8>,
    /// Its permissions.
    pub perms: Perms,
}

/// What becomes of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeChange {
    /// It is new, or has another value or other permissions.
    Put(KeptNode),
    /// It is gone. What was below it is named as well.
    Remove(u64),
}

/// A watch of a domain, as backends keep it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeptWatch {
    /// Whose.
    pub domid: DomId,
    /// As it was given: absolute, relative or special.
    pub path: PathOrSpecial,
    /// What comes with each event.
    pub token: Token,
    /// How many levels below the path; all if not told.
    pub depth: Option<u32>,
}

/// What becomes of the watches of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchChange {
    /// There is another.
    Put(KeptWatch),
    /// This one is gone.
    Remove(KeptWatch),
    /// All are gone.
    RemoveAll(DomId),
}

/// What is kept cannot be had, or something cannot be kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// Something below fails.
    #[error("cannot {step}")]
    Failed {
        /// What was tried, and where.
        step: String,
        /// What the database or the system says.
        source: Box<dyn Error + Send + Sync>,
    },
    /// What is kept is not a store.
    #[error("kept node {id} is damaged: {what}")]
    Damaged {
        /// The node.
        id: u64,
        /// What is wrong with it.
        what: &'static str,
    },
}

impl Store {
    /// The store of these nodes; the empty one if there are none.
    pub(crate) fn from_kept(mut nodes: Vec<KeptNode>) -> Result<Self, BackendError> {
        nodes.sort_unstable_by_key(|node| node.id);
        let mut store = Self::new();
        let mut interner = Interner::default();
        let mut paths: HashMap<u64, Path> = HashMap::new();
        for KeptNode { id, parent, name, value, perms } in nodes {
            let damaged = |what| BackendError::Damaged { id, what };
            if value.len() > VALUE_MAX || perms.entries().len() > PERMS_MAX {
                return Err(damaged("more than a node may hold"));
            }
            let perms = interner.intern(perms);
            let path = if id == 0 {
                store.root = Node::new("", &value, perms, 0);
                Path::root()
            } else {
                let name = Name::from_octets(name.as_bytes()).map_err(|_| damaged("no name"))?;
                let above = paths.get(&parent).ok_or_else(|| damaged("nothing above it"))?;
                let path = above.child(&name).map_err(|_| damaged("too long a path"))?;
                if store.exists(&path) {
                    return Err(damaged("a second one at its path"));
                }
                let above = store.get_mut(above).ok_or_else(|| damaged("nothing above it"))?;
                above.add_child(Node::new(name.as_str(), &value, perms, id));
                path
            };
            if paths.insert(id, path).is_some() {
                return Err(damaged("a second one of its number"));
            }
            store.stamp = store.stamp.max(id);
        }
        Ok(store)
    }
}

/// A node, as it is kept.
pub(crate) fn kept(node: &Node, parent: u64) -> KeptNode {
    KeptNode {
        id: node.born(),
        parent,
        name: node.name().into(),
        value: node.value().to_vec(),
        perms: (**node.perms()).clone(),
    }
}
