//! Owning the directory of a store.
//!
//! ```text
//! DIRECTORY/owner    locked (flock) by the process that owns the store; always empty, never removed
//! DIRECTORY/sled/    the database
//! ```
//!
//! The database has a lock of its own, which fails at once and does not say who holds it. This one is taken before it,
//! is waited for, and its holder is named from the kernel's list of locks, which cannot be out of date as a file with a
//! process id in it can.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io,
    os::{fd::OwnedFd, unix::fs::DirBuilderExt, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
    time::Instant,
};

use thiserror::Error;

use crate::template::{
    Holder, StoreFault,
    flock::{self, Wait},
};

/// The file whose lock is the ownership of the directory.
const OWNER: &str = "owner";
/// The directory of the database.
const DATABASE: &str = "sled";

/// Why a store was not opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenStoreError {
    /// There is no store in this directory.
    #[error("{}: there is no template store here", path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// Another process owned the store until the deadline.
    #[error("{}: {holder} owned this template store until the deadline", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Who owned it.
        holder: Holder,
    },
    /// The directory cannot be used.
    #[error("{}: cannot be used as a template store", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The database in it cannot be opened: it is damaged, or something else has it open.
    #[error("{}: the database of this template store cannot be opened", path.display())]
    Database {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: StoreFault,
    },
}

/// A directory owned by this value.
#[derive(Debug)]
pub(super) struct Opened {
    path: PathBuf,
    _owner: OwnedFd,
}

impl Opened {
    /// Owns the directory of a store that exists.
    pub(super) fn existing(path: &Path, deadline: Instant) -> Result<Self, OpenStoreError> {
        // Asked first, so that no owner's file is put into a directory that is no store.
        if !path.join(DATABASE).is_dir() {
            return Err(OpenStoreError::Missing { path: path.to_owned() });
        }
        Self::own(path, deadline)
    }

    /// Owns the directory of a store, and creates it if need be.
    pub(super) fn or_create(path: &Path, deadline: Instant) -> Result<Self, OpenStoreError> {
        let directory = |source| OpenStoreError::Directory { path: path.to_owned(), source };
        // Templates tell what a host runs: nobody's business but the owner's, as libxl's are.
        let database = path.join(DATABASE);
        let missing = database.ancestors().take_while(|ancestor| !ancestor.exists()).count();
        DirBuilder::new().recursive(true).mode(0o700).create(&database).map_err(directory)?;
        for created in database.ancestors().take(missing) {
            created.parent().map_or(Ok(()), sync_directory).map_err(directory)?;
        }
        let opened = Self::own(path, deadline)?;
        sync_directory(path).map_err(directory)?;
        Ok(opened)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn database_path(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    fn own(path: &Path, deadline: Instant) -> Result<Self, OpenStoreError> {
        let directory = |source| OpenStoreError::Directory { path: path.to_owned(), source };
        let owner = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join(OWNER))
            .map(OwnedFd::from)
            .map_err(directory)?;
        match flock::wait(&owner, true, deadline).map_err(directory)? {
            Wait::Acquired => Ok(Opened { path: path.to_owned(), _owner: owner }),
            Wait::TimedOut => {
                let stat = rustix::fs::fstat(&owner).map_err(|error| directory(error.into()))?;
                Err(OpenStoreError::InUse { path: path.to_owned(), holder: flock::holder(&stat) })
            }
            // Nobody unlinks this file but whoever removes the whole store.
            Wait::Unlinked => Err(OpenStoreError::Missing { path: path.to_owned() }),
        }
    }
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    // The parent of a relative path of one component is the current directory.
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path)?.sync_all()
}
