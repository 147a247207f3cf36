//! The server and its backend: nothing has happened that is not kept.

use xenstore_proto::{DomId, Errno};

use crate::backend::{Backend, BackendError, KeptWatch, NodeChange, WatchChange, difference, kept};
use crate::server::{ConnectionId, Server};
use crate::store::Store;
use crate::watches::Watch;
use crate::xen::Rings;

/// A watch as it is kept.
fn kept_watch(domid: DomId, key: &str, watch: &Watch) -> Option<KeptWatch> {
    let path = key[watch.left_out..].parse().ok()?;
    Some(KeptWatch { domid, path, token: watch.token.clone(), depth: watch.depth })
}

impl Server {
    /// A server on the store that a backend keeps; on `first` if it keeps none yet, which it keeps from then on.
    ///
    /// Only the nodes are kept. Which domains are introduced, their limits, and what connections have is not.
    ///
    /// ```
    /// # #[cfg(feature = "sled")] {
    /// use xenstore_proto::Request;
    /// use xenstored::{Server, SledBackend, Store, SyncMode};
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("store");
    /// let mut server = Server::open(SledBackend::open(&path, SyncMode::Always)?, Store::new())?;
    /// server.apply(Request::Mkdir("/tool".parse()?));
    /// drop(server);
    /// let again = Server::open(SledBackend::open(&path, SyncMode::Always)?, Store::new())?;
    /// assert!(again.store().exists(&"/tool".parse()?));
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If what is kept cannot be read or is not a store, or if `first` cannot be kept.
    pub fn open(backend: impl Backend + 'static, first: Store) -> Result<Self, BackendError> {
        let mut backend = backend;
        let nodes = backend.load()?;
        let store = if nodes.is_empty() {
            let mut changes = vec![NodeChange::Put(kept(&first.root, 0))];
            changes.extend(
                difference(&Store::new(), &first)
                    .into_iter()
                    .filter(|change| !matches!(change, NodeChange::Put(node) if node.id == 0)),
            );
            backend.keep(&changes)?;
            first
        } else {
            Store::from_kept(nodes)?
        };
        let mut server = Self::new(store);
        for watch in backend.load_watches()? {
            server.remembered.entry(watch.domid).or_default().push(watch);
        }
        server.backend = Box::new(backend);
        Ok(server)
    }

    /// Has the backend keep what becomes of the watches of a domain's ring: of nobody else's, who notices that the server
    /// died.
    pub(crate) fn keep_watch(
        &mut self,
        connection: ConnectionId,
        change: impl FnOnce(DomId) -> WatchChange,
    ) -> Result<(), Errno> {
        let of_ring = self.rings.as_ref().and_then(|rings| rings.domain_of(connection));
        match of_ring.filter(|_| self.backend.is_durable()) {
            Some(domid) => self.keep_watch_change(&change(domid)),
            None => Ok(()),
        }
    }

    fn keep_watch_change(&mut self, change: &WatchChange) -> Result<(), Errno> {
        self.backend.keep_watch(change).map_err(|error| {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            tracing::error!(%error, source, "a watch is not kept");
            Errno::EIO
        })
    }

    /// Gives a domain that is gone on with the watches back that it had when the last server died. Each is told once: something
    /// may have changed that was not told. Says how many these are.
    pub(crate) fn watch_as_remembered(&mut self, connection: ConnectionId, domid: DomId) -> usize {
        let watches = self.remembered.remove(&domid).unwrap_or_default();
        let count = watches.len();
        for KeptWatch { path, token, depth, .. } in watches {
            self.watch_again(connection, &path, token.clone(), depth);
            self.push_event(connection, path.as_str(), &token, false);
        }
        count
    }

    /// The domain begins anew, and has none of the watches that one of its number had.
    pub(crate) fn forget_kept_watches(&mut self, domid: DomId) {
        if self.backend.is_durable() {
            // What is not forgotten is a watch too many after a crash, no more.
            let _ = self.keep_watch_change(&WatchChange::RemoveAll(domid));
        }
    }

    /// Forgets the watches of domains that are not gone on with, and keeps those that there are.
    pub(crate) fn settle_remembered(&mut self) {
        if !self.backend.is_durable() {
            return;
        }
        for domid in std::mem::take(&mut self.remembered).into_keys() {
            // What is not forgotten is forgotten the next time.
            let _ = self.keep_watch_change(&WatchChange::RemoveAll(domid));
        }
    }

    /// Has the backend keep the watches of the rings that a predecessor has handed over, and no others.
    pub(crate) fn keep_inherited_watches(&mut self) {
        self.settle_remembered();
        if !self.backend.is_durable() {
            return;
        }
        let rings = self.rings.as_ref().map(Rings::connections).unwrap_or_default();
        for (domid, connection) in rings {
            let watches: Vec<_> = (self.watches.all_of(connection))
                .filter_map(|(key, watch)| kept_watch(domid, key, watch))
                .collect();
            for watch in watches {
                let _ = self.keep_watch_change(&WatchChange::Put(watch));
            }
        }
    }

    /// Puts another store in the place of the one there is. Nobody is told.
    pub(crate) fn replace_store(&mut self, store: Store) -> Result<(), Errno> {
        let before = self.before_change();
        self.stamp = store.stamp;
        self.store = store;
        self.keep_since(before)
    }

    /// The store before a change, if the backend will have to be told what has changed.
    pub(crate) fn before_change(&self) -> Option<Store> {
        self.backend.is_durable().then(|| self.store.clone())
    }

    /// Has the backend keep what has changed since `before`. If it does not, the store is as before again.
    pub(crate) fn keep_since(&mut self, before: Option<Store>) -> Result<(), Errno> {
        let Some(before) = before else { return Ok(()) };
        let changes = difference(&before, &self.store);
        if changes.is_empty() {
            return Ok(());
        }
        self.backend.keep(&changes).map_err(|error| {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            tracing::error!(%error, source, "a change is not kept, and so not made");
            self.store = before;
            Errno::EIO
        })
    }
}
