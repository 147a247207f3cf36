//! Between libxl and where a stream goes: a pipe that can always be written to.
//!
//! If the first octets of a stream cannot be written, libxl 4.17 calls a function of its save helper, which it has not started
//! yet, through a null pointer: a full disk or a reader that is gone would end the whole process. So libxl writes into a pipe of
//! ours. When what it says cannot be passed on, the rest is read and dropped.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use snapshot::control::Until;

use crate::pool::{Stop, wait_until_stopped};

/// Of the pipe. What an unprivileged process may have; more is no faster.
pub(crate) const PIPE_OCTETS: usize = 1 << 20;

/// A thread that passes a stream on.
pub(crate) struct Relay {
    /// Readable once the thread has ended.
    ended: OwnedFd,
    /// Readable once the thread is to end.
    stop: OwnedFd,
    result: Receiver<io::Result<()>>,
}

/// Why a stream was not passed on to its end.
#[derive(Debug)]
pub(crate) enum Unfinished {
    Sink(io::Error),
    Stopped(Stop),
}

impl Relay {
    /// A relay to `sink`, and what libxl is to write to. It is whole once all descriptors of the latter are closed.
    pub(crate) fn start(sink: BorrowedFd<'_>) -> io::Result<(Self, OwnedFd)> {
        let sink = sink.try_clone_to_owned()?;
        let (outlet, inlet) = pipe_with(PipeFlags::CLOEXEC)?;
        // A smaller pipe is only slower.
        let _ = fcntl_setpipe_size(&inlet, PIPE_OCTETS);
        let ended = eventfd(0, EventfdFlags::CLOEXEC)?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC)?;
        let (theirs_ended, theirs_stop) = (ended.try_clone()?, stop.try_clone()?);
        let (tell, result) = channel();
        thread::Builder::new().name("libxl stream".into()).spawn(move || {
            let passed = pass_on(&outlet, &sink, &theirs_stop);
            if passed.is_err() {
                drop_rest(outlet);
            }
            // Whoever asked has gone.
            let _ = tell.send(passed);
            signal(&theirs_ended);
        })?;
        Ok((Self { ended, stop, result }, inlet))
    }

    /// Waits until all that was written is passed on.
    pub(crate) fn finish(self, until: Until<'_>) -> Result<(), Unfinished> {
        if let Some(stop) = wait_until_stopped(&self.ended, until) {
            return Err(Unfinished::Stopped(stop));
        }
        // It is sent before the thread says that it ends, unless that panicked.
        let passed = self.result.try_recv();
        passed.unwrap_or_else(|_| Err(io::Error::other("it is unknown"))).map_err(Unfinished::Sink)
    }

    /// What has gone wrong with the sink so far. The rest of the stream is of no use.
    pub(crate) fn give_up(self) -> Option<io::Error> {
        self.result.try_recv().ok().and_then(Result::err)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        signal(&self.stop);
    }
}

pub(crate) fn signal(event: &OwnedFd) {
    // Adding 1 to a counter that nobody else adds to cannot fail.
    let _ = rustix::io::write(event, &1_u64.to_ne_bytes());
}

/// Passes on until all writers have closed, the sink fails, or it is told to stop.
fn pass_on(outlet: &OwnedFd, sink: &OwnedFd, stop: &OwnedFd) -> io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        ready(outlet.as_fd(), PollFlags::IN, stop)?;
        ready(sink.as_fd(), PollFlags::OUT, stop)?;
        // Not every sink can be spliced to: a file that is opened to append cannot.
        let moved = if buffer.is_empty() {
            splice(outlet, None, sink, None, PIPE_OCTETS, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)
        } else {
            copy(outlet, sink, &mut buffer, stop)
        };
        match moved {
            Ok(0) => return Ok(()),
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::INVAL) if buffer.is_empty() => buffer.resize(PIPE_OCTETS, 0),
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn copy(
    outlet: &OwnedFd,
    sink: &OwnedFd,
    buffer: &mut [u8],
    stop: &OwnedFd,
) -> Result<usize, Errno> {
    let len = rustix::io::read(outlet, &mut *buffer)?;
    let mut rest = &buffer[..len];
    while !rest.is_empty() {
        match rustix::io::write(sink, rest) {
            Ok(written) => rest = &rest[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => ready(sink.as_fd(), PollFlags::OUT, stop)
                .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::CANCELED))?,
            Err(errno) => return Err(errno),
        }
    }
    Ok(len)
}

/// Waits until something can be read or written, or has failed, which the next call tells.
pub(crate) fn ready(fd: BorrowedFd<'_>, flags: PollFlags, stop: &OwnedFd) -> io::Result<()> {
    loop {
        let mut fds = [PollFd::from_borrowed_fd(fd, flags), PollFd::new(stop, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) if !fds[1].revents().is_empty() => return Err(Errno::CANCELED.into()),
            Ok(_) if !fds[0].revents().is_empty() => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Lets libxl write to its end.
fn drop_rest(outlet: OwnedFd) {
    if let Err(error) = io::copy(&mut File::from(outlet), &mut io::sink()) {
        tracing::warn!(%error, "what libxl writes cannot be read");
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};
    use std::time::{Duration, Instant};

    use snapshot::control::CancelToken;

    use super::*;

    fn soon() -> Until<'static> {
        Until::deadline(Instant::now() + Duration::from_secs(20))
    }

    fn stream() -> Vec<u8> {
        (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect()
    }

    #[test]
    fn a_stream_comes_through_whole_whatever_it_goes_to() {
        let directory = tempfile::tempdir().unwrap();
        let mut appended = File::options();
        let appended = appended.read(true).append(true).create(true);
        for mut file in
            [tempfile::tempfile().unwrap(), appended.open(directory.path().join("log")).unwrap()]
        {
            let (relay, inlet) = Relay::start(file.as_fd()).unwrap();
            File::from(inlet).write_all(&stream()).unwrap();
            relay.finish(soon()).unwrap();
            let mut found = Vec::new();
            file.rewind().unwrap();
            file.read_to_end(&mut found).unwrap();
            assert!(found == stream());
        }
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
        let (relay, inlet) = Relay::start(writer.as_fd()).unwrap();
        drop(writer);
        let found = thread::spawn(move || {
            rustix::io::ioctl_fionbio(&reader, false).unwrap();
            let mut found = Vec::new();
            File::from(reader).read_to_end(&mut found).unwrap();
            found
        });
        File::from(inlet).write_all(&stream()).unwrap();
        relay.finish(soon()).unwrap();
        assert!(found.join().unwrap() == stream());
    }

    #[test]
    fn what_cannot_be_passed_on_is_read_to_its_end_all_the_same() {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        drop(reader);
        let full = File::options().write(true).open("/dev/full").unwrap();
        for (sink, kind) in
            [(writer, io::ErrorKind::BrokenPipe), (full.into(), io::ErrorKind::StorageFull)]
        {
            let (relay, inlet) = Relay::start(sink.as_fd()).unwrap();
            File::from(inlet).write_all(&stream()).unwrap();
            let Err(Unfinished::Sink(error)) = relay.finish(soon()) else { panic!("{sink:?}") };
            assert_eq!(error.kind(), kind);
        }
    }

    #[test]
    fn a_sink_that_takes_nothing_is_waited_for_until_the_deadline_and_then_left() {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let (relay, inlet) = Relay::start(writer.as_fd()).unwrap();
        drop(writer);
        let writing = thread::spawn(move || File::from(inlet).write_all(&stream()));
        let cancel = CancelToken::new().unwrap();
        cancel.cancel();
        let until = Until { cancel: Some(&cancel), ..soon() };
        assert!(matches!(relay.finish(until), Err(Unfinished::Stopped(Stop::Cancelled))));
        // Nobody else has the pipe's other end: it ends once the relay has let go.
        writing.join().unwrap().unwrap();
        File::from(reader).read_to_end(&mut Vec::new()).unwrap();
    }
}
