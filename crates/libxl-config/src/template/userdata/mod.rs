//! libxl's own store, shared with libxl.

mod bulk;
mod directory;
mod lock;
mod names;
#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io::Read,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Instant,
};

use rustix::fs::Stat;
use thiserror::Error;

use self::{
    directory::{Directory, OpenError, same_file},
    lock::WriteLock,
};
use super::{
    CreateManyError, HeldTemplate, Holder, ListError, LoadError, LockError, MAX_TEMPLATE_LEN,
    Revision, StoreFault, Template, TemplateKey, TemplateStore, TemplateText, WriteError,
    WritePermit, steps,
};

/// The directory in which libxl keeps the templates of a host's domains, shared with `xl` and everything else on libxl.
///
/// File names, content (with the trailing NUL) and locks are libxl's, so that both may read and write at the same time:
/// see `docs/template-stores.md`. What this does beyond libxl: a template is on the disk before its name is.
///
/// Reading creates nothing and changes nothing, also where the directory cannot be written.
///
/// libxl asks, after it has taken a template's lock, whether the domain still exists. So must whoever writes here: the
/// store knows nothing of domains.
#[derive(Debug)]
pub struct UserdataDir {
    directory: Directory,
}

/// Why libxl's directory was not opened.
#[derive(Debug, Error)]
#[error("{}: cannot be opened as libxl's directory of userdata", path.display())]
pub struct OpenDirError {
    /// The directory.
    pub path: PathBuf,
    /// Why.
    pub source: std::io::Error,
}

/// Templates are seldom longer than this; it saves a read from growing its buffer step by step.
const USUAL_TEMPLATE_LEN: usize = 64 * 1024;

impl UserdataDir {
    /// Where libxl keeps its files unless it was built with other paths.
    pub const HOST_PATH: &'static str = "/var/lib/xen";

    /// Opens the directory, which must exist.
    ///
    /// # Errors
    /// If there is no such directory, or it may not be read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenDirError> {
        let path = path.as_ref();
        let directory = Directory::open(path)
            .map_err(|source| OpenDirError { path: path.to_owned(), source })?;
        Ok(UserdataDir { directory })
    }

    /// The directory's path, as it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Reads the template as it is at this instant, whoever holds the lock.
    fn read(&self, key: &TemplateKey) -> Result<Reading, LoadError> {
        let name = names::data(key);
        let opened = self.directory.open_existing(&name).map_err(|error| match error {
            OpenError::NotAFile => LoadError::NotAFile { key: *key, at: self.directory.at(&name) },
            OpenError::Io(error) => self.unreadable(key, "open", &name, error),
        })?;
        let Some((fd, stat)) = opened else { return Ok(Reading { file: None, content: Ok(None) }) };
        // Room for what the file says it holds, up to the size of a usual template: a file may claim more than it has.
        let room = usize::try_from(stat.st_size).unwrap_or(0).min(USUAL_TEMPLATE_LEN) + 1;
        let mut octets = Vec::with_capacity(room);
        let mut file = File::from(fd);
        // One for the NUL, one to see that there is more.
        let longest = MAX_TEMPLATE_LEN as u64 + 2;
        file.by_ref()
            .take(longest)
            .read_to_end(&mut octets)
            .map_err(|e| self.unreadable(key, "read", &name, e))?;
        let content = self.content(key, &name, octets);
        Ok(Reading { file: Some((file.into(), stat)), content })
    }

    fn content(
        &self,
        key: &TemplateKey,
        name: &str,
        mut octets: Vec<u8>,
    ) -> Result<Option<Template>, LoadError> {
        if octets.last() == Some(&0) {
            octets.pop();
        }
        // Nothing but NULs is what some file systems leave of a file that was not synced.
        if octets.iter().all(|&octet| octet == 0) {
            return Err(LoadError::EmptyTemplate { key: *key, at: self.directory.at(name) });
        }
        if octets.len() > MAX_TEMPLATE_LEN {
            return Err(LoadError::TooLarge { key: *key, at: self.directory.at(name) });
        }
        Ok(Some(Template::from_octets(octets)))
    }

    fn unreadable(
        &self,
        key: &TemplateKey,
        verb: &str,
        name: &str,
        error: std::io::Error,
    ) -> LoadError {
        LoadError::Store { key: *key, source: self.directory.fault(verb, name, error) }
    }

    /// Whether the name still stands for what was read from it.
    fn is_current(&self, key: &TemplateKey, read: &Reading) -> Result<bool, LoadError> {
        let name = names::data(key);
        let now = self
            .directory
            .stat(&name)
            .map_err(|error| self.unreadable(key, "stat", &name, error))?;
        Ok(match (&read.file, now) {
            (Some((_, then)), Some(now)) => same_file(then, &now),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        })
    }
}

/// What a name stood for when it was read, kept open so that its inode number is not given to another file meanwhile.
struct Reading {
    file: Option<(OwnedFd, Stat)>,
    content: Result<Option<Template>, LoadError>,
}

impl TemplateStore for UserdataDir {
    fn load(&self, key: &TemplateKey, deadline: Instant) -> Result<Option<Template>, LoadError> {
        for tries in 1_usize.. {
            let lock = lock::acquire_read(&self.directory, key, deadline)
                .map_err(|e| e.for_load(&self.directory, key))?;
            steps::reached("userdata: reader waited for the lock");
            let read = self.read(key)?;
            steps::reached("userdata: reader read");
            if lock.is_some() {
                return read.content;
            }
            // Nobody held the lock a moment ago. If nobody does now and the file is still the one read, then it was
            // also the template at a moment when nobody held the lock. Otherwise a writer came by: wait for it.
            let locked = lock::exists(&self.directory, key)
                .map_err(|source| LoadError::Store { key: *key, source })?;
            if !locked && self.is_current(key, &read)? {
                return read.content;
            }
            if tries >= lock::TRIES_WITHOUT_TIME && Instant::now() >= deadline {
                break;
            }
        }
        Err(lock::Failure::Locked(Holder::Unknown).for_load(&self.directory, key))
    }

    fn keys(&self, _deadline: Instant) -> Result<Vec<TemplateKey>, ListError> {
        let mut keys = Vec::new();
        self.directory.for_each_name(|name| keys.extend(names::parse_data(name))).map_err(
            |error| {
                let source =
                    StoreFault::new(format!("list {}", self.directory.path().display()), error);
                ListError::Store { source }
            },
        )?;
        keys.sort_unstable();
        Ok(keys)
    }

    fn lock<'s>(
        &'s self,
        _permit: &WritePermit,
        key: &TemplateKey,
        deadline: Instant,
    ) -> Result<Box<dyn HeldTemplate + 's>, LockError> {
        let lock = WriteLock::acquire(&self.directory, key, deadline)
            .map_err(|error| error.for_lock(&self.directory, key))?;
        steps::reached("userdata: locked");
        Ok(Box::new(Held { store: self, key: *key, lock }))
    }

    fn create_many(
        &self,
        _permit: &WritePermit,
        templates: &[(TemplateKey, TemplateText)],
        deadline: Instant,
    ) -> Result<(), CreateManyError> {
        bulk::create(self, templates, deadline)
    }
}

/// A template whose lock is held as libxl holds it.
struct Held<'s> {
    store: &'s UserdataDir,
    key: TemplateKey,
    lock: WriteLock<'s>,
}

impl Held<'_> {
    fn check_lock(&self) -> Result<(), WriteError> {
        match self.lock.is_intact() {
            Ok(true) => Ok(()),
            Ok(false) => Err(WriteError::LockLost {
                key: self.key,
                at: self.store.directory.at(self.lock.name()),
            }),
            Err(source) => Err(WriteError::Store { key: self.key, source }),
        }
    }

    /// Writes the next template beside the current one, not yet durable and not yet in its place.
    fn write_next(&self, text: &TemplateText) -> Result<File, WriteError> {
        let next = names::next(&self.key);
        self.store
            .directory
            .create(&next, &[text.octets(), b"\0"])
            .map_err(|e| self.failed("write", &next, e))
    }

    /// Puts the next template, by now durable, in the place of the current one; durable with the directory.
    fn rename_next(&self) -> Result<(), WriteError> {
        self.check_lock()?;
        let (next, data) = (names::next(&self.key), names::data(&self.key));
        self.store
            .directory
            .rename(&next, &data)
            .map_err(|error| self.failed("rename", &next, error))
    }

    /// Removes the next template after a failure; a writer that comes later would also do it.
    fn discard_next(&self) {
        let next = names::next(&self.key);
        if let Err(error) = self.store.directory.remove(&next) {
            tracing::warn!(file = %self.store.directory.at(&next), %error, "a temporary file could not be removed");
        }
    }

    fn failed(&self, verb: &str, name: &str, error: std::io::Error) -> WriteError {
        WriteError::Store { key: self.key, source: self.store.directory.fault(verb, name, error) }
    }

    fn sync_names(&self) -> Result<(), WriteError> {
        self.store
            .directory
            .sync()
            .map_err(|error| self.failed("sync the directory of", &names::data(&self.key), error))
    }

    fn replace(&self, text: &TemplateText) -> Result<(), WriteError> {
        let next = names::next(&self.key);
        let file = self.write_next(text)?;
        steps::reached("userdata: next written");
        file.sync_all().map_err(|error| self.failed("sync", &next, error))?;
        steps::reached("userdata: next synced");
        self.rename_next()
    }
}

impl HeldTemplate for Held<'_> {
    fn key(&self) -> &TemplateKey {
        &self.key
    }

    fn load(&self, _deadline: Instant) -> Result<Option<Template>, LoadError> {
        self.store.read(&self.key)?.content
    }

    fn store(&mut self, text: &TemplateText, _deadline: Instant) -> Result<Revision, WriteError> {
        self.check_lock()?;
        self.replace(text).inspect_err(|_| self.discard_next())?;
        steps::reached("userdata: renamed");
        self.sync_names()?;
        steps::reached("userdata: names synced");
        Ok(text.revision())
    }

    fn remove(&mut self, _deadline: Instant) -> Result<bool, WriteError> {
        self.check_lock()?;
        let data = names::data(&self.key);
        let existed = self
            .store
            .directory
            .remove(&data)
            .map_err(|error| self.failed("remove", &data, error))?;
        steps::reached("userdata: removed");
        self.discard_next();
        self.sync_names()?;
        Ok(existed)
    }
}
