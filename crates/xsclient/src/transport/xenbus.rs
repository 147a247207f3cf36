//! The Linux xenbus device.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::Instant;

use rustix::event::PollFlags;
use rustix::fs::OFlags;
use xenstore_proto::limits::HEADER_LEN;
use xenstore_proto::{
    Errno, EventOrder, Framing, Header, Interest, Manner, MessageType, Readiness, Reply, Transport,
};

use super::poll::wait;

/// Most octets of payload: the kernel collects header and payload in one buffer of 4096.
const DEVICE_PAYLOAD_MAX: usize = 4096 - HEADER_LEN;

/// A connection through the kernel (`/dev/xen/xenbus`), in guests and in a dom0 whose daemon runs elsewhere.
///
/// The kernel takes one whole message in each write and keeps watches itself: their depth does not reach the server, events
/// overtake replies, and a WATCH or UNWATCH that fails is a failed write, which becomes an error reply here. A write of
/// these two waits inside the kernel until the server has answered, so a thread of its own does it: a deadline holds even
/// so, and what is sent later waits its turn.
#[derive(Debug)]
pub struct XenbusDevice {
    file: Arc<File>,
    incoming: MessageBoundary,
    /// Error replies made here, to be received between two messages of the kernel's.
    made_here: VecDeque<u8>,
    writing: Option<Writing>,
}

/// A write that another thread is in.
#[derive(Debug)]
struct Writing {
    message: Vec<u8>,
    result: Receiver<io::Result<usize>>,
    /// Hangs up when the thread has ended.
    ended: OwnedFd,
}

impl XenbusDevice {
    /// Opens the device.
    ///
    /// # Errors
    ///
    /// What the system says; ENOENT if the kernel has no connection to a server.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::over(OpenOptions::new().read(true).write(true).open(path)?)
    }

    /// Uses a device that is open already, such as one that was inherited.
    ///
    /// # Errors
    ///
    /// If it cannot be made non-blocking.
    pub fn over(file: File) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&file)?;
        rustix::fs::fcntl_setfl(&file, flags | OFlags::NONBLOCK)?;
        Ok(Self {
            file: Arc::new(file),
            incoming: MessageBoundary::default(),
            made_here: VecDeque::new(),
            writing: None,
        })
    }

    fn has_replies_made_here(&self) -> bool {
        self.incoming.is_between_messages() && !self.made_here.is_empty()
    }

    fn write_in_a_thread(&mut self, message: &[u8]) -> io::Result<()> {
        let (to_us, result) = channel();
        let (ended, ends) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let (file, octets) = (Arc::clone(&self.file), message.to_vec());
        let write = move || {
            // If nobody listens any more, nobody wants to know.
            let _ = to_us.send((&*file).write(&octets));
            drop(ends);
        };
        std::thread::Builder::new().name("xenbus write".to_owned()).spawn(write).map_err(
            |error| {
                // EAGAIN here means too many threads, not a device that is busy: waiting would not end it.
                io::Error::new(io::ErrorKind::OutOfMemory, error)
            },
        )?;
        self.writing = Some(Writing { message: message.to_vec(), result, ended });
        Ok(())
    }

    /// Takes the result of a write in a thread, if it has ended.
    fn settle(&mut self) -> io::Result<()> {
        let Some(writing) = &self.writing else { return Ok(()) };
        let result = match writing.result.try_recv() {
            Ok(result) => result,
            Err(TryRecvError::Empty) => return Ok(()),
            Err(TryRecvError::Disconnected) => Err(io::ErrorKind::BrokenPipe.into()),
        };
        let message = self.writing.take().map(|writing| writing.message).unwrap_or_default();
        self.check_written(&message, result).map(drop)
    }

    /// Turns the error of a write into the error reply that a server would have sent.
    fn check_written(&mut self, message: &[u8], result: io::Result<usize>) -> io::Result<usize> {
        let Err(error) = result else { return result };
        let Some(errno) = refusal(&error) else { return Err(error) };
        let header = message.first_chunk::<HEADER_LEN>().ok_or(io::ErrorKind::InvalidInput)?;
        let Header { ty, request_id, tx_id, .. } = Header::from_octets(header);
        let mut reply = Vec::new();
        Reply::Error(errno)
            .encode(ty, request_id, tx_id, DEVICE_PAYLOAD_MAX, &mut reply)
            .map_err(io::Error::other)?;
        self.made_here.extend(reply);
        Ok(message.len())
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
        self.settle()?;
        // The device never says that it can be written to: it can, unless a thread is at it.
        let wants_room = interest == Interest::ReceiveOrSend;
        let ready = self.has_replies_made_here() || (wants_room && self.writing.is_none());
        let deadline = if ready { Instant::now() } else { deadline };
        let device = (self.file.as_fd(), PollFlags::IN);
        let input = match &self.writing {
            None => wait([device], deadline)?[0].input,
            Some(writing) => {
                let [device, _] = wait([device, (writing.ended.as_fd(), PollFlags::IN)], deadline)?;
                self.settle()?;
                device.input
            }
        };
        let receive = input || self.has_replies_made_here();
        Ok(Readiness { receive, send: wants_room && self.writing.is_none() })
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = if self.has_replies_made_here() {
            let len = buffer.len().min(self.made_here.len());
            for (to, from) in buffer.iter_mut().zip(self.made_here.drain(..len)) {
                *to = from;
            }
            len
        } else {
            (&*self.file).read(buffer)?
        };
        self.incoming.pass(&buffer[..len]);
        Ok(len)
    }

    fn send(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.settle()?;
        if self.writing.is_some() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let header = octets.first_chunk::<HEADER_LEN>().ok_or(io::ErrorKind::InvalidInput)?;
        match Header::from_octets(header).ty {
            MessageType::WATCH | MessageType::UNWATCH => {
                self.write_in_a_thread(octets)?;
                Ok(octets.len())
            }
            _ => {
                let written = (&*self.file).write(octets);
                self.check_written(octets, written)
            }
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
                let len = Header::from_octets(header).len;
                self.payload_left = usize::try_from(len).unwrap_or(usize::MAX);
                self.header.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use xenstore_proto::{Decoded, Decoder, Request, RequestId, TxId};

    use super::*;

    #[test]
    fn a_refusal_waits_for_the_end_of_the_message_that_is_being_received() {
        let (family, ty) = (AddressFamily::UNIX, SocketType::STREAM);
        let (ours, kernel) = socketpair(family, ty, SocketFlags::CLOEXEC, None).unwrap();
        let (mut device, kernel) =
            (XenbusDevice::over(File::from(ours)).unwrap(), File::from(kernel));
        let (id, max) = (RequestId(1), DEVICE_PAYLOAD_MAX);
        let mut reply = Vec::new();
        let value = Reply::Value(b"value".to_vec());
        value.encode(MessageType::READ, id, TxId::NONE, max, &mut reply).unwrap();
        let mut refused = Vec::new();
        Request::ResetWatches.encode(RequestId(2), TxId::NONE, max, &mut refused).unwrap();
        for cut in 1..reply.len() {
            let mut decoder = Decoder::new(max);
            let mut buffer = [0; 64];
            (&kernel).write_all(&reply[..cut]).unwrap();
            let len = device.receive(&mut buffer).unwrap();
            decoder.push(&buffer[..len]);
            device.check_written(&refused, Err(ErrorKind::InvalidInput.into())).unwrap_err();
            let refusal = Err(rustix::io::Errno::INVAL.into());
            assert_eq!(device.check_written(&refused, refusal).unwrap(), refused.len());
            (&kernel).write_all(&reply[cut..]).unwrap();
            for _ in 0..2 {
                let len = device.receive(&mut buffer).unwrap();
                decoder.push(&buffer[..len]);
            }
            let mut next = || match decoder.decode().unwrap() {
                Decoded::Message(message) => message.request_id.0,
                Decoded::Need(more) => panic!("{more} octets short"),
            };
            assert_eq!([next(), next()], [1, 2], "cut at {cut}");
        }
    }
}
