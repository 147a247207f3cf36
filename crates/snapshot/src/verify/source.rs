//! Opening what was saved, for reading.

use std::fs::File;
use std::os::fd::AsRawFd;

use rustix::fs::{Mode, OFlags};

use super::{Artifact, Problem};
use crate::manifest::Location;
use crate::restore::Source;

/// Opens a regular file: where the caller says, else where the snapshot says.
pub(super) fn open(
    artifact: Artifact,
    given: Option<&Source>,
    saved: &Location,
) -> Result<File, Problem> {
    let source = match (given, saved) {
        (Some(source), _) => source.clone(),
        (None, Location::Path(path)) => Source::Path(path.clone()),
        (None, Location::Descriptor) => return Err(Problem::NotGiven { artifact }),
    };
    // Without O_NONBLOCK a FIFO in the place of a file would hang.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let (place, opened) = match &source {
        Source::Path(path) => (
            path.display().to_string(),
            rustix::fs::open(path, flags, Mode::empty()).map_err(Into::into),
        ),
        Source::Descriptor(descriptor) => {
            (format!("descriptor {}", descriptor.as_raw_fd()), descriptor.try_clone())
        }
    };
    let looked = opened.map(File::from).and_then(|file| Ok((file.metadata()?.is_file(), file)));
    match looked {
        Ok((true, file)) => Ok(file),
        Ok((false, _)) => Err(Problem::NotAFile { artifact, place }),
        Err(source) => Err(Problem::Open { artifact, place, source }),
    }
}
