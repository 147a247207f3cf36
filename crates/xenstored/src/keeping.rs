//! The server and its backend: nothing has happened that is not kept.

use xenstore_proto::Errno;

use crate::backend::{Backend, BackendError, NodeChange, difference, kept};
use crate::server::Server;
use crate::store::Store;

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
        server.backend = Box::new(backend);
        Ok(server)
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
