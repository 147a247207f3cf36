//! Files that are read as a whole, and are not longer than they may be.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::exit::CommandError;

/// All of a file, or of stdin for `-`.
pub(super) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, CommandError> {
    if path.as_os_str() == "-" { all(io::stdin(), path, limit) } else { read_file(path, limit) }
}

/// All of a file, whatever it is called.
pub(super) fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>, CommandError> {
    let opened = File::open(path);
    let file = opened.map_err(|source| failed(path, "opened", source))?;
    all(file, path, limit)
}

fn all(source: impl Read, path: &Path, limit: u64) -> Result<Vec<u8>, CommandError> {
    let mut octets = Vec::new();
    // One more, to see that there is more.
    let read = source.take(limit + 1).read_to_end(&mut octets);
    read.map_err(|source| failed(path, "read", source))?;
    if octets.len() as u64 > limit {
        return Err(CommandError::FileTooLong { path: path.to_owned(), limit });
    }
    Ok(octets)
}

fn failed(path: &Path, action: &'static str, source: io::Error) -> CommandError {
    CommandError::File { path: path.to_owned(), action, source }
}
