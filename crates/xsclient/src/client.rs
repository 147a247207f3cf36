//! The blocking client: a connection, its transport, and the watches set on it.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use xenstore_proto::{Errno, Manner, Reply, Request, RequestId, Transport, TxId};

use crate::connection::{Abandoned, Incoming, SubmitError};
use crate::endpoint::{Endpoint, OpenError, ReconnectError};
use crate::error::{ConnectionLost, Failure, OperationError};
use crate::link::{Link, Step};
use crate::statistics::Statistics;
use crate::watch::{LostWatch, Watch, WatchRegistry};

/// Requests of one batch that are in flight at a time.
///
/// C xenstored handles one message of a connection in a turn, so more would only wait in buffers; fewer could leave the
/// server idle between a reply and the next request.
pub const IN_FLIGHT_MAX: usize = 256;

/// How long a call may take when nothing else is said.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// A blocking client of one Xenstore server.
///
/// What acts on nodes is in the trait [`crate::Nodes`], which [`crate::Transaction`] has too. Every call has a deadline:
/// [`Options::timeout`] from its start, or what [`Client::with_deadline`] says. After a deadline has passed the client
/// stays in use: a request not yet sent is taken back, a late reply is discarded, and the transaction or watch that a late reply
/// opens is closed again. After [`Failure::Lost`] every call says so again, until [`Client::reconnect`].
pub struct Client {
    pub(crate) link: Link,
    pub(crate) watches: WatchRegistry,
    endpoint: Option<Endpoint>,
    options: Options,
    deadline: Option<Instant>,
    epoch: Epoch,
}

/// How a client behaves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// How long a call may take: connecting, one request, one batch, one directory with all its parts.
    pub timeout: Duration,
}

impl Options {
    /// The usual options with another timeout.
    pub const fn with_timeout(timeout: Duration) -> Self {
        Self { timeout }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::with_timeout(TIMEOUT_DEFAULT)
    }
}

/// Tells one connection of this process from every other, so that nothing of one is used on another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Epoch(u64);

impl Epoch {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl Client {
    /// Connects to a server.
    ///
    /// # Errors
    ///
    /// If no server can be reached there within [`Options::timeout`].
    pub fn open(endpoint: Endpoint, options: Options) -> Result<Self, OpenError> {
        let transport = endpoint.connect(after(options.timeout))?;
        let mut client = Self::over(transport, options);
        client.endpoint = Some(endpoint);
        Ok(client)
    }

    /// A client over a transport that is connected already. It cannot reconnect.
    pub fn over(transport: Box<dyn Transport>, options: Options) -> Self {
        Self {
            link: Link::new(transport),
            watches: WatchRegistry::default(),
            endpoint: None,
            options,
            deadline: None,
            epoch: Epoch::next(),
        }
    }

    /// The client with another deadline for every call made through the guard; within another such guard, the earlier
    /// deadline counts.
    ///
    /// ```no_run
    /// # use std::time::{Duration, Instant};
    /// # use xsclient::{Client, Endpoint, Nodes, Options};
    /// # let mut client = Client::open(Endpoint::Search, Options::default())?;
    /// let soon = Instant::now() + Duration::from_millis(200);
    /// let name = client.with_deadline(soon).read_text(&"/local/domain/0/name".parse()?)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_deadline(&mut self, deadline: Instant) -> Deadlined<'_> {
        let before = self.deadline;
        self.deadline = Some(before.map_or(deadline, |before| before.min(deadline)));
        Deadlined { client: self, before }
    }

    /// Connects again to the server that [`Client::open`] connected to.
    ///
    /// Watches and transactions are not carried over: the server has dropped them with the old connection. The answer
    /// lists the watches, so that they can be set again; handles from before are refused with [`Failure::StaleHandle`]
    /// from now on. Statistics go on.
    ///
    /// # Errors
    ///
    /// If the client was made with [`Client::over`], or the server cannot be reached before the deadline. The client is
    /// as it was then.
    pub fn reconnect(&mut self, deadline: Instant) -> Result<Reconnected, ReconnectError> {
        let endpoint = self.endpoint.as_ref().ok_or(ReconnectError::NoEndpoint)?;
        let transport = endpoint.connect(deadline)?;
        let statistics = self.statistics();
        self.link = Link::new(transport);
        self.link.statistics = statistics;
        self.begin_epoch();
        Ok(Reconnected { lost_watches: self.watches.clear() })
    }

    /// What the client has done so far.
    pub fn statistics(&self) -> Statistics {
        let mut statistics = self.link.statistics;
        statistics.late_replies += self.link.connection.late_replies();
        statistics
    }

    /// How the transport frames messages and orders events.
    pub fn manner(&self) -> Manner {
        self.link.transport.manner()
    }

    /// Why the connection is gone, if it is known to be.
    pub fn lost(&self) -> Option<ConnectionLost> {
        self.link.check().err()
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Makes all handles from before stale.
    pub(crate) fn begin_epoch(&mut self) {
        self.epoch = Epoch::next();
    }

    /// When a call that starts now has to end.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline.unwrap_or_else(|| after(self.options.timeout))
    }

    /// The earlier of `instant` and what [`Client::with_deadline`] says.
    pub(crate) fn not_after(&self, instant: Instant) -> Instant {
        self.deadline.map_or(instant, |deadline| deadline.min(instant))
    }

    /// Sends requests and collects what each was answered.
    ///
    /// # Errors
    ///
    /// If not all of them were answered, about the first that was not. What a server refuses is in the results.
    pub(crate) fn exchange(
        &mut self,
        requests: &[Request],
        tx_id: TxId,
        deadline: Instant,
    ) -> Result<Vec<Result<Reply, Failure>>, OperationError> {
        let Some(first) = requests.first() else { return Ok(Vec::new()) };
        self.link.check().map_err(|lost| OperationError::new(first, Failure::Lost(lost)))?;
        if Instant::now() >= deadline {
            return Err(OperationError::new(first, Failure::Timeout { sent: false }));
        }
        let mut exchange = Exchange::new(requests, tx_id);
        while exchange.answered < requests.len() {
            exchange.fill_window(self);
            if exchange.answered == requests.len() {
                break;
            }
            let step = self.link.step(deadline);
            self.take_incoming(Some(&mut exchange));
            let failure = match step {
                Err(lost) if exchange.answered < requests.len() => Failure::Lost(lost),
                Ok(Step::DeadlinePassed) => exchange.time_out(self),
                Ok(Step::Moved) if Instant::now() >= deadline => {
                    if exchange.answered == requests.len() {
                        break;
                    }
                    exchange.time_out(self)
                }
                _ => continue,
            };
            let unanswered = exchange.results.iter().position(Option::is_none).unwrap_or(0);
            self.close_opened(exchange.asked());
            return Err(OperationError::new(&requests[unanswered], failure));
        }
        // A late reply may have left something to close. If that cannot be sent, the next call says so.
        if self.link.connection.poll_transmit().is_some() {
            self.link
                .flush()
                .unwrap_or_else(|lost| tracing::debug!(%lost, "nothing left to close"));
        }
        Ok(exchange.results.into_iter().flatten().collect())
    }

    /// Closes what was opened by requests whose replies nobody will see: watches and transactions. What is still to be
    /// answered is closed by the connection when it is.
    pub(crate) fn close_opened<'a>(
        &mut self,
        asked: impl Iterator<Item = (&'a Request, Option<&'a Result<Reply, Failure>>)>,
    ) {
        let mut set = Vec::new();
        for (request, result) in asked {
            match (request, result) {
                (Request::Watch { path, token, depth }, Some(Ok(_))) => {
                    let (path, token) = (path.clone(), token.clone());
                    set.push(Watch { path, token, depth: *depth, epoch: self.epoch });
                }
                (Request::Watch { token, .. }, None) => self.watches.remove(token),
                (Request::TransactionStart, Some(Ok(Reply::Transaction(tx_id)))) => {
                    self.abort_unheard(*tx_id);
                }
                _ => {}
            }
        }
        self.unwatch_unheard(&set);
    }

    /// Gives what has come to those it is for. Outside an exchange nobody waits for a reply.
    pub(crate) fn take_incoming(&mut self, mut exchange: Option<&mut Exchange<'_>>) {
        while let Some(incoming) = self.link.connection.poll_incoming() {
            match incoming {
                Incoming::Event(event) => {
                    self.watches.deliver(event, &mut self.link.statistics);
                }
                Incoming::Reply { request_id, reply } => {
                    if let Some(exchange) = &mut exchange {
                        exchange.take_reply(request_id, reply, &mut self.watches);
                    }
                }
            }
        }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("endpoint", &self.endpoint)
            .field("options", &self.options)
            .field("lost", &self.lost())
            .finish_non_exhaustive()
    }
}

/// A client whose calls end at a deadline of the caller's. Made by [`Client::with_deadline`].
#[derive(Debug)]
pub struct Deadlined<'c> {
    client: &'c mut Client,
    before: Option<Instant>,
}

impl Deref for Deadlined<'_> {
    type Target = Client;

    fn deref(&self) -> &Client {
        self.client
    }
}

impl DerefMut for Deadlined<'_> {
    fn deref_mut(&mut self) -> &mut Client {
        self.client
    }
}

impl Drop for Deadlined<'_> {
    fn drop(&mut self) {
        self.client.deadline = self.before;
    }
}

/// What a reconnect did not carry over. Transactions are gone too: nothing was written of those not committed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "the watches listed here are no longer set"]
pub struct Reconnected {
    /// Watches that were set before, in the order of their tokens.
    pub lost_watches: Vec<LostWatch>,
}

/// A batch of requests on its way.
pub(crate) struct Exchange<'r> {
    requests: &'r [Request],
    tx_id: TxId,
    results: Vec<Option<Result<Reply, Failure>>>,
    in_flight: HashMap<RequestId, usize>,
    next: usize,
    answered: usize,
}

impl<'r> Exchange<'r> {
    fn new(requests: &'r [Request], tx_id: TxId) -> Self {
        let results = vec![None; requests.len()];
        Self { requests, tx_id, results, in_flight: HashMap::new(), next: 0, answered: 0 }
    }

    /// Submits requests until the window is full or none is left, once half of the window is free: a few large sends
    /// instead of many small ones.
    fn fill_window(&mut self, client: &mut Client) {
        if self.in_flight.len() > IN_FLIGHT_MAX / 2 {
            return;
        }
        while self.in_flight.len() < IN_FLIGHT_MAX {
            let Some(request) = self.requests.get(self.next) else { return };
            if let Err(failure) = self.submit(client, request) {
                self.settle(self.next, Err(failure));
            }
            self.next += 1;
        }
        if self.next < self.requests.len() {
            client.link.statistics.window_waits += 1;
        }
    }

    fn submit(&mut self, client: &mut Client, request: &Request) -> Result<(), Failure> {
        let manner = client.manner();
        let added = client.watches.before_sending(request, manner)?;
        let submitted = client.link.connection.submit(request, self.tx_id);
        let id = submitted.map_err(|error| {
            if let (true, Request::Watch { token, .. }) = (added, request) {
                client.watches.remove(token);
            }
            match error {
                SubmitError::TooLong(too_long) => Failure::TooLong(too_long),
                SubmitError::Failed(failed) => Failure::Lost(failed.into()),
            }
        })?;
        client.link.statistics.requests += 1;
        self.in_flight.insert(id, self.next);
        Ok(())
    }

    fn take_reply(&mut self, id: RequestId, reply: Reply, watches: &mut WatchRegistry) {
        let Some(at) = self.in_flight.remove(&id) else { return };
        watches.after_reply(&self.requests[at], &reply);
        let result = match reply {
            Reply::Error(errno) => Err(Failure::Refused(errno)),
            reply => Ok(reply),
        };
        self.settle(at, result);
    }

    fn settle(&mut self, at: usize, result: Result<Reply, Failure>) {
        self.results[at] = Some(result);
        self.answered += 1;
    }

    /// Gives up what was not answered.
    fn time_out(&mut self, client: &mut Client) -> Failure {
        let first = self.results.iter().position(Option::is_none);
        let mut first_sent = false;
        for (id, at) in &self.in_flight {
            let abandoned = client.link.connection.abandon(*id);
            let awaited = abandoned == Abandoned::Awaited;
            first_sent |= first == Some(*at) && awaited;
            if awaited {
                // If it is carried out later, this is what the watches will be.
                client.watches.after_timeout(&self.requests[*at]);
            }
        }
        Failure::Timeout { sent: first_sent }
    }

    /// The requests that were submitted, with what each was answered, if it was.
    fn asked(&self) -> impl Iterator<Item = (&Request, Option<&Result<Reply, Failure>>)> {
        self.requests.iter().zip(self.results.iter().map(Option::as_ref)).take(self.next)
    }
}

/// The instant so long from now; a time so long that there is no such instant is as good as thirty years.
pub(crate) fn after(time: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
    let now = Instant::now();
    now.checked_add(time).unwrap_or_else(|| now + FAR)
}

/// The reply's error name, if it refuses.
pub(crate) fn refusal(result: &Result<Reply, Failure>) -> Option<&Errno> {
    match result {
        Err(Failure::Refused(errno)) => Some(errno),
        _ => None,
    }
}
