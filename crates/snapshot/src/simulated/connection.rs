//! One call to a simulated host.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};

use super::protocol::{CANCEL, Reply, Request};
use super::wire::{self, Incoming, Woken, wait};
use crate::control::{SETTLE_LIMIT, Until};

/// What a host has answered.
pub(super) struct Answer {
    pub(super) reply: Reply,
    /// Why the call was to end early, if it was; it may have been done all the same.
    pub(super) stopped: Option<Stopped>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopped {
    Cancelled,
    DeadlinePassed,
}

/// Why a host has not answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// There is no host on that socket.
    #[error("no simulated host can be reached")]
    Unreachable {
        /// Why.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the connection to the simulated host failed")]
    Connection {
        /// How.
        source: io::Error,
    },
    /// The host closed the connection without an answer, or died.
    #[error("the simulated host ended the connection without an answer")]
    Lost,
    /// It said something else than what was asked.
    #[error("the simulated host answered something else")]
    Reply,
    /// The token was cancelled, and the host did not even answer to that.
    #[error("the call was cancelled")]
    Cancelled,
    /// The deadline passed, and the host did not even answer to the cancel that followed.
    #[error("the deadline has passed")]
    DeadlinePassed,
}

/// How long each step may take that comes after the deadline: no call has more than eight of them.
pub(super) const STEP_LIMIT: Duration = SETTLE_LIMIT.checked_div(8).expect("8 is not 0");

/// Asks, and waits for the answer until the deadline; then asks for an end, and waits for that.
pub(super) fn call(
    socket: &Path,
    request: &Request,
    stream: Option<BorrowedFd<'_>>,
    until: Until<'_>,
) -> Result<Answer, CallError> {
    let host = connect(socket).map_err(|source| CallError::Unreachable { source })?;
    // A host that does not read, or does not end its line, holds nobody up for longer than this.
    let left = until.deadline.saturating_duration_since(Instant::now());
    host.set_write_timeout(Some(left.max(STEP_LIMIT)))
        .and_then(|()| host.set_read_timeout(Some(STEP_LIMIT)))
        .map_err(|source| CallError::Unreachable { source })?;
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::WouldBlock => CallError::DeadlinePassed,
        _ => CallError::Connection { source },
    };
    wire::send(&host, request, stream).map_err(failed)?;
    let cancel = until.cancel.map(AsFd::as_fd);
    let woken = wait(host.as_fd(), PollFlags::IN, cancel, Some(until.deadline)).map_err(failed)?;
    let stopped = match woken {
        Woken::Ready => None,
        Woken::Cancelled => Some(Stopped::Cancelled),
        Woken::DeadlinePassed => Some(Stopped::DeadlinePassed),
    };
    if let Some(stopped) = stopped {
        // If the host has answered meanwhile, the answer is there to be read.
        let _ = wire::send(&host, &CANCEL, None);
        let settled = Instant::now() + STEP_LIMIT;
        if wait(host.as_fd(), PollFlags::IN, None, Some(settled)).map_err(failed)? != Woken::Ready {
            return Err(match stopped {
                Stopped::Cancelled => CallError::Cancelled,
                Stopped::DeadlinePassed => CallError::DeadlinePassed,
            });
        }
    }
    match Incoming::default().value(&host) {
        Ok(Some(reply)) => Ok(Answer { reply, stopped }),
        Ok(None) => Err(CallError::Lost),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(CallError::Lost),
        Err(source) => Err(failed(source)),
    }
}

/// Does not wait for a host that accepts nobody any more: that is EAGAIN.
fn connect(socket: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let host = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&host, &SocketAddrUnix::new(socket)?)?;
    let host = UnixStream::from(host);
    host.set_nonblocking(false)?;
    Ok(host)
}

/// A connection that the host will end with. Made before there is a host: it is told when it accepts.
pub(super) fn tie(socket: &Path) -> io::Result<UnixStream> {
    let host = connect(socket)?;
    wire::send(&host, &Request::Tie, None::<BorrowedFd<'_>>)?;
    Ok(host)
}

/// Waits until the host has accepted the tie.
pub(super) fn tied(host: &UnixStream, deadline: Instant) -> Result<(), CallError> {
    let failed = |source| CallError::Connection { source };
    match wait(host.as_fd(), PollFlags::IN, None, Some(deadline)).map_err(failed)? {
        Woken::Ready => match Incoming::default().value::<Reply>(host) {
            Ok(Some(_)) => Ok(()),
            Ok(None) | Err(_) => Err(CallError::Lost),
        },
        _ => Err(CallError::DeadlinePassed),
    }
}
