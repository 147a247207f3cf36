//! A new file: complete and synced under its name, or not there.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use snapshot::CompleteFile;

use crate::exit::CommandError;

/// Writes a file at once.
pub(super) fn write(path: &Path, octets: &[u8]) -> Result<(), CommandError> {
    let mut file = CompleteFile::create(path)?;
    file.write_all(octets).map_err(|source| unwritten(path, source))?;
    file.finish()?;
    Ok(())
}

/// The unfinished file, open for reading as well.
pub(super) fn reopened(file: &CompleteFile) -> Result<File, CommandError> {
    file.open_again().map_err(|source| unwritten(file.path(), source))
}

/// Refuses a name that is taken, before anything is done that would have to be written under it.
pub(super) fn must_be_free(path: &Path) -> Result<(), CommandError> {
    // What it creates is gone when it is dropped.
    CompleteFile::create(path)?;
    Ok(())
}

/// Reads a whole file that is not longer than it may be.
pub(super) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, CommandError> {
    let mut octets = Vec::new();
    let read = File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut octets));
    read.map_err(|source| unread(path, source))?;
    if octets.len() as u64 > limit {
        return Err(CommandError::FileTooLong { path: path.to_owned(), limit });
    }
    Ok(octets)
}

pub(super) fn unwritten(path: &Path, source: io::Error) -> CommandError {
    CommandError::File { path: path.to_owned(), action: "written", source }
}

pub(super) fn unread(path: &Path, source: io::Error) -> CommandError {
    CommandError::File { path: path.to_owned(), action: "read", source }
}
