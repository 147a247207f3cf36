//! A daemon's Unix socket.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, send, socket_with,
};
use xenstore_proto::{
    EventOrder, Framing, Interest, Manner, Readiness, Transport, limits::PAYLOAD_MAX,
};

use super::poll::wait;

/// A connection to a daemon's Unix socket: a stream, events in order with replies.
#[derive(Debug)]
pub struct UnixSocket {
    stream: UnixStream,
}

impl UnixSocket {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::TimedOut`], if the server's queue of connections stays full until the deadline; else what the
    /// system says.
    pub fn connect(path: &Path, deadline: Instant) -> io::Result<Self> {
        let address = SocketAddrUnix::new(path)?;
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        connect_before(&socket, &address, deadline)?;
        Self::over(UnixStream::from(socket))
    }

    /// Uses a stream that is connected already, such as one that was inherited.
    ///
    /// # Errors
    ///
    /// If the stream cannot be made non-blocking.
    pub fn over(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream })
    }
}

impl AsFd for UnixSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Transport for UnixSocket {
    fn manner(&self) -> Manner {
        Manner {
            framing: Framing::Stream,
            event_order: EventOrder::WithReplies,
            request_payload_max: PAYLOAD_MAX,
        }
    }

    fn wait(&mut self, interest: Interest, deadline: Instant) -> io::Result<Readiness> {
        let flags = match interest {
            Interest::Receive => PollFlags::IN,
            Interest::ReceiveOrSend => PollFlags::IN | PollFlags::OUT,
        };
        let [found] = wait([(self.stream.as_fd(), flags)], deadline)?;
        Ok(Readiness { receive: found.input, send: found.room })
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }

    fn send(&mut self, octets: &[u8]) -> io::Result<usize> {
        // A server that is gone is an error; in a program not written in Rust it would be a signal that kills.
        Ok(send(&self.stream, octets, SendFlags::NOSIGNAL)?)
    }
}

/// Connects within the time to the deadline: a Unix socket's connect waits for room in the server's queue, for as long as
/// the socket's send timeout.
fn connect_before(socket: &OwnedFd, address: &SocketAddrUnix, deadline: Instant) -> io::Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // No time at all would mean no limit.
        let left = left.max(Duration::from_micros(1));
        set_socket_timeout(socket, Timeout::Send, Some(left))?;
        match connect(socket, address) {
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
            connected => return Ok(connected?),
        }
    }
}
