//! Digests of whole images.

use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::Instant;

use rustix::fs::{SeekFrom, seek};

use super::DiskFailure;
use super::copy::octets::next_data;
use super::image::{Digest, ImageChange, ImageRef, OpenImage};

/// Octets that are read or copied between two looks at the clock: a tenth of a second on a slow disk.
pub(super) const PIECE: usize = 8 << 20;

/// Digests all octets of an image's file, holes as zeros.
///
/// The image is opened for reading only, without a lock: QEMU may have it open as a backing file. It has to be the file that
/// `expected` tells of, unchanged, and to stay so; a block device has neither times nor size to tell that by.
///
/// `progress` is told how many octets are digested, every few of them, and may break it off.
///
/// # Errors
///
/// [`DiskFailure::Changed`] if it is another file, or was or is written to; [`DiskFailure::Stopped`] if `progress` broke it off; or
/// what keeps it from being read before the deadline.
pub fn digest_image(
    path: &Path,
    expected: &ImageRef,
    deadline: Instant,
    progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<Digest, DiskFailure> {
    let failed = |source| DiskFailure::Io { path: path.to_owned(), step: "look at it", source };
    let opened = OpenImage::open(path.to_owned(), expected.format)?;
    let before = opened.file.metadata().map_err(failed)?;
    let mut changes = opened.image.changes_since(expected);
    if changes.is_empty() {
        let digest = digest_of(&opened.file, opened.image.size, path, deadline, progress)?;
        let after = opened.file.metadata().map_err(failed)?;
        // Both: what was written before the first look at the times shows in what is expected, and what was written and dated
        // back shows in the time of change.
        changes = OpenImage::of(opened.file, path.to_owned(), expected.format)?
            .image
            .changes_since(expected);
        changes.extend(changed(&before, &after));
        if changes.is_empty() {
            return Ok(digest);
        }
    }
    Err(DiskFailure::Changed { path: path.to_owned(), changes })
}

/// The digest of a whole file. Holes are zeros, which need not be read to be known.
pub(super) fn digest_of(
    mut file: &File,
    size: u64,
    path: &Path,
    deadline: Instant,
    progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<Digest, DiskFailure> {
    let failed =
        |source: io::Error| DiskFailure::Io { path: path.to_owned(), step: "read it", source };
    let mut advanced = |at| {
        check_deadline(path, "digested", deadline)?;
        match progress(at) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(DiskFailure::Stopped { path: path.to_owned() }),
        }
    };
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; PIECE];
    let zeros = vec![0; PIECE];
    let mut at = 0;
    while at < size {
        let (start, end) = next_data(file, at, size)
            .map_err(|errno| failed(errno.into()))?
            .unwrap_or((size, size));
        while at < start {
            let piece = usize::try_from(start - at).unwrap_or(PIECE).min(PIECE);
            hasher.write_all(&zeros[..piece]).map_err(failed)?;
            at += piece as u64;
            advanced(at)?;
        }
        seek(file, SeekFrom::Start(start)).map_err(|errno| failed(errno.into()))?;
        while at < end {
            let piece = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
            file.read_exact(&mut buffer[..piece]).map_err(failed)?;
            hasher.write_all(&buffer[..piece]).map_err(failed)?;
            at += piece as u64;
            advanced(at)?;
        }
    }
    Ok(Digest::finished(&hasher))
}

pub(super) fn check_deadline(
    path: &Path,
    step: &'static str,
    deadline: Instant,
) -> Result<(), DiskFailure> {
    if Instant::now() < deadline {
        return Ok(());
    }
    Err(DiskFailure::Deadline { path: path.to_owned(), step })
}

/// The time of change cannot be set back, as that of modification can.
pub(super) fn changed(before: &Metadata, after: &Metadata) -> Vec<ImageChange> {
    if before.file_type().is_block_device() {
        return Vec::new();
    }
    let times = |metadata: &Metadata| {
        (metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec())
    };
    let size = (before.len() != after.len()).then_some(ImageChange::Size);
    let written = (times(before) != times(after)).then_some(ImageChange::Modified);
    size.into_iter().chain(written).collect()
}
