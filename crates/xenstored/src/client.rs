//! A client that the loop serves: octets in, messages to the server, octets out.

use std::io;
use std::os::fd::BorrowedFd;

use mio::{Registry, Token};
use xenstore_proto::limits::{HEADER_LEN, PAYLOAD_MAX};
use xenstore_proto::{Decoded, Decoder, Header, Message};

use crate::embedded::Embedded;
use crate::link::Link;
use crate::live_update::LinkState;
use crate::server::ConnectionId;

/// Most octets read from one client before the next one's turn.
pub(crate) const TURN_OCTETS: usize = 16 << 10;

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

    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    /// The client is reached by another way from now on.
    pub(crate) fn set_link(&mut self, link: Link) {
        self.link = link;
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
        let mut end = self.rest;
        while end < self.written {
            let Some(header) = self.output[end..].first_chunk::<HEADER_LEN>() else { break };
            end += HEADER_LEN + usize::try_from(Header::from_octets(header).len).unwrap_or(0);
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
        if self.written < self.output.len() || embedded.lock().server.has_output(self.connection) {
            return usize::MAX;
        }
        if self.held.is_none() && !self.undecoded {
            // Linux sends an event only for what it puts behind octets that are all taken: the rest of a message comes with one
            // only if its beginning is not kept back.
            return 0;
        }
        let held = self.held.as_ref().map_or(0, |held| HEADER_LEN + held.payload.len());
        held + self.decoder.undecoded().len()
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
                Ok(Decoded::Message(message)) => shared.server.handle(self.connection, &message),
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
                self.written = 0;
                self.rest = 0;
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
            match self.link.write(rest) {
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

    fn can_receive(&self, embedded: &Embedded) -> bool {
        (self.readable || self.undecoded)
            && self.held.is_none()
            && embedded.lock().server.has_room(self.connection)
    }
}
