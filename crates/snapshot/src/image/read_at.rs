//! Reading at any place.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// Something that can be read at any place, as images are: a file, octets in memory, or what a caller has elsewhere.
pub trait ReadAt {
    /// Reads some octets at a place, at least one unless there is none there or the buffer is empty.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// How many octets there are.
    ///
    /// # Errors
    ///
    /// If that cannot be told.
    fn size(&self) -> io::Result<u64>;

    /// The first part of a range in which octets may be other than zero, `None` if all are zero; saves reading holes. A file's own
    /// position may move.
    ///
    /// # Errors
    ///
    /// If that cannot be told; who does not know says all of it.
    fn data_in(&self, range: Range<u64>) -> io::Result<Option<Range<u64>>> {
        Ok(Some(range))
    }
}

impl ReadAt for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn data_in(&self, range: Range<u64>) -> io::Result<Option<Range<u64>>> {
        let begins = match rustix::fs::seek(self, SeekFrom::Data(range.start)) {
            Ok(begins) if begins < range.end => begins,
            // None from there to the end.
            Ok(_) | Err(Errno::NXIO) => return Ok(None),
            // A file system that does not tell.
            Err(_) => return Ok(Some(range)),
        };
        let ends = rustix::fs::seek(self, SeekFrom::Hole(begins)).unwrap_or(range.end);
        Ok(Some(begins..ends.min(range.end)))
    }
}

impl ReadAt for [u8] {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..));
        rest.unwrap_or_default().read(buffer)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

impl ReadAt for Vec<u8> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.as_slice().read_at(buffer, offset)
    }

    fn size(&self) -> io::Result<u64> {
        self.as_slice().size()
    }
}

impl<T: ReadAt + ?Sized> ReadAt for &T {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        (**self).read_at(buffer, offset)
    }

    fn size(&self) -> io::Result<u64> {
        (**self).size()
    }

    fn data_in(&self, range: Range<u64>) -> io::Result<Option<Range<u64>>> {
        (**self).data_in(range)
    }
}

/// Fills the buffer from a place on.
pub(crate) fn read_exact_at(
    file: &(impl ReadAt + ?Sized),
    mut buffer: &mut [u8],
    mut offset: u64,
) -> io::Result<()> {
    while !buffer.is_empty() {
        match file.read_at(buffer, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                buffer = &mut buffer[read..];
                offset += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Fills the buffer from a place on without reading holes; whether there was anything but a hole.
pub(crate) fn read_sparse_at(
    file: &(impl ReadAt + ?Sized),
    buffer: &mut [u8],
    offset: u64,
) -> io::Result<bool> {
    let mut filled = 0;
    let mut any = false;
    while filled < buffer.len() {
        let (at, end) = (offset + filled as u64, offset + buffer.len() as u64);
        let Some(data) = file.data_in(at..end)? else { break };
        let (begins, ends) = (data.start.clamp(at, end), data.end.min(end));
        if begins >= ends {
            break;
        }
        // They are no more than the buffer's length behind the offset.
        let place = |at: u64| usize::try_from(at - offset).unwrap_or(buffer.len());
        let (begins, ends) = (place(begins), place(ends));
        buffer[filled..begins].fill(0);
        read_exact_at(file, &mut buffer[begins..ends], offset + begins as u64)?;
        filled = ends;
        any = true;
    }
    buffer[filled..].fill(0);
    Ok(any)
}
