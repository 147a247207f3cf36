//! Lines of a journal.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::record::{Operation, Record};

/// Octets of a journal at most. It has a few records, the longest with a configuration in them.
const JOURNAL_MAX: u64 = 64 << 20;

/// Why a journal cannot be used. Nothing was touched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// It cannot be read or written.
    #[error("the journal {}: cannot be {step}", path.display())]
    Io {
        /// The journal.
        path: PathBuf,
        /// What was to be done.
        step: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// Whoever writes it is alive, or somebody else recovers.
    #[error("the journal {} is in use: what it is of is still going on", path.display())]
    InUse {
        /// The journal.
        path: PathBuf,
    },
    /// It is longer than any.
    #[error("the journal {} has {octets} octets, more than {JOURNAL_MAX}", path.display())]
    TooLong {
        /// The journal.
        path: PathBuf,
        /// How many.
        octets: u64,
    },
    /// A line before the last is not as it was written.
    #[error("the journal {}: line {line} is not as it was written", path.display())]
    Broken {
        /// The journal.
        path: PathBuf,
        /// Which, from 1.
        line: usize,
    },
    /// A line is as it was written, and means nothing here.
    #[error("the journal {}: line {line} is no record of this version", path.display())]
    Record {
        /// The journal.
        path: PathBuf,
        /// Which, from 1.
        line: usize,
        /// Why.
        source: serde_json::Error,
    },
    /// It does not begin with what it is of.
    #[error("the journal {} does not say what it is of", path.display())]
    NoBegin {
        /// The journal.
        path: PathBuf,
    },
}

/// What a journal says.
#[derive(Debug)]
pub(crate) struct ReadJournal {
    pub(crate) operation: Operation,
    /// All records after the first.
    pub(crate) records: Vec<Record>,
    /// Octets of all whole lines.
    pub(crate) intact: u64,
}

/// A record as a line: 8 digits of CRC32C, a space, JSON. Fails for a path that no JSON can hold.
pub(super) fn line(record: &Record) -> io::Result<String> {
    let json = serde_json::to_string(record)
        .map_err(|source| io::Error::new(io::ErrorKind::InvalidData, source))?;
    Ok(format!("{:08x} {json}\n", crc32c::crc32c(json.as_bytes())))
}

/// Reads a journal; `None` if not even its first line is whole, so that nothing had been done.
pub(super) fn read(path: &Path, mut file: &File) -> Result<Option<ReadJournal>, JournalError> {
    let failed = |source| JournalError::Io { path: path.to_owned(), step: "read", source };
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(failed(io::ErrorKind::InvalidInput.into()));
    }
    let octets = metadata.len();
    if octets > JOURNAL_MAX {
        return Err(JournalError::TooLong { path: path.to_owned(), octets });
    }
    let mut text = Vec::new();
    file.read_to_end(&mut text).map_err(failed)?;
    parse(path, &text)
}

pub(super) fn parse(path: &Path, octets: &[u8]) -> Result<Option<ReadJournal>, JournalError> {
    let mut records = Vec::new();
    let mut intact = 0;
    let mut lines = octets.split_inclusive(|octet| *octet == b'\n').enumerate().peekable();
    while let Some((at, text)) = lines.next() {
        let line = at + 1;
        let Some(json) = whole(text) else {
            if lines.peek().is_none() && !hides_a_line(text) {
                break;
            }
            return Err(JournalError::Broken { path: path.to_owned(), line });
        };
        let record = serde_json::from_slice(json).map_err(|source| JournalError::Record {
            path: path.to_owned(),
            line,
            source,
        })?;
        records.push(record);
        intact += text.len() as u64;
    }
    if records.is_empty() {
        let torn = may_begin(octets);
        return if torn { Ok(None) } else { Err(JournalError::NoBegin { path: path.to_owned() }) };
    }
    let Record::Begin(operation) = records.remove(0) else {
        return Err(JournalError::NoBegin { path: path.to_owned() });
    };
    Ok(Some(ReadJournal { operation: *operation, records, intact }))
}

/// The JSON of a line that is all there.
fn whole(line: &[u8]) -> Option<&[u8]> {
    let line = line.strip_suffix(b"\n")?;
    let (crc, json) = line.split_at_checked(9)?;
    let expected = format!("{:08x} ", crc32c::crc32c(json));
    (crc == expected.as_bytes()).then_some(json)
}

/// Whether a broken line ends with a whole one: then it is not torn, but the end of line between the two is broken.
fn hides_a_line(text: &[u8]) -> bool {
    text.windows(2).enumerate().any(|(at, pair)| {
        pair == b" {" && at > 8 && text.get(at - 8..).is_some_and(|tail| whole(tail).is_some())
    })
}

/// Whether this is what is left of a first line: a part of it, perhaps in a file that had its length before its content.
fn may_begin(octets: &[u8]) -> bool {
    let written = octets.iter().position(|octet| *octet == 0).unwrap_or(octets.len());
    let (digits, json) = octets[..written].split_at(written.min(8));
    let begin = br#" {"record":"begin","#;
    digits.iter().all(u8::is_ascii_hexdigit) && json.iter().zip(begin).all(|(is, was)| is == was)
}
