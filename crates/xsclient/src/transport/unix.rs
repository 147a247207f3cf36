//! A daemon's Unix socket.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
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

    /// The stream, which is non-blocking.
    #[cfg(feature = "tokio")]
    pub(crate) fn into_stream(self) -> UnixStream {
        self.stream
    }
}

/// How a daemon's socket carries messages.
pub(crate) const MANNER: Manner = Manner {
    framing: Framing::Stream,
    event_order: EventOrder::WithReplies,
    request_payload_max: PAYLOAD_MAX,
};

/// Sends without the signal that a server which is gone would cause in a program not written in Rust: here it is an error.
pub(crate) fn send_quietly(stream: impl AsFd, octets: &[u8]) -> io::Result<usize> {
    Ok(send(stream, octets, SendFlags::NOSIGNAL)?)
}

impl Transport for UnixSocket {
    fn manner(&self) -> Manner {
        MANNER
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
        send_quietly(&self.stream, octets)
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
