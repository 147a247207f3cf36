//! Watches, found by the path they are on.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use xenstore_proto::{Path, Token};

use crate::server::ConnectionId;

/// All watches of all connections.
///
/// A change finds those on its path by one look-up for every name in the path, and a removal those below by a
/// range: how many others there are does not matter.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    /// By absolute path or special name, in the order they were set.
    by_path: HashMap<Arc<str>, Vec<Watch>>,
    /// The same paths, sorted.
    paths: BTreeSet<Arc<str>>,
    of_connection: HashMap<ConnectionId, BTreeSet<(Box<str>, Token)>>,
}

/// One watch.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    pub(crate) connection: ConnectionId,
    pub(crate) token: Token,
    /// How many levels below its path it covers.
    pub(crate) depth: Option<u32>,
    /// Octets that events leave out at the front: of a relative watch, the path it is relative to.
    pub(crate) left_out: usize,
}

impl Watches {
    /// Adds a watch; `false` if the connection has one on this path with this token.
    pub(crate) fn add(&mut self, path: &str, watch: Watch) -> bool {
        let key = (path.into(), watch.token.clone());
        let new = self.of_connection.entry(watch.connection).or_default().insert(key);
        if new {
            match self.by_path.get_mut(path) {
                Some(others) => others.push(watch),
                None => {
                    let path: Arc<str> = path.into();
                    self.paths.insert(Arc::clone(&path));
                    self.by_path.insert(path, vec![watch]);
                }
            }
        }
        new
    }

    /// Removes a watch; `false` if there is none.
    pub(crate) fn remove(&mut self, connection: ConnectionId, path: &str, token: &Token) -> bool {
        let Some(own) = self.of_connection.get_mut(&connection) else { return false };
        let known = own.remove(&(path.into(), token.clone()));
        if known {
            self.forget(path, |watch| watch.connection == connection && watch.token == *token);
        }
        known
    }

    /// Removes all watches of a connection, and says which these were.
    pub(crate) fn remove_connection(
        &mut self,
        connection: ConnectionId,
    ) -> BTreeSet<(Box<str>, Token)> {
        let gone = self.of_connection.remove(&connection).unwrap_or_default();
        for (path, _) in &gone {
            self.forget(path, |watch| watch.connection == connection);
        }
        gone
    }

    /// The watches of a connection.
    pub(crate) fn of(&self, connection: ConnectionId) -> impl Iterator<Item = &(Box<str>, Token)> {
        self.of_connection.get(&connection).into_iter().flatten()
    }

    /// The watches of a connection, each with its path or special name.
    pub(crate) fn all_of(&self, connection: ConnectionId) -> impl Iterator<Item = (&str, &Watch)> {
        self.of(connection).filter_map(move |(path, token)| {
            let this = |watch: &&Watch| watch.connection == connection && watch.token == *token;
            Some((&**path, self.on(path).iter().find(this)?))
        })
    }

    /// Whether a connection has this watch.
    pub(crate) fn has(&self, connection: ConnectionId, path: &str, token: &Token) -> bool {
        let own = self.of_connection.get(&connection);
        own.is_some_and(|own| own.contains(&(path.into(), token.clone())))
    }

    /// How many watches a connection has.
    pub(crate) fn count_of(&self, connection: ConnectionId) -> usize {
        self.of_connection.get(&connection).map_or(0, BTreeSet::len)
    }

    /// How many watches can be found by their paths.
    pub(crate) fn indexed(&self) -> usize {
        self.by_path.values().map(Vec::len).sum()
    }

    /// How many watches the connections have.
    pub(crate) fn owned(&self) -> usize {
        self.of_connection.values().map(BTreeSet::len).sum()
    }

    /// The watches on exactly this path or special name.
    pub(crate) fn on(&self, path: &str) -> &[Watch] {
        self.by_path.get(path).map_or(&[], Vec::as_slice)
    }

    /// The watches that cover a path: on the root, then name by name down to the path itself.
    pub(crate) fn covering<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = &'a Watch> {
        let text = path.as_str();
        let slashes = text.match_indices('/').map(|(at, _)| at).filter(|&at| at > 0);
        let ends = slashes.chain((!path.is_root()).then_some(text.len()));
        let prefixes = std::iter::once("/").chain(ends.map(|end| &text[..end]));
        let levels = path.components().count();
        prefixes.enumerate().flat_map(move |(level, prefix)| {
            let below = levels - level;
            self.on(prefix).iter().filter(move |watch| watch.covers(below))
        })
    }

    /// The watched paths below a path, those further down before those above them.
    pub(crate) fn below(&self, path: &Path) -> impl Iterator<Item = (&str, &[Watch])> {
        // What is below starts with the path and a slash; '0' is the octet after '/'.
        let (from, to) = (format!("{path}/"), format!("{path}0"));
        let range = (Bound::Included(from.as_str()), Bound::Excluded(to.as_str()));
        self.paths.range::<str, _>(range).rev().map(|path| (&**path, self.on(path)))
    }

    fn forget(&mut self, path: &str, which: impl Fn(&Watch) -> bool) {
        let Some(watches) = self.by_path.get_mut(path) else { return };
        watches.retain(|watch| !which(watch));
        if watches.is_empty() {
            self.by_path.remove(path);
            self.paths.remove(path);
        }
    }
}

impl Watch {
    fn covers(&self, levels_below: usize) -> bool {
        self.depth
            .is_none_or(|depth| usize::try_from(depth).is_ok_and(|depth| levels_below <= depth))
    }
}
