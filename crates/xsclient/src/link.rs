//! Octets between a session and its transport, without waiting.

use std::io;

use xenstore_proto::Transport;

use crate::error::ConnectionLost;
use crate::session::Session;

/// Octets asked of the transport at once, at first. What a short-lived program reads fits, and memory that was never cleared
/// is never paged in.
pub(crate) const RECEIVE_BUFFER: usize = 8 * 1024;

/// And at most, for a server that fills less: sixteen of the longest messages, so that a burst takes few calls.
const RECEIVE_BUFFER_MAX: usize = 64 * 1024;

/// How often a connection that can no longer send is received from before it is given up: more than any socket buffer
/// holds, and an end to a server that goes on sending.
const DRAIN_ROUNDS: usize = 64;

/// What takes and gives octets without waiting, as a [`Transport`] does; [`io::ErrorKind::WouldBlock`] if it cannot now.
pub(crate) trait Octets {
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    fn send(&mut self, octets: &[u8]) -> io::Result<usize>;
}

impl Octets for Box<dyn Transport> {
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (**self).receive(buffer)
    }

    fn send(&mut self, octets: &[u8]) -> io::Result<usize> {
        (**self).send(octets)
    }
}

impl Session {
    /// Sends what the transport takes without waiting.
    pub(crate) fn flush(&mut self, carrier: &mut dyn Octets) -> Result<(), ConnectionLost> {
        self.check()?;
        let flushed = self.try_flush(carrier);
        if let Err(lost) = &flushed {
            self.lose(lost.clone());
        }
        flushed
    }

    /// Receives once, without waiting, and hands out what has come. Says whether there was anything.
    ///
    /// Replies and events that came before the connection was lost are handed out even so.
    pub(crate) fn receive(&mut self, carrier: &mut dyn Octets) -> Result<bool, ConnectionLost> {
        self.check()?;
        let received = self.try_receive(carrier);
        self.take_incoming();
        if let Err(lost) = &received {
            self.lose(lost.clone());
        }
        received
    }

    fn try_flush(&mut self, carrier: &mut dyn Octets) -> Result<(), ConnectionLost> {
        while let Some(octets) = self.connection.poll_transmit() {
            match carrier.send(octets) {
                Ok(0) => break,
                Ok(sent) => {
                    self.connection.transmitted(sent);
                    self.statistics.octets_sent += sent as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.drain_after(error, carrier)),
            }
        }
        Ok(())
    }

    /// Receives what is still there after a send failed: replies may have come before the server went.
    fn drain_after(&mut self, error: io::Error, carrier: &mut dyn Octets) -> ConnectionLost {
        let peer_gone =
            matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset);
        if !peer_gone {
            return error.into();
        }
        let mut lost = ConnectionLost::Closed;
        for _ in 0..DRAIN_ROUNDS {
            match self.try_receive(carrier) {
                Ok(false) => break,
                Ok(true) => {}
                Err(other) => {
                    lost = other;
                    break;
                }
            }
        }
        self.take_incoming();
        lost
    }

    fn try_receive(&mut self, carrier: &mut dyn Octets) -> Result<bool, ConnectionLost> {
        loop {
            return match carrier.receive(&mut self.buffer) {
                Ok(0) => Err(self.closed()),
                Ok(received) => {
                    self.statistics.octets_received += received as u64;
                    self.connection.handle_octets(&self.buffer[..received])?;
                    if received == self.buffer.len() {
                        self.buffer.resize(RECEIVE_BUFFER_MAX.min(2 * received), 0);
                    }
                    Ok(true)
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => continue,
                    io::ErrorKind::WouldBlock => Ok(false),
                    io::ErrorKind::ConnectionReset => Err(self.closed()),
                    _ => Err(error.into()),
                },
            };
        }
    }

    fn closed(&self) -> ConnectionLost {
        match self.connection.octets_of_partial_message() {
            0 => ConnectionLost::Closed,
            octets => ConnectionLost::ClosedInside { octets },
        }
    }
}
