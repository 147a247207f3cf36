//! A file that has its name only once it is complete.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Mode, OFlags, RenameFlags, fsync, linkat, openat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;

use crate::creation::{CreatedFile, CreationLog, NoLog, temporary_name};
use crate::descriptor::open_again;

/// Who may read the file: what a domain has in Xenstore or in memory is not for everybody.
const MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// A new file that appears under its name only when it is complete and synced, and never in the place of another.
///
/// Until [`CompleteFile::finish`] it is a temporary sibling in the same directory, readable by its owner only: see
/// [`temporary_name`]. Dropped without that, it is removed; only if the process is killed the temporary file stays, and a
/// [`CreationLog`] knows of it.
///
/// Each [`Write::write`] is a system call: put a [`std::io::BufWriter`] around it for small pieces.
#[derive(Debug)]
pub struct CompleteFile {
    path: PathBuf,
    /// The directory as it was found first, also if somebody renames it meanwhile.
    directory: OwnedFd,
    name: OsString,
    file: File,
    /// With the absolute path.
    created: CreatedFile,
    /// `None` when there is nothing to be removed any more.
    temporary: Option<OsString>,
}

impl CompleteFile {
    /// Creates the temporary file. Nobody is told of it.
    ///
    /// # Errors
    ///
    /// If `path` names no file, if there is something with that name already, or if the directory cannot be written.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self, CompleteFileError> {
        Self::create_logged(path, &mut NoLog)
    }

    /// Creates the temporary file, and tells of it before anything can be written to it.
    ///
    /// # Errors
    ///
    /// As [`CompleteFile::create`]. If there is something with the temporary name, or if the log fails, there is no file either.
    pub fn create_logged(
        path: impl Into<PathBuf>,
        log: &mut dyn CreationLog,
    ) -> Result<Self, CompleteFileError> {
        let path = path.into();
        let ends_in_slash = path.as_os_str().as_bytes().ends_with(b"/");
        let Some(name) = path.file_name().filter(|_| !ends_in_slash).map(OsStr::to_owned) else {
            return Err(CompleteFileError::NoName { path });
        };
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = parent.unwrap_or(Path::new("."));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = match rustix::fs::open(directory, flags, Mode::empty()) {
            Ok(directory) => directory,
            Err(errno) => return Err(failed(path, CompleteFileStep::OpenDirectory, errno)),
        };
        // The last step refuses to replace a file in any case. This one spares the work before it.
        match statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => return Err(CompleteFileError::Exists { path }),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed(path, CompleteFileStep::Look, errno)),
        }
        let absolute = match std::path::absolute(&path) {
            Ok(absolute) => absolute,
            Err(source) => {
                return Err(CompleteFileError::Step { path, step: CompleteFileStep::Look, source });
            }
        };
        let temporary = temporary_name(log.prefix(), &name);
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match openat(&directory, &temporary, flags, MODE) {
            Ok(file) => File::from(file),
            Err(errno) => return Err(failed(path, CompleteFileStep::Create, errno)),
        };
        let created = match CreatedFile::new(absolute, &file) {
            Ok(created) => created,
            Err(source) => {
                // What cannot be told of must not stay; that removing it fails as well would say nothing more.
                let _ = unlinkat(&directory, &temporary, AtFlags::empty());
                return Err(CompleteFileError::Step {
                    path,
                    step: CompleteFileStep::Create,
                    source,
                });
            }
        };
        // From here on the temporary file is removed on dropping.
        let it = Self { path, directory, name, file, created, temporary: Some(temporary) };
        log.created(&it.created).map_err(|source| it.error(CompleteFileStep::Log, source))?;
        Ok(it)
    }

    /// The name that the file will have.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file by its inode and the absolute path that it will have.
    pub fn created(&self) -> &CreatedFile {
        &self.created
    }

    /// The file once more, for reading as well and with a position of its own.
    ///
    /// # Errors
    ///
    /// If the process has no file descriptor left.
    pub fn open_again(&self) -> io::Result<File> {
        open_again(self, File::options().read(true).write(true))
    }

    /// Syncs the file. [`CompleteFile::finish`] does so in any case; before it, several files can be synced first and named
    /// one right after another.
    ///
    /// # Errors
    ///
    /// [`CompleteFileStep::Sync`].
    pub fn sync(&mut self) -> Result<(), CompleteFileError> {
        fsync(&self.file).map_err(|errno| self.error(CompleteFileStep::Sync, errno.into()))
    }

    /// Syncs the file, gives it its name, and syncs the directory.
    ///
    /// # Errors
    ///
    /// If there is something with that name by now, or if a step fails. If that is [`CompleteFileStep::RemoveTemporary`] or
    /// [`CompleteFileStep::SyncDirectory`], the file is complete and has its name; otherwise nothing is left of it.
    pub fn finish(self) -> Result<CreatedFile, CompleteFileError> {
        let rename = |directory: &OwnedFd, temporary: &OsStr, name: &OsStr| {
            renameat_with(directory, temporary, directory, name, RenameFlags::NOREPLACE)
        };
        self.finish_by(rename, |synced| fsync(synced))
    }

    /// Gives the file its name and syncs nothing: after a loss of power it may be empty.
    pub(crate) fn finish_unsynced(self) -> Result<CreatedFile, CompleteFileError> {
        let rename = |directory: &OwnedFd, temporary: &OsStr, name: &OsStr| {
            renameat_with(directory, temporary, directory, name, RenameFlags::NOREPLACE)
        };
        self.finish_by(rename, |_| Ok(()))
    }

    fn finish_by(
        mut self,
        rename: impl FnOnce(&OwnedFd, &OsStr, &OsStr) -> Result<(), Errno>,
        mut sync: impl FnMut(BorrowedFd<'_>) -> Result<(), Errno>,
    ) -> Result<CreatedFile, CompleteFileError> {
        sync(self.file.as_fd())
            .map_err(|errno| self.error(CompleteFileStep::Sync, errno.into()))?;
        if let Some(temporary) = self.temporary.clone() {
            match rename(&self.directory, &temporary, &self.name) {
                Ok(()) => self.temporary = None,
                Err(Errno::EXIST) => return Err(self.exists()),
                // Neither every kernel nor every file system can refuse to replace on renaming.
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => self.link(&temporary)?,
                Err(errno) => return Err(self.error(CompleteFileStep::Rename, errno.into())),
            }
        }
        sync(self.directory.as_fd())
            .map_err(|errno| self.error(CompleteFileStep::SyncDirectory, errno.into()))?;
        Ok(self.created.clone())
    }

    /// A link never replaces anything either.
    fn link(&mut self, temporary: &OsStr) -> Result<(), CompleteFileError> {
        match linkat(&self.directory, temporary, &self.directory, &self.name, AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(self.exists()),
            Err(errno) => return Err(self.error(CompleteFileStep::Rename, errno.into())),
        }
        unlinkat(&self.directory, temporary, AtFlags::empty())
            .map_err(|errno| self.error(CompleteFileStep::RemoveTemporary, errno.into()))?;
        self.temporary = None;
        Ok(())
    }

    fn exists(&self) -> CompleteFileError {
        CompleteFileError::Exists { path: self.path.clone() }
    }

    fn error(&self, step: CompleteFileStep, source: io::Error) -> CompleteFileError {
        CompleteFileError::Step { path: self.path.clone(), step, source }
    }
}

impl Write for CompleteFile {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.file.write(octets)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// For what `Write` has no word for: clones, holes, and what another program writes into it. It is open for writing only.
impl AsFd for CompleteFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for CompleteFile {
    fn drop(&mut self) {
        if let Some(temporary) = self.temporary.take()
            && let Err(error) = unlinkat(&self.directory, &temporary, AtFlags::empty())
        {
            let path = self.path.display();
            tracing::warn!(%path, ?temporary, %error, "an unfinished file stays under its temporary name");
        }
    }
}

fn failed(path: PathBuf, step: CompleteFileStep, errno: Errno) -> CompleteFileError {
    CompleteFileError::Step { path, step, source: errno.into() }
}

/// Why a file is not there, or not surely.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompleteFileError {
    /// Something has that name already. It was not touched.
    #[error("{} exists already", path.display())]
    Exists {
        /// The name.
        path: PathBuf,
    },
    /// A path that ends in no name, as `..` and `directory/` do.
    #[error("{:?} names no file", path.display().to_string())]
    NoName {
        /// The path.
        path: PathBuf,
    },
    /// A step failed.
    #[error("{}: cannot {step}", path.display())]
    Step {
        /// The name that the file was to have.
        path: PathBuf,
        /// Which step.
        step: CompleteFileStep,
        /// How.
        source: io::Error,
    },
}

/// On the way to a complete file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CompleteFileStep {
    /// Opening its directory.
    OpenDirectory,
    /// Looking whether there is such a file.
    Look,
    /// Creating the temporary file.
    Create,
    /// Telling the log of it.
    Log,
    /// Syncing what was written.
    Sync,
    /// Giving it its name.
    Rename,
    /// Removing the temporary name, where giving the final one did not.
    RemoveTemporary,
    /// Syncing the directory.
    SyncDirectory,
}

impl fmt::Display for CompleteFileStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OpenDirectory => "open its directory",
            Self::Look => "see whether it exists",
            Self::Create => "create a temporary file beside it",
            Self::Log => "record that it is created",
            Self::Sync => "sync it",
            Self::Rename => "give it its name",
            Self::RemoveTemporary => "remove its temporary name",
            Self::SyncDirectory => "sync its directory",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use rustix::fs::{FileType, fstat};

    use super::*;

    fn names(directory: &Path) -> Vec<OsString> {
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn a_file_has_its_name_only_once_it_is_finished() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let mut file = CompleteFile::create(&path).unwrap();
        file.write_all(b"all of it").unwrap();
        assert!(!path.exists());
        assert_eq!(names(directory.path()).len(), 1, "the temporary file is a sibling");
        file.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"all of it");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(names(directory.path()), ["state"]);
    }

    #[test]
    fn dropped_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = CompleteFile::create(directory.path().join("state")).unwrap();
        file.write_all(b"half").unwrap();
        drop(file);
        assert!(names(directory.path()).is_empty());
    }

    #[test]
    fn an_existing_file_is_never_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        fs::write(&path, b"old").unwrap();
        let error = CompleteFile::create(&path).unwrap_err();
        assert!(matches!(&error, CompleteFileError::Exists { path: named } if *named == path));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(directory.path()), ["state"]);
    }

    type Finish = fn(CompleteFile) -> Result<CreatedFile, CompleteFileError>;

    /// As the kernel does it, and as where renaming cannot refuse to replace.
    const WAYS: [Finish; 2] = [CompleteFile::finish, |file| {
        file.finish_by(|_, _, _| Err(Errno::INVAL), |synced| fsync(synced))
    }];

    #[test]
    fn a_file_that_came_meanwhile_is_not_replaced_and_nothing_else_is_left() {
        for finish in WAYS {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("state");
            let mut file = CompleteFile::create(&path).unwrap();
            file.write_all(b"new").unwrap();
            fs::write(&path, b"of another").unwrap();
            assert!(matches!(finish(file), Err(CompleteFileError::Exists { .. })));
            assert_eq!(fs::read(&path).unwrap(), b"of another");
            assert_eq!(names(directory.path()), ["state"]);
        }
    }

    #[test]
    fn where_renaming_cannot_refuse_to_replace_a_link_does() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let mut file = CompleteFile::create(&path).unwrap();
        file.write_all(b"all of it").unwrap();
        WAYS[1](file).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"all of it");
        assert_eq!(names(directory.path()), ["state"]);
    }

    #[test]
    fn a_link_to_nowhere_is_a_file_that_exists() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        symlink(directory.path().join("nowhere"), &path).unwrap();
        assert!(matches!(CompleteFile::create(&path), Err(CompleteFileError::Exists { .. })));
        assert!(!directory.path().join("nowhere").exists());
    }

    /// Remembers what it was told and what was there at that moment, or fails.
    struct Log {
        told: Vec<(CreatedFile, Vec<OsString>, u64)>,
        fails: bool,
    }

    impl CreationLog for Log {
        fn prefix(&self) -> &str {
            ".partial-7-"
        }

        fn created(&mut self, file: &CreatedFile) -> io::Result<()> {
            let parent = file.path.parent().unwrap();
            let temporary = temporary_name(self.prefix(), file.path.file_name().unwrap());
            assert!(file.is_at(&parent.join(&temporary)));
            let length = fs::metadata(parent.join(temporary)).unwrap().len();
            self.told.push((file.clone(), names(parent), length));
            if self.fails { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }

        fn opening(&mut self, overlays: &[crate::disk::OverlayIntent]) -> io::Result<()> {
            unreachable!("no file is an overlay: {overlays:?}")
        }
    }

    #[test]
    fn a_log_knows_a_file_by_its_inode_while_it_is_empty_and_has_its_temporary_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let mut log = Log { told: Vec::new(), fails: false };
        let mut file = CompleteFile::create_logged(&path, &mut log).unwrap();
        let [(told, names, length)] = &log.told[..] else { panic!("{:?}", log.told) };
        assert_eq!(names, &[".partial-7-state"]);
        assert_eq!(*length, 0);
        assert_eq!(told.path, path);
        file.write_all(b"all of it").unwrap();
        file.sync().unwrap();
        assert!(!path.exists());
        let finished = file.finish().unwrap();
        assert_eq!(&finished, told);
        assert!(told.is_at(&path));
    }

    #[test]
    fn a_file_that_the_log_cannot_record_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = Log { told: Vec::new(), fails: true };
        let error = CompleteFile::create_logged(directory.path().join("state"), &mut log);
        let error = error.unwrap_err();
        assert!(
            matches!(error, CompleteFileError::Step { step: CompleteFileStep::Log, .. }),
            "{error:?}"
        );
        assert_eq!(log.told.len(), 1);
        assert!(names(directory.path()).is_empty());
    }

    #[test]
    fn what_has_the_temporary_name_is_not_touched_and_nobody_is_told_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let left = directory.path().join(".partial-7-state");
        fs::write(&left, b"half").unwrap();
        let mut log = Log { told: Vec::new(), fails: false };
        let error = CompleteFile::create_logged(directory.path().join("state"), &mut log);
        let error = error.unwrap_err();
        assert!(
            matches!(error, CompleteFileError::Step { step: CompleteFileStep::Create, .. }),
            "{error:?}"
        );
        assert!(log.told.is_empty());
        assert_eq!(fs::read(&left).unwrap(), b"half");
    }

    #[test]
    fn names_as_long_as_they_may_be_are_names() {
        let directory = tempfile::tempdir().unwrap();
        let name = "n".repeat(255);
        CompleteFile::create(directory.path().join(&name)).unwrap().finish().unwrap();
        assert_eq!(names(directory.path()), [OsString::from(name)]);
    }

    #[test]
    fn errors_name_the_path_and_the_step() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("missing/state");
        let error = CompleteFile::create(&missing).unwrap_err();
        assert!(matches!(
            error,
            CompleteFileError::Step { step: CompleteFileStep::OpenDirectory, .. }
        ));
        assert_eq!(error.to_string(), format!("{}: cannot open its directory", missing.display()));
        for path in ["", "/", "..", "name/"] {
            let error = CompleteFile::create(path).unwrap_err();
            assert!(matches!(error, CompleteFileError::NoName { .. }), "{path:?}: {error}");
        }
    }

    #[test]
    fn the_file_is_synced_before_it_has_its_name_and_the_directory_after() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("name");
        let rename = |directory: &OwnedFd, temporary: &OsStr, name: &OsStr| {
            renameat_with(directory, temporary, directory, name, RenameFlags::NOREPLACE)
        };
        let mut synced = Vec::new();
        let file = CompleteFile::create(&path).unwrap();
        file.finish_by(rename, |fd| {
            let is_directory = FileType::from_raw_mode(fstat(fd)?.st_mode) == FileType::Directory;
            synced.push((is_directory, path.exists()));
            Ok(())
        })
        .unwrap();
        assert_eq!(synced, [(false, false), (true, true)]);

        let unsynced = directory.path().join("unsynced");
        let file = CompleteFile::create(&unsynced).unwrap();
        file.finish_by(rename, |_| Err(Errno::IO)).unwrap_err();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "only the first is there");
    }
}
