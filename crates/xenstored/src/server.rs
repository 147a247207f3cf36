//! The server as one step: a store, connections and a request in; a reply and events out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::RandomState;
use std::sync::Arc;
use std::time::Duration;

use xenstore_migration::ServerQuotas;
use xenstore_proto::{DomId, Errno, Message, MessageType, Reply, Request, RequestId, Token, TxId};

use crate::access::{AccessPolicy, Actor, Standard, Subject};
use crate::accounts::Accounts;
use crate::backend::{Backend, KeptWatch, MemoryBackend};
use crate::control::LIVE_UPDATE;
use crate::domain_state::{Download, Upload};
use crate::domains::Domains;
use crate::interner::Interner;
use crate::limits::{OUTPUT_HIGH_WATER, OUTPUT_MAX_PRIVILEGED, PAYLOAD_MAX, TRANSACTION_OPEN_MAX};
use crate::live_update::Update;
use crate::metrics::Counters;
use crate::output::Output;
use crate::quota::{Quota, Quotas};
use crate::requests::Listing;
use crate::store::Store;
use crate::transaction::Transaction;
use crate::watches::Watches;
use crate::xen::Rings;

/// A Xenstore server without input, output, threads or a clock: it only changes when it is called. (A
/// [`Backend`] that it is given may have all of these.)
///
/// Messages of a connection go in with [`Server::handle`]; replies and events come out of [`Server::poll_output`],
/// in the order in which the client is to get them. [`Server::poll_ready`] says which connections have got
/// something. To be drained after every call: `poll_ready` until it is empty, and for each connection named
/// `poll_output` as far as there is room for.
///
/// An event is queued before the reply to the request that caused it, except that the first event of a watch
/// follows the reply to WATCH. Connections of domain 0 are privileged.
///
/// ```
/// use xenstore_proto::{DomId, Message, MessageType, RequestId, TxId};
/// use xenstored::{Server, Store};
///
/// let mut server = Server::new(Store::new());
/// let connection = server.connect(DomId::DOM0);
/// let (ty, payload) = (MessageType::WRITE, b"/local\0value".to_vec());
/// server.handle(connection, &Message { ty, request_id: RequestId(1), tx_id: TxId::NONE, payload });
/// assert_eq!(server.poll_ready(), Some(connection));
/// let reply = server.poll_output(connection).expect("a reply");
/// assert_eq!(&reply[16..], b"OK\0");
/// assert_eq!(server.store().read(&"/local".parse()?), Some(&b"value"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Server {
    pub(crate) store: Store,
    pub(crate) backend: Box<dyn Backend>,
    pub(crate) connections: BTreeMap<ConnectionId, Connection>,
    pub(crate) watches: Watches,
    pub(crate) domains: Domains,
    pub(crate) policy: Arc<dyn AccessPolicy>,
    pub(crate) accounts: Accounts,
    pub(crate) interner: Interner,
    pub(crate) listing: Option<Listing>,
    /// The newest change of the store or in a transaction: numbers of changes are never given twice.
    pub(crate) stamp: u64,
    pub(crate) open_transactions: usize,
    pub(crate) transaction_limit: Duration,
    /// Whether every request is logged.
    pub(crate) log_requests: bool,
    pub(crate) counters: Counters,
    /// Quotas that a predecessor has handed on and that mean nothing here: the next one may know them.
    pub(crate) handed_on: ServerQuotas,
    /// The watches that domains had when the last server died, until they are gone on with.
    pub(crate) remembered: BTreeMap<DomId, Vec<KeptWatch>>,
    /// The live update that is being prepared, where the carrier makes such.
    pub(crate) update: Option<Update>,
    /// Domains' rings, where they are served.
    pub(crate) rings: Option<Rings>,
    /// Numbers the states that domains are told to be in, so that nobody can make two states have one number.
    pub(crate) generations: RandomState,
    next_connection: u64,
    ready: BTreeSet<ConnectionId>,
    interceptor: Option<Interceptor>,
    /// Whether the interceptor is being called, and nobody has set another or none since.
    intercepting: bool,
}

/// A connection to a [`Server`]. The number of a closed one is never given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u64);

impl ConnectionId {
    /// No connection has this number.
    pub(crate) const NONE: Self = Self(0);
}

/// Called before each well-formed request is handled; see [`Server::set_interceptor`].
pub type Interceptor = Box<dyn FnMut(&mut Server, ConnectionId, TxId, &Request) + Send>;

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) domid: DomId,
    pub(crate) transactions: BTreeMap<TxId, Transaction>,
    pub(crate) last_transaction: TxId,
    pub(crate) output: Output,
    /// What CONTROL `domain-state-set` has brought so far.
    pub(crate) upload: Option<Upload>,
    /// What CONTROL `domain-state` has not told to the end.
    pub(crate) download: Option<Download>,
}

impl Server {
    /// A server on a store that is kept nowhere, with the standard access policy.
    pub fn new(store: Store) -> Self {
        Self {
            stamp: store.stamp,
            accounts: Accounts::of(&store, Quotas::default()),
            store,
            backend: Box::new(MemoryBackend),
            connections: BTreeMap::new(),
            watches: Watches::default(),
            domains: Domains::new(),
            policy: Arc::new(Standard),
            interner: Interner::default(),
            listing: None,
            open_transactions: 0,
            transaction_limit: TRANSACTION_OPEN_MAX,
            log_requests: false,
            counters: Counters::default(),
            handed_on: ServerQuotas::default(),
            remembered: BTreeMap::new(),
            update: None,
            rings: None,
            generations: RandomState::new(),
            next_connection: 1,
            ready: BTreeSet::new(),
            interceptor: None,
            intercepting: false,
        }
    }

    /// The same server under another access policy: for before anybody is connected.
    #[must_use]
    pub fn with_policy(mut self, policy: Arc<dyn AccessPolicy>) -> Self {
        self.policy = policy;
        self
    }

    /// The store as it is now; clone it to keep it.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// A new connection of a domain, which need not be introduced.
    pub fn connect(&mut self, domid: DomId) -> ConnectionId {
        self.accounts.of_domain(domid);
        let id = ConnectionId(self.next_connection);
        self.next_connection += 1;
        let connection = Connection {
            domid,
            transactions: BTreeMap::new(),
            last_transaction: TxId::NONE,
            output: Output::default(),
            upload: None,
            download: None,
        };
        self.connections.insert(id, connection);
        id
    }

    /// Closes a connection: its watches, its open transactions and what it has not read yet are gone.
    pub fn disconnect(&mut self, connection: ConnectionId) {
        self.drop_watches(connection);
        self.drop_transactions(connection);
        if let Some(rings) = &mut self.rings {
            rings.closed(connection);
        }
        if self.connections.remove(&connection).is_some() {
            self.ready.insert(connection);
        }
    }

    /// Whether the connection is open. The server closes one whose domain is released, or whose unread output is
    /// too long ([`Quota::Memory`]).
    pub fn is_open(&self, connection: ConnectionId) -> bool {
        self.connections.contains_key(&connection)
    }

    /// Handles a message from a connection. On a closed connection nothing happens.
    pub fn handle(&mut self, connection: ConnectionId, message: &Message) {
        let request = Request::decode(message);
        if let (Ok(request), Some(mut interceptor)) = (&request, self.interceptor.take()) {
            self.intercepting = true;
            interceptor(self, connection, message.tx_id, request);
            if std::mem::take(&mut self.intercepting) {
                self.interceptor = Some(interceptor);
            }
        }
        let Some(subject) = self.subject_of(connection) else { return };
        let transaction_needed = !matches!(message.ty, MessageType::WATCH | MessageType::UNWATCH);
        let reply = match request {
            Ok(Request::Unknown { .. }) => Reply::Error(Errno::ENOSYS),
            _ if needs_privilege(message.ty) && !subject.privileged => Reply::Error(Errno::EACCES),
            _ if transaction_needed && !self.has_place(connection, message.tx_id) => {
                Reply::Error(Errno::ENOENT)
            }
            Err(_) => Reply::Error(Errno::EINVAL),
            Ok(Request::Watch { path, token, depth }) => {
                // The one operation whose event comes after its reply.
                match self.watch(connection, &subject, &path, token.clone(), depth) {
                    Ok(()) => {
                        self.note_request(connection, message, &Reply::Ok);
                        self.reply(connection, message, &Reply::Ok);
                        self.push_event(connection, path.as_str(), &token, false);
                        return;
                    }
                    Err(errno) => Reply::Error(errno),
                }
            }
            Ok(Request::Control(words))
                if words.first().is_some_and(|word| word == LIVE_UPDATE.as_bytes()) =>
            {
                let words: Result<Vec<_>, _> =
                    words[1..].iter().map(|word| str::from_utf8(word)).collect();
                let reply = words.map(|words| self.live_update(connection, message, &words));
                match reply.unwrap_or(Some(Reply::Error(Errno::EINVAL))) {
                    Some(reply) => reply,
                    // Answered when it is made.
                    None => return,
                }
            }
            Ok(request) => (self.execute(connection, &subject, message.tx_id, request))
                .unwrap_or_else(Reply::Error),
        };
        self.note_request(connection, message, &reply);
        self.reply(connection, message, &reply);
    }

    /// Handles a request of a connection and gives the reply at once, past its output: for a caller inside the program.
    /// Events go where they always go. The interceptor is not called.
    ///
    /// WATCH and UNWATCH are answered with EINVAL: who watches has to take what comes out of the connection, and
    /// sets watches by [`Server::handle`]. On a closed connection everything is answered with EIO.
    pub fn ask(&mut self, connection: ConnectionId, tx: TxId, request: Request) -> Reply {
        let Some(subject) = self.subject_of(connection) else { return Reply::Error(Errno::EIO) };
        match request {
            Request::Watch { .. } | Request::Unwatch { .. } => Reply::Error(Errno::EINVAL),
            _ if !self.has_place(connection, tx) => Reply::Error(Errno::ENOENT),
            request => self.execute(connection, &subject, tx, request).unwrap_or_else(Reply::Error),
        }
    }

    /// Carries a request out for the control domain, without a connection; watchers hear of it.
    ///
    /// Requests that need a connection (watches, transactions) are answered with EINVAL, and
    /// values longer than [`crate::limits::VALUE_MAX`] with E2BIG. The interceptor is not called.
    pub fn apply(&mut self, request: Request) -> Reply {
        self.execute_for_control(request).unwrap_or_else(Reply::Error)
    }

    /// Takes a connection that has got output, or was closed, since it was last named here.
    pub fn poll_ready(&mut self) -> Option<ConnectionId> {
        self.ready.pop_first()
    }

    /// Takes the next message for a connection, as it stands on the wire.
    pub fn poll_output(&mut self, connection: ConnectionId) -> Option<Arc<[u8]>> {
        self.connections.get_mut(&connection)?.output.pop()
    }

    /// Takes messages for a connection as they stand on the wire, as long as there are fewer than `enough` octets.
    pub(crate) fn take_output(
        &mut self,
        connection: ConnectionId,
        out: &mut Vec<u8>,
        enough: usize,
    ) {
        if let Some(state) = self.connections.get_mut(&connection) {
            state.output.take_into(out, enough);
        }
    }

    /// Whether [`Server::poll_output`] has something for the connection.
    pub fn has_output(&self, connection: ConnectionId) -> bool {
        self.connections.get(&connection).is_some_and(|state| state.output.octets() > 0)
    }

    /// Whether the connection's next request can be handled, or has to wait until [`Server::poll_output`] has taken
    /// some.
    ///
    /// [`Server::handle`] does not refuse: to hold requests back is up to whoever carries them.
    pub fn has_room(&self, connection: ConnectionId) -> bool {
        let Some(state) = self.connections.get(&connection) else { return true };
        state.output.octets() < OUTPUT_HIGH_WATER
            && (state.domid == DomId::DOM0
                || (self.accounts.quotas(state.domid))
                    .allow(Quota::Outstanding, state.output.replies() + 1))
    }

    /// Has `interceptor` called before each well-formed request of a connection is handled: for tests that need a
    /// change to land between two requests of somebody else ([`Server::apply`] makes it), and for tracing.
    ///
    /// It may set another one, or none: a single change often needs no more. It runs while the server is in use: it has
    /// the `&mut Server` it is given, and must not reach for the [`Embedded`](crate::Embedded) around it, which would
    /// wait for ever.
    pub fn set_interceptor(&mut self, interceptor: Option<Interceptor>) {
        self.interceptor = interceptor;
        self.intercepting = false;
    }

    /// Whether there is such a transaction, or none is meant.
    fn has_place(&self, connection: ConnectionId, tx: TxId) -> bool {
        tx == TxId::NONE
            || self
                .connections
                .get(&connection)
                .is_some_and(|state| state.transactions.contains_key(&tx))
    }

    pub(crate) fn actor<'a>(&'a self, subject: &'a Subject) -> Actor<'a> {
        Actor::new(subject, self.policy.as_ref(), &self.accounts)
    }

    pub(crate) fn subject_of(&self, connection: ConnectionId) -> Option<Subject> {
        self.connections.get(&connection).map(|state| self.domains.subject(state.domid))
    }

    /// Queues an event. It `may_merge` with a waiting one unless each counts: special ones, and the first of a
    /// watch, which clients tell from a change by its being the first. One that does not fit a message is dropped
    /// (XSA-324): the watch could not have been set on such a path.
    pub(crate) fn push_event(
        &mut self,
        connection: ConnectionId,
        path: &str,
        token: &Token,
        may_merge: bool,
    ) {
        let len = path.len() + token.as_octets().len() + 2;
        if len > PAYLOAD_MAX {
            tracing::debug!(?connection, path, "event longer than a message dropped");
            return;
        }
        let payload = [path.as_bytes(), &[0], token.as_octets(), &[0]].concat();
        let ty = MessageType::WATCH_EVENT;
        let message = Message { ty, request_id: RequestId(0), tx_id: TxId::NONE, payload };
        let mut octets = Vec::new();
        if message.encode(PAYLOAD_MAX, &mut octets).is_ok() {
            self.counters.count_event();
            self.push_output(connection, |output| output.push_event(&octets, may_merge));
        }
    }

    /// Counts what was asked and what came of it, and logs it if CONTROL `log on` has asked for that.
    fn note_request(&mut self, connection: ConnectionId, message: &Message, reply: &Reply) {
        self.counters.count_request(message.ty, reply);
        if !self.log_requests {
            return;
        }
        let Some(state) = self.connections.get(&connection) else { return };
        let first = message.payload.split(|&c| c == 0).next().unwrap_or_default();
        let error = if let Reply::Error(errno) = reply { Some(errno.name()) } else { None };
        tracing::info!(
            target: "xenstored::requests",
            connection = connection.0,
            domid = state.domid.get(),
            operation = %message.ty,
            transaction = message.tx_id.0,
            argument = %first.escape_ascii(),
            error,
            "request"
        );
    }

    pub(crate) fn reply(&mut self, connection: ConnectionId, to: &Message, reply: &Reply) {
        let encode = |octets: &mut Vec<u8>| {
            if reply.encode(to.ty, to.request_id, to.tx_id, PAYLOAD_MAX, octets).is_err() {
                let error = Reply::Error(Errno::E2BIG);
                // The name of an error always fits.
                let _ = error.encode(to.ty, to.request_id, to.tx_id, PAYLOAD_MAX, octets);
            }
        };
        self.push_output(connection, |output| output.push_reply(encode));
    }

    fn push_output(&mut self, connection: ConnectionId, push: impl FnOnce(&mut Output)) {
        let Some(state) = self.connections.get_mut(&connection) else { return };
        push(&mut state.output);
        let limit = if self.domains.subject(state.domid).privileged {
            None
        } else {
            self.accounts.quotas(state.domid).limit(Quota::Memory)
        };
        let max = limit.map_or(OUTPUT_MAX_PRIVILEGED, |limit| limit.max(2 * OUTPUT_HIGH_WATER));
        if state.output.octets() > max {
            tracing::warn!(?connection, domid = %state.domid, "connection closed: it does not read its events");
            self.disconnect(connection);
        }
        self.ready.insert(connection);
    }
}

/// Whether only privileged domains may ask for it, whatever the arguments: who may not is told so before anything else.
fn needs_privilege(ty: MessageType) -> bool {
    matches!(
        ty,
        MessageType::CONTROL
            | MessageType::INTRODUCE
            | MessageType::RELEASE
            | MessageType::IS_DOMAIN_INTRODUCED
            | MessageType::RESUME
            | MessageType::SET_TARGET
            | MessageType::SET_FEATURE
            | MessageType::GET_QUOTA
            | MessageType::SET_QUOTA
    )
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("connections", &self.connections.len())
            .finish_non_exhaustive()
    }
}
