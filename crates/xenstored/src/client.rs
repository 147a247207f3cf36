//! A client that the loop serves: octets in, messages to the server, octets out.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;

use mio::{Registry, Token};
use xenstore_proto::limits::{HEADER_LEN, PAYLOAD_MAX};
use xenstore_proto::{Decoded, Decoder, Header, Message, MessageType};

use crate::embedded::Embedded;
use crate::link::Link;
use crate::live_update::LinkState;
use crate::server::ConnectionId;
use crate::xen::Left;

/// Most octets read from one client before the next one's turn.
pub(crate) const TURN_OCTETS: usize = 16 << 10;

/// Octets that are staged at once, if there are so many: with the last message, less than the link keeps.
const STAGE_OCTETS: usize = 1 << 10;

pub(crate) struct Client {
    link: Link,
    pub(crate) connection: ConnectionId,
    decoder: Decoder,
    /// A request that has to wait for a live update.
    held: Option<Message>,
    /// Whether the decoder may hold a whole message.
    undecoded: bool,
    /// Whether the client will send no more. It may still be reading: it is served until it has got all replies.
    pub(crate) ended: bool,
    output: Vec<u8>,
    written: usize,
    /// How much of the output the link keeps, if it does: only that is written.
    staged: usize,
    /// The lengths of the requests whose replies are not staged yet, in order; if the link keeps what is in flight.
    owed: VecDeque<usize>,
    /// How much at the start of the output belongs to a message that a predecessor began to send.
    rest: usize,
    /// Whether the socket may have octets for us; known to have none once a read has said so, or has given less than
    /// there was room for: more that comes is told.
    pub(crate) readable: bool,
    /// Whether the end of what the client sends has been told, and is to be read as well.
    pub(crate) closing: bool,
    /// Whether the socket may have room; known to have none once a write has said so.
    pub(crate) writable: bool,
    /// Whether it is told when there is room. Not otherwise: each reply that a client reads makes some.
    awaits_room: bool,
}

/// What is to be done after a client's turn.
pub(crate) enum Turn {
    /// Nothing more to do until the socket or the server says so.
    Wait,
    /// There is more, after the others' turns.
    More,
    Gone,
    /// The client wants to be served as if it had come just now.
    Renewed,
}

impl Client {
    pub(crate) fn new(link: Link, connection: ConnectionId) -> Self {
        Self {
            link,
            connection,
            decoder: Decoder::new(PAYLOAD_MAX),
            held: None,
            undecoded: false,
            ended: false,
            output: Vec::new(),
            written: 0,
            staged: 0,
            owed: VecDeque::new(),
            rest: 0,
            readable: true,
            closing: false,
            writable: true,
            awaits_room: false,
        }
    }

    /// A client that a predecessor had.
    pub(crate) fn restored(link: Link, state: LinkState) -> Self {
        let LinkState { connection, input, output, output_rest, .. } = state;
        let mut client = Self::new(link, connection);
        client.undecoded = !input.is_empty();
        client.decoder.push(&input);
        (client.output, client.rest) = (output, output_rest);
        client
    }

    /// A client that a dead server had: what that one had answered is sent, and the rest is answered.
    pub(crate) fn resumed(link: Link, connection: ConnectionId, left: Left) -> Self {
        let Left { input, output, written, rest, .. } = left;
        let mut client = Self::new(link, connection);
        client.undecoded = !input.is_empty();
        client.decoder.push(&input);
        (client.staged, client.written, client.rest) = (output.len(), written, rest);
        client.output = output;
        client
    }

    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    /// The client is reached by this link from now on, as it was by a predecessor's.
    pub(crate) fn go_on(&mut self, link: Link) {
        self.link = link;
        if !self.link.is_kept() {
            return;
        }
        self.link.inherit(self.decoder.undecoded());
        // Whatever they answer is no longer here.
        let replies = Messages { octets: &self.output, at: self.rest }.filter(|next| next.is_reply);
        self.owed = replies.map(|_| 0).collect();
        if let Err(error) = self.stage() {
            tracing::debug!(connection = ?self.connection, %error, "nothing staged");
        }
    }

    /// Has the loop told when something comes.
    pub(crate) fn watch(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.link.register(registry, token)
    }

    /// What has to stay open for a successor.
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.link.descriptor()
    }

    /// What a successor has to know. `None` if there is nobody any more.
    pub(crate) fn state(&self) -> Option<LinkState> {
        let mut input = Vec::new();
        if let Some(held) = &self.held {
            held.encode(PAYLOAD_MAX, &mut input).ok()?;
        }
        input.extend_from_slice(self.decoder.undecoded());
        let output = self.output[self.written..].to_vec();
        let output_rest = self.rest_of_message();
        let place = self.link.place();
        Some(LinkState { connection: self.connection, place, input, output, output_rest })
    }

    /// How many octets of the message are left of which some have been sent.
    fn rest_of_message(&self) -> usize {
        let mut messages = Messages { octets: &self.output, at: self.rest };
        let mut end = self.rest;
        while end < self.written
            && let Some(message) = messages.next()
        {
            end = message.end;
        }
        // What was begun by a predecessor and not gone on with yet is a rest as well.
        end.saturating_sub(self.written)
    }

    /// Does what can be done without waiting, up to the client's share. `share` is room for what is read.
    pub(crate) fn turn(&mut self, embedded: &Embedded, share: &mut [u8]) -> Turn {
        self.receive(embedded, share)
            .and_then(|()| self.handle(embedded))
            .and_then(|()| self.send(embedded))
            .and_then(|turn| self.settle(embedded, turn))
            .unwrap_or_else(|error| {
                tracing::debug!(connection = ?self.connection, %error, "client gone");
                match (error.kind(), &self.link) {
                    (io::ErrorKind::ConnectionReset, Link::Ring(_)) => return Turn::Renewed,
                    (io::ErrorKind::InvalidData, _) => self.link.refuse(),
                    _ => {}
                }
                Turn::Gone
            })
    }

    /// Has the client go on with what is answered, and sees what it has sent meanwhile.
    fn settle(&mut self, embedded: &Embedded, turn: Turn) -> io::Result<Turn> {
        self.link.settle(self.unanswered(embedded))?;
        self.readable |= self.link.has_more();
        Ok(match turn {
            Turn::Wait if self.can_receive(embedded) => Turn::More,
            turn => turn,
        })
    }

    /// Gives the client's octets up to be handed over with the state.
    pub(crate) fn settle_all(&mut self) {
        if let Err(error) = self.link.settle(0) {
            tracing::debug!(connection = ?self.connection, %error, "client gone");
        }
    }

    /// How many of the octets read last belong to requests whose answers the client cannot have yet.
    fn unanswered(&self, embedded: &Embedded) -> usize {
        if matches!(self.link, Link::Socket(_)) {
            return 0;
        }
        if self.link.is_kept() {
            // What is kept need not wait in the ring, but leaves what is not handled there as long as it can.
            let all_handled = self.held.is_none() && !self.undecoded;
            return if all_handled { 0 } else { self.unstaged() };
        }
        if self.written < self.output.len() || embedded.lock().server.has_output(self.connection) {
            return usize::MAX;
        }
        if self.held.is_none() && !self.undecoded {
            // Linux sends an event only for what it puts behind octets that are all taken: the rest of a message comes with one
            // only if its beginning is not kept back.
            return 0;
        }
        self.unhandled()
    }

    /// How many of the octets read last belong to requests that are not handled, or not there as a whole.
    fn unhandled(&self) -> usize {
        let held = self.held.as_ref().map_or(0, wire_len);
        held + self.decoder.undecoded().len()
    }

    /// How many of the octets read last belong to requests whose replies are not staged.
    fn unstaged(&self) -> usize {
        self.owed.iter().sum::<usize>() + self.unhandled()
    }

    /// Has the socket say when there is room, if that is waited for.
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        if self.awaits_room != self.writable {
            return Ok(());
        }
        self.awaits_room = !self.writable;
        self.link.tell_of_room(registry, token, self.awaits_room)
    }

    /// Reads a share, unless something is left from the last one.
    fn receive(&mut self, embedded: &Embedded, share: &mut [u8]) -> io::Result<()> {
        let held = self.held.is_some();
        if held
            || self.undecoded
            || !self.readable
            || !embedded.lock().server.has_room(self.connection)
        {
            return Ok(());
        }
        match self.link.read(share) {
            Ok(0) => {
                self.ended = true;
                self.readable = false;
                Ok(())
            }
            Ok(len) => {
                self.decoder.push(&share[..len]);
                self.undecoded = true;
                self.readable = len == share.len() || self.closing;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn handle(&mut self, embedded: &Embedded) -> io::Result<()> {
        let kept = self.undecoded && self.link.is_kept();
        while self.undecoded {
            // One message a lock: others in this process get their turns.
            let mut shared = embedded.lock();
            if !shared.server.has_room(self.connection) {
                break;
            }
            let next = match self.held.take() {
                Some(message) => Ok(Decoded::Message(message)),
                None => self.decoder.decode(),
            };
            match next {
                Ok(Decoded::Message(message)) if shared.server.is_held(message.ty) => {
                    self.held = Some(message);
                    break;
                }
                Ok(Decoded::Message(message)) => {
                    if kept {
                        self.owed.push_back(wire_len(&message));
                    }
                    shared.server.handle(self.connection, &message);
                }
                Ok(Decoded::Need(_)) => self.undecoded = false,
                Err(broken) => return Err(io::Error::new(io::ErrorKind::InvalidData, broken)),
            }
            // What this client has got is sent at the end of its turn.
            shared.wake_others(self.connection);
        }
        Ok(())
    }

    fn send(&mut self, embedded: &Embedded) -> io::Result<Turn> {
        while self.writable {
            let rest = &self.output[self.written..];
            if rest.is_empty() {
                self.output.clear();
                (self.written, self.staged, self.rest) = (0, 0, 0);
                let mut shared = embedded.lock();
                let portion = self.link.portion();
                shared.server.take_output(self.connection, &mut self.output, portion);
                if self.output.is_empty() {
                    // Nothing is read before all there was is handled, so this is all.
                    if (self.ended && !self.undecoded) || !shared.server.is_open(self.connection) {
                        return Ok(Turn::Gone);
                    }
                    break;
                }
                continue;
            }
            self.stage()?;
            match self.link.write(&self.output[self.written..self.staged]) {
                Ok(len) => self.written += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if !embedded.lock().server.is_open(self.connection) {
            return Ok(Turn::Gone);
        }
        Ok(if self.can_receive(embedded) { Turn::More } else { Turn::Wait })
    }

    /// Has the link keep some whole messages before the first of their octets is written.
    fn stage(&mut self) -> io::Result<()> {
        if self.written < self.staged || self.staged == self.output.len() {
            return Ok(());
        }
        if !self.link.is_kept() {
            self.staged = self.output.len();
            return Ok(());
        }
        let rest = self.rest.saturating_sub(self.staged);
        let mut end = self.output.len().min(self.staged + rest);
        let mut messages = Messages { octets: &self.output, at: end };
        while end - self.staged < STAGE_OCTETS
            && let Some(message) = messages.next()
        {
            end = message.end;
            if message.is_reply {
                self.owed.pop_front();
            }
        }
        let unanswered = self.unstaged();
        self.link.stage(&self.output[self.staged..end], rest, unanswered)?;
        self.staged = end;
        Ok(())
    }

    fn can_receive(&self, embedded: &Embedded) -> bool {
        (self.readable || self.undecoded)
            && self.held.is_none()
            && embedded.lock().server.has_room(self.connection)
    }
}

/// The octets of a message.
fn wire_len(message: &Message) -> usize {
    HEADER_LEN + message.payload.len()
}

/// The messages in octets of which one is the first of a header.
struct Messages<'o> {
    octets: &'o [u8],
    at: usize,
}

struct Found {
    end: usize,
    is_reply: bool,
}

impl Iterator for Messages<'_> {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        let rest = self.octets.get(self.at..).filter(|rest| !rest.is_empty())?;
        let Some(header) = rest.first_chunk::<HEADER_LEN>() else {
            // Our own messages are whole: this is for ends that are met all the same.
            self.at = self.octets.len();
            return Some(Found { end: self.at, is_reply: false });
        };
        let header = Header::from_octets(header);
        let len = HEADER_LEN.saturating_add(usize::try_from(header.len).unwrap_or(usize::MAX));
        self.at = self.at.saturating_add(len).min(self.octets.len());
        Some(Found { end: self.at, is_reply: header.ty != MessageType::WATCH_EVENT })
    }
}
