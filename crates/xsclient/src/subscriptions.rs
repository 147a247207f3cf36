//! The watches of a client and their events that wait: bounded queues, and which events are lost, equal or too late.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use xenstore_proto::{Errno, Framing, Manner, PathOrSpecial, Reply, Request, Token, WatchEvent};

use crate::error::Failure;
use crate::session::{Asked, Serial};
use crate::statistics::Statistics;
use crate::waiting::Waiters;
use crate::watch::{EVENTS_PER_WATCH_MAX, Event, LostWatch};

/// The watches of a client and their events.
#[derive(Debug, Default)]
pub(crate) struct WatchRegistry {
    watches: BTreeMap<Token, Subscription>,
    /// Watches that were ended, each by the UNWATCH that did it, until whoever asked for that takes the events.
    ended: HashMap<Serial, (Token, Subscription)>,
    /// Numbers events in the order in which they came, over all watches.
    arrivals: u64,
    waiters: Waiters,
}

#[derive(Debug)]
struct Subscription {
    path: PathOrSpecial,
    depth: Option<u32>,
    /// The request that set it. A token may be used again, and a handle stays as long as its owner keeps it.
    serial: Serial,
    /// Whether the events say only what a fence saw, so that nobody else may take them.
    of_fence: bool,
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
    /// Notes a watch that is about to be set, so that its first event finds it.
    pub(crate) fn before_sending(
        &mut self,
        asked: Asked<'_>,
        manner: Manner,
    ) -> Result<(), Failure> {
        let Asked { request, serial, of_fence } = asked;
        let Request::Watch { path, token, depth } = request else { return Ok(()) };
        if depth.is_some() && manner.framing == Framing::MessagePerSend {
            return Err(Failure::DepthNotCarried);
        }
        if self.watches.contains_key(token) {
            return Err(Failure::TokenInUse);
        }
        let subscription = Subscription {
            path: path.clone(),
            depth: *depth,
            serial,
            of_fence,
            seen_first: false,
            queue: VecDeque::new(),
            waiting: HashSet::new(),
            lost: false,
            waiters: Waiters::default(),
        };
        self.watches.insert(token.clone(), subscription);
        Ok(())
    }

    /// Notes what the reply to a request says about watches, of those set before it.
    pub(crate) fn after_reply(&mut self, request: &Request, reply: &Reply, serial: Serial) {
        match (request, reply) {
            (Request::Watch { token, .. }, Reply::Error(_)) => self.remove(token, serial),
            (Request::Unwatch { token, .. }, Reply::Ok) => self.end(token, serial),
            (Request::Unwatch { token, .. }, Reply::Error(errno)) if *errno == Errno::ENOENT => {
                self.end(token, serial);
            }
            (Request::ResetWatches, Reply::Ok) => self.reset(serial),
            _ => {}
        }
    }

    /// Notes what a request that was sent and not answered in time may do yet, to watches set before it.
    pub(crate) fn after_timeout(&mut self, request: &Request, serial: Serial) {
        match request {
            Request::Unwatch { token, .. } => {
                self.take_out_if(token, |known| known.serial.is_before(serial));
            }
            Request::ResetWatches => self.reset(serial),
            _ => {}
        }
    }

    /// Takes a watch out.
    pub(crate) fn remove(&mut self, token: &Token, serial: Serial) {
        self.take_out_if(token, |known| known.serial == serial);
    }

    /// The events that nobody took of the watch which an UNWATCH has ended.
    pub(crate) fn take_ended(&mut self, unwatch: Serial) -> Vec<Event> {
        let Some((token, mut known)) = self.ended.remove(&unwatch) else { return Vec::new() };
        std::iter::from_fn(|| known.take(&token)).collect()
    }

    /// Takes every watch out.
    pub(crate) fn clear(&mut self) -> Vec<LostWatch> {
        let watches = std::mem::take(&mut self.watches).into_iter();
        watches
            .map(|(token, known)| LostWatch { path: known.path, token, depth: known.depth })
            .collect()
    }

    pub(crate) fn is_set(&self, token: &Token, serial: Serial) -> bool {
        self.watches.get(token).is_some_and(|known| known.serial == serial)
    }

    /// Whether the first event of a watch has come.
    pub(crate) fn has_begun(&self, token: &Token) -> bool {
        self.watches.get(token).is_some_and(|known| known.seen_first)
    }

    pub(crate) fn deliver(&mut self, event: WatchEvent, statistics: &mut Statistics) {
        statistics.events += 1;
        let Some(known) = self.watches.get_mut(&event.token) else {
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
    pub(crate) fn waiters_of(&mut self, token: &Token, serial: Serial) -> Option<&mut Waiters> {
        let known = self.watches.get_mut(token).filter(|known| known.serial == serial);
        known.map(|known| &mut known.waiters)
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn waiters_of_any(&mut self) -> &mut Waiters {
        &mut self.waiters
    }

    fn end(&mut self, token: &Token, unwatch: Serial) {
        let ended = self.take_out_if(token, |known| known.serial.is_before(unwatch));
        if let Some(mut known) = ended {
            known.waiters.wake_all();
            self.ended.insert(unwatch, (token.clone(), known));
        }
    }

    fn reset(&mut self, reset: Serial) {
        self.watches.retain(|_, known| reset.is_before(known.serial));
        // Whoever raises a fence waits here for events that will not come.
        self.waiters.wake_all();
    }

    fn take_out_if(
        &mut self,
        token: &Token,
        condition: impl FnOnce(&Subscription) -> bool,
    ) -> Option<Subscription> {
        self.watches.get(token).filter(|known| condition(known))?;
        self.watches.remove(token)
    }

    pub(crate) fn take(&mut self, token: &Token) -> Option<Event> {
        self.watches.get_mut(token)?.take(token)
    }

    /// The event that came first of any watch but those of fences, whose events are to be found when the fence is lowered.
    pub(crate) fn take_any(&mut self) -> Option<Event> {
        let waiting = self.watches.iter_mut().filter(|(_, known)| !known.of_fence);
        let (token, known) = waiting
            .filter_map(|entry| entry.1.queue.front().map(|front| front.0).map(|at| (at, entry)))
            .min_by_key(|(at, _)| *at)
            .map(|(_, entry)| entry)?;
        known.take(token)
    }
}
