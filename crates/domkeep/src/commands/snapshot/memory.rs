//! Memory images of any format as the stream that they hold, watched and cancellable.

use std::fs::File;
use std::io::{self, BufReader, Chain, Cursor, Read};
use std::ops::Range;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use snapshot::control::CancelToken;
use snapshot::image::mapped::MappedReader;
use snapshot::image::packed::PackedReader;
use snapshot::image::{
    Digest, IMAGE_MAGIC, INSPECT_LEN, ImageReadError, ImageWriteError, Inspected, Layout, Limits,
    ReadAt, inspect,
};

use super::bar::Counter;
use super::error::SnapshotError;
use super::new_file::unread;
use crate::exit::CommandError;

/// Octets that a pipe between two threads holds: the most that anybody may ask for.
const PIPE_LEN: usize = 1 << 20;

/// What counts octets, and ends when it is told to.
#[derive(Clone)]
pub(super) struct Watch {
    pub(super) counter: Counter,
    pub(super) cancel: CancelToken,
}

impl Watch {
    /// So many octets are done.
    fn reached(&self, octets: u64) -> io::Result<()> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other("cancelled"));
        }
        self.counter.reached(octets);
        Ok(())
    }
}

/// A file that is read at many places.
pub(super) struct WatchedFile {
    file: File,
    watch: Watch,
}

impl ReadAt for WatchedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.watch.reached(offset)?;
        ReadAt::read_at(&self.file, buffer, offset)
    }

    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn data_in(&self, range: Range<u64>) -> io::Result<Option<Range<u64>>> {
        self.watch.reached(range.start)?;
        self.file.data_in(range)
    }
}

/// What a domain was saved in.
pub(super) enum Saved {
    /// What Xen's own tools write.
    Stream(Stream),
    /// Pages at fixed places.
    Mapped(MappedReader<WatchedFile>),
    /// Compressed frames.
    Packed(PackedReader<WatchedFile>),
}

impl Saved {
    /// Opens a file, or a stream on stdin for `-`, and looks what it is.
    pub(super) fn open(path: &Path, watch: &Watch) -> Result<Self, CommandError> {
        if path.as_os_str() == "-" {
            let mut input = WatchedInput { input: Input::Stdin(io::stdin()), watch: watch.clone() };
            let first = first_of(&mut input).map_err(|source| failed(path, source, watch))?;
            if first.starts_with(&IMAGE_MAGIC) {
                return Err(SnapshotError::ImageOnStdin.into());
            }
            return Ok(Self::Stream(Stream::new(path, first, input, false)));
        }
        let file = File::open(path).map_err(|source| unread(path, source))?;
        let metadata = file.metadata().map_err(|source| unread(path, source))?;
        let mut input = WatchedInput { input: Input::File(file), watch: watch.clone() };
        let first = first_of(&mut input).map_err(|source| failed(path, source, watch))?;
        if !first.starts_with(&IMAGE_MAGIC) {
            watch.counter.expect(metadata.len());
            return Ok(Self::Stream(Stream::new(path, first, input, metadata.is_file())));
        }
        let looked = inspect(&first)
            .map_err(|source| SnapshotError::Inspect { path: path.to_owned(), source })?;
        let (Inspected::Image(info), Input::File(file)) = (looked, input.input) else {
            return Err(SnapshotError::DigestsAlone { path: path.to_owned() }.into());
        };
        watch.counter.expect(metadata.len());
        let file = WatchedFile { file, watch: watch.clone() };
        let limits = Limits::default();
        let unopened = |source| SnapshotError::ImageOpen { path: path.to_owned(), source };
        Ok(match info.layout {
            Layout::Mapped { .. } => {
                Self::Mapped(MappedReader::open(file, limits).map_err(unopened)?)
            }
            Layout::Packed { .. } => {
                Self::Packed(PackedReader::open(file, limits).map_err(unopened)?)
            }
            _ => return Err(SnapshotError::DigestsAlone { path: path.to_owned() }.into()),
        })
    }

    /// The digest that the image has of its stream. A stream has none.
    pub(super) fn stream_digest(&self) -> Option<Digest> {
        match self {
            Self::Stream(_) => None,
            Self::Mapped(image) => Some(image.info().stream_digest),
            Self::Packed(image) => Some(image.info().stream_digest),
        }
    }

    /// Gives the stream to who reads it to its end.
    pub(super) fn read<T>(
        &mut self,
        reads: impl FnOnce(&mut dyn Read) -> Result<T, ImageWriteError>,
    ) -> Result<T, ReadFailure> {
        match self {
            Self::Stream(stream) => Ok(reads(stream)?),
            Self::Packed(image) => Ok(reads(&mut image.stream())?),
            Self::Mapped(image) => piped(image, reads),
        }
    }
}

/// Why a stream did not get from one image to the other.
#[derive(Debug)]
pub(super) enum ReadFailure {
    /// The image that it is in.
    From(ImageReadError),
    /// The other, or the stream itself.
    To(ImageWriteError),
    /// There is no pipe or no thread to be had.
    Pipe(io::Error),
}

impl From<ImageWriteError> for ReadFailure {
    fn from(error: ImageWriteError) -> Self {
        Self::To(error)
    }
}

/// A mapped image writes its stream, so that whoever reads it is another thread.
fn piped<T>(
    image: &MappedReader<WatchedFile>,
    reads: impl FnOnce(&mut dyn Read) -> Result<T, ImageWriteError>,
) -> Result<T, ReadFailure> {
    let (mut from, to) = io::pipe().map_err(ReadFailure::Pipe)?;
    // A smaller pipe is slower and nothing else.
    let _ = rustix::pipe::fcntl_setpipe_size(&to, PIPE_LEN);
    thread::scope(|scope| {
        let writes = thread::Builder::new()
            .name("image".into())
            .spawn_scoped(scope, move || image.write_stream(to))
            .map_err(ReadFailure::Pipe)?;
        let read = reads(&mut from);
        // Who still writes is told that nobody reads.
        drop(from);
        let written = writes.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match (read, written) {
            (Ok(read), Ok(())) => Ok(read),
            // It stopped since nobody read any more.
            (Err(error), Ok(()) | Err(ImageReadError::Output { .. })) => Err(error.into()),
            (_, Err(error)) => Err(ReadFailure::From(error)),
        }
    })
}

/// A stream as Xen's own tools write it.
pub(super) struct Stream {
    path: PathBuf,
    input: BufReader<Chain<Cursor<Vec<u8>>, WatchedInput>>,
    octets: u64,
    /// Whether one can ask for more than the stream without waiting for whoever writes it.
    is_file: bool,
}

impl Stream {
    fn new(path: &Path, first: Vec<u8>, rest: WatchedInput, is_file: bool) -> Self {
        let input = BufReader::with_capacity(PIPE_LEN, Cursor::new(first).chain(rest));
        Self { path: path.to_owned(), input, octets: 0, is_file }
    }

    /// After the end: whether the file has more, and where that begins.
    pub(super) fn goes_on(&mut self) -> Result<Option<u64>, CommandError> {
        let end = self.octets;
        let more =
            self.is_file && self.read(&mut [0]).map_err(|source| unread(&self.path, source))? > 0;
        Ok(more.then_some(end))
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.octets += read as u64;
        self.input.get_ref().get_ref().1.watch.reached(self.octets)?;
        Ok(read)
    }
}

enum Input {
    File(File),
    Stdin(io::Stdin),
}

/// An input that does not wait for anybody once it is cancelled.
struct WatchedInput {
    input: Input,
    watch: Watch,
}

impl Read for WatchedInput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.input {
            Input::File(file) => file.read(buffer),
            Input::Stdin(stdin) => {
                await_input(stdin, &self.watch.cancel)?;
                stdin.read(buffer)
            }
        }
    }
}

fn await_input(input: &io::Stdin, cancel: &CancelToken) -> io::Result<()> {
    loop {
        let input = input.as_fd();
        let mut fds =
            [PollFd::from_borrowed_fd(input, PollFlags::IN), PollFd::new(cancel, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) if !fds[1].revents().is_empty() => return Err(io::Error::other("cancelled")),
            Ok(_) if !fds[0].revents().is_empty() => return Ok(()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// The octets that tell what it is.
fn first_of(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut first = Vec::new();
    input.take(INSPECT_LEN as u64).read_to_end(&mut first)?;
    Ok(first)
}

fn failed(path: &Path, source: io::Error, watch: &Watch) -> CommandError {
    if watch.cancel.is_cancelled() { SnapshotError::Cancelled.into() } else { unread(path, source) }
}
