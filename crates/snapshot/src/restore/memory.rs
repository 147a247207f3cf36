//! Building a domain from a memory image: one thread gives the stream, another builds from it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::Instant;

use libxl_config::DomainConfig;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use super::error::{MemoryFailure, RestoreCause};
use crate::Observer;
use crate::control::{BuildError, BuildFailure, CancelToken, DomainControl, DomainView, Until};
use crate::image::mapped::MappedReader;
use crate::image::packed::PackedReader;
use crate::image::{Limits, ReadAt, passthrough};
use crate::manifest::{MemoryArtifact, SavedMemoryFormat};

/// With the usual 64 KiB, a stream goes a third as fast.
const PIPE_OCTETS: usize = 1 << 20;

/// Octets between two words to the observer.
const STEP: u64 = 4 << 20;

/// What came of it: a domain that was built is there, also if what was read turned out to be wrong afterwards.
pub(super) struct Outcome {
    pub(super) built: Result<DomainView, BuildError>,
    pub(super) read: Result<(), RestoreCause>,
}

/// Builds a domain from what `file` holds. Neither side waits for the other longer than it lives.
pub(super) fn build(
    control: &dyn DomainControl,
    config: &DomainConfig,
    memory: &MemoryArtifact,
    file: &File,
    deadline: Instant,
    observer: &mut Observer<'_>,
) -> Result<Outcome, RestoreCause> {
    let pipe = |source: io::Error| RestoreCause::Pipe { source };
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| pipe(errno.into()))?;
    // Only a matter of speed, and more than some hosts allow.
    let _ = fcntl_setpipe_size(&writer, PIPE_OCTETS);
    // Only this end: the other one is given away.
    fcntl_setfl(&writer, OFlags::NONBLOCK).map_err(|errno| pipe(errno.into()))?;
    let cancel = observer.token();
    thread::scope(|scope| {
        let builder = thread::Builder::new().name("restore-build".to_owned());
        let building = builder.spawn_scoped(scope, move || {
            let reader: OwnedFd = reader;
            let until = Until { deadline, cancel };
            // Dropped with this thread, so that the other one does not write to nobody.
            control.build_from(config, reader.as_fd(), until)
        });
        let building = building.map_err(pipe)?;
        let mut into = Into { writer, cancel, deadline, observer, done: 0, told: 0, memory };
        let read = write_stream(memory, file, &mut into);
        // The end of the stream, whatever became of it.
        drop(into);
        let built = building.join().unwrap_or_else(|_| {
            let source = "the thread that was building has panicked".into();
            Err(BuildError::new(None, BuildFailure::Hypervisor { source }))
        });
        Ok(Outcome { built, read })
    })
}

/// Writes the stream, every octet of it compared with a digest.
fn write_stream(
    memory: &MemoryArtifact,
    file: &File,
    into: &mut Into<'_, '_, '_>,
) -> Result<(), RestoreCause> {
    let failed = |source| RestoreCause::Memory { source };
    let limits = Limits::default();
    let limits = limits.stream_max(limits.stream_max.max(memory.stream_octets));
    let is_saved = |digest: String| {
        if digest == memory.stream_digest.to_string() {
            Ok(())
        } else {
            Err(failed(MemoryFailure::Changed))
        }
    };
    match memory.format {
        SavedMemoryFormat::Stream => {
            let octets = FromStart { file, next: 0 };
            let copied = passthrough::copy(octets, &mut *into, limits);
            let (side, _) =
                copied.map_err(|source| into.stopped(failed(MemoryFailure::Stream { source })))?;
            is_saved(side.stream_digest().to_string())
        }
        SavedMemoryFormat::Mapped => {
            let image = MappedReader::open(file, limits)
                .map_err(|source| failed(MemoryFailure::Open { source }))?;
            is_saved(image.info().stream_digest.to_string())?;
            let written = image.write_stream(&mut *into);
            written.map_err(|source| into.stopped(failed(MemoryFailure::Read { source })))
        }
        SavedMemoryFormat::Packed => {
            let image = PackedReader::open(file, limits)
                .map_err(|source| failed(MemoryFailure::Open { source }))?;
            is_saved(image.info().stream_digest.to_string())?;
            let written = image.write_stream(&mut *into);
            written.map_err(|source| into.stopped(failed(MemoryFailure::Read { source })))
        }
    }
}

/// The end of a pipe that a stream goes into, until the deadline or until somebody cancels.
struct Into<'s, 'o, 'c> {
    writer: OwnedFd,
    cancel: Option<&'c CancelToken>,
    deadline: Instant,
    observer: &'s mut Observer<'o>,
    done: u64,
    told: u64,
    memory: &'s MemoryArtifact,
}

impl Into<'_, '_, '_> {
    /// Why the stream ended early, if it was not the image's fault.
    fn stopped(&self, fault: RestoreCause) -> RestoreCause {
        if self.cancel.is_some_and(CancelToken::is_cancelled) {
            RestoreCause::Cancelled
        } else if Instant::now() >= self.deadline {
            RestoreCause::DeadlinePassed
        } else {
            fault
        }
    }

    /// Waits until there is room in the pipe, or nobody who reads from it.
    fn wait(&self) -> io::Result<()> {
        loop {
            if self.cancel.is_some_and(CancelToken::is_cancelled) {
                return Err(io::Error::other("cancelled"));
            }
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let timeout = Timespec::try_from(left).ok();
            let mut fds = vec![PollFd::new(&self.writer, PollFlags::OUT)];
            fds.extend(self.cancel.map(|cancel| PollFd::new(cancel, PollFlags::IN)));
            match poll(&mut fds, timeout.as_ref()) {
                Ok(_) if !fds[0].revents().is_empty() => return Ok(()),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl Write for Into<'_, '_, '_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        loop {
            // Also where there is always room: whoever cancels is heard.
            if self.cancel.is_some_and(CancelToken::is_cancelled) {
                return Err(io::Error::other("cancelled"));
            }
            match rustix::io::write(&self.writer, octets) {
                Ok(written) => {
                    self.done += written as u64;
                    if self.done >= self.told + STEP || self.done == self.memory.stream_octets {
                        self.told = self.done;
                        self.observer.advance(self.done, Some(self.memory.stream_octets));
                    }
                    return Ok(written);
                }
                Err(rustix::io::Errno::AGAIN) => self.wait()?,
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file from its beginning, wherever its position is.
pub(super) struct FromStart<'f> {
    pub(super) file: &'f File,
    pub(super) next: u64,
}

impl Read for FromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = ReadAt::read_at(self.file, buffer, self.next)?;
        self.next += read as u64;
        Ok(read)
    }
}

/// Why no domain was built: the image's fault counts for more than what the builder made of a stream that ended early.
pub(super) fn why(error: BuildError, read: Result<(), RestoreCause>) -> RestoreCause {
    match (&error.reason, read) {
        (BuildFailure::Cancelled, _) => RestoreCause::Cancelled,
        (BuildFailure::DeadlinePassed, _) => RestoreCause::DeadlinePassed,
        (_, Err(cause)) if !is_broken_pipe(&cause) => cause,
        _ => RestoreCause::Build(error),
    }
}

/// The builder does not read any more.
fn is_broken_pipe(cause: &RestoreCause) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(cause);
    while let Some(error) = cause {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if kind == Some(io::ErrorKind::BrokenPipe) {
            return true;
        }
        cause = error.source();
    }
    false
}
