//! What a client knows of its connection, whichever way it waits: requests on their way, watches, counts. No I/O.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use xenstore_proto::{Errno, Manner, Reply, Request, RequestId, TxId};

use crate::connection::{Abandoned, Connection, Incoming, SubmitError};
use crate::error::{ConnectionLost, Failure, OperationError};
use crate::statistics::Statistics;
use crate::subscriptions::WatchRegistry;
use crate::waiting::Waiters;
use crate::watch::Watch;

/// Requests of one connection that are in flight at a time.
///
/// C xenstored handles one message of a connection in a turn, so more would only wait in buffers; fewer could leave the
/// server idle between a reply and the next request.
pub const IN_FLIGHT_MAX: usize = 256;

/// What was answered, in the order of the requests.
pub(crate) type Results = Vec<Answer>;

/// What a request was answered, and which request that was.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) result: Result<Reply, Failure>,
    pub(crate) serial: Serial,
}

/// A connection, what was asked on it, and the watches set on it.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) connection: Connection,
    pub(crate) watches: WatchRegistry,
    pub(crate) statistics: Statistics,
    pub(crate) manner: Manner,
    /// Where octets are received into.
    pub(crate) buffer: Vec<u8>,
    pub(crate) lost: Option<ConnectionLost>,
    /// The request submitted last.
    last: Serial,
    /// The reset that ended what was opened before it.
    reset: Serial,
    exchanges: HashMap<ExchangeId, Exchange>,
    last_exchange: u64,
    /// Exchanges that have requests left to submit; first come, first served.
    queue: VecDeque<ExchangeId>,
    /// Whose each awaited reply is, and its place there.
    awaited: HashMap<RequestId, (ExchangeId, usize)>,
}

/// Tells each request of this process from every other, those of another connection too, and what it opened from what others
/// did.
///
/// A server carries out the requests of a connection in their order, so a reset ends exactly what requests before it have
/// opened. When the replies come, or are looked at, says nothing about that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Serial {
    connection: u64,
    number: u64,
}

impl Serial {
    /// Before all requests of a new connection.
    fn of_new_connection() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self { connection: NEXT.fetch_add(1, Ordering::Relaxed), number: 0 }
    }

    fn next(self) -> Self {
        Self { number: self.number + 1, ..self }
    }

    /// The last reset, once a request is carried out or may be: a reset makes all handles from before stale.
    fn last_reset_after(self, request: &Request, serial: Self) -> Self {
        let later = matches!(request, Request::ResetWatches) && self.is_before(serial);
        if later { serial } else { self }
    }

    /// Whether it was submitted earlier, on the same connection.
    pub(crate) fn is_before(self, other: Self) -> bool {
        self.connection == other.connection && self.number < other.number
    }
}

/// Requests that were asked together, on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ExchangeId(u64);

#[derive(Debug)]
struct Exchange {
    requests: Arc<[Request]>,
    /// How many of them, from the first on, are the watches of fences.
    fences: usize,
    tx_id: TxId,
    places: Vec<Place>,
    /// The first that was not submitted.
    next: usize,
    unanswered: usize,
    waiters: Waiters,
}

#[derive(Debug)]
enum Place {
    NotSubmitted,
    InFlight(RequestId, Serial),
    Settled(Answer),
}

impl Exchange {
    fn settle(&mut self, at: usize, answer: Answer) {
        self.places[at] = Place::Settled(answer);
        self.unanswered -= 1;
        if self.unanswered == 0 {
            self.waiters.wake_all();
        }
    }
}

/// What an answered request has left behind for its asker to see to.
#[derive(Debug)]
pub(crate) enum Opened {
    Watch(Watch),
    Transaction(TxId),
    /// The events that are kept of the watch which an UNWATCH has ended.
    Events(Serial),
}

impl Opened {
    /// What a request has opened.
    pub(crate) fn by(request: &Request, answer: &Answer) -> Option<Self> {
        let serial = answer.serial;
        match (request, &answer.result) {
            (Request::Watch { .. }, Ok(_)) => Watch::set_by(request, serial).map(Self::Watch),
            (Request::TransactionStart, Ok(Reply::Transaction(tx_id))) => {
                Some(Self::Transaction(*tx_id))
            }
            (Request::Unwatch { .. }, _) => Some(Self::Events(serial)),
            _ => None,
        }
    }
}

/// A request that is about to be sent.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'r> {
    pub(crate) request: &'r Request,
    pub(crate) serial: Serial,
    /// Whether it sets a watch of a fence.
    pub(crate) of_fence: bool,
}

impl Session {
    pub(crate) fn new(manner: Manner) -> Self {
        let serial = Serial::of_new_connection();
        Self {
            connection: Connection::new(manner),
            watches: WatchRegistry::default(),
            statistics: Statistics::default(),
            manner,
            buffer: vec![0; crate::link::RECEIVE_BUFFER],
            lost: None,
            last: serial,
            reset: serial,
            exchanges: HashMap::new(),
            last_exchange: 0,
            queue: VecDeque::new(),
            awaited: HashMap::new(),
        }
    }

    /// Whether what a request has opened was opened on this connection, and not before a reset of it.
    pub(crate) fn is_current(&self, serial: Serial) -> bool {
        self.reset.is_before(serial)
    }

    /// Why the connection is gone, if it is.
    pub(crate) fn check(&self) -> Result<(), ConnectionLost> {
        self.lost.clone().map_or(Ok(()), Err)
    }

    /// Notes that the connection is gone, and tells everybody who waits.
    pub(crate) fn lose(&mut self, lost: ConnectionLost) {
        tracing::debug!(%lost, "connection to the Xenstore server lost");
        self.lost.get_or_insert(lost);
        self.exchanges.values_mut().for_each(|exchange| exchange.waiters.wake_all());
        self.watches.wake_all();
    }

    /// What was done so far.
    pub(crate) fn counts(&self) -> Statistics {
        let mut statistics = self.statistics;
        statistics.late_replies += self.connection.late_replies();
        statistics
    }

    /// Takes requests on, of which there is at least one; `fences` of them, from the first on, are watches of fences.
    ///
    /// # Errors
    ///
    /// If nothing can be sent any more, or the deadline has passed. Nothing is sent then.
    pub(crate) fn begin(
        &mut self,
        requests: Arc<[Request]>,
        fences: usize,
        tx_id: TxId,
        deadline: Instant,
    ) -> Result<ExchangeId, OperationError> {
        let failed = |failure| OperationError::new(&requests[0], failure);
        self.check().map_err(|lost| failed(Failure::Lost(lost)))?;
        if Instant::now() >= deadline {
            return Err(failed(Failure::Timeout { sent: false }));
        }
        self.last_exchange += 1;
        let id = ExchangeId(self.last_exchange);
        let places = requests.iter().map(|_| Place::NotSubmitted).collect();
        let unanswered = requests.len();
        let waiters = Waiters::default();
        let exchange = Exchange { requests, fences, tx_id, places, next: 0, unanswered, waiters };
        self.exchanges.insert(id, exchange);
        self.queue.push_back(id);
        self.fill_window();
        Ok(id)
    }

    /// What the requests were answered, once all of them are.
    pub(crate) fn take_answered(&mut self, id: ExchangeId) -> Option<Results> {
        if self.exchanges.get(&id)?.unanswered > 0 {
            return None;
        }
        let settled = |place| match place {
            Place::Settled(answer) => Some(answer),
            _ => None,
        };
        Some(self.exchanges.remove(&id)?.places.into_iter().filter_map(settled).collect())
    }

    /// Takes requests back of which nobody wants to hear any more: those not sent will not be, and what the others open is
    /// closed again, now or when they are answered.
    ///
    /// Gives what to say of the first that was not answered: `lost`, or that the deadline has passed.
    pub(crate) fn give_up(
        &mut self,
        id: ExchangeId,
        lost: Option<ConnectionLost>,
    ) -> Option<OperationError> {
        let Exchange { requests, places, .. } = self.exchanges.remove(&id)?;
        self.queue.retain(|queued| *queued != id);
        let first = places.iter().position(|place| !matches!(place, Place::Settled(_)));
        let first = first.unwrap_or(0);
        let mut first_sent = false;
        let mut opened = Vec::new();
        for (at, (request, place)) in requests.iter().zip(&places).enumerate() {
            match place {
                Place::NotSubmitted => {}
                Place::Settled(answer) => opened.extend(Opened::by(request, answer)),
                Place::InFlight(request_id, serial) => {
                    self.awaited.remove(request_id);
                    if lost.is_none() && self.connection.abandon(*request_id) == Abandoned::Awaited
                    {
                        first_sent |= at == first;
                        // If it is carried out later, this is what the watches will be.
                        self.watches.after_timeout(request, *serial);
                        self.reset = self.reset.last_reset_after(request, *serial);
                    }
                    if let Request::Watch { token, .. } = request {
                        self.watches.remove(token, *serial);
                    }
                }
            }
        }
        self.close(opened);
        self.fill_window();
        let failure = lost.map_or(Failure::Timeout { sent: first_sent }, Failure::Lost);
        Some(OperationError::new(&requests[first], failure))
    }

    /// Closes what nobody will see to any more, without waiting for the answers.
    pub(crate) fn close(&mut self, opened: Vec<Opened>) {
        for opened in opened {
            match opened {
                Opened::Watch(watch) if self.watches.is_set(&watch.token, watch.serial) => {
                    self.watches.remove(&watch.token, watch.serial);
                    self.submit_unheard(&watch.end_request(), TxId::NONE);
                }
                // It was ended already, or is one of another connection or from before a reset.
                Opened::Watch(_) => {}
                Opened::Events(unwatch) => drop(self.watches.take_ended(unwatch)),
                Opened::Transaction(tx_id) => {
                    self.submit_unheard(&Request::TransactionEnd { commit: false }, tx_id);
                }
            }
        }
    }

    /// Gives what has come to those it is for.
    pub(crate) fn take_incoming(&mut self) {
        while let Some(incoming) = self.connection.poll_incoming() {
            match incoming {
                Incoming::Event(event) => self.watches.deliver(event, &mut self.statistics),
                Incoming::Reply { request_id, reply } => self.take_reply(request_id, reply),
            }
        }
        self.fill_window();
    }

    fn take_reply(&mut self, request_id: RequestId, reply: Reply) {
        let Some((id, at)) = self.awaited.remove(&request_id) else { return };
        let Some(exchange) = self.exchanges.get_mut(&id) else { return };
        let Place::InFlight(_, serial) = exchange.places[at] else { return };
        let request = &exchange.requests[at];
        self.watches.after_reply(request, &reply, serial);
        let result = match reply {
            Reply::Error(errno) => Err(Failure::Refused(errno)),
            reply => {
                self.reset = self.reset.last_reset_after(request, serial);
                Ok(reply)
            }
        };
        exchange.settle(at, Answer { result, serial });
    }

    /// Submits requests until the window is full or none is left. An exchange goes on once half of the window is free: a
    /// few large sends instead of many small ones.
    fn fill_window(&mut self) {
        if self.lost.is_some() || self.connection.failed().is_some() {
            return;
        }
        while let Some(id) = self.queue.front() {
            let Some(exchange) = self.exchanges.get_mut(id) else {
                self.queue.pop_front();
                continue;
            };
            if exchange.next > 0 && self.connection.in_flight() > IN_FLIGHT_MAX / 2 {
                return;
            }
            let begin = exchange.next;
            while let Some(request) = exchange.requests.get(exchange.next) {
                if self.connection.in_flight() >= IN_FLIGHT_MAX {
                    self.statistics.window_waits += u64::from(exchange.next > begin);
                    return;
                }
                let at = exchange.next;
                exchange.next += 1;
                self.last = self.last.next();
                let serial = self.last;
                let asked = Asked { request, serial, of_fence: at < exchange.fences };
                let (watches, connection) = (&mut self.watches, &mut self.connection);
                match submit(asked, exchange.tx_id, self.manner, watches, connection) {
                    Ok(request_id) => {
                        self.statistics.requests += 1;
                        exchange.places[at] = Place::InFlight(request_id, serial);
                        self.awaited.insert(request_id, (*id, at));
                    }
                    Err(failure) => exchange.settle(at, Answer { result: Err(failure), serial }),
                }
            }
            self.queue.pop_front();
        }
    }

    fn submit_unheard(&mut self, request: &Request, tx_id: TxId) {
        if let Ok(id) = self.connection.submit(request, tx_id) {
            self.connection.discard_reply(id);
        }
    }

    /// Where those stand who wait for something; `None` if it is no more.
    #[cfg(feature = "tokio")]
    pub(crate) fn waiters(&mut self, on: &crate::waiting::WaitFor) -> Option<&mut Waiters> {
        use crate::waiting::WaitFor;
        match on {
            WaitFor::Exchange(id) => self.exchanges.get_mut(id).map(|known| &mut known.waiters),
            WaitFor::EventOf(token, serial) => self.watches.waiters_of(token, *serial),
            WaitFor::AnyEvent => Some(self.watches.waiters_of_any()),
            WaitFor::Time => None,
        }
    }
}

fn submit(
    asked: Asked<'_>,
    tx_id: TxId,
    manner: Manner,
    watches: &mut WatchRegistry,
    connection: &mut Connection,
) -> Result<RequestId, Failure> {
    watches.before_sending(asked, manner)?;
    let Asked { request, serial, .. } = asked;
    connection.submit(request, tx_id).map_err(|error| {
        if let Request::Watch { token, .. } = request {
            watches.remove(token, serial);
        }
        match error {
            SubmitError::TooLong(too_long) => Failure::TooLong(too_long),
            SubmitError::Failed(failed) => Failure::Lost(failed.into()),
        }
    })
}

/// The reply's error name, if it refuses.
pub(crate) fn refusal(answer: &Answer) -> Option<&Errno> {
    match &answer.result {
        Err(Failure::Refused(errno)) => Some(errno),
        _ => None,
    }
}
