//! The lock protocol that libxl follows for a domain's template.
//!
//! The lock is an exclusive `flock` on a file that exists only while somebody holds the lock, or died holding it. To
//! lock: open the file, creating it; `flock` it; then check that the name still stands for the same file, and start
//! over if not. To unlock: unlink the file, *then* close it. The check is what makes the unlinking safe: whoever was
//! waiting for the old file finds that it has no name any more. Without it, one process could hold the lock of the
//! unlinked file while another holds that of a new file by the same name.

use std::{os::fd::OwnedFd, time::Instant};

use rustix::fs::Stat;

use super::{
    directory::{Directory, OpenError, same_file},
    names,
};
use crate::template::{
    Holder, LoadError, LockError, StoreFault, TemplateKey,
    flock::{self, Wait},
};

/// Tries of a caller whose deadline has passed: a lock file that is unlinked under us means that its holder is letting
/// go, so that another try is not waiting for somebody.
pub(super) const TRIES_WITHOUT_TIME: usize = 3;

/// The lock, held as libxl holds it; dropping this releases it.
#[derive(Debug)]
pub(super) struct WriteLock<'d> {
    directory: &'d Directory,
    name: String,
    /// Closed after the unlinking in `drop`.
    _file: OwnedFd,
    stat: Stat,
}

/// Keeps writers out while a template is read; dropping this lets them in.
#[derive(Debug)]
pub(super) struct ReadLock {
    _file: OwnedFd,
}

/// Why the lock was not taken; its file is named by [`names::lock`].
#[derive(Debug)]
pub(super) enum Failure {
    Locked(Holder),
    NotAFile,
    Fault(StoreFault),
}

impl<'d> WriteLock<'d> {
    /// Takes the lock, by libxl's protocol.
    pub(super) fn acquire(
        directory: &'d Directory,
        key: &TemplateKey,
        deadline: Instant,
    ) -> Result<Self, Failure> {
        let name = names::lock(key);
        for tries in 1_usize.. {
            let (file, stat) =
                directory.open_lock(&name).map_err(|error| failed_open(directory, &name, error))?;
            let waited = flock::wait(&file, true, deadline)
                .map_err(|e| fault(directory, "lock", &name, e))?;
            match waited {
                Wait::Acquired if is_named(directory, &name, &stat)? => {
                    return Ok(WriteLock { directory, name, _file: file, stat });
                }
                Wait::TimedOut => return Err(Failure::Locked(flock::holder(&stat))),
                Wait::Acquired | Wait::Unlinked => give_up_after(tries, deadline, &stat)?,
            }
        }
        Err(Failure::Locked(Holder::Unknown))
    }

    /// Whether the name still stands for the file that is locked. If somebody removed it, others do not see the lock.
    pub(super) fn is_intact(&self) -> Result<bool, StoreFault> {
        let named = self
            .directory
            .stat(&self.name)
            .map_err(|e| self.directory.fault("stat", &self.name, e))?;
        Ok(named.is_some_and(|named| same_file(&named, &self.stat)))
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for WriteLock<'_> {
    fn drop(&mut self) {
        // A lock file that is not ours any more may be the one that somebody else holds.
        let removed = match self.is_intact() {
            Ok(true) => self.directory.remove(&self.name).map(drop),
            Ok(false) => Ok(()),
            Err(_) => return,
        };
        if let Err(error) = removed {
            // Closing still releases the lock, and whoever comes next takes over the file.
            tracing::warn!(lock = %self.directory.at(&self.name), %error, "a lock file could not be removed");
        }
    }
}

/// Waits until nobody holds the lock, and keeps writers out if there is a lock file to do it with.
///
/// Creates and removes nothing. Without a lock file there is nobody to wait for, and `None` is returned; a caller that
/// cares must look again after reading. Otherwise somebody holds the lock or died holding it: then a *shared* lock on
/// that file is waited for. Shared, so that readers do not wait for each other and so that a file opened for reading
/// is enough (on a network file system an exclusive lock needs one opened for writing); writers lock exclusively and
/// wait for it. The file is left as it was found: only a writer, who owns the name while it holds the lock, unlinks it.
pub(super) fn acquire_read(
    directory: &Directory,
    key: &TemplateKey,
    deadline: Instant,
) -> Result<Option<ReadLock>, Failure> {
    let name = names::lock(key);
    for tries in 1_usize.. {
        let opened =
            directory.open_existing(&name).map_err(|error| failed_open(directory, &name, error))?;
        let Some((file, stat)) = opened else { return Ok(None) };
        let waited =
            flock::wait(&file, false, deadline).map_err(|e| fault(directory, "lock", &name, e))?;
        match waited {
            Wait::Acquired if is_named(directory, &name, &stat)? => {
                return Ok(Some(ReadLock { _file: file }));
            }
            Wait::TimedOut => return Err(Failure::Locked(flock::holder(&stat))),
            Wait::Acquired | Wait::Unlinked => give_up_after(tries, deadline, &stat)?,
        }
    }
    Err(Failure::Locked(Holder::Unknown))
}

/// Whether there is a lock file: somebody holds the lock, or died holding it.
pub(super) fn exists(directory: &Directory, key: &TemplateKey) -> Result<bool, StoreFault> {
    let name = names::lock(key);
    let stat = directory.stat(&name).map_err(|error| directory.fault("stat", &name, error))?;
    Ok(stat.is_some())
}

impl Failure {
    pub(super) fn for_lock(self, directory: &Directory, key: &TemplateKey) -> LockError {
        let (key, at) = (*key, directory.at(&names::lock(key)));
        match self {
            Failure::Locked(holder) => LockError::Locked { key, at, holder },
            Failure::NotAFile => LockError::NotAFile { key, at },
            Failure::Fault(source) => LockError::Store { key, source },
        }
    }

    pub(super) fn for_load(self, directory: &Directory, key: &TemplateKey) -> LoadError {
        let (key, at) = (*key, directory.at(&names::lock(key)));
        match self {
            Failure::Locked(holder) => LoadError::Locked { key, at, holder },
            Failure::NotAFile => LoadError::NotAFile { key, at },
            Failure::Fault(source) => LoadError::Store { key, source },
        }
    }
}

fn is_named(directory: &Directory, name: &str, file: &Stat) -> Result<bool, Failure> {
    let named = directory.stat(name).map_err(|error| fault(directory, "stat", name, error))?;
    Ok(named.is_some_and(|named| same_file(&named, file)))
}

fn give_up_after(tries: usize, deadline: Instant, file: &Stat) -> Result<(), Failure> {
    if tries >= TRIES_WITHOUT_TIME && Instant::now() >= deadline {
        return Err(Failure::Locked(flock::holder(file)));
    }
    Ok(())
}

fn failed_open(directory: &Directory, name: &str, error: OpenError) -> Failure {
    match error {
        OpenError::NotAFile => Failure::NotAFile,
        OpenError::Io(error) => fault(directory, "open", name, error),
    }
}

fn fault(directory: &Directory, verb: &str, name: &str, error: std::io::Error) -> Failure {
    Failure::Fault(directory.fault(verb, name, error))
}
