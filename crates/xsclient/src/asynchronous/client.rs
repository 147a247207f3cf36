//! The handle of a client.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::UnixStream;
use xenstore_proto::{DomId, Manner, Name, Path, PathOrSpecial, Reply, Request, Token, TxId};

use super::driver::Driver;
use super::nodes::Nodes;
use super::replies::Replies;
use super::shared::{Handle, Shared};
use super::watch::{Fence, Watch};
use crate::batch::Batch;
use crate::carrier::{ask, ask_for};
use crate::client::{Options, after};
use crate::directory::directory;
use crate::domain_state::{self, DomainStatePage};
use crate::endpoint::{Endpoint, OpenError, Place, Unreachable};
use crate::error::{ConnectionLost, OperationError};
use crate::fence;
use crate::from_reply::FromReply;
use crate::run::run;
use crate::session::Session;
use crate::statistics::Statistics;
use crate::transport::{MANNER, UnixSocket};
use crate::watch::{self, Event, unique_token};

/// An asynchronous client of one Xenstore server: a handle, cheap to clone, for any number of tasks.
///
/// What tasks ask at the same time is sent together and answered as it comes; nobody waits for another's reply. What acts
/// on nodes is in the trait [`Nodes`], which [`super::Transaction`] has too. Every call has a deadline: [`Options::timeout`]
/// from its start, or that of the handle ([`Client::with_deadline`]). After [`crate::Failure::Lost`] every call says so
/// again, and only another client helps.
///
/// The connection is closed when the last handle is gone, those inside watches, fences, transactions and replies included.
#[derive(Clone)]
pub struct Client {
    pub(super) handle: Arc<Handle>,
    options: Options,
    deadline: Option<Instant>,
}

impl Client {
    /// Connects to a server's Unix socket, as [`crate::Client::open`] does.
    ///
    /// Cancel-safe: dropped, it leaves no connection.
    ///
    /// # Errors
    ///
    /// If no server can be reached there within [`Options::timeout`]. The xenbus device is not reached: see
    /// [the module](super).
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime with I/O and time enabled.
    pub async fn open(endpoint: Endpoint, options: Options) -> Result<Self, OpenError> {
        let deadline = after(options.timeout);
        // Connecting waits for room in the server's queue, which no readiness tells of.
        let connect = move || {
            endpoint.reach(&|place| match place {
                Place::Socket(path) => Ok((path.to_owned(), UnixSocket::connect(path, deadline)?)),
                Place::Device(_) => Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    "the asynchronous client does not carry the xenbus device",
                )),
            })
        };
        let connected = tokio::task::spawn_blocking(connect).await;
        let (path, socket) = connected.unwrap_or_else(|ended| match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and this future with it.
            Err(_) => Err(Unreachable {
                path: Default::default(),
                error: io::ErrorKind::Interrupted.into(),
            }
            .into()),
        })?;
        Ok(Self::over(socket, options).map_err(|error| Unreachable { path, error })?)
    }

    /// A client over a socket that is connected already.
    ///
    /// # Errors
    ///
    /// If the runtime does not take the socket.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime with I/O and time enabled.
    pub fn over(socket: UnixSocket, options: Options) -> io::Result<Self> {
        let shared = Shared::new(Session::new(MANNER));
        let driver = Driver::new(Arc::clone(&shared), UnixStream::from_std(socket.into_stream())?);
        tokio::spawn(driver);
        Ok(Self { handle: Handle::new(shared), options, deadline: None })
    }

    /// A handle whose calls, and those of what it makes, end at a deadline of the caller's; of a handle that has a deadline
    /// already, at the earlier one.
    #[must_use]
    pub fn with_deadline(&self, deadline: Instant) -> Self {
        Self { deadline: Some(self.not_after(deadline)), ..self.clone() }
    }

    /// What all handles of this client have done so far.
    pub fn statistics(&self) -> Statistics {
        self.handle.with(|session| session.counts())
    }

    /// How the transport frames messages and orders events.
    pub fn manner(&self) -> Manner {
        self.handle.with(|session| session.manner)
    }

    /// Why the connection is gone, if it is known to be.
    pub fn lost(&self) -> Option<ConnectionLost> {
        self.handle.with(|session| session.check().err())
    }

    /// Watches a path or a special name, and all below it or `depth` levels of it. The token is the library's choice.
    ///
    /// The first event comes at once, marked [`Event::first`]. Cancel-safe: dropped, it leaves no watch.
    ///
    /// # Errors
    ///
    /// If the server refuses (servers before Xen 4.22 refuse a depth with EINVAL).
    pub async fn watch(
        &self,
        path: impl Into<PathOrSpecial>,
        depth: Option<u32>,
    ) -> Result<Watch, OperationError> {
        self.set_watch(path.into(), unique_token(), depth).await
    }

    /// Watches with a token of the caller's. No two watches of a client have the same. Cancel-safe as [`Client::watch`].
    ///
    /// # Errors
    ///
    /// As [`Client::watch`], and if another watch of this client has the token.
    pub async fn watch_with_token(
        &self,
        path: impl Into<PathOrSpecial>,
        token: Token,
        depth: Option<u32>,
    ) -> Result<Watch, OperationError> {
        self.set_watch(path.into(), token, depth).await
    }

    /// Ends a watch, and says how that went, which dropping the watch does not. Events of it that wait are dropped, and the
    /// watch is no more whatever the outcome. Cancel-safe: dropped, it ends the watch even so.
    ///
    /// # Errors
    ///
    /// If the watch is not set any more: [`crate::Failure::StaleHandle`], or ENOENT if only the server does not know it.
    pub async fn unwatch(&self, watch: &Watch) -> Result<(), OperationError> {
        watch::unwatch(&mut &*self.handle, watch, self.deadline()).await
    }

    /// The next event of any watch, whoever set it, the one that came first; waited for at most `timeout`. `None` if there
    /// was none. Those of fences are not among them. Cancel-safe: dropped, it takes none.
    ///
    /// # Errors
    ///
    /// If the connection is lost and no event waits.
    pub async fn next_event_any(&self, timeout: Duration) -> Result<Option<Event>, OperationError> {
        watch::next_event_any(&mut &*self.handle, self.not_after(after(timeout))).await
    }

    /// Sets watches on the paths, and returns when all of them stand. Cancel-safe: dropped, it leaves no watch.
    ///
    /// # Errors
    ///
    /// If a watch is refused.
    pub async fn fence(
        &self,
        paths: impl IntoIterator<Item = PathOrSpecial>,
    ) -> Result<Fence, OperationError> {
        let requests = fence::watch_requests(paths);
        let fence = fence::raise(&mut &*self.handle, requests, self.deadline()).await?;
        Ok(Fence::new(self, fence))
    }

    /// Takes the watches of a fence down and gives what happened since they were set: empty, if nothing did. Cancel-safe:
    /// dropped, it takes them down even so.
    ///
    /// # Errors
    ///
    /// If it cannot be known what happened.
    pub async fn lower(&self, fence: Fence) -> Result<Vec<Event>, OperationError> {
        fence::lower(&mut &*self.handle, fence.into_inner(), self.deadline()).await
    }

    /// What a domain has on its connection: [`crate::Client::domain_state`]. Cancel-safe: nothing is changed.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn domain_state(&self, domid: DomId) -> Result<Vec<u8>, OperationError> {
        domain_state::domain_state(&mut &*self.handle, domid, self.deadline()).await
    }

    /// The rest of a state whose first page was asked for in a batch: [`crate::Client::rest_of_domain_state`]. Cancel-safe:
    /// nothing is changed.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn rest_of_domain_state(
        &self,
        domid: DomId,
        first: Result<DomainStatePage, OperationError>,
    ) -> Result<Vec<u8>, OperationError> {
        domain_state::rest(&mut &*self.handle, domid, first, self.deadline()).await
    }

    /// Gives a domain the watches and open transactions of a state: [`crate::Client::set_domain_state`].
    ///
    /// Cancel-safe, in that the server takes all of the state or nothing; which of them, [`Client::domain_state`] tells. One
    /// client sets one state at a time.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn set_domain_state(&self, domid: DomId, state: &[u8]) -> Result<(), OperationError> {
        domain_state::set(&mut &*self.handle, domid, state, self.deadline()).await
    }

    pub(crate) async fn ask_for<T: FromReply>(
        &self,
        request: &Request,
    ) -> Result<T, OperationError> {
        ask_for(&mut &*self.handle, request, TxId::NONE, self.deadline()).await
    }

    /// When a call that starts now has to end.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline.unwrap_or_else(|| after(self.options.timeout))
    }

    /// The earlier of `instant` and the handle's own deadline.
    pub(super) fn not_after(&self, instant: Instant) -> Instant {
        self.deadline.map_or(instant, |deadline| deadline.min(instant))
    }

    async fn set_watch(
        &self,
        path: PathOrSpecial,
        token: Token,
        depth: Option<u32>,
    ) -> Result<Watch, OperationError> {
        let deadline = self.deadline();
        let watch = watch::set(&mut &*self.handle, path, token, depth, deadline).await?;
        Ok(Watch::new(self, watch))
    }
}

impl Nodes for Client {
    async fn request(&self, request: &Request) -> Result<Reply, OperationError> {
        ask(&mut &*self.handle, request, TxId::NONE, self.deadline()).await
    }

    async fn run(&self, batch: Batch) -> Result<Replies, OperationError> {
        let replies = run(&mut &*self.handle, batch, TxId::NONE, self.deadline()).await?;
        Ok(Replies::new(self, replies))
    }

    async fn directory(&self, path: &Path) -> Result<Vec<Name>, OperationError> {
        directory(&mut &*self.handle, path, TxId::NONE, self.deadline()).await
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("options", &self.options)
            .field("deadline", &self.deadline)
            .field("lost", &self.lost())
            .finish_non_exhaustive()
    }
}
