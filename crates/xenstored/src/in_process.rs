//! The transport of a client in the server's process.

use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, PoisonError};
use std::time::Instant;

use xenstore_proto::limits::PAYLOAD_MAX;
use xenstore_proto::{
    Decoded, Decoder, DomId, EventOrder, Framing, Interest, Manner, Readiness, Transport,
};

use crate::embedded::{Embedded, Waker};
use crate::server::ConnectionId;

/// A connection to an [`Embedded`] server: requests are handled while they are sent.
///
/// Nothing more is taken while the client has too much left to read ([`crate::limits::OUTPUT_HIGH_WATER`]), as on a
/// socket. A header that claims too long a payload closes the connection. Dropping closes it too.
pub struct InProcess {
    embedded: Embedded,
    connection: ConnectionId,
    changed: Arc<Condvar>,
    decoder: Decoder,
    /// A message that is being received, and how much of it has been.
    receiving: (Arc<[u8]>, usize),
}

impl InProcess {
    pub(crate) fn connect(embedded: Embedded, domid: DomId) -> Self {
        let changed = Arc::new(Condvar::new());
        let connection = embedded.lock().connect(domid, Waker::InProcess(Arc::clone(&changed)));
        let decoder = Decoder::new(PAYLOAD_MAX);
        Self { embedded, connection, changed, decoder, receiving: (Arc::default(), 0) }
    }

    /// Which connection of the server this is: what interceptors are told.
    pub fn connection(&self) -> ConnectionId {
        self.connection
    }
}

impl Transport for InProcess {
    fn manner(&self) -> Manner {
        Manner {
            framing: Framing::Stream,
            event_order: EventOrder::WithReplies,
            request_payload_max: PAYLOAD_MAX,
        }
    }

    fn wait(&mut self, interest: Interest, deadline: Instant) -> io::Result<Readiness> {
        let unread = self.receiving.1 < self.receiving.0.len();
        let mut shared = self.embedded.lock();
        loop {
            let server = &shared.server;
            let closed = !server.is_open(self.connection);
            let ready = Readiness {
                receive: unread || closed || server.has_output(self.connection),
                send: interest == Interest::ReceiveOrSend
                    && (closed || server.has_room(self.connection)),
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if ready != Readiness::default() || left.is_zero() {
                return Ok(ready);
            }
            shared =
                (self.changed.wait_timeout(shared, left)).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut received = 0;
        let mut shared = self.embedded.lock();
        while received < buffer.len() {
            let (message, done) = &mut self.receiving;
            let rest = &message[*done..];
            if rest.is_empty() {
                match shared.server.poll_output(self.connection) {
                    Some(next) => self.receiving = (next, 0),
                    None if received > 0 || !shared.server.is_open(self.connection) => break,
                    None => return Err(io::ErrorKind::WouldBlock.into()),
                }
                continue;
            }
            let len = rest.len().min(buffer.len() - received);
            buffer[received..received + len].copy_from_slice(&rest[..len]);
            received += len;
            *done += len;
        }
        Ok(received)
    }

    fn send(&mut self, octets: &[u8]) -> io::Result<usize> {
        let mut sent = 0;
        let mut shared = self.embedded.lock();
        let refused = loop {
            if !shared.server.is_open(self.connection) {
                break io::ErrorKind::BrokenPipe;
            }
            match self.decoder.decode() {
                Ok(Decoded::Message(message)) => shared.server.handle(self.connection, &message),
                Ok(Decoded::Need(_)) if sent == octets.len() => break io::ErrorKind::WouldBlock,
                Ok(Decoded::Need(_)) if !shared.server.has_room(self.connection) => {
                    break io::ErrorKind::WouldBlock;
                }
                Ok(Decoded::Need(needed)) => {
                    let len = needed.min(octets.len() - sent);
                    self.decoder.push(&octets[sent..sent + len]);
                    sent += len;
                }
                Err(broken) => {
                    tracing::warn!(connection = ?self.connection, %broken, "connection closed");
                    shared.server.disconnect(self.connection);
                }
            }
        };
        shared.wake();
        if sent > 0 || octets.is_empty() { Ok(sent) } else { Err(refused.into()) }
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        self.embedded.lock().disconnect(self.connection);
    }
}

impl fmt::Debug for InProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcess").field("connection", &self.connection).finish_non_exhaustive()
    }
}
