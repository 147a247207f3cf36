//! Between where a stream comes from and libxl: a thread that checks what it passes on.
//!
//! libxl takes a header that is not there for one of zeros, which is an END record: a stream that is cut between two records, or
//! in its last one, counts as whole. So what it reads has been read by us before, and a domain is only believed to be built if
//! its stream came to its own end.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use rustix::event::{EventfdFlags, PollFlags, eventfd};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use snapshot::control::{BuildFailure, Until};
use snapshot::image::Limits;
use snapshot::image::stream::{CheckedReader, Content, Start, StreamError, StreamFailure};

use crate::failure::Failing;
use crate::pool::{Stop, wait_until_stopped};
use crate::relay::{PIPE_OCTETS, ready, signal};

/// A thread that checks a stream and passes it on.
pub(crate) struct Intake {
    /// Readable once the thread has ended.
    ended: OwnedFd,
    /// Readable once the thread is to end.
    stop: OwnedFd,
    result: Receiver<Result<(), Unusable>>,
}

/// Why a stream was not passed on to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("it begins as {}, and has to be a libxl stream", as_what(*.0))]
    Start(Start),
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// libxl has closed its end.
    #[error("libxl has not read it to its end")]
    Refused(#[source] io::Error),
    #[error("it is unknown how it ended")]
    Broken,
    #[error("it was stopped")]
    Stopped(Stop),
}

impl From<Unusable> for BuildFailure {
    fn from(unusable: Unusable) -> Self {
        match unusable {
            Unusable::Stopped(stop) => Failing::from(stop).into(),
            Unusable::Stream(StreamError { failure: StreamFailure::Io { source }, .. }) => {
                Self::Stream { source }
            }
            _ => Self::InvalidStream { source: Box::new(unusable) },
        }
    }
}

impl Intake {
    /// What libxl is to read, once the beginning of the stream has been read and is one: libxl 4.17 must not be given any other.
    pub(crate) fn start(
        source: BorrowedFd<'_>,
        until: Until<'_>,
    ) -> Result<(Self, OwnedFd), BuildFailure> {
        let failed = |source| BuildFailure::Stream { source };
        let begun = event().map_err(failed)?;
        let theirs_begun = begun.try_clone().map_err(failed)?;
        let (intake, outlet) = Self::spawn(source, theirs_begun).map_err(failed)?;
        if let Some(stop) = wait_until_stopped(&begun, until) {
            return Err(Failing::from(stop).into());
        }
        match intake.result.try_recv() {
            Ok(Err(unusable)) => Err(unusable.into()),
            _ => Ok((intake, outlet)),
        }
    }

    fn spawn(source: BorrowedFd<'_>, begun: OwnedFd) -> io::Result<(Self, OwnedFd)> {
        let source = File::from(source.try_clone_to_owned()?);
        let (outlet, inlet) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // libxl and its helper expect to wait for what they read.
        rustix::fs::fcntl_setfl(&outlet, rustix::fs::OFlags::empty())?;
        // A smaller pipe is only slower.
        let _ = fcntl_setpipe_size(&inlet, PIPE_OCTETS);
        let (ended, stop) = (event()?, event()?);
        let (theirs_ended, theirs_stop) = (ended.try_clone()?, stop.try_clone()?);
        let (tell, result) = channel();
        thread::Builder::new().name("libxl stream".into()).spawn(move || {
            let input = Stoppable { file: source, stop: &theirs_stop };
            let output = Stoppable { file: File::from(inlet), stop: &theirs_stop };
            // Whoever asked has gone.
            let _ = tell.send(pass_on(input, output, &begun));
            signal(&begun);
            signal(&theirs_ended);
        })?;
        Ok((Self { ended, stop, result }, outlet))
    }

    /// Waits until the stream has come to its end, and says whether it was whole.
    pub(crate) fn finish(self, until: Until<'_>) -> Result<(), Unusable> {
        if let Some(stop) = wait_until_stopped(&self.ended, until) {
            return Err(Unusable::Stopped(stop));
        }
        // It is sent before the thread says that it ends, unless that panicked.
        self.result.try_recv().unwrap_or(Err(Unusable::Broken))
    }

    /// What was found to be wrong with the stream, after libxl has failed: that it was not read any further is no fault of its.
    pub(crate) fn give_up(self) -> Option<Unusable> {
        let found = self.result.try_recv().ok().and_then(Result::err);
        found.filter(|unusable| !matches!(unusable, Unusable::Refused(_)))
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        signal(&self.stop);
    }
}

fn as_what(start: Start) -> &'static str {
    match start {
        Start::Xl => "a file of xl save",
        Start::Libxl => "a libxl stream",
        Start::Libxc => "a libxc image",
    }
}

fn event() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC)?)
}

fn pass_on(input: impl Read, mut output: impl Write, begun: &OwnedFd) -> Result<(), Unusable> {
    let mut reader = CheckedReader::new(input, Limits::default());
    while let Some(event) = reader.next_event()? {
        let (raw, is_image) = (event.raw, matches!(event.content, Content::ImageHeader(_)));
        let start = match event.content {
            Content::XlHeader(_) => Some(Start::Xl),
            Content::ImageHeader(_) if event.place.offset == 0 => Some(Start::Libxc),
            _ => None,
        };
        if let Some(start) = start {
            return Err(Unusable::Start(start));
        }
        output.write_all(raw).map_err(Unusable::Refused)?;
        // From here on libxl has its save helper read.
        if is_image {
            signal(begun);
        }
    }
    Ok(())
}

/// A descriptor that is waited for until it is ready, or nobody wants it any more.
struct Stoppable<'s> {
    file: File,
    stop: &'s OwnedFd,
}

impl Read for Stoppable<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        ready(self.file.as_fd(), PollFlags::IN, self.stop)?;
        self.file.read(buffer)
    }
}

impl Write for Stoppable<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        loop {
            ready(self.file.as_fd(), PollFlags::OUT, self.stop)?;
            match rustix::io::write(&self.file, buffer) {
                Err(Errno::AGAIN) => {}
                written => return Ok(written?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn started_with(source: &File) -> BuildFailure {
        let until = Until::deadline(Instant::now() + Duration::from_secs(20));
        match Intake::start(source.as_fd(), until) {
            Ok(_) => panic!("it was taken for the beginning of a stream"),
            Err(failure) => failure,
        }
    }

    #[test]
    fn a_source_that_cannot_be_read_is_not_taken_for_a_broken_stream() {
        let directory = tempfile::tempdir().unwrap();
        let failure = started_with(&File::open(directory.path()).unwrap());
        let BuildFailure::Stream { source } = &failure else { panic!("{failure:?}") };
        assert_eq!(source.kind(), io::ErrorKind::IsADirectory);
    }

    #[test]
    fn what_does_not_begin_as_a_stream_is_refused_before_libxl_is_called() {
        let failure = started_with(&tempfile::tempfile().unwrap());
        assert!(matches!(failure, BuildFailure::InvalidStream { .. }), "{failure:?}");
    }
}
