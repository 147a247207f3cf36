//! What the fuzz target of this crate runs; the tests replay its corpus through the same function.

use std::io::Read;

use crate::{Deviation, ReadOptions, StreamReader, StreamWriter};

/// Octets of a record, beyond which a fuzzer finds nothing new.
const RECORD_MAX: usize = 1 << 16;

/// Reads any octets as a stream, in one piece and octet by octet, and checks that both say the same; that what reads to its end
/// in a form that some server writes is written in it with the same octets; and that a strict reader takes exactly what has
/// no deviations.
///
/// # Panics
///
/// If a property does not hold: that is what a fuzzer looks for.
pub fn read_and_write(octets: &[u8]) {
    let options = ReadOptions::default().record_max(RECORD_MAX);
    let whole = said(octets, options);
    assert_eq!(whole, said(OctetByOctet(octets), options), "in pieces");
    let strictly = said(octets, options.strict());
    let Ok(mut reader) = StreamReader::open(octets, options) else { return };
    while matches!(reader.next_record(), Ok(Some(_))) {}
    let (deviations, peer) = (reader.deviations().clone(), reader.peer());
    if deviations.is_empty() {
        assert_eq!(whole, strictly, "strictly");
    } else {
        assert!(
            strictly.last().is_some_and(|last| last != END),
            "strict in spite of {deviations:?}"
        );
    }
    let ended = whole.last().is_some_and(|last| last == END);
    let Some(peer) = peer.filter(|_| ended && deviations.count(Deviation::PaddingNotZero) == 0)
    else {
        return;
    };
    let behind = reader.into_inner();
    let Ok(mut reader) = StreamReader::open(octets, options) else { return };
    let writer = StreamWriter::create(Vec::new(), reader.preamble(), peer);
    let mut writer = writer.expect("a peer knows the version of what it has written");
    while let Ok(Some(placed)) = reader.next_record() {
        writer.write(&placed.record).expect("a record is written in the form it was read in");
    }
    let written = writer.finish().expect("a Vec takes everything");
    assert_eq!(written, octets[..octets.len() - behind.len()], "written for {peer}");
}

/// The last line of a stream that was read to its end.
const END: &str = "END";

/// Each record as text, and how it ended.
fn said(input: impl Read, options: ReadOptions) -> Vec<String> {
    let mut reader = match StreamReader::open(input, options) {
        Ok(reader) => reader,
        Err(error) => return vec![error.to_string()],
    };
    let mut said = Vec::new();
    loop {
        match reader.next_record() {
            Ok(Some(placed)) => said.push(format!("{placed:?}")),
            Ok(None) => {
                said.push(END.to_owned());
                return said;
            }
            Err(error) => {
                said.push(format!("{error}: {}", error.failure));
                let again = reader.next_record().map(|placed| placed.is_some());
                assert!(again.is_err(), "there is nothing behind an error, and not {again:?}");
                return said;
            }
        }
    }
}

/// An input that gives one octet at a time.
struct OctetByOctet<'a>(&'a [u8]);

impl Read for OctetByOctet<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let len = buffer.len().min(1);
        self.0.read(&mut buffer[..len])
    }
}
