//! The octets of a copy.

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Instant;

use rustix::fs::{SeekFrom, copy_file_range, ftruncate, ioctl_ficlone, seek};
use rustix::io::Errno;

use super::CopyMethod;
use crate::disk::digest::{PIECE, check_deadline};
use crate::disk::image::OpenImage;
use crate::disk::{DiskAction, DiskFailure};

/// Copies by the method into an empty file, and tells by which it was.
pub(super) fn copy(
    source: &OpenImage,
    file: BorrowedFd<'_>,
    method: CopyMethod,
    destination: &Path,
    deadline: Instant,
) -> Result<DiskAction, DiskFailure> {
    let io = |step| {
        move |errno: Errno| DiskFailure::Io {
            path: destination.to_owned(),
            step,
            source: errno.into(),
        }
    };
    let named = destination.to_owned();
    if method != CopyMethod::Sparse {
        match ioctl_ficlone(file, &source.file) {
            Ok(()) => return Ok(DiskAction::Reflink { destination: named }),
            // Another file system, or one that cannot: EOPNOTSUPP, EXDEV, EINVAL; ENOTTY of those that know no clones at all.
            Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY | Errno::NOSYS)
                if method == CopyMethod::ReflinkOrSparse => {}
            Err(errno) => return Err(io("clone it")(errno)),
        }
    }
    let size = source.image.size;
    ftruncate(file, size).map_err(io("give it its size"))?;
    let mut at = 0;
    while let Some((start, end)) = next_data(&source.file, at, size).map_err(io("find holes"))? {
        copy_range(&source.file, file, start, end, destination, deadline)?;
        at = end;
    }
    Ok(DiskAction::SparseCopy { destination: named })
}

/// The next part of a file that is not a hole. A block device has no holes to tell.
pub(in crate::disk) fn next_data(
    file: &File,
    at: u64,
    size: u64,
) -> Result<Option<(u64, u64)>, Errno> {
    if at >= size {
        return Ok(None);
    }
    let start = match seek(file, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        Err(Errno::INVAL) => return Ok(Some((at, size))),
        Err(errno) => return Err(errno),
    };
    let end = seek(file, SeekFrom::Hole(start))?.min(size);
    Ok((start < end).then_some((start, end)))
}

fn copy_range(
    source: &File,
    file: BorrowedFd<'_>,
    start: u64,
    end: u64,
    destination: &Path,
    deadline: Instant,
) -> Result<(), DiskFailure> {
    use std::os::unix::fs::FileExt;
    let failed = |source: io::Error| DiskFailure::Io {
        path: destination.to_owned(),
        step: "copy to it",
        source,
    };
    let mut in_kernel = true;
    let mut buffer = Vec::new();
    let (mut from, mut to) = (start, start);
    while from < end {
        check_deadline(destination, "copied", deadline)?;
        let piece = usize::try_from(end - from).unwrap_or(usize::MAX).min(PIECE);
        if in_kernel {
            match copy_file_range(source, Some(&mut from), file, Some(&mut to), piece) {
                Ok(0) => in_kernel = false,
                Ok(_) => {}
                Err(Errno::INTR) => {}
                // Between file systems, from block devices, and on kernels that have no such thing.
                Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::BADF) => {
                    in_kernel = false;
                }
                Err(errno) => return Err(failed(errno.into())),
            }
            continue;
        }
        buffer.resize(PIECE.min(piece), 0);
        match source.read_at(&mut buffer[..piece], from) {
            // It became shorter; its changed size is found afterwards.
            Ok(0) => return Ok(()),
            Ok(read) => {
                let mut octets = &buffer[..read];
                while !octets.is_empty() {
                    match rustix::io::pwrite(file, octets, to) {
                        Ok(0) => return Err(failed(io::ErrorKind::WriteZero.into())),
                        Ok(written) => {
                            octets = &octets[written..];
                            to += written as u64;
                        }
                        Err(Errno::INTR) => {}
                        Err(errno) => return Err(failed(errno.into())),
                    }
                }
                from = to;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(())
}
