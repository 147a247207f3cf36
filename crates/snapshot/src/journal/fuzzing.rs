//! What the fuzz target of journals runs; the tests replay its corpus through the same function.

use std::path::Path;

use super::Record;
use super::text::{line, parse};

/// Reads octets as a journal, as they are and with lines whose digests are right, and checks that what is read is what there is.
///
/// # Panics
///
/// If a property does not hold: that is what a fuzzer looks for.
pub fn journal(data: &[u8]) {
    read(data);
    let mut sealed = Vec::new();
    for text in data.split(|octet| *octet == b'\n') {
        // With or without a digest of its own before it.
        let json = text.iter().position(|octet| *octet == b'{').map_or(text, |at| &text[at..]);
        sealed.extend_from_slice(format!("{:08x} ", crc32c::crc32c(json)).as_bytes());
        sealed.extend_from_slice(json);
        sealed.push(b'\n');
    }
    read(&sealed);
}

fn read(octets: &[u8]) {
    let path = Path::new("journal");
    let Ok(Some(journal)) = parse(path, octets) else { return };
    let Some(intact) = usize::try_from(journal.intact).ok().and_then(|len| octets.get(..len))
    else {
        unreachable!("more is intact than there is")
    };
    assert!(intact.ends_with(b"\n"), "what is intact are whole lines");
    let lines = intact.iter().filter(|octet| **octet == b'\n').count();
    assert_eq!(lines, journal.records.len() + 1, "each line is a record");
    let first = Record::Begin(Box::new(journal.operation));
    let written = std::iter::once(&first).chain(&journal.records).map(line).collect();
    let Ok(written): std::io::Result<String> = written else {
        unreachable!("what was read can be written")
    };
    let Ok(Some(again)) = parse(path, written.as_bytes()) else {
        unreachable!("what was written is a journal: {written}")
    };
    assert_eq!(again.records.len(), journal.records.len());
}
