//! An open directory, and files in it by name: never through a symbolic link, never anything but regular files.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{self, AtFlags, FileType, Mode, OFlags, Stat},
    io::Errno,
};

use crate::template::StoreFault;

/// For every file opened: not inherited by programs that the toolstack starts, not followed if it is a symbolic link,
/// and not waited for if it is a FIFO or a device.
const SAFELY: OFlags =
    OFlags::CLOEXEC.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// A directory that stays the same one if its path is renamed or mounted over.
#[derive(Debug)]
pub(super) struct Directory {
    fd: OwnedFd,
    path: PathBuf,
}

/// Why a file was not opened.
#[derive(Debug)]
pub(super) enum OpenError {
    /// There is something else than a regular file.
    NotAFile,
    Io(io::Error),
}

impl Directory {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let fd =
            fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Directory { fd, path: path.to_owned() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file in this directory, for messages.
    pub(super) fn at(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }

    /// A fault met doing this to a file of this directory.
    pub(super) fn fault(&self, verb: &str, name: &str, source: impl Into<io::Error>) -> StoreFault {
        StoreFault::new(format!("{verb} {}", self.at(name)), source.into())
    }

    /// Opens a file for reading; `None` if there is nothing by this name.
    pub(super) fn open_existing(&self, name: &str) -> Result<Option<(OwnedFd, Stat)>, OpenError> {
        match self.open_regular(name, OFlags::RDONLY, Mode::empty()) {
            Err(OpenError::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// Opens a lock file, and creates it if need be, with the permissions that libxl gives to it.
    pub(super) fn open_lock(&self, name: &str) -> Result<(OwnedFd, Stat), OpenError> {
        self.open_regular(name, OFlags::RDWR | OFlags::CREATE, Mode::from_raw_mode(0o666))
    }

    /// Creates a file that only its owner may read and write, and fills it. Replaces what a killed writer left.
    pub(super) fn create(&self, name: &str, parts: &[&[u8]]) -> io::Result<File> {
        self.remove(name)?;
        let fd = fs::openat(
            &self.fd,
            name,
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | SAFELY,
            Mode::RUSR | Mode::WUSR,
        )?;
        let mut file = File::from(fd);
        parts.iter().try_for_each(|part| file.write_all(part))?;
        Ok(file)
    }

    /// What the name stands for now; `None` if for nothing.
    pub(super) fn stat(&self, name: &str) -> io::Result<Option<Stat>> {
        match fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a file, and returns whether there was one.
    pub(super) fn remove(&self, name: &str) -> io::Result<bool> {
        match fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(fs::renameat(&self.fd, from, &self.fd, to)?)
    }

    /// Makes the names in this directory durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(fs::fsync(&self.fd)?)
    }

    /// Makes everything on this directory's file system durable.
    pub(super) fn sync_file_system(&self) -> io::Result<()> {
        Ok(fs::syncfs(&self.fd)?)
    }

    /// Calls back with the name of every entry.
    pub(super) fn for_each_name(&self, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        for entry in fs::Dir::read_from(&self.fd)? {
            each(entry?.file_name().to_bytes());
        }
        Ok(())
    }

    fn open_regular(
        &self,
        name: &str,
        flags: OFlags,
        mode: Mode,
    ) -> Result<(OwnedFd, Stat), OpenError> {
        let fd = fs::openat(&self.fd, name, flags | SAFELY, mode).map_err(|error| match error {
            // A symbolic link; a directory opened for writing; a socket, or a FIFO nobody reads.
            Errno::LOOP | Errno::ISDIR | Errno::NXIO => OpenError::NotAFile,
            error => OpenError::Io(error.into()),
        })?;
        let stat = fs::fstat(&fd).map_err(|error| OpenError::Io(error.into()))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok((fd, stat)),
            _ => Err(OpenError::NotAFile),
        }
    }
}

/// Whether both are the same file.
pub(super) fn same_file(one: &Stat, other: &Stat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}
