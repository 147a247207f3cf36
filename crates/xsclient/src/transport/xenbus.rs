//! The Linux xenbus device.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Instant;

use xenstore_proto::limits::HEADER_LEN;
use xenstore_proto::{
    Errno, EventOrder, Framing, Header, Interest, Manner, Readiness, Reply, Transport,
};

/// Most octets of payload: the kernel collects header and payload in one buffer of 4096.
const DEVICE_PAYLOAD_MAX: usize = 4096 - HEADER_LEN;

/// A connection through the kernel (`/dev/xen/xenbus`), in guests and in a dom0 whose daemon runs elsewhere.
///
/// The kernel takes one whole message in each write and keeps watches itself: their depth does not reach the server, events
/// overtake replies, and a WATCH or UNWATCH that fails is a failed write, which becomes an error reply here. A write of
/// these two waits inside the kernel until the server has answered.
#[derive(Debug)]
pub struct XenbusDevice {
    file: File,
    incoming: MessageBoundary,
    /// Error replies made here, to be received between two messages of the kernel's.
    made_here: VecDeque<u8>,
}

impl XenbusDevice {
    /// Opens the device.
    ///
    /// # Errors
    ///
    /// What the system says; ENOENT if the kernel has no connection to a server.
    pub fn open(path: &Path) -> io::Result<Self> {
        // By the numbers: the standard library has no name for O_NONBLOCK.
        let nonblock = rustix::fs::OFlags::NONBLOCK.bits();
        let flags = i32::try_from(nonblock).map_err(|_| io::ErrorKind::Unsupported)?;
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
        Ok(Self { file, incoming: MessageBoundary::default(), made_here: VecDeque::new() })
    }

    /// Turns the error of a write into the error reply that a server would have sent.
    fn refuse(&mut self, message: &[u8], errno: Errno) -> io::Result<()> {
        let header = message.first_chunk::<HEADER_LEN>().ok_or(io::ErrorKind::InvalidInput)?;
        let Header { ty, request_id, tx_id, .. } = Header::from_octets(header);
        let mut reply = Vec::new();
        Reply::Error(errno)
            .encode(ty, request_id, tx_id, DEVICE_PAYLOAD_MAX, &mut reply)
            .map_err(io::Error::other)?;
        self.made_here.extend(reply);
        Ok(())
    }
}

impl Transport for XenbusDevice {
    fn manner(&self) -> Manner {
        Manner {
            framing: Framing::MessagePerSend,
            event_order: EventOrder::Separate,
            request_payload_max: DEVICE_PAYLOAD_MAX,
        }
    }

    fn wait(&mut self, interest: Interest, deadline: Instant) -> io::Result<Readiness> {
        // The device never says that it can be written to: it always can.
        let send = interest == Interest::ReceiveOrSend;
        let made_here = !self.made_here.is_empty() && self.incoming.is_between_messages();
        let deadline = if send || made_here { Instant::now() } else { deadline };
        let found = super::poll::wait(self.file.as_fd(), Interest::Receive, deadline)?;
        Ok(Readiness { receive: found.receive || made_here, send })
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.incoming.is_between_messages() && !self.made_here.is_empty() {
            let len = buffer.len().min(self.made_here.len());
            for (to, from) in buffer.iter_mut().zip(self.made_here.drain(..len)) {
                *to = from;
            }
            self.incoming.pass(&buffer[..len]);
            return Ok(len);
        }
        let len = self.file.read(buffer)?;
        self.incoming.pass(&buffer[..len]);
        Ok(len)
    }

    fn send(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self.file.write(octets) {
            Err(error) => match refusal(&error) {
                Some(errno) => self.refuse(octets, errno).map(|()| octets.len()),
                None => Err(error),
            },
            sent => sent,
        }
    }
}

/// What a server would have answered; `None` if the error is of the device and not of the message.
fn refusal(error: &io::Error) -> Option<Errno> {
    use rustix::io::Errno as Os;
    let os = Os::from_io_error(error)?;
    let table = [
        (Os::INVAL, Errno::EINVAL),
        (Os::ACCESS, Errno::EACCES),
        (Os::EXIST, Errno::EEXIST),
        (Os::NOENT, Errno::ENOENT),
        (Os::NOMEM, Errno::ENOMEM),
        (Os::NOSPC, Errno::ENOSPC),
        (Os::IO, Errno::EIO),
        (Os::NOSYS, Errno::ENOSYS),
        (Os::ROFS, Errno::EROFS),
        (Os::BUSY, Errno::EBUSY),
        (Os::AGAIN, Errno::EAGAIN),
        (Os::TOOBIG, Errno::E2BIG),
        (Os::PERM, Errno::EPERM),
    ];
    table.into_iter().find(|(known, _)| *known == os).map(|(_, name)| name)
}

/// Follows a stream of messages and knows whether one has begun.
#[derive(Debug, Default)]
struct MessageBoundary {
    header: Vec<u8>,
    /// Octets of payload still to come.
    payload_left: usize,
}

impl MessageBoundary {
    fn is_between_messages(&self) -> bool {
        self.header.is_empty() && self.payload_left == 0
    }

    fn pass(&mut self, mut octets: &[u8]) {
        while !octets.is_empty() {
            if self.payload_left > 0 {
                let skipped = self.payload_left.min(octets.len());
                self.payload_left -= skipped;
                octets = &octets[skipped..];
                continue;
            }
            let take = (HEADER_LEN - self.header.len()).min(octets.len());
            self.header.extend_from_slice(&octets[..take]);
            octets = &octets[take..];
            if let Some(header) = self.header.first_chunk::<HEADER_LEN>() {
                self.payload_left =
                    usize::try_from(Header::from_octets(header).len).unwrap_or(usize::MAX);
                self.header.clear();
            }
        }
    }
}
