//! What a save or restore has done, written down before it is done, for whoever comes after it was killed.
//!
//! A journal is a file of lines, each a digest and a record in JSON. A line is durable before what it announces is begun. The
//! last line may be torn; any other that is broken makes the journal unreadable, and nothing is touched then.
//!
//! ```text
//! save:     begin  created*  opening?  created*  freezing?  suspending?  naming?  tagging?  committed*  pivoting?  pivoted  thawed?  saved
//! restore:  begin  created*  building?  built?  committing  restored
//! either:   ...    rolled-back
//! ```
//!
//! Up to `pivoting` (`committing`) a call that died is rolled back, from `pivoted` (`committing`) on it is completed; in between
//! the disks themselves say which. Files are created anywhere before `naming`, and by copies of disks after it. What a save that is
//! rolled back had QEMU open, which `opening` tells, is closed before its file is removed.
//!
//! A journal has no version: a program takes it if it knows all of its records, and touches nothing otherwise. So a record that
//! says that more is to be undone is a new one, and what an earlier program has written stays readable.
//!
//! While a journal is written it is locked, so that nobody recovers what is still going on. The lock ends with the process.

pub(crate) mod fuzzing;
mod record;
#[doc(hidden)]
pub mod steps;
#[cfg(test)]
mod tests;
mod text;

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;

pub(crate) use record::{BeginRestore, BeginSave, DraftSave, Operation, Record, RestoredDraft};
pub use text::JournalError;
pub(crate) use text::ReadJournal;

use crate::creation::{CreatedFile, CreationLog};
use crate::disk::OverlayIntent;

/// How long a journal may stay locked whose process is dead: a child that it was just forking has the lock as well, until it
/// executes its program. Nobody tells of the end of a lock, so it is looked for.
const PATIENCE: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(5);

/// A journal that is being written. Without a file it remembers nothing, and everything else is the same.
#[derive(Debug)]
pub(crate) struct Journal {
    file: Option<JournalFile>,
    prefix: String,
    /// Whether records are synced.
    durable: bool,
    created: Vec<CreatedFile>,
}

/// Locked as long as it is open.
#[derive(Debug)]
struct JournalFile {
    file: File,
    /// Where the next line goes.
    end: u64,
    path: PathBuf,
}

impl Journal {
    /// Creates the file, which must not exist, with its first record.
    pub(crate) fn create(
        path: Option<&Path>,
        id: uuid::Uuid,
        durable: bool,
        begin: &Record,
    ) -> io::Result<Self> {
        let Some(path) = path else { return Ok(Self::none(id)) };
        let file = options().create_new(true).mode(0o600).open(path)?;
        let created = CreatedFile::new(path, &file)?;
        let begun = Self::begun(file, path, id, durable, begin);
        if begun.is_err()
            && let Err(reason) = created.remove()
        {
            tracing::warn!(path = %path.display(), %reason, "an empty journal is left");
        }
        begun
    }

    fn begun(
        file: File,
        path: &Path,
        id: uuid::Uuid,
        durable: bool,
        begin: &Record,
    ) -> io::Result<Self> {
        lock(&file)?;
        let file = Some(JournalFile { file, end: 0, path: path.to_owned() });
        let mut journal = Self { file, prefix: prefix(id), durable, created: Vec::new() };
        journal.write(begin)?;
        if durable {
            sync_directory(path)?;
        }
        Ok(journal)
    }

    /// Remembers what is created, and writes nothing down.
    pub(crate) fn none(id: uuid::Uuid) -> Self {
        Self { file: None, prefix: prefix(id), durable: false, created: Vec::new() }
    }

    /// Goes on with a journal that was found, whose last line may be torn; `None` if not even its first line is whole, so that
    /// nothing had been done.
    ///
    /// # Errors
    ///
    /// [`JournalError::InUse`] if whoever writes it is alive, or if it cannot be read or understood.
    pub(crate) fn find(path: &Path) -> Result<Option<(Self, ReadJournal)>, JournalError> {
        let failed = |step| {
            move |source: io::Error| JournalError::Io { path: path.to_owned(), step, source }
        };
        let file = options().open(path).map_err(failed("opened"))?;
        let give_up = Instant::now() + PATIENCE;
        loop {
            match lock(&file) {
                Ok(()) => break,
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                    return Err(failed("locked")(error));
                }
                Err(_) if Instant::now() < give_up => std::thread::sleep(PAUSE),
                Err(_) => return Err(JournalError::InUse { path: path.to_owned() }),
            }
        }
        let Some(found) = text::read(path, &file)? else { return Ok(None) };
        // What comes next does not follow half a line.
        file.set_len(found.intact).map_err(failed("cut off after its last whole line"))?;
        let id = match &found.operation {
            Operation::Save(begin) => begin.id,
            Operation::Restore(begin) => begin.id,
        };
        let created = found.records.iter().filter_map(|record| match record {
            Record::Created(file) => Some(file.clone()),
            _ => None,
        });
        let journal = Self {
            prefix: prefix(id),
            durable: true,
            created: created.collect(),
            file: Some(JournalFile { file, end: found.intact, path: path.to_owned() }),
        };
        Ok(Some((journal, found)))
    }

    /// Writes a record down. It is durable on return; on failure it is not there.
    pub(crate) fn write(&mut self, record: &Record) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        steps::reached(&format!("before {}", record.name()));
        let line = text::line(record)?;
        let mut written = file.file.write_all_at(line.as_bytes(), file.end);
        if self.durable {
            written = written.and_then(|()| file.file.sync_data());
        }
        if let Err(error) = written {
            // A line after half a line would make the journal unreadable.
            file.file.set_len(file.end)?;
            return Err(error);
        }
        file.end += line.len() as u64;
        steps::reached(&format!("after {}", record.name()));
        Ok(())
    }

    /// Where it is.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|file| &*file.path)
    }

    /// Files that were created so far.
    pub(crate) fn created(&self) -> &[CreatedFile] {
        &self.created
    }
}

/// Also what other threads have forked meanwhile lets go of it.
impl Drop for JournalFile {
    fn drop(&mut self) {
        if let Err(error) = flock(&self.file, FlockOperation::Unlock) {
            tracing::warn!(path = %self.path.display(), %error, "a journal stays locked");
        }
    }
}

/// What temporary names of an operation begin with.
pub(crate) fn prefix(id: uuid::Uuid) -> String {
    format!(".partial-{}-", id.simple())
}

impl CreationLog for Journal {
    fn prefix(&self) -> &str {
        &self.prefix
    }

    fn created(&mut self, file: &CreatedFile) -> io::Result<()> {
        self.write(&Record::Created(file.clone()))?;
        self.created.push(file.clone());
        Ok(())
    }

    fn opening(&mut self, overlays: &[OverlayIntent]) -> io::Result<()> {
        self.write(&Record::Opening(overlays.to_vec()))
    }
}

/// A FIFO in the place of a journal would hang without the last flag.
fn options() -> std::fs::OpenOptions {
    let mut options = File::options();
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    options.read(true).write(true).custom_flags(flags.bits().cast_signed());
    options
}

fn lock(file: &File) -> io::Result<()> {
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::INTR) => {}
            locked => return Ok(locked?),
        }
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(parent.unwrap_or(Path::new(".")), flags, Mode::empty())?;
    Ok(rustix::fs::fsync(&directory)?)
}
