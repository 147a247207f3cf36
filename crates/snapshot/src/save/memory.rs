//! Suspending the guest and writing its memory, which is one call of the hypervisor's.
//!
//! That call writes into a pipe from a thread of its own, and what comes out is made an image here. Whichever side fails ends the
//! other: the hypervisor by a pipe that nobody reads and a token, the reader by the end of the pipe or the thread.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::resume_unwind;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use super::{MemoryFormat, MemoryRequest, SaveCause};
use crate::control::{CancelToken, DomainControl, DomainIdentity, SuspendFailure, Until};
use crate::descriptor::open_again;
use crate::image::mapped::{self, MappedOptions};
use crate::image::packed::{self, PackedOptions};
use crate::image::passthrough::{self, SideDigest};
use crate::image::{ImageWriteError, Limits, Unmarked};
use crate::{CompleteFile, Observer};

/// The reader may be busy for some milliseconds without the writer standing still. It is the most that everybody may have.
const PIPE_OCTETS: usize = 1 << 20;
/// Headers may come before the guest has suspended; more than that is its memory.
const BEFORE_SUSPEND: u64 = 64 << 10;

/// Where the memory goes.
#[derive(Debug)]
pub(super) enum Sink {
    New(CompleteFile),
    Callers(File),
}

/// Memory that has been written, and is neither synced nor marked as complete.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) sink: Sink,
    pub(super) unmarked: Option<Unmarked>,
    pub(super) side: Option<SideDigest>,
    pub(super) stream_octets: u64,
    pub(super) stream_digest: crate::image::Digest,
}

/// Whose memory is written, and until when.
pub(super) struct Saving<'s> {
    pub(super) control: &'s dyn DomainControl,
    pub(super) domain: DomainIdentity,
    pub(super) request: &'s MemoryRequest,
    /// When the first of the memory has to be there.
    pub(super) suspend: Instant,
    pub(super) deadline: Instant,
    /// Octets that are expected.
    pub(super) expected: Option<u64>,
}

impl Saving<'_> {
    /// Suspends the guest and writes its memory. Whatever comes of it, nothing of it is under way any more on return.
    pub(super) fn write(
        &self,
        sink: Sink,
        observer: &mut Observer<'_>,
    ) -> Result<Written, SaveCause> {
        let failed = |step| move |source| SaveCause::Io { step, source };
        let (reading, writing) =
            pipe_with(PipeFlags::CLOEXEC).map_err(|errno| failed("make a pipe")(errno.into()))?;
        // A smaller pipe does as well; a user may have used up what pipes may have.
        if let Err(errno) = fcntl_setpipe_size(&reading, PIPE_OCTETS) {
            tracing::debug!(%errno, "the pipe of the memory keeps its size");
        }
        let stop = CancelToken::new().map_err(failed("make a token"))?;
        let ended = CancelToken::new().map_err(failed("make a token"))?;
        std::thread::scope(|scope| {
            let (stop_of_thread, ended_of_thread) = (stop.clone(), ended.clone());
            let suspending = std::thread::Builder::new().name("suspend".into());
            let suspending = suspending
                .spawn_scoped(scope, move || {
                    let until = Until { deadline: self.deadline, cancel: Some(&stop_of_thread) };
                    let live = self.request.live;
                    let suspended =
                        self.control.suspend_to(&self.domain, writing.as_fd(), live, until);
                    drop(writing);
                    ended_of_thread.cancel();
                    suspended
                })
                .map_err(failed("start a thread"))?;
            let mut pipe = BufReader::with_capacity(
                PIPE_OCTETS,
                Pipe { reading, ended: &ended, saving: self, observer, octets: 0, stopped: None },
            );
            let mut written = self.read(&mut pipe, sink);
            if written.is_ok() {
                written = at_end(&mut pipe).and(written);
            }
            let stopped = pipe.get_mut().stopped.take();
            drop(pipe);
            if written.is_err() {
                stop.cancel();
            }
            let suspended = match suspending.join() {
                Ok(suspended) => suspended,
                Err(panic) => resume_unwind(panic),
            };
            match (stopped, written, suspended) {
                // Whoever has it suspended, it was not this call.
                (_, _, Err(error)) if matches!(error.reason, SuspendFailure::Refused(_)) => {
                    Err(error.into())
                }
                (Some(stopped), _, _) => Err(stopped),
                (None, Ok(written), Ok(())) => Ok(written),
                (None, Ok(_), Err(error)) => Err(error.into()),
                // What broke the stream off is the reason, unless that was the reader.
                (None, Err(SaveCause::Image(ImageWriteError::Stream { .. })), Err(error))
                    if !is_ours(&error.reason) =>
                {
                    Err(error.into())
                }
                (None, Err(cause), _) => Err(cause),
            }
        })
    }

    fn read(&self, pipe: &mut impl Read, mut sink: Sink) -> Result<Written, SaveCause> {
        let (uuid, limits) = (self.domain.uuid, Limits::default());
        match &self.request.format {
            MemoryFormat::Stream { .. } => {
                let out = BufWriter::with_capacity(PIPE_OCTETS, &mut sink);
                let copied = passthrough::copy(pipe, out, limits)?;
                let side = copied.0.with_uuid(uuid);
                Ok(Written {
                    sink,
                    unmarked: None,
                    stream_octets: side.info().stream_len,
                    stream_digest: side.stream_digest(),
                    side: Some(side),
                })
            }
            MemoryFormat::Mapped => {
                let options = MappedOptions::default().uuid(uuid).limits(limits);
                let unmarked = mapped::write(pipe, for_reading_too(&sink)?, &options)?;
                Ok(Written::image(sink, unmarked))
            }
            MemoryFormat::Packed { codec, workers } => {
                let options = PackedOptions::default().uuid(uuid).limits(limits);
                let options = options.codec(*codec).workers(*workers);
                let unmarked = packed::write(pipe, for_reading_too(&sink)?, &options)?;
                Ok(Written::image(sink, unmarked))
            }
        }
    }
}

impl Written {
    fn image(sink: Sink, unmarked: Unmarked) -> Self {
        let info = unmarked.info();
        let (stream_octets, stream_digest) = (info.stream_len, info.stream_digest);
        Self { sink, unmarked: Some(unmarked), side: None, stream_octets, stream_digest }
    }
}

impl Sink {
    pub(super) fn as_new(&self) -> Option<&CompleteFile> {
        match self {
            Self::New(file) => Some(file),
            Self::Callers(_) => None,
        }
    }
}

/// A new file is open for writing only.
fn for_reading_too(sink: &Sink) -> Result<File, SaveCause> {
    let opened = match sink {
        Sink::New(file) => file.open_again(),
        Sink::Callers(file) => open_again(file, File::options().read(true).write(true)),
    };
    opened.map_err(|source| SaveCause::Io { step: "open the memory image again", source })
}

/// Whether a suspend ended because the reader did.
fn is_ours(failure: &SuspendFailure) -> bool {
    match failure {
        SuspendFailure::Cancelled => true,
        SuspendFailure::Stream { source } => source.kind() == io::ErrorKind::BrokenPipe,
        _ => false,
    }
}

/// The reading end, which ends with the thread at the latest: what a helper has kept of the writing end holds nobody up.
struct Pipe<'p, 's, 'o> {
    reading: OwnedFd,
    ended: &'p CancelToken,
    saving: &'p Saving<'s>,
    observer: &'p mut Observer<'o>,
    octets: u64,
    /// Why it was broken off.
    stopped: Option<SaveCause>,
}

impl Pipe<'_, '_, '_> {
    fn stop(&mut self, cause: SaveCause) -> io::Error {
        self.stopped = Some(cause);
        io::Error::other("broken off")
    }

    /// Waits until there is something to read; `false` if there will not be any more.
    fn wait(&mut self) -> io::Result<bool> {
        loop {
            if self.observer.is_cancelled() {
                return Err(self.stop(SaveCause::Cancelled));
            }
            let is_suspending = !self.saving.request.live && self.octets < BEFORE_SUSPEND;
            let deadline = match is_suspending {
                true => self.saving.suspend.min(self.saving.deadline),
                false => self.saving.deadline,
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.stop(SaveCause::DeadlinePassed));
            }
            let left = Timespec::try_from(left).map_err(io::Error::other)?;
            let mut fds = vec![
                PollFd::new(&self.reading, PollFlags::IN),
                PollFd::new(self.ended, PollFlags::IN),
            ];
            if let Some(cancel) = self.observer.token() {
                fds.push(PollFd::new(cancel, PollFlags::IN));
            }
            match poll(&mut fds, Some(&left)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            let (is_readable, has_ended) =
                (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
            drop(fds);
            if is_readable {
                return Ok(true);
            }
            if has_ended {
                // It may have written between the looks at the two.
                let mut last = [PollFd::new(&self.reading, PollFlags::IN)];
                let none = Timespec { tv_sec: 0, tv_nsec: 0 };
                return Ok(poll(&mut last, Some(&none))? > 0);
            }
        }
    }
}

impl Read for Pipe<'_, '_, '_> {
    fn read(&mut self, octets: &mut [u8]) -> io::Result<usize> {
        if !self.wait()? {
            return Ok(0);
        }
        let read = rustix::io::read(&self.reading, octets)?;
        self.octets += read as u64;
        self.observer.advance(self.octets, self.saving.expected);
        Ok(read)
    }
}

/// Nothing may be behind the end of the domain's stream.
fn at_end(pipe: &mut impl Read) -> Result<(), SaveCause> {
    match pipe.read(&mut [0]) {
        Ok(0) => Ok(()),
        Ok(_) => Err(SaveCause::Trailing),
        Err(source) => Err(SaveCause::Io { step: "read the pipe to its end", source }),
    }
}

impl Write for Sink {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Self::New(file) => file.write(octets),
            Self::Callers(file) => file.write(octets),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
