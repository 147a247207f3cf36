//! Files that a snapshot created, and may therefore remove.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, fsync, statat, unlinkat};
use rustix::io::Errno;

use super::image::Holders;

/// What a rollback did.
#[derive(Debug, Default)]
pub struct RollbackReport {
    /// Files that were created by the snapshot and are removed.
    pub removed: Vec<PathBuf>,
    /// What the snapshot made and is still there.
    pub left: Vec<LeftBehind>,
}

/// Something that a snapshot made and did not remove.
#[derive(Debug, thiserror::Error)]
#[error("{} is left: {reason}", path.display())]
pub struct LeftBehind {
    /// The file, or the image that a snapshot is in.
    pub path: PathBuf,
    /// Why.
    pub reason: LeftReason,
}

/// Why something was not removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeftReason {
    /// The domain writes into it.
    #[error("it is the domain's active image now")]
    Active,
    /// Whether the domain writes into it is not known.
    #[error("whether the domain writes into it is not known")]
    Unknown,
    /// Somebody has it open.
    #[error("process {pid} has it open")]
    Open {
        /// Who.
        pid: u32,
    },
    /// Somebody has written to it since.
    #[error("somebody has written to it")]
    Written,
    /// Another file has its name: that one was not touched.
    #[error("another file has its name")]
    OtherFile,
    /// The system refused.
    #[error("it cannot be removed: {0}")]
    Io(io::Error),
    /// A program or QEMU refused.
    #[error("it cannot be removed: {0}")]
    Refused(String),
}

/// A file that was created here: it is known again by its inode.
#[derive(Clone, Debug)]
pub(super) struct CreatedFile {
    path: PathBuf,
    dev: u64,
    ino: u64,
}

impl CreatedFile {
    /// `file` is what was created, and will be or is at `path`.
    pub(super) fn new(path: PathBuf, file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self { path, dev: metadata.dev(), ino: metadata.ino() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file, unless it is open somewhere or another has its name. One that is gone is as good as removed.
    pub(super) fn remove(&self) -> Result<(), LeftReason> {
        let io = |errno: Errno| LeftReason::Io(errno.into());
        let file = match rustix::fs::open(
            &self.path,
            OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK,
            Mode::empty(),
        ) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(()),
            Err(Errno::LOOP) => return Err(LeftReason::OtherFile),
            Err(errno) => return Err(io(errno)),
        };
        let metadata = file.metadata().map_err(LeftReason::Io)?;
        if (metadata.dev(), metadata.ino()) != (self.dev, self.ino) {
            return Err(LeftReason::OtherFile);
        }
        let holders = Holders::of(&file).map_err(LeftReason::Io)?;
        if let Some(pid) = holders.writing.into_iter().chain(holders.reading).next() {
            return Err(LeftReason::Open { pid });
        }
        let (Some(name), parent) = (self.path.file_name(), self.path.parent()) else {
            return Err(LeftReason::OtherFile);
        };
        let parent = parent.filter(|parent| !parent.as_os_str().is_empty());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory =
            rustix::fs::open(parent.unwrap_or(Path::new(".")), flags, Mode::empty()).map_err(io)?;
        // As late as can be: Linux has no way to unlink a name only if it means a certain file.
        let stat = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(io)?;
        if (stat.st_dev, stat.st_ino) != (self.dev, self.ino) {
            return Err(LeftReason::OtherFile);
        }
        unlinkat(&directory, name, AtFlags::empty()).map_err(io)?;
        fsync(&directory).map_err(io)
    }
}

impl RollbackReport {
    pub(super) fn remove(&mut self, created: &CreatedFile) {
        match created.remove() {
            Ok(()) => self.removed.push(created.path().to_owned()),
            Err(reason) => self.leave(created.path(), reason),
        }
    }

    pub(super) fn leave(&mut self, path: &Path, reason: LeftReason) {
        tracing::warn!(path = %path.display(), %reason, "a rolled back snapshot leaves a file");
        self.left.push(LeftBehind { path: path.to_owned(), reason });
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn created(path: &Path) -> CreatedFile {
        CreatedFile::new(path.to_owned(), &File::create_new(path).unwrap()).unwrap()
    }

    #[test]
    fn what_was_created_is_removed_and_what_took_its_place_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("overlay");
        let file = created(&path);
        file.remove().unwrap();
        assert!(!path.exists());
        file.remove().unwrap();
        let kept = directory.path().join("kept"); // keeps its inode from being used again
        let file = created(&path);
        fs::rename(&path, &kept).unwrap();
        fs::write(&path, b"of another").unwrap();
        assert!(matches!(file.remove(), Err(LeftReason::OtherFile)));
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&kept, &path).unwrap();
        assert!(matches!(file.remove(), Err(LeftReason::OtherFile)));
        assert!(kept.exists() && path.is_symlink());
    }

    #[test]
    fn a_file_that_somebody_writes_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("overlay");
        let file = created(&path);
        let writer = fs::OpenOptions::new().write(true).open(&path).unwrap();
        assert!(
            matches!(file.remove(), Err(LeftReason::Open { pid }) if pid == std::process::id())
        );
        drop(writer);
        file.remove().unwrap();
    }
}
