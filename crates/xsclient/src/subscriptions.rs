//! The watches of a client and their events that wait: bounded queues, and which events are lost, equal or too late.

use std::collections::{BTreeMap, HashSet, VecDeque};

use xenstore_proto::{Errno, Framing, Manner, PathOrSpecial, Reply, Request, Token, WatchEvent};

use crate::error::Failure;
use crate::statistics::Statistics;
use crate::waiting::Waiters;
use crate::watch::{EVENTS_PER_WATCH_MAX, Event, LostWatch};

/// The watches of a client and their events.
#[derive(Debug, Default)]
pub(crate) struct WatchRegistry {
    watches: BTreeMap<Token, Subscription>,
    /// Numbers events in the order in which they came, over all watches.
    arrivals: u64,
    waiters: Waiters,
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
    waiters: Waiters,
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
            waiters: Waiters::default(),
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
            known.waiters.wake_all();
            self.waiters.wake_all();
        }
    }

    /// Lets everybody who waits for an event look again.
    pub(crate) fn wake_all(&mut self) {
        self.watches.values_mut().for_each(|known| known.waiters.wake_all());
        self.waiters.wake_all();
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn waiters_of(&mut self, token: &Token) -> Option<&mut Waiters> {
        self.watches.get_mut(token).map(|known| &mut known.waiters)
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn waiters_of_any(&mut self) -> &mut Waiters {
        &mut self.waiters
    }

    fn end(&mut self, token: &Token) {
        if let Some(known) = self.watches.get_mut(token) {
            known.ended = true;
            known.waiters.wake_all();
        }
    }

    pub(crate) fn take(&mut self, token: &Token) -> Option<Event> {
        self.watches.get_mut(token)?.take(token)
    }

    /// The event of any watch that came first.
    pub(crate) fn take_any(&mut self) -> Option<Event> {
        let waiting = self.watches.iter_mut().filter(|(_, known)| !known.ended);
        let (token, known) = waiting
            .filter_map(|entry| entry.1.queue.front().map(|front| front.0).map(|at| (at, entry)))
            .min_by_key(|(at, _)| *at)
            .map(|(_, entry)| entry)?;
        known.take(token)
    }
}
