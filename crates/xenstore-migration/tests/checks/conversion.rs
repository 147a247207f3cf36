//! Between versions, byte orders and forms: what can be kept is, and what cannot is told.

use proptest::prelude::*;
use xenstore_migration::{
    ByteOrder, LossKind, Peer, Preamble, QuotaTable, ReadOptions, Record, RecordType, StreamReader,
    StreamWriter, Version, WatchDepth, convert,
};
use xenstore_proto::{DomId, Features};

use crate::any_record::{Owned, preamble, records};
use crate::{id, node, ring, watch};

fn stream(preamble: Preamble, peer: Peer, records: &[Owned]) -> Vec<u8> {
    let mut writer = StreamWriter::create(Vec::new(), preamble, peer).unwrap();
    records.iter().for_each(|record| writer.write(&record.record()).unwrap());
    writer.finish().unwrap()
}

/// The stream in another form, and what was lost in words.
fn converted(original: &[u8], to: Preamble, peer: Peer) -> (Vec<u8>, Vec<String>) {
    let mut reader = StreamReader::open(original, ReadOptions::default()).unwrap();
    let mut writer = StreamWriter::create(Vec::new(), to, peer).unwrap();
    let mut lost = Vec::new();
    convert(&mut reader, &mut writer, |loss| lost.push(loss.to_string())).unwrap();
    (writer.finish().unwrap(), lost)
}

fn quotas(quotas: &[(&str, u32)]) -> QuotaTable {
    let mut table = QuotaTable::new();
    quotas.iter().for_each(|(name, value)| table.push(name.as_bytes(), *value).unwrap());
    table
}

const V1: Preamble = Preamble::new(Version::V1, ByteOrder::Little);
const V2: Preamble = Preamble::new(Version::V2, ByteOrder::Little);

#[test]
fn version_2_goes_down_to_version_1_with_its_losses_listed_and_comes_back() {
    let extended = |depth, path: &str| {
        Owned::WatchExtended(id(1), depth, path.as_bytes().to_vec(), b"t".to_vec())
    };
    // Also quotas that no server of today knows.
    let server =
        Owned::GlobalQuota(quotas(&[("nodes", 1000), ("new-d", 7)]), quotas(&[("new-g", 9)]));
    let own = quotas(&[("nodes", 2000), ("new-d", 8)]);
    let original = [
        server.clone(),
        ring(1, 3, None),
        watch(1, "name"),
        extended(WatchDepth::Levels(2), "/a"),
        extended(WatchDepth::Unlimited, "/b"),
        node("/local/domain/3", 0),
        Owned::Domain(DomId::new(3), Some(Features(14)), own.clone()),
        Owned::Domain(DomId::new(4), Some(Features(0)), own.clone()),
    ];
    let (down, lost) =
        converted(&stream(V2, Peer::Specification, &original), V1, Peer::Specification);
    assert_eq!(
        lost,
        [
            "record 3 (WATCH_DATA_EXTENDED) at octet 128: the watch on /a loses its depth (Levels(2)) and covers all \
             below its path",
            "record 6 (DOMAIN_DATA) at octet 248: domain 3 loses its features, 0xe",
        ]
    );
    let expected = [
        server.clone(),
        ring(1, 3, None),
        watch(1, "name"),
        Owned::Watch(id(1), b"/a".to_vec(), b"t".to_vec()),
        Owned::Watch(id(1), b"/b".to_vec(), b"t".to_vec()),
        node("/local/domain/3", 0),
        Owned::Domain(DomId::new(3), None, own.clone()),
        Owned::Domain(DomId::new(4), None, own.clone()),
    ];
    assert_eq!(down, stream(V1, Peer::Specification, &expected));

    let (up, lost) = converted(&down, V2, Peer::Specification);
    assert_eq!(
        lost,
        [
            "record 6 (DOMAIN_DATA) at octet 232: the features of domain 3 were not told and become zero",
            "record 7 (DOMAIN_DATA) at octet 272: the features of domain 4 were not told and become zero",
        ]
    );
    assert_eq!(converted(&up, V1, Peer::Specification).0, down);
}

#[test]
fn what_c_xenstored_wrote_without_a_depth_covers_everything_afterwards() {
    let untold = Owned::WatchExtended(id(1), WatchDepth::Untold, b"/a".to_vec(), b"t".to_vec());
    let written = stream(V2, Peer::C2026Written, &[ring(1, 3, None), untold]);
    let (mended, lost) = converted(&written, V2, Peer::Specification);
    assert_eq!(
        lost,
        [
            "record 1 (WATCH_DATA_EXTENDED) at octet 48: the depth of the watch on /a was lost before; it covers all below \
          its path"
        ]
    );
    let mut reader = StreamReader::open(&*mended, ReadOptions::default().strict()).unwrap();
    reader.next_record().unwrap();
    let placed = reader.next_record().unwrap().unwrap();
    assert!(
        matches!(placed.record, Record::WatchExtended(watch) if watch.depth == WatchDepth::Unlimited)
    );
    let (same, lost) = converted(&written, V2, Peer::C2026Written);
    assert_eq!((same, lost), (written, Vec::new()));
}

#[test]
fn unknown_records_are_kept_unless_they_would_say_something_else() {
    let unknown = Owned::Unknown(RecordType(0x99), vec![1, 2, 3, 4, 5]);
    let empty = Owned::Unknown(RecordType(0x98), Vec::new());
    let original = stream(V2, Peer::Specification, &[unknown, empty]);
    let (kept, lost) = converted(&original, V2, Peer::Specification);
    assert_eq!((kept, lost), (original.clone(), Vec::new()));
    let big = Preamble { byte_order: ByteOrder::Big, ..V2 };
    let (_, lost) = converted(&original, big, Peer::Specification);
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert!(lost[0].contains("byte order"), "{lost:?}");
    let (_, lost) = converted(&original, V2, Peer::C2026);
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert!(lost[0].contains("give up"), "{lost:?}");
}

fn any_peer() -> impl Strategy<Value = Peer> {
    prop::sample::select(Peer::ALL.to_vec())
}

fn any_order() -> impl Strategy<Value = ByteOrder> {
    preamble().prop_map(|preamble| preamble.byte_order)
}

proptest! {
    #[test]
    fn whatever_is_converted_reads_again_and_only_losses_are_missing(
        records in records(Version::V2),
        (from, to) in (any_order(), any_order()),
        peer in any_peer(),
        down in any::<bool>(),
    ) {
        let mut records = records;
        for record in &mut records {
            // What is no path cannot be written in the forms of C xenstored.
            if let Owned::WatchExtended(_, _, path, _) = record {
                path.retain(u8::is_ascii_alphanumeric);
                path.insert(0, b'/');
            }
        }
        let version = if down || !peer.knows(Version::V2) { Version::V1 } else { Version::V2 };
        let from = Preamble::new(Version::V2, from);
        let to = Preamble::new(version, to);
        let original = stream(from, Peer::Specification, &records);
        let mut reader = StreamReader::open(&*original, ReadOptions::default()).unwrap();
        let mut writer = StreamWriter::create(Vec::new(), to, peer).unwrap();
        let (mut left_out, mut lost) = (0, 0);
        convert(&mut reader, &mut writer, |loss| {
            lost += 1;
            left_out += usize::from(matches!(
                loss.kind,
                LossKind::UnknownByteOrder { .. } | LossKind::UnknownEmpty { .. }
            ));
        }).unwrap();
        let written = writer.finish().unwrap();
        let mut reader = StreamReader::open(&*written, ReadOptions::default()).unwrap();
        let mut count = 0;
        while reader.next_record().unwrap().is_some() {
            count += 1;
        }
        prop_assert_eq!(count + left_out, records.len());
        if lost == 0 && peer == Peer::Specification && version == Version::V2 {
            prop_assert_eq!(converted(&written, from, Peer::Specification).0, original);
        }
    }

    #[test]
    fn another_byte_order_and_back_is_the_same(records in records(Version::V2), order in any_order()) {
        let known = records.iter().filter(|record| !matches!(record, Owned::Unknown(..)));
        let known: Vec<_> = known.cloned().collect();
        let original = stream(Preamble::new(Version::V2, order), Peer::Specification, &known);
        for other in [ByteOrder::Little, ByteOrder::Big] {
            let (there, lost) =
                converted(&original, Preamble::new(Version::V2, other), Peer::Specification);
            prop_assert!(lost.is_empty());
            let back = converted(&there, Preamble::new(Version::V2, order), Peer::Specification);
            prop_assert_eq!(&back.0, &original);
        }
    }
}
