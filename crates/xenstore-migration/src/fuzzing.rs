//! What the fuzz targets of this crate run; the tests replay their corpus through the same functions.

use std::io::Read;

use xenstore_proto::DomId;

use crate::domain_state::{DomainState, RestorePolicy, Translation, plan};
use crate::{
    ByteOrder, Deviation, Peer, Preamble, ReadOptions, StreamReader, StreamWriter, Version,
};

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

/// Takes any octets for a stream if they begin as one, and for JSON otherwise. What reads as a stream and is written by some server
/// comes back from its document with the same octets. What JSON makes a stream reads, and comes back from its own document.
///
/// # Panics
///
/// If a property does not hold.
#[cfg(feature = "json")]
pub fn stream_json(octets: &[u8]) {
    use crate::json::{DocumentError, EncodeOptions, decode, encode};

    let unchecked = EncodeOptions::default().unchecked();
    let stream = if octets.starts_with(&crate::preamble::IDENT) {
        octets.to_vec()
    } else {
        let checked = encode(octets, EncodeOptions::default());
        let Ok(stream) = encode(octets, unchecked) else {
            assert!(checked.is_err(), "refused only where nothing is checked");
            return;
        };
        assert!(checked.is_ok_and(|it| it == stream) || is_of_order(octets), "in another way");
        stream
    };
    let options = ReadOptions::default().record_max(RECORD_MAX);
    let Ok(mut reader) = StreamReader::open(&*stream, options) else { return };
    while matches!(reader.next_record(), Ok(Some(_))) {}
    if reader.deviations().count(Deviation::PaddingNotZero) > 0 {
        return;
    }
    let behind = reader.into_inner().len();
    let Ok(document) = decode(&*stream, options) else { return };
    match encode(document.as_bytes(), unchecked) {
        Ok(again) => assert_eq!(again, stream[..stream.len() - behind], "{document}"),
        Err(DocumentError::NoPeer) => {}
        Err(error) => unreachable!("{error}: {document}"),
    }
}

/// Whether what is wrong with JSON is the order of its records.
#[cfg(feature = "json")]
fn is_of_order(json: &[u8]) -> bool {
    let checked = crate::json::encode(json, crate::json::EncodeOptions::default());
    matches!(checked, Err(crate::json::DocumentError::Order { .. }))
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

/// Reads any octets as the state of one domain, and as a dump that it is taken from. What is a state is written as a stream that
/// says the same, needs no change to be as it is, and is itself again after two translations.
///
/// # Panics
///
/// If a property does not hold.
pub fn domain_state(octets: &[u8]) {
    let options = ReadOptions::default().record_max(RECORD_MAX);
    for domid in [0, 1, 3].map(DomId::new) {
        let Ok(mut reader) = StreamReader::open(octets, options) else { return };
        // Whether there is such a domain is not the question.
        let _ = DomainState::from_dump(&mut reader, domid, []);
    }
    let Ok(mut reader) = StreamReader::open(octets, options) else { return };
    let Ok(contents) = DomainState::from_stream(&mut reader) else { return };
    let state = contents.state;
    let preamble = Preamble::new(Version::V2, ByteOrder::Big);
    let writer = StreamWriter::create(Vec::new(), preamble, Peer::Specification);
    let mut writer = writer.expect("a Vec takes everything");
    let lost = state.to_stream(&mut writer).expect("what has been read can be written");
    let written = writer.finish().expect("a Vec takes everything");
    if lost.is_empty() {
        let mut reader = StreamReader::open(&*written, options).expect("it was just written");
        let again = DomainState::from_stream(&mut reader).expect("it was just written");
        assert_eq!(again.state, state);
    }
    let nothing = plan(&state, &state, &RestorePolicy::exact()).expect("the same domain");
    assert_eq!(nothing.changes, []);
    let other = DomId::new(state.domid.get() ^ 1);
    if let Ok(there) = Translation::new(state.domid, other).apply(&state) {
        assert_eq!(Translation::new(other, state.domid).apply(&there).as_ref(), Ok(&state));
    }
}
