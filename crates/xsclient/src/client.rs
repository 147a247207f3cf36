//! The blocking client: a connection, its transport, and the watches set on it.

use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use xenstore_proto::{Interest, Manner, Transport};

use crate::carrier::Carrier;
use crate::endpoint::{Endpoint, OpenError, ReconnectError};
use crate::error::ConnectionLost;
use crate::session::{Serial, Session};
use crate::statistics::Statistics;
use crate::waiting::WaitFor;
use crate::watch::LostWatch;

/// How long a call may take when nothing else is said.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// A blocking client of one Xenstore server.
///
/// What acts on nodes is in the trait [`crate::Nodes`], which [`crate::Transaction`] has too. Every call has a deadline:
/// [`Options::timeout`] from its start, or what [`Client::with_deadline`] says. After a deadline has passed the client
/// stays in use: a request not yet sent is taken back, a late reply is discarded, and the transaction or watch that a late reply
/// opens is closed again. After [`crate::Failure::Lost`] every call says so again, until [`Client::reconnect`].
pub struct Client {
    carried: Carried,
    endpoint: Option<Endpoint>,
    options: Options,
    deadline: Option<Instant>,
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
        Self { carried: Carried::new(transport), endpoint: None, options, deadline: None }
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
    /// lists the watches, so that they can be set again; handles from before are refused with [`crate::Failure::StaleHandle`]
    /// from now on. Statistics go on.
    ///
    /// # Errors
    ///
    /// If the client was made with [`Client::over`], or the server cannot be reached before the deadline. The client is
    /// as it was then.
    pub fn reconnect(&mut self, deadline: Instant) -> Result<Reconnected, ReconnectError> {
        let endpoint = self.endpoint.as_ref().ok_or(ReconnectError::NoEndpoint)?;
        let again = Carried::new(endpoint.connect(deadline)?);
        let statistics = self.statistics();
        let mut before = std::mem::replace(&mut self.carried, again);
        self.carried.session.statistics = statistics;
        Ok(Reconnected { lost_watches: before.session.watches.clear() })
    }

    /// What the client has done so far.
    pub fn statistics(&self) -> Statistics {
        self.carried.session.counts()
    }

    /// How the transport frames messages and orders events.
    pub fn manner(&self) -> Manner {
        self.carried.session.manner
    }

    /// Why the connection is gone, if it is known to be.
    pub fn lost(&self) -> Option<ConnectionLost> {
        self.carried.session.check().err()
    }

    /// Whether what a request has opened was opened on this connection, and not before a reset of it.
    pub(crate) fn is_current(&self, serial: Serial) -> bool {
        self.carried.session.is_current(serial)
    }

    /// When a call that starts now has to end.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline.unwrap_or_else(|| after(self.options.timeout))
    }

    /// The earlier of `instant` and what [`Client::with_deadline`] says.
    pub(crate) fn not_after(&self, instant: Instant) -> Instant {
        self.deadline.map_or(instant, |deadline| deadline.min(instant))
    }

    /// How a call reaches the session, and when it has to end.
    pub(crate) fn call(&mut self) -> (&mut Carried, Instant) {
        let deadline = self.deadline();
        (&mut self.carried, deadline)
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

/// A session and the transport that carries its octets.
pub(crate) struct Carried {
    session: Session,
    transport: Box<dyn Transport>,
}

impl Carried {
    fn new(transport: Box<dyn Transport>) -> Self {
        Self { session: Session::new(transport.manner()), transport }
    }

    /// Sends what can be sent, then waits until something can be received or sent, and receives it. Says whether the
    /// deadline has passed.
    fn step(&mut self, deadline: Instant) -> Result<bool, ConnectionLost> {
        self.session.flush(&mut self.transport)?;
        let more_to_send = self.session.connection.poll_transmit().is_some();
        let interest = if more_to_send { Interest::ReceiveOrSend } else { Interest::Receive };
        match self.transport.wait(interest, deadline) {
            Ok(ready) if ready.receive => {
                self.session.receive(&mut self.transport)?;
            }
            Ok(_) => {}
            Err(error) => {
                self.session.lose(error.into());
                self.session.check()?;
            }
        }
        Ok(Instant::now() >= deadline)
    }

    fn send_what_is_left(&mut self) {
        if self.session.connection.poll_transmit().is_some()
            && let Err(lost) = self.session.flush(&mut self.transport)
        {
            // The next call says so.
            tracing::debug!(%lost, "not all was sent");
        }
    }
}

impl Carrier for Carried {
    fn with<R>(&mut self, act: impl FnOnce(&mut Session) -> R) -> R {
        let result = act(&mut self.session);
        self.send_what_is_left();
        result
    }

    fn wait_for<R: Send>(
        &mut self,
        _on: WaitFor,
        deadline: Instant,
        mut check: impl FnMut(&mut Session) -> Option<R> + Send,
    ) -> impl Future<Output = Result<Option<R>, ConnectionLost>> + Send {
        let mut waited = Ok(false);
        let found = loop {
            if let Some(found) = check(&mut self.session) {
                break Ok(Some(found));
            }
            match waited {
                Ok(false) => waited = self.step(deadline),
                Ok(true) => break Ok(None),
                Err(lost) => break Err(lost),
            }
        };
        // What came may have left something to close.
        self.send_what_is_left();
        std::future::ready(found)
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

/// The instant so long from now; a time so long that there is no such instant is as good as thirty years.
pub(crate) fn after(time: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
    let now = Instant::now();
    now.checked_add(time).unwrap_or_else(|| now + FAR)
}
