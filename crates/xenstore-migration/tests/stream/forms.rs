//! WATCH_DATA_EXTENDED in its three forms: as specified, as C xenstored of 2026 reads it, and as it writes it.
//!
//! What it writes has no depth but a length as if it had one, so that a record in four is eight octets shorter than it says,
//! and the next one begins within it. A reader that goes by the length loses its way there.

use std::error::Error;

use proptest::prelude::*;
use xenstore_migration::{
    ByteOrder, Deviation, Peer, Preamble, ReadFailure, ReadOptions, Record, RecordType,
    StreamReader, StreamWriter, Version, WatchDepth,
};

use crate::any_record::{Owned, connection_id, depth, preamble};
use crate::rich::{self, id, preambles};
use crate::round_trips::written;

fn watch(depth: WatchDepth, path: &[u8], token: &[u8]) -> Owned {
    Owned::WatchExtended(id(1), depth, path.to_vec(), token.to_vec())
}

/// Reads the records that are expected, and writes them again as they were.
fn check(stream: &[u8], records: &[Owned], peer: Peer) {
    let mut reader = StreamReader::open(stream, ReadOptions::default()).unwrap();
    let mut writer = StreamWriter::create(Vec::new(), reader.preamble(), peer).unwrap();
    for expected in records {
        let placed = reader.next_record().unwrap().unwrap();
        assert_eq!(placed.record, expected.record());
        let offset = usize::try_from(placed.place.offset).unwrap();
        let at = &stream[offset..offset + 4];
        let number = match writer.preamble().byte_order {
            ByteOrder::Little => u32::from_le_bytes(at.try_into().unwrap()),
            ByteOrder::Big => u32::from_be_bytes(at.try_into().unwrap()),
        };
        assert_eq!(RecordType(number), placed.record.record_type(), "at {offset}");
        writer.write(&placed.record).unwrap();
    }
    assert_eq!(reader.next_record().unwrap(), None);
    assert_eq!(reader.peer(), Some(peer));
    assert_eq!(reader.deviations().count(Deviation::PaddingNotZero), 0);
    assert!(reader.into_inner().is_empty(), "not read to its end");
    assert!(writer.finish().unwrap() == stream, "written otherwise");
}

#[test]
fn what_follows_an_extended_watch_of_c_xenstored_is_read_right() {
    let peer = Peer::C2026Written;
    let mut short = 0;
    for preamble in preambles() {
        let following = rich::records(preamble.version, peer);
        for len in 0..16 {
            for path in ["/", "/a", "/ab", "device", "@releaseDomain/3"] {
                let token = vec![b't'; len];
                let watch = || watch(WatchDepth::Untold, path.as_bytes(), &token);
                let alone = written(preamble, peer, &[watch()]);
                check(&alone, &[watch()], peer);
                let texts = path.len() + 1 + token.len() + 1;
                // The preamble, the record and END; and what the record says.
                assert_eq!(alone.len(), 16 + 8 + (8 + texts).next_multiple_of(8) + 8);
                let claimed = usize::from(alone[20] | alone[23]);
                let missing = 16 + 8 + claimed + 8 - alone.len();
                assert_eq!(missing, if matches!(texts % 8, 5 | 6 | 7 | 0) { 8 } else { 0 });
                short += missing / 8;
                for record in &following {
                    let records = [watch(), record.clone(), watch()];
                    check(&written(preamble, peer, &records), &records, peer);
                }
            }
        }
    }
    assert_eq!(short, 4 * 16 * 5 / 2);
}

#[test]
fn the_form_of_a_stream_of_everything_is_that_it_was_written_in() {
    for preamble in preambles() {
        for peer in Peer::ALL.into_iter().filter(|peer| peer.knows(preamble.version)) {
            let records = rich::records(preamble.version, peer);
            let stream = written(preamble, peer, &records);
            // Without extended watches, version 1 is version 1.
            check(
                &stream,
                &records,
                match (preamble.version, peer) {
                    (Version::V1, Peer::C2026) => Peer::C417,
                    _ => peer,
                },
            );
        }
    }
}

#[test]
fn what_comes_after_an_end_within_a_records_length_is_left_alone() {
    let watch = watch(WatchDepth::Untold, b"/abcde", b"");
    for preamble in preambles() {
        let mut stream = written(preamble, Peer::C2026Written, std::slice::from_ref(&watch));
        stream.extend_from_slice(b"something else");
        let mut reader = StreamReader::open(&*stream, ReadOptions::default()).unwrap();
        while reader.next_record().unwrap().is_some() {}
        assert_eq!(reader.into_inner(), b"something else");
    }
}

/// The end of a stream of one node whose length does not count its padding, then watches of C xenstored, or the other way round.
#[test]
fn a_stream_that_counts_padding_in_some_lengths_only_is_refused() {
    let preamble = Preamble::new(Version::V2, ByteOrder::Little);
    let node = rich::records(Version::V1, Peer::C417)
        .into_iter()
        .find(|record| matches!(record, Owned::Node(..)))
        .unwrap();
    let exact = written(preamble, Peer::Specification, std::slice::from_ref(&node));
    for (peer, depth) in
        [(Peer::C2026, WatchDepth::Levels(1)), (Peer::C2026Written, WatchDepth::Untold)]
    {
        let watches = written(preamble, peer, &[watch(depth, b"/a/b", b"to")]);
        for (first, second, said) in [
            (
                &exact,
                &watches,
                "the length counts padding, unlike that of record 0 (NODE_DATA) at octet 16",
            ),
            (
                &watches,
                &exact,
                "the length does not count padding, unlike that of record 0 (WATCH_DATA_EXTENDED) at octet 16",
            ),
        ] {
            let stream = [&first[..first.len() - 8], &second[16..]].concat();
            let mut reader = StreamReader::open(&*stream, ReadOptions::default()).unwrap();
            assert!(reader.next_record().unwrap().is_some());
            let error = reader.next_record().unwrap_err();
            assert!(matches!(error.failure, ReadFailure::MixedLengths { .. }));
            assert_eq!(error.source().unwrap().to_string(), said);
            assert_eq!((error.place.index, error.place.offset), (1, first.len() as u64 - 8));
        }
    }
}

/// A stream is of nobody if no writer writes it, though all of its records can be understood.
#[test]
fn watches_of_several_forms_are_understood_and_of_nobody() {
    let preamble = Preamble::new(Version::V2, ByteOrder::Little);
    let of = |peer, depth| written(preamble, peer, &[watch(depth, b"/a/path", b"token")]);
    let streams = [
        of(Peer::Specification, WatchDepth::Levels(1)),
        of(Peer::C2026, WatchDepth::Levels(1)),
        of(Peer::C2026Written, WatchDepth::Untold),
    ];
    for (first, second) in [(0, 1), (0, 2), (1, 2)] {
        let (first, second) = (&streams[first], &streams[second]);
        // The specified one has 26 octets of fields: with padding counted it says 32.
        let mut stream = [&first[..first.len() - 8], &second[16..]].concat();
        stream[20] = stream[20].next_multiple_of(8);
        let mut reader = StreamReader::open(&*stream, ReadOptions::default()).unwrap();
        for _ in 0..2 {
            let record = reader.next_record().unwrap().unwrap().record;
            assert!(matches!(record, Record::WatchExtended(watch) if watch.path == b"/a/path"));
        }
        assert_eq!(reader.next_record().unwrap(), None);
        assert_eq!(reader.peer(), None);
    }
}

#[test]
fn a_form_without_padding_goes_before_one_whose_padding_is_not_zero() {
    // With a path at octet 12 this would be a watch on `abc` of a token that is the type of the next record.
    let records = [
        watch(WatchDepth::Untold, b"/ab", b"abc"),
        Owned::Unknown(RecordType(0x0063_6261), b"nothing!".to_vec()),
    ];
    let preamble = Preamble::new(Version::V2, ByteOrder::Little);
    check(&written(preamble, Peer::C2026Written, &records), &records, Peer::C2026Written);
}

/// What WATCH takes: absolute, relative, and special.
fn real_path() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("/".to_owned()),
        "(/[A-Za-z0-9_@-]{1,6}){1,5}",
        "[A-Za-z0-9_-]{1,3}(/[A-Za-z0-9_@-]{1,6}){0,3}",
        "@(introduceDomain|releaseDomain)(/[0-9]{1,5})?",
    ]
}

/// Any octets but NUL, and often few, so that little tells the forms apart.
fn token() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(1..=255_u8, 0..24),
        "[a-z/]{0,5}".prop_map(String::into_bytes)
    ]
}

/// Depths whose octets could be part of a path among them.
fn any_depth() -> impl Strategy<Value = WatchDepth> {
    let likely = proptest::sample::select(vec![0, 1, 0x2F, 0x61, 0x2F00, 0x6100, 0x2F61, 0x612F]);
    prop_oneof![depth(), likely.prop_map(WatchDepth::Levels)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn no_form_is_taken_for_another(
        preamble in preamble(),
        watches in proptest::collection::vec((connection_id(), any_depth(), real_path(), token()), 1..4),
    ) {
        for peer in [Peer::Specification, Peer::C2026, Peer::C2026Written] {
            if preamble.version == Version::V1 && peer != Peer::C2026Written {
                continue;
            }
            let records: Vec<_> = watches
                .iter()
                .cloned()
                .map(|(id, depth, path, token)| {
                    let depth = if peer == Peer::C2026Written { WatchDepth::Untold } else { depth };
                    Owned::WatchExtended(id, depth, path.into_bytes(), token)
                })
                .collect();
            check(&written(preamble, peer, &records), &records, peer);
        }
    }
}
