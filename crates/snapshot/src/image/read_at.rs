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

    /// Whether any octet of the range may be other than zero; saves reading holes. A file's own position may move.
    ///
    /// # Errors
    ///
    /// If that cannot be told; who does not know says yes.
    fn may_have_data(&self, _range: Range<u64>) -> io::Result<bool> {
        Ok(true)
    }
}

impl ReadAt for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn may_have_data(&self, range: Range<u64>) -> io::Result<bool> {
        match rustix::fs::seek(self, SeekFrom::Data(range.start)) {
            Ok(data) => Ok(data < range.end),
            // No data from there to the end.
            Err(Errno::NXIO) => Ok(false),
            // A file system that does not tell.
            Err(_) => Ok(true),
        }
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

    fn may_have_data(&self, range: Range<u64>) -> io::Result<bool> {
        (**self).may_have_data(range)
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
