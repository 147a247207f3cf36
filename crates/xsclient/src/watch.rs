//! Watches as subscriptions: a handle to the caller, a bounded queue of events in the client.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use xenstore_proto::{PathOrSpecial, Request, Token, TxId};

use crate::carrier::{Carrier, Closing, ask_for, ask_serial, at_once, reply_for};
use crate::client::{Client, after};
use crate::error::{Failure, OperationError};
use crate::session::{Opened, Serial, Session};
use crate::waiting::WaitFor;

/// Events of one watch that wait to be taken. A guest may cause any number of events on what it can write (XSA-349), so
/// equal ones that wait are one, and what does not fit is dropped and said to be ([`Event::lost_before`]).
pub const EVENTS_PER_WATCH_MAX: usize = 1024;

/// A watch that is set: what [`Client::watch`] gives.
///
/// Dropping it does not unset the watch; [`Client::unwatch`] does.
#[derive(Clone, Debug)]
pub struct Watch {
    pub(crate) path: PathOrSpecial,
    pub(crate) token: Token,
    pub(crate) depth: Option<u32>,
    /// The request that set it: another watch may have the same token later.
    pub(crate) serial: Serial,
}

impl Watch {
    /// What is watched.
    pub fn path(&self) -> &PathOrSpecial {
        &self.path
    }

    /// What the events carry.
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// How many levels below the path are watched; `None` for all.
    pub fn depth(&self) -> Option<u32> {
        self.depth
    }

    /// The watch that a WATCH has set.
    pub(crate) fn set_by(request: &Request, serial: Serial) -> Option<Self> {
        let Request::Watch { path, token, depth } = request else { return None };
        Some(Self { path: path.clone(), token: token.clone(), depth: *depth, serial })
    }

    pub(crate) fn end_request(&self) -> Request {
        Request::Unwatch { path: self.path.clone(), token: self.token.clone() }
    }
}

/// Something changed.
///
/// Servers and this client merge equal events that wait, so the value found may be newer than the event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What changed: the path of the watch, or one below it.
    pub path: PathOrSpecial,
    /// The token of the watch.
    pub token: Token,
    /// Whether this is the event that every watch gets when it is set, whether or not there is such a node.
    pub first: bool,
    /// Whether events of this watch were dropped since the one taken before: anything at or below the path of the watch may
    /// have changed, so read all of it again.
    pub lost_before: bool,
}

/// A watch that a reconnect has lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostWatch {
    /// What was watched.
    pub path: PathOrSpecial,
    /// The token.
    pub token: Token,
    /// How many levels below the path were watched; `None` for all.
    pub depth: Option<u32>,
}

impl Client {
    /// Watches a path or a special name, and all below it or `depth` levels of it. The token is the library's choice.
    ///
    /// The first event comes at once, marked [`Event::first`].
    ///
    /// # Errors
    ///
    /// If the server refuses (servers before Xen 4.22 refuse a depth with EINVAL), or the transport does not carry a depth.
    pub fn watch(
        &mut self,
        path: impl Into<PathOrSpecial>,
        depth: Option<u32>,
    ) -> Result<Watch, OperationError> {
        self.watch_with_token(path, unique_token(), depth)
    }

    /// Watches with a token of the caller's. No two watches of a client have the same.
    ///
    /// # Errors
    ///
    /// As [`Client::watch`], and if another watch of this client has the token.
    pub fn watch_with_token(
        &mut self,
        path: impl Into<PathOrSpecial>,
        token: Token,
        depth: Option<u32>,
    ) -> Result<Watch, OperationError> {
        let (carrier, deadline) = self.call();
        at_once(set(carrier, path.into(), token, depth, deadline))
    }

    /// Ends a watch. Events of it that wait are dropped, and the watch is no more whatever the outcome.
    ///
    /// # Errors
    ///
    /// If the watch is not set any more: [`Failure::StaleHandle`], or ENOENT if only the server does not know it. After a
    /// timeout the server is still told, with the next call if not before.
    pub fn unwatch(&mut self, watch: &Watch) -> Result<(), OperationError> {
        let (carrier, deadline) = self.call();
        at_once(unwatch(carrier, watch, deadline))
    }

    /// The next event of a watch, waited for at most `timeout`. `None` if there was none.
    ///
    /// # Errors
    ///
    /// If the watch is not set any more, or the connection is lost and no event waits.
    pub fn next_event(
        &mut self,
        watch: &Watch,
        timeout: Duration,
    ) -> Result<Option<Event>, OperationError> {
        let deadline = self.not_after(after(timeout));
        at_once(next_event(self.call().0, watch, deadline))
    }

    /// The next event of any watch, the one that came first; waited for at most `timeout`. `None` if there was none. Those of
    /// fences are not among them.
    ///
    /// # Errors
    ///
    /// If the connection is lost and no event waits.
    pub fn next_event_any(&mut self, timeout: Duration) -> Result<Option<Event>, OperationError> {
        let deadline = self.not_after(after(timeout));
        at_once(next_event_any(self.call().0, deadline))
    }

    /// The events of a watch as they come, until none comes for `timeout` or an error was given.
    pub fn events<'c>(&'c mut self, watch: &'c Watch, timeout: Duration) -> Events<'c> {
        Events { client: self, watch, timeout, ended: false }
    }
}

/// The events of a watch as they come. Made by [`Client::events`].
#[derive(Debug)]
pub struct Events<'c> {
    client: &'c mut Client,
    watch: &'c Watch,
    timeout: Duration,
    ended: bool,
}

impl Iterator for Events<'_> {
    type Item = Result<Event, OperationError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.client.next_event(self.watch, self.timeout).transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}

impl Session {
    /// Whether a watch is one of this session and set.
    pub(crate) fn check_watch(&self, watch: &Watch) -> Result<(), OperationError> {
        if self.watches.is_set(&watch.token, watch.serial) {
            return Ok(());
        }
        Err(OperationError::of_watch(watch.path.as_str(), Failure::StaleHandle))
    }
}

pub(crate) async fn set<C: Carrier>(
    carrier: &mut C,
    path: PathOrSpecial,
    token: Token,
    depth: Option<u32>,
    deadline: Instant,
) -> Result<Watch, OperationError> {
    let request = Request::Watch { path: path.clone(), token: token.clone(), depth };
    let (reply, serial) = ask_serial(carrier, &request, TxId::NONE, deadline).await?;
    reply_for::<()>(&request, Ok(reply))?;
    Ok(Watch { path, token, depth, serial })
}

pub(crate) async fn unwatch<C: Carrier>(
    carrier: &mut C,
    watch: &Watch,
    deadline: Instant,
) -> Result<(), OperationError> {
    carrier.with(|session| session.check_watch(watch))?;
    let closing = Closing::new(carrier, vec![Opened::Watch(watch.clone())]);
    let request = watch.end_request();
    let unwatched = ask_for(&mut *closing.carrier, &request, TxId::NONE, deadline).await;
    let still_set = closing.carrier.with(|session| session.check_watch(watch).is_ok());
    if still_set && unwatched.as_ref().is_err_and(OperationError::is_timeout) {
        // It was not sent in time, and is now.
        return Err(OperationError::new(&request, Failure::Timeout { sent: true }));
    }
    unwatched
}

pub(crate) async fn next_event<C: Carrier>(
    carrier: &mut C,
    watch: &Watch,
    deadline: Instant,
) -> Result<Option<Event>, OperationError> {
    let on = WaitFor::EventOf(watch.token.clone(), watch.serial);
    let event = carrier.wait_for(on, deadline, |session| match session.check_watch(watch) {
        Ok(()) => session.watches.take(&watch.token).map(Ok),
        Err(stale) => Some(Err(stale)),
    });
    let lost = |lost| OperationError::of_watch(watch.path.as_str(), Failure::Lost(lost));
    event.await.map_err(lost)?.transpose()
}

pub(crate) async fn next_event_any<C: Carrier>(
    carrier: &mut C,
    deadline: Instant,
) -> Result<Option<Event>, OperationError> {
    let event = carrier.wait_for(WaitFor::AnyEvent, deadline, |session| session.watches.take_any());
    event.await.map_err(|lost| OperationError::of_watch("any path", Failure::Lost(lost)))
}

/// A token that no other watch made by this process has.
pub(crate) fn unique_token() -> Token {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Token::from_octets(format!("xsclient-{number:x}").into_bytes())
        .expect("letters, digits and - hold no NUL")
}
