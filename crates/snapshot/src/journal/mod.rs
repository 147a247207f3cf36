//! What a save or restore has done, written down before it is done, for whoever comes after it was killed.
//!
//! A journal is a file of lines, each a digest and a record in JSON. A line is durable before what it announces is begun. The
//! last line may be torn; any other that is broken makes the journal unreadable, and nothing is touched then.
//!
//! ```text
//! save:     begin  created*  suspending  named?  committed*  pivoting?  pivoted  done
//! restore:  begin  created*  building    built   committing  committed  done
//! ```
//!
//! Up to `pivoting` (`committing`) a call that died is rolled back, from there on it is completed; in between the disks
//! themselves say which.

pub(crate) mod fuzzing;
mod record;
#[cfg(test)]
mod tests;
mod text;

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

pub(crate) use record::{
    BeginRestore, BeginSave, DraftSave, Operation, Record, RestoredDraft, TagIntent,
};
pub use text::JournalError;
pub(crate) use text::read;

use crate::creation::{CreatedFile, CreationLog};

/// A journal that is being written. Without a file it remembers nothing, and everything else is the same.
#[derive(Debug)]
pub(crate) struct Journal {
    file: Option<(File, PathBuf)>,
    prefix: String,
    /// Whether records are synced.
    durable: bool,
    /// Called after each record, for tests that kill at each of them.
    created: Vec<CreatedFile>,
}

impl Journal {
    /// Creates the file, which must not exist, with its first record.
    pub(crate) fn create(
        path: Option<&Path>,
        id: uuid::Uuid,
        durable: bool,
        begin: &Record,
    ) -> io::Result<Self> {
        let file = match path {
            None => None,
            Some(path) => {
                let file = File::options()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
                    .open(path)?;
                Some((file, path.to_owned()))
            }
        };
        let mut journal = Self { file, prefix: prefix(id), durable, created: Vec::new() };
        journal.write(begin)?;
        if let (true, Some((_, path))) = (durable, &journal.file) {
            sync_directory(path)?;
        }
        Ok(journal)
    }

    /// Goes on with a journal that was found; a torn last line is cut off.
    pub(crate) fn reopen(path: &Path, id: uuid::Uuid, intact: u64) -> io::Result<Self> {
        let flags = OFlags::NOFOLLOW.bits().cast_signed();
        let file = File::options().append(true).custom_flags(flags).open(path)?;
        file.set_len(intact)?;
        let file = Some((file, path.to_owned()));
        Ok(Self { file, prefix: prefix(id), durable: true, created: Vec::new() })
    }

    /// Writes a record down. It is durable on return.
    pub(crate) fn write(&mut self, record: &Record) -> io::Result<()> {
        if let Some((file, _)) = &mut self.file {
            file.write_all(text::line(record).as_bytes())?;
            if self.durable {
                file.sync_data()?;
            }
        }
        Ok(())
    }

    /// Files that were created so far.
    pub(crate) fn created(&self) -> &[CreatedFile] {
        &self.created
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
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(parent.unwrap_or(Path::new(".")), flags, Mode::empty())?;
    Ok(rustix::fs::fsync(&directory)?)
}
