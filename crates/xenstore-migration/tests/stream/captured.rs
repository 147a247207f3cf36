//! Streams that stock servers wrote.

use std::collections::BTreeMap;
use std::path::Path;

use xenstore_migration::{
    Deviation, Peer, ReadOptions, Record, StreamReader, StreamWriter, Version,
};

/// The streams there are, and who wrote them.
pub(crate) const STREAMS: [(&str, Peer); 3] = [
    ("c-4.17-host.bin", Peer::C417),
    ("c-xenstored-v2-basic-watch.bin", Peer::C2026),
    ("c-xenstored-v2-partial.bin", Peer::C2026),
];

/// `None`, with the reason printed, where the captures are not.
pub(crate) fn captured(test: &str, name: &str) -> Option<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/captures").join(name);
    match std::fs::read(&path) {
        Ok(octets) => Some(octets),
        Err(error) => {
            println!("skipped: {test}: {}: {error}", path.display());
            None
        }
    }
}

/// Reads a stream to its end and writes it again for the peer that the reader reports.
fn rewritten(stream: &[u8]) -> (Peer, Vec<u8>) {
    let peer = {
        let mut reader = StreamReader::open(stream, ReadOptions::default()).unwrap();
        while reader.next_record().unwrap().is_some() {}
        reader.peer().unwrap()
    };
    let mut reader = StreamReader::open(stream, ReadOptions::default()).unwrap();
    let mut writer = StreamWriter::create(Vec::new(), reader.preamble(), peer).unwrap();
    while let Some(placed) = reader.next_record().unwrap() {
        writer.write(&placed.record).unwrap();
    }
    (peer, writer.finish().unwrap())
}

#[test]
fn a_capture_written_again_for_its_peer_has_the_same_octets() {
    const TEST: &str = "a_capture_written_again_for_its_peer_has_the_same_octets";
    for (name, peer) in STREAMS {
        let Some(stream) = captured(TEST, &format!("migration/{name}")) else { continue };
        let (found, written) = rewritten(&stream);
        assert_eq!(found, peer, "{name}");
        assert!(written == stream, "{name} was not written as it was");
    }
}

#[test]
fn the_nodes_of_a_4_17_dump_are_those_of_the_host_it_was_filled_from() {
    const TEST: &str = "the_nodes_of_a_4_17_dump_are_those_of_the_host_it_was_filled_from";
    let Some(stream) = captured(TEST, "migration/c-4.17-host.bin") else { return };
    let Some(listing) = captured(TEST, "xen-4.17/14-create-pvq/xenstore.txt") else { return };
    let mut reader = StreamReader::open(&*stream, ReadOptions::default()).unwrap();
    assert_eq!(reader.preamble().version, Version::V1);
    let mut nodes = BTreeMap::new();
    let mut own = Vec::new();
    while let Some(placed) = reader.next_record().unwrap() {
        let Record::Node(node) = placed.record else { continue };
        let path = String::from_utf8(node.path.to_vec()).unwrap();
        let perms: Vec<_> = node.perms.iter().map(ToString::to_string).collect();
        if path == "/" || path.starts_with('@') {
            own.push(path);
        } else {
            nodes.insert(path, (node.value.to_vec(), perms.join(",").replace(" (stale)", "")));
        }
    }
    assert_eq!(own, ["@releaseDomain", "@introduceDomain", "/"]);
    let listed: BTreeMap<_, _> = String::from_utf8(listing).unwrap().lines().map(listed).collect();
    assert_eq!(nodes.len(), 298);
    assert_eq!(nodes, listed);
}

/// A line of `xenstore-ls -fp`: path, value, permissions.
fn listed(line: &str) -> (String, (Vec<u8>, String)) {
    let (path, rest) = line.split_once(" = \"").unwrap();
    let (value, perms) = rest.rsplit_once("\"   (").unwrap();
    (path.to_owned(), (unescaped(value), perms.trim_end_matches(')').to_owned()))
}

fn unescaped(value: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut rest = value.as_bytes();
    while let [first, tail @ ..] = rest {
        let (octet, len) = match (first, tail) {
            (b'\\', [b'n', ..]) => (b'\n', 2),
            (b'\\', [b'r', ..]) => (b'\r', 2),
            (b'\\', [b't', ..]) => (b'\t', 2),
            (b'\\', [b'\\', ..]) => (b'\\', 2),
            (b'\\', [b'x', ..]) => {
                (u8::from_str_radix(&value[value.len() - rest.len() + 2..][..2], 16).unwrap(), 4)
            }
            (b'\\', _) => {
                (u8::from_str_radix(&value[value.len() - rest.len() + 1..][..3], 8).unwrap(), 4)
            }
            (octet, _) => (*octet, 1),
        };
        octets.push(octet);
        rest = &rest[len..];
    }
    octets
}

#[test]
fn half_received_requests_are_in_a_version_2_dump() {
    const TEST: &str = "half_received_requests_are_in_a_version_2_dump";
    let Some(stream) = captured(TEST, "migration/c-xenstored-v2-partial.bin") else { return };
    let mut reader = StreamReader::open(&*stream, ReadOptions::default()).unwrap();
    let mut lengths = Vec::new();
    while let Some(placed) = reader.next_record().unwrap() {
        if let Record::Connection(connection) = placed.record {
            lengths.push((connection.id.get(), connection.input.len(), connection.output.len()));
        }
    }
    assert_eq!(lengths, [(1, 0, 0), (2, 0, 19), (3, 19, 0), (4, 7, 0), (5, 0, 0)]);
    assert!(reader.deviations().count(Deviation::LengthCountsPadding) > 0);
    assert_eq!(reader.deviations().count(Deviation::PaddingNotZero), 0);
}

#[test]
fn a_strict_reader_refuses_what_c_xenstored_writes() {
    const TEST: &str = "a_strict_reader_refuses_what_c_xenstored_writes";
    let Some(stream) = captured(TEST, "migration/c-4.17-host.bin") else { return };
    let mut reader = StreamReader::open(&*stream, ReadOptions::default().strict()).unwrap();
    let error = loop {
        match reader.next_record() {
            Ok(record) => assert!(record.is_some(), "read to its end"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.to_string(), "record 3 (WATCH_DATA) at octet 96");
}
