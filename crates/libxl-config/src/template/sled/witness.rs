//! A second place that knows how far the store has got.
//!
//! The database takes damage in its log for the end of a write that a crash cut off: it drops everything from there on
//! and opens as if that had never been stored. So every change has a number, the number of the last one is an entry in
//! the database, and it is also written, once the change is durable, to a file of its own:
//!
//! ```text
//! DIRECTORY/changes      number (8, big-endian) | start of its BLAKE3 digest (8)
//! ```
//!
//! The file is not synced: after a loss of power it may be some changes behind, and is never ahead. A database that is
//! behind the file has lost changes, and is not opened.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// The file's name.
const FILE: &str = "changes";
/// Length of a number and of the part of its digest.
const HALF: usize = 8;

/// The file with the number of a change known to be durable.
#[derive(Debug)]
pub(super) struct Witness {
    file: File,
    /// The number in the file; locked while it is written.
    noted: Mutex<u64>,
}

impl Witness {
    /// Where the file is for the store in this directory.
    pub(super) fn path(directory: &Path) -> PathBuf {
        directory.join(FILE)
    }

    /// Opens the file for the store in this directory, and creates it if there is none.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let path = Self::path(directory);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        let mut content = [0; 2 * HALF];
        let noted = match file.read_exact_at(&mut content, 0) {
            Ok(()) => number_in(&content),
            // New, or its creator was killed before it wrote.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Some(0),
            Err(error) => return Err(error),
        };
        if noted.is_none() {
            tracing::warn!(directory = %directory.display(), "the count of changes of a template store is damaged");
        }
        Ok(Witness { file, noted: Mutex::new(noted.unwrap_or(0)) })
    }

    /// A number of changes that the database must have.
    pub(super) fn noted(&self) -> u64 {
        *self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that this change, and all before it, are durable.
    pub(super) fn note(&self, change: u64) {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if change <= *noted {
            return;
        }
        match self.file.write_all_at(&content(change), 0) {
            Ok(()) => *noted = change,
            // The change is stored; that its number is not noted makes later damage harder to see, no more.
            Err(error) => {
                tracing::warn!(%error, "the count of changes of a template store could not be written");
            }
        }
    }
}

fn content(change: u64) -> [u8; 2 * HALF] {
    let mut content = [0; 2 * HALF];
    let (number, digest) = content.split_at_mut(HALF);
    number.copy_from_slice(&change.to_be_bytes());
    digest.copy_from_slice(&blake3::hash(number).as_bytes()[..HALF]);
    content
}

fn number_in(octets: &[u8; 2 * HALF]) -> Option<u64> {
    let number = u64::from_be_bytes(*octets.first_chunk()?);
    (content(number) == *octets).then_some(number)
}
