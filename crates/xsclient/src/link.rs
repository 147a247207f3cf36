//! A connection and the transport that carries its octets.

use std::io;
use std::time::Instant;

use xenstore_proto::{Interest, Transport};

use crate::connection::Connection;
use crate::error::ConnectionLost;
use crate::statistics::Statistics;

/// Octets asked of the transport at once, at first. What a short-lived program reads fits, and memory that was never cleared
/// is never paged in.
const RECEIVE_BUFFER: usize = 8 * 1024;

/// And at most, for a server that fills less: sixteen of the longest messages, so that a burst takes few calls.
const RECEIVE_BUFFER_MAX: usize = 64 * 1024;

/// How often a connection that can no longer send is received from before it is given up: more than any socket buffer
/// holds, and an end to a server that goes on sending.
const DRAIN_ROUNDS: usize = 64;

/// Moves octets between a [`Connection`] and its transport.
pub(crate) struct Link {
    pub(crate) connection: Connection,
    pub(crate) transport: Box<dyn Transport>,
    pub(crate) statistics: Statistics,
    buffer: Vec<u8>,
    lost: Option<ConnectionLost>,
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Something was sent or received, or may be now.
    Moved,
    /// The deadline passed.
    DeadlinePassed,
}

impl Link {
    pub(crate) fn new(transport: Box<dyn Transport>) -> Self {
        let connection = Connection::new(transport.manner());
        let buffer = vec![0; RECEIVE_BUFFER];
        Self { connection, transport, statistics: Statistics::default(), buffer, lost: None }
    }

    /// Why the connection is gone, if it is.
    pub(crate) fn check(&self) -> Result<(), ConnectionLost> {
        self.lost.clone().map_or(Ok(()), Err)
    }

    /// Sends what can be sent, then waits until something can be received or sent, and receives it.
    ///
    /// Replies and events that came before the connection was lost are in the connection even so.
    pub(crate) fn step(&mut self, deadline: Instant) -> Result<Step, ConnectionLost> {
        self.check()?;
        let step = self.try_step(deadline);
        if let Err(lost) = &step {
            tracing::debug!(%lost, "connection to the Xenstore server lost");
            self.lost = Some(lost.clone());
        }
        step
    }

    /// Sends what the transport takes without waiting.
    pub(crate) fn flush(&mut self) -> Result<(), ConnectionLost> {
        self.check()?;
        let flushed = self.try_flush();
        if let Err(lost) = &flushed {
            self.lost = Some(lost.clone());
        }
        flushed
    }

    fn try_step(&mut self, deadline: Instant) -> Result<Step, ConnectionLost> {
        self.try_flush()?;
        let more_to_send = self.connection.poll_transmit().is_some();
        let interest = if more_to_send { Interest::ReceiveOrSend } else { Interest::Receive };
        let ready = self.transport.wait(interest, deadline)?;
        if ready.receive {
            self.receive()?;
        }
        if ready.receive || ready.send {
            return Ok(Step::Moved);
        }
        // A wait may end early without having found anything.
        Ok(if Instant::now() >= deadline { Step::DeadlinePassed } else { Step::Moved })
    }

    fn try_flush(&mut self) -> Result<(), ConnectionLost> {
        while let Some(octets) = self.connection.poll_transmit() {
            match self.transport.send(octets) {
                Ok(0) => break,
                Ok(sent) => {
                    self.connection.transmitted(sent);
                    self.statistics.octets_sent += sent as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.drain_after(error)),
            }
        }
        Ok(())
    }

    /// Receives what is still there after a send failed: replies may have come before the server went.
    fn drain_after(&mut self, error: io::Error) -> ConnectionLost {
        let peer_gone =
            matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset);
        if !peer_gone {
            return error.into();
        }
        for _ in 0..DRAIN_ROUNDS {
            match self.receive() {
                Ok(0) => break,
                Ok(_) => {}
                Err(lost) => return lost,
            }
        }
        ConnectionLost::Closed
    }

    /// Receives once, without waiting; 0 if there was nothing.
    fn receive(&mut self) -> Result<usize, ConnectionLost> {
        match self.transport.receive(&mut self.buffer) {
            Ok(0) => Err(self.closed()),
            Ok(received) => {
                self.statistics.octets_received += received as u64;
                self.connection.handle_octets(&self.buffer[..received])?;
                if received == self.buffer.len() {
                    self.buffer.resize(RECEIVE_BUFFER_MAX.min(2 * received), 0);
                }
                Ok(received)
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(0),
                io::ErrorKind::ConnectionReset => Err(self.closed()),
                _ => Err(error.into()),
            },
        }
    }

    fn closed(&self) -> ConnectionLost {
        match self.connection.octets_of_partial_message() {
            0 => ConnectionLost::Closed,
            octets => ConnectionLost::ClosedInside { octets },
        }
    }
}
