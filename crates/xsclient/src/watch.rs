//! Watches as subscriptions: a handle to the caller, a bounded queue of events in the client.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use xenstore_proto::{
    Errno, Framing, Manner, PathOrSpecial, Reply, Request, Token, TxId, WatchEvent,
};

use crate::client::{Client, Epoch, after};
use crate::error::{Failure, OperationError};
use crate::link::Step;
use crate::statistics::Statistics;

/// Events of one watch that wait to be taken. A guest may cause any number of events on what it can write (XSA-349), so
/// equal ones that wait are one, and what does not fit is dropped and said to be ([`Event::lost_before`]).
pub const EVENTS_PER_WATCH_MAX: usize = 1024;

/// A watch that is set: what [`Client::watch`] gives.
///
/// Dropping it does not unset the watch; [`Client::unwatch`] does.
#[derive(Debug)]
pub struct Watch {
    pub(crate) path: PathOrSpecial,
    pub(crate) token: Token,
    pub(crate) depth: Option<u32>,
    pub(crate) epoch: Epoch,
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

    pub(crate) fn request(&self) -> Request {
        let Self { path, token, depth, .. } = self;
        Request::Watch { path: path.clone(), token: token.clone(), depth: *depth }
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
        let path = path.into();
        let watch = Watch { path, token, depth, epoch: self.epoch() };
        self.ask_for::<()>(&watch.request(), TxId::NONE)?;
        Ok(watch)
    }

    /// Ends a watch. Events of it that wait are dropped, and the watch is no more whatever the outcome.
    ///
    /// # Errors
    ///
    /// If the watch is not set any more: [`Failure::StaleHandle`], or ENOENT if only the server does not know it. After a
    /// timeout the server is still told, with the next call if not before.
    pub fn unwatch(&mut self, watch: &Watch) -> Result<(), OperationError> {
        self.check_watch(watch)?;
        let request = watch.end_request();
        let unwatched = self.ask_for(&request, TxId::NONE);
        if unwatched.is_err() && self.watches.is_set(&watch.token) {
            self.unwatch_unheard(std::slice::from_ref(watch));
            if unwatched.as_ref().is_err_and(OperationError::is_timeout) {
                return Err(OperationError::new(&request, Failure::Timeout { sent: true }));
            }
        }
        unwatched
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
        self.check_watch(watch)?;
        self.wait_for_event(timeout, watch.path.as_str(), |watches| watches.take(&watch.token))
    }

    /// The next event of any watch, the one that came first; waited for at most `timeout`. `None` if there was none.
    ///
    /// # Errors
    ///
    /// If the connection is lost and no event waits.
    pub fn next_event_any(&mut self, timeout: Duration) -> Result<Option<Event>, OperationError> {
        self.wait_for_event(timeout, "any path", WatchRegistry::take_any)
    }

    /// The events of a watch as they come, until none comes for `timeout` or an error was given.
    pub fn events<'c>(&'c mut self, watch: &'c Watch, timeout: Duration) -> Events<'c> {
        Events { client: self, watch, timeout, ended: false }
    }

    pub(crate) fn check_watch(&self, watch: &Watch) -> Result<(), OperationError> {
        if watch.epoch == self.epoch() && self.watches.is_set(&watch.token) {
            return Ok(());
        }
        Err(OperationError::of_watch(watch.path.as_str(), Failure::StaleHandle))
    }

    fn wait_for_event(
        &mut self,
        timeout: Duration,
        what: &str,
        mut take: impl FnMut(&mut WatchRegistry) -> Option<Event>,
    ) -> Result<Option<Event>, OperationError> {
        let deadline = self.not_after(after(timeout));
        loop {
            self.take_incoming(None);
            if let Some(event) = take(&mut self.watches) {
                return Ok(Some(event));
            }
            let step = self.link.step(deadline);
            self.take_incoming(None);
            if let Some(event) = take(&mut self.watches) {
                return Ok(Some(event));
            }
            match step {
                Err(lost) => return Err(OperationError::of_watch(what, Failure::Lost(lost))),
                Ok(Step::DeadlinePassed) => return Ok(None),
                Ok(Step::Moved) if Instant::now() >= deadline => return Ok(None),
                Ok(Step::Moved) => {}
            }
        }
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

/// A token that no other watch made by this process has.
pub(crate) fn unique_token() -> Token {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Token::from_octets(format!("xsclient-{number:x}").into_bytes())
        .expect("letters, digits and - hold no NUL")
}

/// The watches of a client and their events.
#[derive(Debug, Default)]
pub(crate) struct WatchRegistry {
    watches: BTreeMap<Token, Subscription>,
    /// Numbers events in the order in which they came, over all watches.
    arrivals: u64,
}

#[derive(Debug)]
struct Subscription {
    path: PathOrSpecial,
    depth: Option<u32>,
    /// Whether the watch is still to be told to callers; an ended one only keeps events for whoever ended it.
    ended: bool,
    seen_first: bool,
    queue: VecDeque<(u64, PathOrSpecial, bool)>,
    waiting: HashSet<PathOrSpecial>,
    lost: bool,
}

impl Subscription {
    fn take(&mut self, token: &Token) -> Option<Event> {
        let (_, path, first) = self.queue.pop_front()?;
        if !first {
            self.waiting.remove(&path);
        }
        let lost_before = std::mem::take(&mut self.lost);
        Some(Event { path, token: token.clone(), first, lost_before })
    }
}

impl WatchRegistry {
    /// Notes a watch that is about to be set, so that its first event finds it. Says whether it was added.
    pub(crate) fn before_sending(
        &mut self,
        request: &Request,
        manner: Manner,
    ) -> Result<bool, Failure> {
        let Request::Watch { path, token, depth } = request else { return Ok(false) };
        if depth.is_some() && manner.framing == Framing::MessagePerSend {
            return Err(Failure::DepthNotCarried);
        }
        if self.watches.get(token).is_some_and(|known| !known.ended) {
            return Err(Failure::TokenInUse);
        }
        let subscription = Subscription {
            path: path.clone(),
            depth: *depth,
            ended: false,
            seen_first: false,
            queue: VecDeque::new(),
            waiting: HashSet::new(),
            lost: false,
        };
        self.watches.insert(token.clone(), subscription);
        Ok(true)
    }

    /// Notes what a reply says about watches.
    pub(crate) fn after_reply(&mut self, request: &Request, reply: &Reply) {
        match (request, reply) {
            (Request::Watch { token, .. }, Reply::Error(_)) => {
                self.watches.remove(token);
            }
            (Request::Unwatch { token, .. }, Reply::Ok) => self.end(token),
            (Request::Unwatch { token, .. }, Reply::Error(errno)) if *errno == Errno::ENOENT => {
                self.end(token);
            }
            (Request::ResetWatches, Reply::Ok) => self.watches.clear(),
            _ => {}
        }
    }

    /// Notes what a request that was sent and not answered in time may do yet.
    pub(crate) fn after_timeout(&mut self, request: &Request) {
        match request {
            Request::Unwatch { token, .. } => self.remove(token),
            Request::ResetWatches => self.watches.clear(),
            _ => {}
        }
    }

    /// Takes a watch out.
    pub(crate) fn remove(&mut self, token: &Token) {
        self.watches.remove(token);
    }

    /// Takes an ended watch out, with the events that wait.
    pub(crate) fn drop_ended(&mut self, token: &Token) {
        if self.watches.get(token).is_some_and(|known| known.ended) {
            self.watches.remove(token);
        }
    }

    /// All events of a watch that wait.
    pub(crate) fn take_all(&mut self, token: &Token) -> Vec<Event> {
        std::iter::from_fn(|| self.take(token)).collect()
    }

    /// Takes every watch out.
    pub(crate) fn clear(&mut self) -> Vec<LostWatch> {
        let watches = std::mem::take(&mut self.watches).into_iter();
        watches
            .filter(|(_, known)| !known.ended)
            .map(|(token, known)| LostWatch { path: known.path, token, depth: known.depth })
            .collect()
    }

    pub(crate) fn is_set(&self, token: &Token) -> bool {
        self.watches.get(token).is_some_and(|known| !known.ended)
    }

    /// Whether the first event of a watch has come.
    pub(crate) fn has_begun(&self, token: &Token) -> bool {
        self.watches.get(token).is_some_and(|known| known.seen_first)
    }

    pub(crate) fn deliver(&mut self, event: WatchEvent, statistics: &mut Statistics) {
        statistics.events += 1;
        let Some(known) = self.watches.get_mut(&event.token).filter(|known| !known.ended) else {
            // Events of a watch may be on their way when it is unset.
            statistics.events_unknown += 1;
            tracing::trace!(path = %event.path, token = %event.token, "event of no watch of ours");
            return;
        };
        let first = !std::mem::replace(&mut known.seen_first, true);
        if !first && known.waiting.contains(&event.path) {
            statistics.events_coalesced += 1;
        } else if known.queue.len() >= EVENTS_PER_WATCH_MAX {
            statistics.events_lost += 1;
            known.lost = true;
        } else {
            self.arrivals += 1;
            if !first {
                known.waiting.insert(event.path.clone());
            }
            known.queue.push_back((self.arrivals, event.path, first));
        }
    }

    fn end(&mut self, token: &Token) {
        if let Some(known) = self.watches.get_mut(token) {
            known.ended = true;
        }
    }

    fn take(&mut self, token: &Token) -> Option<Event> {
        self.watches.get_mut(token)?.take(token)
    }

    fn take_any(&mut self) -> Option<Event> {
        let waiting = self.watches.iter_mut().filter(|(_, known)| !known.ended);
        let (token, known) = waiting
            .filter_map(|entry| entry.1.queue.front().map(|front| front.0).map(|at| (at, entry)))
            .min_by_key(|(at, _)| *at)
            .map(|(_, entry)| entry)?;
        known.take(token)
    }
}
