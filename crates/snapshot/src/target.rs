//! Where something new is to be.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FileType, fstat, stat, statvfs};
use rustix::io::Errno;

/// Where something new is to be written. Nothing is ever overwritten.
#[derive(Clone, Debug)]
pub enum Target {
    /// A path that must not exist.
    Path(PathBuf),
    /// A name that must not exist, in a directory that is given as a descriptor.
    InDirectory {
        /// The directory.
        directory: Arc<OwnedFd>,
        /// The name: a single component.
        name: OsString,
    },
    /// The caller's own descriptor: written from its position, never truncated, never removed.
    Descriptor(Arc<OwnedFd>),
}

/// A [`Target`] once it is known where it is.
#[derive(Clone, Debug)]
pub enum Located {
    /// An absolute path.
    Name(PathBuf),
    /// The caller's own descriptor.
    Descriptor(Arc<OwnedFd>),
}

impl Target {
    /// Finds out where it is: an absolute path, or the descriptor as it is.
    ///
    /// Whether there is something with that name already is not looked at: that is for who creates it.
    ///
    /// # Errors
    ///
    /// If a name is no name of a file, or if a directory has no path that leads to it, being removed or out of reach.
    pub fn locate(&self) -> Result<Located, TargetError> {
        match self {
            Self::Path(path) => std::path::absolute(path)
                .map(Located::Name)
                .map_err(|source| TargetError::Path { path: path.clone(), source }),
            Self::InDirectory { directory, name } => {
                if !is_name(name) {
                    return Err(TargetError::Name { name: name.clone() });
                }
                Ok(Located::Name(path_of(directory, name)?.join(name)))
            }
            Self::Descriptor(descriptor) => Ok(Located::Descriptor(Arc::clone(descriptor))),
        }
    }
}

impl From<PathBuf> for Target {
    fn from(path: PathBuf) -> Self {
        Self::Path(path)
    }
}

impl From<&Path> for Target {
    fn from(path: &Path) -> Self {
        Self::Path(path.to_owned())
    }
}

/// The descriptor itself is the target, also if it is one of a directory.
impl From<OwnedFd> for Target {
    fn from(descriptor: OwnedFd) -> Self {
        Self::Descriptor(Arc::new(descriptor))
    }
}

fn is_name(name: &OsStr) -> bool {
    let octets = name.as_bytes();
    !matches!(octets, b"" | b"." | b"..") && !octets.iter().any(|octet| matches!(octet, b'/' | 0))
}

/// The present path of a directory. The kernel's word for it is no path any more once the directory is removed, and may mean
/// another one where something is mounted over it.
fn path_of(directory: &OwnedFd, name: &OsStr) -> Result<PathBuf, TargetError> {
    let failed = |source: io::Error| TargetError::Directory { name: name.to_owned(), source };
    let open = fstat(directory).map_err(|errno| failed(errno.into()))?;
    if FileType::from_raw_mode(open.st_mode) != FileType::Directory {
        return Err(failed(Errno::NOTDIR.into()));
    }
    let link = format!("/proc/self/fd/{}", directory.as_raw_fd());
    let path = std::fs::read_link(link).map_err(failed)?;
    let same = stat(&path).is_ok_and(|named| {
        (named.st_dev, named.st_ino) == (open.st_dev, open.st_ino) && path.is_absolute()
    });
    if same { Ok(path) } else { Err(TargetError::DirectoryGone { name: name.to_owned(), path }) }
}

/// Why it is not known where a [`Target`] is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// A path that cannot be made absolute, as the empty one.
    #[error("{path:?} cannot be made an absolute path")]
    Path {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not a name in a directory: empty, `.`, `..`, or with a slash in it.
    #[error("{name:?} is not a name in a directory")]
    Name {
        /// The name.
        name: OsString,
    },
    /// The descriptor of the directory cannot be used.
    #[error("the directory that {name:?} is to be in cannot be used")]
    Directory {
        /// The name in it.
        name: OsString,
        /// Why.
        source: io::Error,
    },
    /// The directory is removed, or no path leads to it.
    #[error("the directory that {name:?} is to be in is not at {} any more", path.display())]
    DirectoryGone {
        /// The name in it.
        name: OsString,
        /// Where the kernel says that it is or was.
        path: PathBuf,
    },
}

/// What a file system has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreeSpace {
    /// The file system, as the device number of what is in it.
    pub dev: u64,
    /// Octets that the caller may still fill.
    pub octets: u64,
}

/// The room there is for a file at `path`, which need not exist: neither need its directories.
///
/// # Errors
///
/// If the nearest directory that exists cannot be looked at.
pub fn free_space(path: &Path) -> io::Result<FreeSpace> {
    let path = std::path::absolute(path)?;
    for at in path.ancestors() {
        let stat = match stat(at) {
            Ok(stat) => stat,
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            Err(errno) => return Err(errno.into()),
        };
        let room = statvfs(at)?;
        let octets = room.f_bavail.saturating_mul(room.f_frsize);
        return Ok(FreeSpace { dev: stat.st_dev, octets });
    }
    Err(io::ErrorKind::NotFound.into())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    fn in_directory(path: &Path, name: &str) -> Target {
        let directory = Arc::new(OwnedFd::from(File::open(path).unwrap()));
        Target::InDirectory { directory, name: name.into() }
    }

    fn name(target: &Target) -> PathBuf {
        match target.locate().unwrap() {
            Located::Name(path) => path,
            Located::Descriptor(descriptor) => panic!("{descriptor:?}"),
        }
    }

    #[test]
    fn a_directory_that_was_moved_is_found_where_it_is_and_one_that_is_removed_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let parent = parent.path().canonicalize().unwrap();
        let (before, after) = (parent.join("before"), parent.join("after"));
        fs::create_dir(&before).unwrap();
        let target = in_directory(&before, "image");
        assert_eq!(name(&target), before.join("image"));
        fs::rename(&before, &after).unwrap();
        fs::create_dir(&before).unwrap();
        assert_eq!(name(&target), after.join("image"));
        fs::remove_dir(&after).unwrap();
        let error = target.locate().unwrap_err();
        assert!(matches!(error, TargetError::DirectoryGone { .. }), "{error:?}");
        // The kernel's word for a removed directory may be the path of another one.
        fs::create_dir(parent.join("after (deleted)")).unwrap();
        let error = target.locate().unwrap_err();
        assert!(matches!(error, TargetError::DirectoryGone { .. }), "{error:?}");
    }

    #[test]
    fn names_that_lead_out_of_the_directory_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["", ".", "..", "a/b", "/etc/passwd", "a/"] {
            let error = in_directory(directory.path(), name).locate().unwrap_err();
            assert!(matches!(error, TargetError::Name { .. }), "{name:?}: {error:?}");
        }
        let file = directory.path().join("file");
        fs::write(&file, b"").unwrap();
        let error = in_directory(&file, "name").locate().unwrap_err();
        assert!(matches!(error, TargetError::Directory { .. }), "{error:?}");
    }

    #[test]
    fn paths_become_absolute_and_descriptors_stay() {
        assert_eq!(
            name(&Path::new("image").into()),
            std::env::current_dir().unwrap().join("image")
        );
        assert!(matches!(Target::from(PathBuf::new()).locate(), Err(TargetError::Path { .. })));
        let descriptor = OwnedFd::from(tempfile::tempfile().unwrap());
        let number = descriptor.as_raw_fd();
        match Target::from(descriptor).locate().unwrap() {
            Located::Descriptor(descriptor) => assert_eq!(descriptor.as_raw_fd(), number),
            Located::Name(path) => panic!("{path:?}"),
        }
    }

    #[test]
    fn the_room_for_a_file_is_that_of_the_directory_that_will_hold_it() {
        let directory = tempfile::tempdir().unwrap();
        let found = free_space(&directory.path().join("not/yet/there")).unwrap();
        assert_eq!(found.dev, stat(directory.path()).unwrap().st_dev);
        assert!(found.octets > 0);
        // Another file system than that of any temporary directory, and one that holds nothing.
        assert_eq!(free_space(Path::new("/proc/self/nothing")).unwrap().octets, 0);
    }
}
