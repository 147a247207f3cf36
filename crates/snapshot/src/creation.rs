//! Files that a call created, and may therefore remove, also after it was killed.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, Mode, OFlags, fsync, statat, unlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::disk::OverlayIntent;
use crate::disk::image::Holders;

/// Most octets of a name, on every file system in use.
const NAME_MAX: usize = 255;

/// Told of every new file before it has content, and of every overlay before QEMU opens it, so that whoever finds the journal of a
/// call that died knows what is its own.
pub trait CreationLog {
    /// What temporary names begin with: unique to the call, without a slash, and shorter than 200 octets. See [`temporary_name`].
    fn prefix(&self) -> &str;

    /// The temporary file exists, is empty, and will be named `file.path`. What is told has to be durable on return.
    ///
    /// # Errors
    ///
    /// If it cannot be made durable: the file is removed then.
    fn created(&mut self, file: &CreatedFile) -> io::Result<()>;

    /// QEMU is about to be asked to open these overlays, which are complete and no disk uses. What is told has to be durable on
    /// return. [`recover_overlays`](crate::disk::recover_overlays) closes them again.
    ///
    /// # Errors
    ///
    /// If it cannot be made durable: QEMU is not asked then.
    fn opening(&mut self, overlays: &[OverlayIntent]) -> io::Result<()>;
}

/// Remembers nothing: what a killed process leaves stays there, as `.new-PID-TIME-NAME`, or open in QEMU.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoLog;

impl CreationLog for NoLog {
    fn prefix(&self) -> &str {
        static PREFIX: OnceLock<String> = OnceLock::new();
        PREFIX.get_or_init(|| {
            // Another one than that of a process with the same id, which has left something.
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            format!(".new-{}-{:x}-", std::process::id(), now.as_nanos())
        })
    }

    fn created(&mut self, _file: &CreatedFile) -> io::Result<()> {
        Ok(())
    }

    fn opening(&mut self, _overlays: &[OverlayIntent]) -> io::Result<()> {
        Ok(())
    }
}

/// The name that a file has in its directory until it is complete: the prefix, and as much of its name as fits.
///
/// For a recovery, which looks for what a call that died has created and not told of any more.
pub fn temporary_name(prefix: &str, name: &OsStr) -> OsString {
    let mut octets = prefix.as_bytes().to_vec();
    octets.extend_from_slice(name.as_bytes());
    octets.truncate(NAME_MAX);
    OsString::from_vec(octets)
}

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
    /// It is the caller's own descriptor, which is never removed or truncated.
    #[error("it is the caller's own file")]
    CallersOwn,
    /// The system refused.
    #[error("it cannot be removed: {0}")]
    Io(io::Error),
    /// A program or QEMU refused.
    #[error("it cannot be removed: {0}")]
    Refused(String),
}

/// A file that was created here: it is known again by its inode, and by when that was made, since a file system gives the number of a
/// removed file to the next one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedFile {
    /// Its final name: absolute, unless it was given otherwise.
    pub path: PathBuf,
    /// Its file system.
    pub dev: u64,
    /// Its inode number.
    pub ino: u64,
    /// When it was made, in nanoseconds since 1970, where the file system keeps that.
    #[serde(default)]
    pub born_ns: Option<u64>,
}

impl CreatedFile {
    /// `file` is what was created, and will be or is at `path`.
    ///
    /// # Errors
    ///
    /// If the file cannot be looked at.
    pub fn new(path: impl Into<PathBuf>, file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let born_ns = born_ns(&metadata);
        Ok(Self { path: path.into(), dev: metadata.dev(), ino: metadata.ino(), born_ns })
    }

    fn is(&self, found: &Metadata) -> bool {
        let born = self.born_ns.zip(born_ns(found));
        (found.dev(), found.ino()) == (self.dev, self.ino)
            && born.is_none_or(|(own, found)| own == found)
    }

    /// Whether this file is what `path` names. A link to it is another file.
    pub fn is_at(&self, path: &Path) -> bool {
        let named = path.symlink_metadata();
        named.is_ok_and(|named| self.is(&named))
    }

    /// Removes the file from its final name, unless it is open somewhere or another file has that name. One that is gone is as good
    /// as removed. What has its temporary name still is removed as a file with that path.
    ///
    /// # Errors
    ///
    /// Why it is there still.
    pub fn remove(&self) -> Result<(), LeftReason> {
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
        if !self.is(&metadata) {
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

fn born_ns(metadata: &Metadata) -> Option<u64> {
    let born = metadata.created().ok()?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(born.as_nanos()).ok()
}

impl RollbackReport {
    pub(crate) fn remove(&mut self, created: &CreatedFile) {
        match created.remove() {
            Ok(()) => self.removed.push(created.path.clone()),
            Err(reason) => self.leave(&created.path, reason),
        }
    }

    pub(crate) fn leave(&mut self, path: &Path, reason: LeftReason) {
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
    fn a_file_is_known_by_its_inode_whatever_its_name_is() {
        let directory = tempfile::tempdir().unwrap();
        let (path, other) = (directory.path().join("image"), directory.path().join("other"));
        let file = created(&path);
        assert!(file.is_at(&path) && !file.is_at(&other));
        fs::rename(&path, &other).unwrap();
        assert!(!file.is_at(&path) && file.is_at(&other));
        std::os::unix::fs::symlink(&other, &path).unwrap();
        assert!(!file.is_at(&path));
        let json = serde_json::to_string(&file).unwrap();
        assert_eq!(serde_json::from_str::<CreatedFile>(&json).unwrap(), file);
    }

    #[test]
    fn a_file_that_got_the_inode_of_a_removed_one_is_another() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("overlay");
        let file = created(&path);
        assert!(file.born_ns.is_none_or(|born| born > 0) && file.is_at(&path));
        // As if it had been removed, and made anew a moment later with the same number.
        let earlier = CreatedFile { born_ns: file.born_ns.map(|born| born - 1), ..file.clone() };
        if file.born_ns.is_none() {
            println!(
                "skipped: a_file_that_got_the_inode_of_a_removed_one_is_another: no times of birth here"
            );
            return;
        }
        assert!(!earlier.is_at(&path));
        assert!(matches!(earlier.remove(), Err(LeftReason::OtherFile)));
        file.remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_temporary_name_is_never_longer_than_a_name_may_be() {
        assert_eq!(temporary_name(".partial-1-", OsStr::new("image")), ".partial-1-image");
        let long = OsString::from("n".repeat(255));
        let temporary = temporary_name(".partial-1-", &long);
        assert_eq!(temporary.len(), 255);
        assert!(temporary.to_str().unwrap().starts_with(".partial-1-nnn"));
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
