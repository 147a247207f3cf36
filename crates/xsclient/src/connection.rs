//! The protocol's client side without I/O: octets in, octets out, replies and events out.

use std::collections::{HashMap, VecDeque};

use xenstore_proto::{
    Broken, Decoded, Decoder, Framing, Manner, Message, MessageType, PathOrSpecial, PayloadError,
    PayloadTooLong, Reply, ReplyError, Request, RequestId, Token, TxId, WatchEvent, limits,
};

/// One connection's state: which requests wait for a reply, what is to be sent, what has come. No clock, no I/O.
///
/// Drain order, for whoever carries the octets:
///
/// 1. [`Connection::submit`] any number of requests;
/// 2. while [`Connection::poll_transmit`] gives octets and the transport takes them, [`Connection::transmitted`];
/// 3. give what arrives to [`Connection::handle_octets`];
/// 4. take all of [`Connection::poll_incoming`]: the queue is bounded by nothing but what step 3 was given;
/// 5. go to 2, since step 3 may have found something to send (an abandoned transaction to close).
///
/// Replies are matched by request id and may come in any order. Events may come at any point between messages. A server
/// that breaks the protocol ends the connection: from then on every call answers the same [`ProtocolError`]. The
/// transaction id in a reply is not looked at: the request id alone says what it answers.
///
/// ```
/// use xsclient::{Connection, EventOrder, Framing, Incoming, Manner, Reply, Request, TxId, limits};
///
/// let mut connection = Connection::new(Manner {
///     framing: Framing::Stream,
///     event_order: EventOrder::WithReplies,
///     request_payload_max: limits::PAYLOAD_MAX,
/// });
/// let id = connection.submit(&Request::Read("/vm/name".parse()?), TxId::NONE)?;
///
/// // To the server, in whatever pieces the transport takes ...
/// let octets = connection.poll_transmit().unwrap_or_default();
/// assert_eq!(octets.len(), 16 + "/vm/name\0".len());
/// let sent = octets.len();
/// connection.transmitted(sent);
///
/// // ... and back, in whatever pieces they come.
/// let reply = Reply::Value(b"guest".to_vec());
/// let mut octets = Vec::new();
/// reply.encode(xsclient::MessageType::READ, id, TxId::NONE, limits::PAYLOAD_MAX, &mut octets)?;
/// for octet in octets {
///     connection.handle_octets(&[octet])?;
/// }
/// assert_eq!(connection.poll_incoming(), Some(Incoming::Reply { request_id: id, reply }));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Connection {
    payload_max: usize,
    framing: Framing,
    decoder: Decoder,
    last_id: u32,
    submitted: u64,
    pending: HashMap<RequestId, Pending>,
    outgoing: Outgoing,
    incoming: VecDeque<Incoming>,
    failed: Option<ProtocolError>,
    late_replies: u64,
}

/// What the server sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// The reply to a request.
    Reply {
        /// The request.
        request_id: RequestId,
        /// What it was answered; [`Reply::Error`] if it was refused.
        reply: Reply,
    },
    /// An event of a watch.
    Event(WatchEvent),
}

/// A request that waits for its reply.
#[derive(Debug)]
struct Pending {
    asked: MessageType,
    /// How many requests were submitted before it.
    position: u64,
    /// `false` when nobody waits any more.
    wanted: bool,
    undo: Undo,
}

/// What closes again what an abandoned request opens.
#[derive(Debug)]
enum Undo {
    Nothing,
    Abort,
    Unwatch { path: PathOrSpecial, token: Token },
}

/// What [`Connection::abandon`] did with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abandoned {
    /// Nothing of it was transmitted, and nothing will be.
    Withdrawn,
    /// Some of it was transmitted: the rest will be, and its reply will be discarded.
    Awaited,
}

impl Connection {
    /// A connection over a transport of this manner.
    pub fn new(manner: Manner) -> Self {
        Self {
            payload_max: manner.request_payload_max,
            framing: manner.framing,
            decoder: Decoder::new(limits::REPLY_PAYLOAD_TOLERATED),
            last_id: 0,
            submitted: 0,
            pending: HashMap::new(),
            outgoing: Outgoing::default(),
            incoming: VecDeque::new(),
            failed: None,
            late_replies: 0,
        }
    }

    /// Queues a request for transmission; the id is that of the reply to come.
    ///
    /// # Errors
    ///
    /// If the request does not fit a message, or the connection has failed. Nothing is queued then.
    pub fn submit(&mut self, request: &Request, tx_id: TxId) -> Result<RequestId, SubmitError> {
        if let Some(failed) = &self.failed {
            return Err(SubmitError::Failed(failed.clone()));
        }
        let id = self.free_id();
        let len = self.outgoing.octets.len();
        request.encode(id, tx_id, self.payload_max, &mut self.outgoing.octets)?;
        self.outgoing.messages.push_back((id, self.outgoing.octets.len() - len));
        let undo = match request {
            Request::TransactionStart => Undo::Abort,
            Request::Watch { path, token, .. } => {
                Undo::Unwatch { path: path.clone(), token: token.clone() }
            }
            _ => Undo::Nothing,
        };
        let asked = request.message_type();
        self.submitted += 1;
        let position = self.submitted;
        self.pending.insert(id, Pending { asked, position, wanted: true, undo });
        Ok(id)
    }

    /// Says that nobody waits for the reply any more.
    ///
    /// A request of which nothing was transmitted is taken back. Otherwise its reply is discarded when it comes, and a
    /// transaction or watch that it opened is closed again.
    pub fn abandon(&mut self, id: RequestId) -> Abandoned {
        if self.outgoing.withdraw(id) {
            self.pending.remove(&id);
            return Abandoned::Withdrawn;
        }
        self.discard_reply(id);
        Abandoned::Awaited
    }

    /// Says that the reply is not wanted, but the request shall be sent.
    pub fn discard_reply(&mut self, id: RequestId) {
        if let Some(pending) = self.pending.get_mut(&id) {
            pending.wanted = false;
        }
        // It may have come already.
        self.incoming
            .retain(|it| !matches!(it, Incoming::Reply { request_id, .. } if *request_id == id));
    }

    /// What is to be sent next: with [`Framing::MessagePerSend`] one message, else everything there is.
    pub fn poll_transmit(&self) -> Option<&[u8]> {
        self.outgoing.next(self.framing)
    }

    /// Says that so many of the octets that [`Connection::poll_transmit`] gave were sent.
    pub fn transmitted(&mut self, octets: usize) {
        self.outgoing.advance(octets);
    }

    /// Takes in what the server sent, in pieces of any size.
    ///
    /// # Errors
    ///
    /// If the server breaks the protocol. Replies and events before that point are still given out.
    pub fn handle_octets(&mut self, octets: &[u8]) -> Result<(), ProtocolError> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        self.decoder.push(octets);
        let result = self.take_messages();
        if let Err(error) = &result {
            self.failed = Some(error.clone());
            self.pending.clear();
            self.outgoing = Outgoing::default();
        }
        result
    }

    /// The next reply or event that has come, in the server's order.
    pub fn poll_incoming(&mut self) -> Option<Incoming> {
        self.incoming.pop_front()
    }

    /// Why the connection has failed, if it has.
    pub fn failed(&self) -> Option<&ProtocolError> {
        self.failed.as_ref()
    }

    /// How many requests wait for a reply, abandoned ones included.
    pub fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// How many replies came that nobody waited for any more.
    pub fn late_replies(&self) -> u64 {
        self.late_replies
    }

    /// Octets of a message that has begun to arrive: more than 0 when the stream ends means that it was cut.
    pub fn octets_of_partial_message(&self) -> usize {
        self.decoder.pending()
    }

    fn take_messages(&mut self) -> Result<(), ProtocolError> {
        while let Decoded::Message(message) = self.decoder.decode()? {
            if message.ty == MessageType::WATCH_EVENT {
                let event = WatchEvent::decode(&message)
                    .map_err(|source| ProtocolError::MalformedEvent { source })?;
                self.incoming.push_back(Incoming::Event(event));
            } else {
                self.take_reply(&message)?;
            }
        }
        Ok(())
    }

    fn take_reply(&mut self, message: &Message) -> Result<(), ProtocolError> {
        let id = self.answered(message).ok_or(ProtocolError::UnknownRequest {
            request_id: message.request_id,
            ty: message.ty,
        })?;
        let Some(pending) = self.pending.remove(&id) else { return Ok(()) };
        let reply = Reply::decode(pending.asked, message).map_err(|source| {
            ProtocolError::WrongReply { request_id: id, asked: pending.asked, source }
        })?;
        if pending.wanted {
            self.incoming.push_back(Incoming::Reply { request_id: id, reply });
        } else {
            self.late_replies += 1;
            self.undo(pending.undo, &reply);
        }
        Ok(())
    }

    /// Which pending request the message answers.
    fn answered(&self, message: &Message) -> Option<RequestId> {
        if self.pending.contains_key(&message.request_id) {
            return Some(message.request_id);
        }
        // Kernels before Linux 4.11 make up the reply to WATCH and UNWATCH on the xenbus device with a request id of 0,
        // which is never one of ours, and make it up before anything else can be sent.
        let made_up = self.framing == Framing::MessagePerSend
            && message.request_id == RequestId(0)
            && matches!(message.ty, MessageType::WATCH | MessageType::UNWATCH);
        let same = self.pending.iter().filter(|(_, pending)| pending.asked == message.ty);
        same.min_by_key(|(_, pending)| pending.position).map(|(id, _)| *id).filter(|_| made_up)
    }

    fn undo(&mut self, undo: Undo, reply: &Reply) {
        let (request, tx_id) = match (undo, reply) {
            (Undo::Abort, Reply::Transaction(tx_id)) => {
                (Request::TransactionEnd { commit: false }, *tx_id)
            }
            (Undo::Unwatch { path, token }, Reply::Ok) => {
                (Request::Unwatch { path, token }, TxId::NONE)
            }
            _ => return,
        };
        // Both are no longer than what opened them, so they fit.
        if let Ok(id) = self.submit(&request, tx_id) {
            self.discard_reply(id);
        }
    }

    /// The next number that no pending request has; never 0, which events carry.
    fn free_id(&mut self) -> RequestId {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            let id = RequestId(self.last_id);
            if id.0 != 0 && !self.pending.contains_key(&id) {
                return id;
            }
        }
    }
}

/// Messages on their way out.
#[derive(Debug, Default)]
struct Outgoing {
    octets: Vec<u8>,
    /// How many of `octets` were sent.
    sent: usize,
    /// Messages not sent whole, with their lengths; the first may have begun before `sent`.
    messages: VecDeque<(RequestId, usize)>,
    /// How many octets of the first message were sent.
    sent_of_first: usize,
}

impl Outgoing {
    fn next(&self, framing: Framing) -> Option<&[u8]> {
        let rest = &self.octets[self.sent..];
        let first = self.messages.front()?.1 - self.sent_of_first;
        Some(match framing {
            Framing::Stream => rest,
            Framing::MessagePerSend => &rest[..first],
        })
    }

    fn advance(&mut self, octets: usize) {
        let octets = octets.min(self.octets.len() - self.sent);
        self.sent += octets;
        self.sent_of_first += octets;
        while let Some((_, len)) =
            self.messages.front().filter(|first| first.1 <= self.sent_of_first)
        {
            self.sent_of_first -= len;
            self.messages.pop_front();
        }
        // Room that a long batch would otherwise use up; at half, each octet is moved once at most on average.
        if self.sent >= self.octets.len() / 2 {
            self.octets.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Takes a message back if none of it was sent.
    fn withdraw(&mut self, id: RequestId) -> bool {
        let Some(at) = self.messages.iter().position(|(of, _)| *of == id) else { return false };
        if at == 0 && self.sent_of_first > 0 {
            return false;
        }
        let before: usize = self.messages.iter().take(at).map(|(_, len)| len).sum();
        // Nothing stands before the first message, and `before` counts what was sent of it.
        let start = self.sent + before.saturating_sub(self.sent_of_first);
        let len = self.messages[at].1;
        self.octets.drain(start..start + len);
        self.messages.remove(at);
        true
    }
}

/// How a server broke the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// Where the next message starts can no longer be known.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// A reply to a request that was never sent, or was answered already.
    #[error("the server lies: {ty} answers request {}, which waits for no reply", request_id.0)]
    UnknownRequest {
        /// The request that the reply names.
        request_id: RequestId,
        /// The type of the reply.
        ty: MessageType,
    },
    /// A reply that does not fit what was asked.
    #[error("the server lies in its reply to {asked} (request {})", request_id.0)]
    WrongReply {
        /// The request.
        request_id: RequestId,
        /// What was asked.
        asked: MessageType,
        /// What is wrong with the reply.
        source: ReplyError,
    },
    /// An event that is none.
    #[error("malformed watch event")]
    MalformedEvent {
        /// What is wrong with it.
        source: PayloadError,
    },
}

/// Why a request was not queued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// It does not fit a message.
    #[error(transparent)]
    TooLong(#[from] PayloadTooLong),
    /// The connection has failed earlier.
    #[error(transparent)]
    Failed(ProtocolError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_come_again_skip_0_and_those_still_waited_for() {
        let mut connection = Connection::new(Manner {
            framing: Framing::Stream,
            event_order: xenstore_proto::EventOrder::WithReplies,
            request_payload_max: limits::PAYLOAD_MAX,
        });
        let mut next = || connection.submit(&Request::ResetWatches, TxId::NONE).unwrap().0;
        assert_eq!([next(), next()], [1, 2]);
        connection.last_id = u32::MAX - 1;
        let mut next = || connection.submit(&Request::ResetWatches, TxId::NONE).unwrap().0;
        assert_eq!([next(), next()], [u32::MAX, 3]);
    }
}
