//! Owning the directory of a store.
//!
//! ```text
//! DIRECTORY/owner        locked (flock) by the process that owns the store; always empty, never removed
//! DIRECTORY/sled/        the database; renamed to this name once it is complete and on the disk
//! DIRECTORY/changes      see the module `witness`
//! DIRECTORY/sled.new/    a database that is being created, or was when its creator died
//! ```
//!
//! The database has a lock of its own, which fails at once and does not say who holds it. This one is taken before it,
//! is waited for, and its holder is named from the kernel's list of locks, which cannot be out of date as a file with a
//! process id in it can.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind},
    os::{fd::OwnedFd, unix::fs::DirBuilderExt, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
    time::Instant,
};

use thiserror::Error;

use crate::template::{
    Holder, StoreFault,
    flock::{self, Wait},
    steps,
};

/// The file whose lock is the ownership of the directory.
const OWNER: &str = "owner";
/// The directory of the database.
const DATABASE: &str = "sled";

/// The directory of a database that is not complete.
const UNFINISHED: &str = "sled.new";

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
    /// The database is behind what is known to have been stored: its file is damaged, missing, or an older copy.
    #[error(
        "{}: the database has {found} changes of {known} that were stored: put back a copy of the whole directory, or \
         remove {} to go on without what is lost",
        path.display(),
        count_file.display()
    )]
    ChangesLost {
        /// The directory.
        path: PathBuf,
        /// How many changes are known to have been stored.
        known: u64,
        /// How many of them the database has.
        found: u64,
        /// The file that knows.
        count_file: PathBuf,
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

    /// Owns this directory, and creates it if need be; there may be no database in it yet.
    pub(super) fn or_create(path: &Path, deadline: Instant) -> Result<Self, OpenStoreError> {
        let directory = |source| OpenStoreError::Directory { path: path.to_owned(), source };
        let missing = path.ancestors().take_while(|ancestor| !ancestor.exists()).count();
        // Templates tell what a host runs: nobody's business but the owner's, as libxl's are.
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(directory)?;
        for created in path.ancestors().take(missing) {
            created.parent().map_or(Ok(()), sync_directory).map_err(directory)?;
        }
        Self::own(path, deadline)
    }

    /// Has a database created unless there is one. A creator that dies on the way leaves no store, and nothing in the way.
    pub(super) fn create_database(
        &self,
        create: impl FnOnce(&Path) -> Result<(), StoreFault>,
    ) -> Result<(), OpenStoreError> {
        let directory = |source| OpenStoreError::Directory { path: self.path.clone(), source };
        let (unfinished, finished) = (self.path.join(UNFINISHED), self.database_path());
        if finished.is_dir() {
            return Ok(());
        }
        match fs::remove_dir_all(&unfinished) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(directory(error)),
            Ok(()) | Err(_) => {}
        }
        DirBuilder::new().mode(0o700).create(&unfinished).map_err(directory)?;
        create(&unfinished)
            .map_err(|source| OpenStoreError::Database { path: self.path.clone(), source })?;
        steps::reached("sled: created");
        fs::rename(&unfinished, &finished).map_err(directory)?;
        sync_directory(&self.path).map_err(directory)
    }

    /// Waits until nobody has the database itself open: a program that knows nothing of the owner's lock, or a thread
    /// of the database that still closes it.
    pub(super) fn await_database(&self, deadline: Instant) -> Result<(), OpenStoreError> {
        match File::open(self.database_path().join("db")) {
            Ok(file) => lock(&self.path, &file.into(), deadline),
            // Of a database that is damaged, the database itself says more.
            Err(_) => Ok(()),
        }
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
        lock(path, &owner, deadline)?;
        Ok(Opened { path: path.to_owned(), _owner: owner })
    }
}

/// Waits for the lock of a file in this store.
fn lock(path: &Path, file: &OwnedFd, deadline: Instant) -> Result<(), OpenStoreError> {
    let path = || path.to_owned();
    let directory = |source| OpenStoreError::Directory { path: path(), source };
    match flock::wait(file, true, deadline).map_err(directory)? {
        Wait::Acquired => Ok(()),
        Wait::TimedOut => {
            let stat = rustix::fs::fstat(file).map_err(|error| directory(error.into()))?;
            Err(OpenStoreError::InUse { path: path(), holder: flock::holder(&stat) })
        }
        // Nobody unlinks these files but whoever removes the whole store.
        Wait::Unlinked => Err(OpenStoreError::Missing { path: path() }),
    }
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    // The parent of a relative path of one component is the current directory.
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path)?.sync_all()
}
