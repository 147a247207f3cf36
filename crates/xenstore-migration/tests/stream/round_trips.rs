//! What is written is read again as it was.

use proptest::prelude::*;
use xenstore_migration::{
    ByteOrder, Peer, Preamble, ReadOptions, Record, StreamReader, StreamWriter, Version, WatchDepth,
};

use crate::any_record::{Owned, preamble, records};

pub(crate) fn written(preamble: Preamble, peer: Peer, records: &[Owned]) -> Vec<u8> {
    let mut writer = StreamWriter::create(Vec::new(), preamble, peer).unwrap();
    for record in records {
        writer.write(&record.record()).unwrap();
    }
    writer.finish().unwrap()
}

proptest! {
    #[test]
    fn any_records_read_as_they_were_written(
        (preamble, records) in preamble().prop_flat_map(|preamble| (Just(preamble), records(preamble.version)))
    ) {
        let stream = written(preamble, Peer::Specification, &records);
        let mut reader = StreamReader::open(&*stream, ReadOptions::default().strict()).unwrap();
        prop_assert_eq!(reader.preamble(), preamble);
        let mut offset = 16;
        for (index, expected) in records.iter().enumerate() {
            let placed = reader.next_record().unwrap().unwrap();
            prop_assert_eq!(placed.record, expected.record());
            prop_assert_eq!(placed.place.index, index as u64);
            let at = usize::try_from(placed.place.offset).unwrap();
            prop_assert_eq!(at, offset);
            let read = |octets: &[u8]| match preamble.byte_order {
                ByteOrder::Little => u32::from_le_bytes(octets.try_into().unwrap()),
                ByteOrder::Big => u32::from_be_bytes(octets.try_into().unwrap()),
            };
            prop_assert_eq!(read(&stream[at..at + 4]), expected.record().record_type().0);
            offset += 8 + usize::try_from(read(&stream[at + 4..at + 8])).unwrap().next_multiple_of(8);
        }
        prop_assert_eq!(reader.next_record().unwrap(), None);
        prop_assert_eq!(reader.next_record().unwrap(), None);
        prop_assert_eq!(reader.peer(), Some(Peer::Specification));
        prop_assert!(reader.into_inner().is_empty());
    }

    #[test]
    fn any_records_for_c_read_as_they_were_written(
        (preamble, records) in preamble().prop_flat_map(|preamble| (Just(preamble), records(preamble.version))),
    ) {
        let mut records = records;
        // C xenstored cannot read these.
        records.retain(|record| !matches!(record, Owned::Unknown(_, body) if body.is_empty()));
        // Of these nobody can tell where the padding begins.
        for record in &mut records {
            if let Owned::Unknown(_, body) = record {
                body.resize(body.len().next_multiple_of(8), 0);
            }
            // What does not look like a path cannot be told apart from the specified form.
            if let Owned::WatchExtended(_, _, path, _) = record {
                path.retain(u8::is_ascii_alphanumeric);
                path.insert(0, b'/');
            }
        }
        let peer = if preamble.version == Version::V1 { Peer::C417 } else { Peer::C2026 };
        let stream = written(preamble, peer, &records);
        let mut reader = StreamReader::open(&*stream, ReadOptions::default()).unwrap();
        let mut writer = StreamWriter::create(Vec::new(), preamble, peer).unwrap();
        for expected in &records {
            let placed = reader.next_record().unwrap().unwrap();
            prop_assert_eq!(placed.record, expected.record());
            writer.write(&placed.record).unwrap();
        }
        prop_assert_eq!(reader.next_record().unwrap(), None);
        prop_assert_eq!(writer.finish().unwrap(), stream);
    }

    #[test]
    fn a_stream_that_comes_in_pieces_reads_the_same(
        (preamble, records) in preamble().prop_flat_map(|preamble| (Just(preamble), records(preamble.version))),
        pieces in 1..9_usize,
    ) {
        struct Pieces<'a>(&'a [u8], usize);
        impl std::io::Read for Pieces<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                let most = buffer.len().min(self.1);
                self.0.read(&mut buffer[..most])
            }
        }
        let stream = written(preamble, Peer::Specification, &records);
        let mut reader = StreamReader::open(Pieces(&stream, pieces), ReadOptions::default()).unwrap();
        for expected in &records {
            prop_assert_eq!(reader.next_record().unwrap().unwrap().record, expected.record());
        }
        prop_assert_eq!(reader.next_record().unwrap(), None);
    }
}

#[test]
fn what_comes_after_end_is_left_alone() {
    let mut stream = include_bytes!("../../testdata/one-node.bin").to_vec();
    stream.extend_from_slice(b"something else");
    let mut reader = StreamReader::open(&*stream, ReadOptions::default()).unwrap();
    while reader.next_record().unwrap().is_some() {}
    assert_eq!(reader.into_inner(), b"something else");
}

#[test]
fn features_are_zero_in_version_1_and_not_read_there() {
    let domain = |features| {
        Owned::Domain(
            xenstore_proto::DomId::new(3),
            Some(xenstore_proto::Features(features)),
            Default::default(),
        )
    };
    for byte_order in [ByteOrder::Little, ByteOrder::Big] {
        let preamble = Preamble::new(Version::V1, byte_order);
        let mut stream = written(preamble, Peer::Specification, &[domain(14)]);
        assert_eq!(stream[28..32], [0; 4], "the features");
        stream[28] = 14;
        let mut reader = StreamReader::open(&*stream, ReadOptions::default()).unwrap();
        let placed = reader.next_record().unwrap().unwrap();
        assert!(matches!(placed.record, Record::Domain(domain) if domain.features.is_none()));
    }
}

#[test]
fn depths_are_read_as_they_were_written() {
    for depth in [WatchDepth::Levels(0), WatchDepth::Levels(65534), WatchDepth::Unlimited] {
        let id = xenstore_migration::ConnectionId::new(1).unwrap();
        let watch = Owned::WatchExtended(id, depth, b"/a".to_vec(), b"t".to_vec());
        let preamble = Preamble::new(Version::V2, ByteOrder::Big);
        for peer in [Peer::Specification, Peer::C2026] {
            let stream = written(preamble, peer, std::slice::from_ref(&watch));
            let mut reader = StreamReader::open(&*stream, ReadOptions::default()).unwrap();
            let placed = reader.next_record().unwrap().unwrap();
            assert_eq!(placed.record, watch.record(), "{peer}");
            assert_eq!(reader.peer(), Some(peer));
        }
    }
}
