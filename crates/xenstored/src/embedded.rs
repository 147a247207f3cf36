//! A server shared by the threads of a program.

use std::collections::HashMap;
use std::fmt;
use std::path::Path as FsPath;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use xenstore_proto::{DomId, Reply, Request};

use crate::in_process::InProcess;
use crate::listen::ServeError;
use crate::metrics_socket::MetricsServer;
use crate::open_transaction::{OpenTransaction, RefusedError};
use crate::server::{ConnectionId, Interceptor, Server};
use crate::serving::Serving;
use crate::store::Store;
use crate::unix::{LoopWaker, UnixServer};

/// A Xenstore server inside the program: cheap to clone, usable from any thread.
///
/// ```
/// use std::time::{Duration, Instant};
/// use xenstore_proto::{DomId, Interest, Path, Reply, Request, RequestId, Transport, TxId, limits};
/// use xenstored::{Embedded, Store};
///
/// let name: Path = "/local/domain/7/name".parse()?;
/// let xenstore = Embedded::new(Store::new());
/// // What a toolstack does beside its clients; watchers hear of it.
/// assert_eq!(xenstore.apply(Request::Write { path: name.clone(), value: b"seven".to_vec() }), Reply::Ok);
///
/// // A client, on the transport that any client of the project takes.
/// let mut transport = xenstore.transport(DomId::DOM0);
/// let mut wire = Vec::new();
/// Request::Read(name).encode(RequestId(1), TxId::NONE, limits::PAYLOAD_MAX, &mut wire)?;
/// assert_eq!(transport.send(&wire)?, wire.len());
/// transport.wait(Interest::Receive, Instant::now() + Duration::from_secs(1))?;
/// let mut reply = [0; 64];
/// let len = transport.receive(&mut reply)?;
/// assert_eq!(&reply[16..len], b"seven");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Embedded {
    shared: Arc<Mutex<Shared>>,
}

pub(crate) struct Shared {
    pub(crate) server: Server,
    wakers: HashMap<ConnectionId, Waker>,
}

/// How to tell whoever carries a connection's messages that there are some.
pub(crate) enum Waker {
    InProcess(Arc<Condvar>),
    Loop(Arc<LoopWaker>),
}

impl Embedded {
    /// A server on a store.
    pub fn new(store: Store) -> Self {
        Server::new(store).into()
    }

    /// The store as it is now.
    pub fn snapshot(&self) -> Store {
        self.lock().server.store().clone()
    }

    /// Carries a request out for the control domain, without a connection: [`Server::apply`].
    pub fn apply(&self, request: Request) -> Reply {
        self.with(|server| server.apply(request))
    }

    /// Does something with the server while nobody else does, and wakes whoever it concerns. Do not block in there.
    pub fn with<R>(&self, act: impl FnOnce(&mut Server) -> R) -> R {
        let mut shared = self.lock();
        let result = act(&mut shared.server);
        shared.wake();
        result
    }

    /// Has `interceptor` called before each request: [`Server::set_interceptor`].
    pub fn set_interceptor(&self, interceptor: Option<Interceptor>) {
        self.with(|server| server.set_interceptor(interceptor));
    }

    /// A new connection of a domain, for a client in this process.
    pub fn transport(&self, domid: DomId) -> InProcess {
        InProcess::connect(self.clone(), domid)
    }

    /// Starts a transaction of this program's own, on behalf of a domain.
    pub fn transaction(&self, domid: DomId) -> Result<OpenTransaction<'_>, RefusedError> {
        OpenTransaction::start(self, domid)
    }

    /// Serves privileged clients on a Unix socket at `path`, on a thread of its own, until the answer is dropped.
    ///
    /// The socket can be reached by this user only. One that a dead server left there is replaced.
    pub fn serve_unix(&self, path: impl AsRef<FsPath>) -> Result<UnixServer, ServeError> {
        Serving::new(path).start(self)
    }

    /// Serves [`Server::metrics`] on a Unix socket at `path`, on a thread of its own, until the answer is dropped.
    ///
    /// The socket can be reached by this user only. One that a dead server left there is replaced.
    pub fn serve_metrics(&self, path: impl AsRef<FsPath>) -> Result<MetricsServer, ServeError> {
        MetricsServer::start(self.clone(), path.as_ref())
    }

    /// A panic while the server was locked cannot leave it half changed where that matters more than going on does.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    pub(crate) fn connect(&mut self, domid: DomId, waker: Waker) -> ConnectionId {
        let connection = self.server.connect(domid);
        self.wakers.insert(connection, waker);
        connection
    }

    /// A connection that is there already is carried by somebody.
    pub(crate) fn carry(&mut self, connection: ConnectionId, waker: Waker) {
        self.wakers.insert(connection, waker);
    }

    pub(crate) fn disconnect(&mut self, connection: ConnectionId) {
        self.server.disconnect(connection);
        self.wakers.remove(&connection);
        self.wake();
    }

    /// Wakes whoever has got something since the last time. To be called before the lock is let go.
    pub(crate) fn wake(&mut self) {
        self.wake_all(None);
    }

    /// As [`Shared::wake`], but for a connection whose carrier looks by itself at what it has got.
    pub(crate) fn wake_others(&mut self, own: ConnectionId) {
        self.wake_all(Some(own));
    }

    fn wake_all(&mut self, but: Option<ConnectionId>) {
        while let Some(connection) = self.server.poll_ready() {
            if Some(connection) == but {
                continue;
            }
            match self.wakers.get(&connection) {
                Some(Waker::InProcess(condition)) => condition.notify_all(),
                Some(Waker::Loop(waker)) => waker.wake_for(connection),
                None => {}
            }
        }
    }
}

/// Shares a server that was set up otherwise: with another policy, for instance.
impl From<Server> for Embedded {
    fn from(server: Server) -> Self {
        let shared = Shared { server, wakers: HashMap::new() };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }
}

impl Default for Embedded {
    fn default() -> Self {
        Self::new(Store::new())
    }
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded").finish_non_exhaustive()
    }
}
