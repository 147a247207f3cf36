//! What a copy is written into.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FileType, OFlags, SeekFrom, fcntl_getfl, fstat, fsync, seek};
use rustix::io::Errno;

use crate::descriptor::open_again;
use crate::disk::image::{ImageChange, ImageRef, OpenImage};
use crate::disk::target::{Unique, check_target};
use crate::disk::{DiskFailure, DiskRefusal, LeftReason, RollbackReport};
use crate::{CompleteFile, CreatedFile, CreationLog, Located};

/// A file that is ready to be written.
#[derive(Debug)]
pub(super) enum Destination {
    /// A new one, without its name.
    New(CompleteFile),
    /// The caller's own.
    Callers { descriptor: Arc<OwnedFd>, path: PathBuf },
}

/// A file that is written, in whole or in part.
#[derive(Debug)]
pub(super) enum Made {
    New(CreatedFile),
    Callers(PathBuf),
}

impl Destination {
    pub(super) fn prepare(to: &Located, log: &mut dyn CreationLog) -> Result<Self, DiskFailure> {
        match to {
            Located::Name(path) => Ok(Self::New(CompleteFile::create_logged(path, log)?)),
            Located::Descriptor(descriptor) => {
                Ok(Self::Callers { descriptor: Arc::clone(descriptor), path: shown(to) })
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::New(file) => file.path(),
            Self::Callers { path, .. } => path,
        }
    }

    /// What has to be told of as soon as it is written to.
    pub(super) fn is_callers(&self) -> Option<Made> {
        match self {
            Self::New(_) => None,
            Self::Callers { path, .. } => Some(Made::Callers(path.clone())),
        }
    }

    /// The caller may have written to its own file since it was looked at.
    pub(super) fn check_empty(&self) -> io::Result<()> {
        match self {
            Self::Callers { descriptor, .. } if fstat(descriptor)?.st_size != 0 => {
                Err(io::ErrorKind::AlreadyExists.into())
            }
            _ => Ok(()),
        }
    }

    /// The descriptors of new files are for writing only, and that of a caller has a position of its own.
    pub(super) fn reopened(&self) -> io::Result<File> {
        open_again(self, File::options().read(true))
    }

    /// Syncs it and gives it its name, and tells what is there then. A file that is not what was written is removed, if it is new.
    pub(super) fn finish(
        self,
        written: &OpenImage,
        all_made: &mut Vec<Made>,
    ) -> Result<ImageRef, DiskFailure> {
        let format = written.image.format;
        match self {
            Self::New(file) => {
                let (created, path) = (file.created().clone(), file.path().to_owned());
                let named = file.finish().map_err(DiskFailure::from);
                let frozen = named.and_then(|_| Ok(ImageRef::read(&path, format)?));
                let frozen = frozen.and_then(|it| {
                    let changes = vec![ImageChange::OtherFile];
                    let other = || DiskFailure::Changed { path: path.clone(), changes };
                    if it.is_same_file(&written.image) { Ok(it) } else { Err(other()) }
                });
                match frozen {
                    Ok(_) => all_made.push(Made::New(created)),
                    // It has its name even if only the directory could not be synced.
                    Err(_) => RollbackReport::default().remove(&created),
                }
                frozen
            }
            Self::Callers { ref descriptor, ref path } => {
                let failed = |errno: Errno| DiskFailure::Io {
                    path: path.clone(),
                    step: "sync it",
                    source: errno.into(),
                };
                fsync(descriptor).map_err(failed)?;
                // Where it would be after writing.
                seek(descriptor, SeekFrom::Start(written.image.size)).map_err(failed)?;
                let reopened = self.reopened();
                let reopened = reopened.map_err(|source| DiskFailure::Io {
                    path: path.clone(),
                    step: "read it",
                    source,
                })?;
                Ok(OpenImage::of(reopened, path.clone(), format)?.image)
            }
        }
    }
}

impl AsFd for Destination {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::New(file) => file.as_fd(),
            Self::Callers { descriptor, .. } => descriptor.as_fd(),
        }
    }
}

impl Made {
    pub(super) fn remove(&self, report: &mut RollbackReport) {
        match self {
            Self::New(created) => report.remove(created),
            Self::Callers(path) => report.leave(path, LeftReason::CallersOwn),
        }
    }
}

/// The path of a descriptor is only the kernel's word for it: enough for a message.
pub(super) fn shown(to: &Located) -> PathBuf {
    match to {
        Located::Name(path) => path.clone(),
        Located::Descriptor(descriptor) => {
            let link = PathBuf::from(format!("/proc/self/fd/{}", descriptor.as_raw_fd()));
            std::fs::read_link(&link).unwrap_or(link)
        }
    }
}

/// Refuses what nothing can be copied to, or what another disk is copied to.
pub(super) fn check_destination(
    vdev: &str,
    to: &Located,
    unique: &mut Unique,
    refusals: &mut Vec<DiskRefusal>,
) {
    match to {
        Located::Name(path) => {
            unique.check(vdev, format!("the copy {}", path.display()), refusals);
            check_target(vdev, path, refusals);
        }
        Located::Descriptor(descriptor) => {
            let (vdev, path) = (vdev.to_owned(), shown(to));
            match against(descriptor) {
                Ok(None) => {}
                Ok(Some(reason)) => {
                    refusals.push(DiskRefusal::Descriptor { vdev: vdev.clone(), path, reason });
                }
                Err(errno) => {
                    let (vdev, source) = (vdev.clone(), errno.into());
                    refusals.push(DiskRefusal::Target { vdev, path, source });
                }
            }
            if let Ok(stat) = fstat(descriptor) {
                unique.check(&vdev, format!("the copy {}:{}", stat.st_dev, stat.st_ino), refusals);
            }
        }
    }
}

/// Why a descriptor cannot be written as a new image.
fn against(descriptor: &OwnedFd) -> Result<Option<&'static str>, Errno> {
    let (stat, flags) = (fstat(descriptor)?, fcntl_getfl(descriptor)?);
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(Some("is not one of a regular file"));
    }
    if flags & OFlags::RWMODE == OFlags::RDONLY || flags.contains(OFlags::PATH) {
        return Ok(Some("is not open for writing"));
    }
    if flags.contains(OFlags::APPEND) {
        return Ok(Some("can only be appended to, and an image has holes"));
    }
    if stat.st_size != 0 {
        return Ok(Some("is one of a file that is not empty"));
    }
    Ok((seek(descriptor, SeekFrom::Current(0))? != 0)
        .then_some("is not at the beginning of its file"))
}
