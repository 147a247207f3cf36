//! Opening what was saved.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};

use super::refusal::RestoreRefusal;
use super::request::Source;
use crate::manifest::Location;

/// Opens a regular file: where the caller says, else where the snapshot says. A descriptor's position is left alone as long as the
/// file is read at offsets.
pub(super) fn open(
    what: &'static str,
    given: Option<&Source>,
    saved: &Location,
) -> Result<File, RestoreRefusal> {
    let (path, opened) = match (given, saved) {
        (Some(Source::Path(path)), _) | (None, Location::Path(path)) => {
            // Without O_NONBLOCK a FIFO in the place of a file would hang.
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let opened = rustix::fs::open(path, flags, Mode::empty());
            (path.clone(), opened.map(File::from).map_err(io::Error::from))
        }
        (Some(Source::Descriptor(descriptor)), _) => {
            let path = PathBuf::from(format!("/proc/self/fd/{}", descriptor.as_raw_fd()));
            (path, descriptor.try_clone().map(File::from))
        }
        (None, Location::Descriptor) => return Err(RestoreRefusal::SourceNotGiven { what }),
    };
    let looked = opened.and_then(|file| Ok((file.metadata()?.is_file(), file)));
    let source = match looked {
        Ok((true, file)) => return Ok(file),
        Ok((false, _)) => io::Error::other("it is no regular file"),
        Err(source) => source,
    };
    Err(RestoreRefusal::Source { what, path, source })
}
