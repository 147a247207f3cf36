//! A new file: complete and synced under its name, or not there.

use std::fs::File;
use std::io::{self, Write};
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

pub(super) fn unwritten(path: &Path, source: io::Error) -> CommandError {
    CommandError::File { path: path.to_owned(), action: "written", source }
}

pub(super) fn unread(path: &Path, source: io::Error) -> CommandError {
    CommandError::File { path: path.to_owned(), action: "read", source }
}
