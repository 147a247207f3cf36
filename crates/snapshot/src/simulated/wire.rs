//! Lines over a Unix socket, the first with a descriptor.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::protocol::LINE_MAX;

/// Writes a value as one line; the descriptor goes with its first octet.
pub(super) fn send(
    stream: &UnixStream,
    value: &impl Serialize,
    fd: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    let mut rest = &line[..];
    let mut fds = fd.map(|fd| [fd]);
    while !rest.is_empty() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if let Some(fds) = &fds {
            control.push(SendAncillaryMessage::ScmRights(fds));
        }
        match sendmsg(stream, &[IoSlice::new(rest)], &mut control, SendFlags::NOSIGNAL) {
            Ok(sent) => {
                rest = &rest[sent..];
                fds = None;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// What comes in on one connection.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    octets: VecDeque<u8>,
    /// Descriptors that came with it, in order.
    pub(super) fds: VecDeque<OwnedFd>,
}

impl Incoming {
    /// The next line; `None` at the end.
    pub(super) fn line(&mut self, stream: &UnixStream) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.octets.iter().position(|octet| *octet == b'\n') {
                let mut line: Vec<u8> = self.octets.drain(..=end).collect();
                line.pop();
                return Ok(Some(line));
            }
            if self.octets.len() > LINE_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is too long"));
            }
            if self.receive(stream)? == 0 {
                return Ok(None);
            }
        }
    }

    /// The next line as a value; `None` at the end.
    pub(super) fn value<T: DeserializeOwned>(
        &mut self,
        stream: &UnixStream,
    ) -> io::Result<Option<T>> {
        match self.line(stream)? {
            Some(line) => Ok(Some(serde_json::from_slice(&line)?)),
            None => Ok(None),
        }
    }

    fn receive(&mut self, stream: &UnixStream) -> io::Result<usize> {
        let mut octets = [0; 8192];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut buffers = [IoSliceMut::new(&mut octets)];
            match recvmsg(stream, &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other?.bytes,
            }
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        self.octets.extend(&octets[..received]);
        Ok(received)
    }
}

/// What a wait ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// The first descriptor is ready, or broken, which using it will tell.
    Ready,
    /// The other one is readable.
    Cancelled,
    /// Neither, and it is time.
    DeadlinePassed,
}

/// Waits for a descriptor, for another one to become readable, or for a moment.
pub(crate) fn wait(
    fd: BorrowedFd<'_>,
    flags: PollFlags,
    cancel: Option<BorrowedFd<'_>>,
    deadline: Option<Instant>,
) -> io::Result<Woken> {
    let idle = fd.as_fd();
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        // Far more than anybody waits for is out of range of the system call.
        let for_ever = Timespec { tv_sec: 1 << 31, tv_nsec: 0 };
        let timeout = left.map(|left| Timespec::try_from(left).unwrap_or(for_ever));
        // Without a second descriptor the first stands twice, asked for nothing the second time.
        let second = cancel.map_or(PollFlags::empty(), |_| PollFlags::IN);
        let mut fds = [
            PollFd::from_borrowed_fd(fd, flags),
            PollFd::from_borrowed_fd(cancel.unwrap_or(idle), second),
        ];
        match poll(&mut fds, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(_) if cancel.is_some() && !fds[1].revents().is_empty() => {
                return Ok(Woken::Cancelled);
            }
            Ok(_) if !fds[0].revents().is_empty() => return Ok(Woken::Ready),
            Ok(_) if left.is_some_and(|left| left.is_zero()) => return Ok(Woken::DeadlinePassed),
            Ok(_) => {}
        }
    }
}
