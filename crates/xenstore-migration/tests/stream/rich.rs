//! Streams that hold every type of record, in every form there is.

use xenstore_migration::{
    ByteOrder, ConnectionId, ConnectionSpec, GlobalData, NodeAccess, NodePerm, NodeScope, Peer,
    PermFlags, Preamble, QuotaTable, RecordType, TransactionData, Version, WatchDepth,
};
use xenstore_proto::{Access, DomId, Features, TxId};

use crate::any_record::Owned;
use crate::round_trips::written;

/// A stream, and for whom it was written.
pub(crate) struct Rich {
    pub(crate) peer: Peer,
    pub(crate) stream: Vec<u8>,
}

/// One stream of everything in each form, and one of each record alone, whose lengths nothing else in the stream confirms.
pub(crate) fn streams() -> Vec<Rich> {
    let mut streams = Vec::new();
    for preamble in preambles() {
        for peer in Peer::ALL.into_iter().filter(|peer| peer.knows(preamble.version)) {
            let records = records(preamble.version, peer);
            let stream = written(preamble, peer, &records);
            streams.push(Rich { peer, stream });
            for record in &records {
                let stream = written(preamble, peer, std::slice::from_ref(record));
                streams.push(Rich { peer, stream });
            }
        }
    }
    streams
}

pub(crate) fn preambles() -> impl Iterator<Item = Preamble> {
    let orders = [ByteOrder::Little, ByteOrder::Big];
    [Version::V1, Version::V2]
        .into_iter()
        .flat_map(move |version| orders.map(|order| Preamble::new(version, order)))
}

/// Every type of record that the peer has in such streams, with lengths that fill the last eight octets in different ways.
pub(crate) fn records(version: Version, peer: Peer) -> Vec<Owned> {
    let mut records = vec![
        Owned::Global(GlobalData { socket_fd: Some(3), event_channel_fd: None }),
        Owned::GlobalQuota(table(&[("nodes", 1000), ("watches", 128)]), table(&[("x", 7)])),
    ];
    records.extend(connections());
    records.extend(watches(version, peer));
    records.push(Owned::Transaction(TransactionData { connection: id(1), transaction: TxId(77) }));
    records.extend(nodes());
    let features = (version == Version::V2).then_some(Features(14));
    records.push(Owned::Domain(DomId::new(3), features, table(&[("nodes", 999), ("quux", 0)])));
    records.push(Owned::Domain(DomId::new(4), features, QuotaTable::new()));
    // C xenstored's lengths count the padding, so that only such a body is read by others as it was written.
    let len = if peer == Peer::Specification { 13 } else { 16 };
    let mut body = b"what is to come".to_vec();
    body.resize(len, b'!');
    records.push(Owned::Unknown(RecordType(9), body));
    records
}

fn connections() -> [Owned; 5] {
    let ring = ConnectionSpec::Ring { domid: DomId::new(3), target: None, port: 12 };
    let stub = ConnectionSpec::Ring { domid: DomId::new(4), target: Some(DomId::new(3)), port: 13 };
    let connection = |number, spec, input: &[u8], output_rest, output: &[u8], unique_id| {
        let (input, output) = (input.to_vec(), output.to_vec());
        Owned::Connection { id: id(number), spec, input, output_rest, output, unique_id }
    };
    [
        connection(1, ring, b"abcde", 3, b"res\0\0", Some(0x0102_0304_0506_0708)),
        connection(2, stub, b"", 0, b"", Some(9)),
        connection(3, ConnectionSpec::Socket { fd: 21 }, b"half a re", 0, b"rest\0\0", None),
        connection(4, ConnectionSpec::Socket { fd: 22 }, b"", 0, b"", None),
        connection(
            5,
            ConnectionSpec::Unknown { kind: 2, octets: [7; 8] },
            b"1234",
            1,
            b"5678",
            None,
        ),
    ]
}

fn watches(version: Version, peer: Peer) -> Vec<Owned> {
    let mut watches = vec![
        Owned::Watch(id(1), b"device/vbd".to_vec(), b"FFFF8800".to_vec()),
        Owned::Watch(id(1), b"@releaseDomain".to_vec(), b"".to_vec()),
    ];
    let depths = match peer {
        Peer::C417 => &[][..],
        Peer::C2026Written => &[WatchDepth::Untold; 4][..],
        _ if version == Version::V1 => &[][..],
        _ => &[
            WatchDepth::Levels(0),
            WatchDepth::Levels(1),
            WatchDepth::Unlimited,
            WatchDepth::Levels(2),
        ],
    };
    let texts = ["/local/domain/3/data", "@releaseDomain/3", "/", "memory/target"];
    for (number, (depth, text)) in depths.iter().zip(texts).enumerate() {
        let token = b"token"[..number].to_vec();
        watches.push(Owned::WatchExtended(id(1), *depth, text.as_bytes().to_vec(), token));
    }
    watches
}

fn nodes() -> Vec<Owned> {
    let perm = |access, domid| NodePerm::new(access, DomId::new(domid));
    let stale = NodePerm { flags: PermFlags::STALE, ..NodePerm::new(Access::Read, DomId::new(9)) };
    let node = |perms: &[NodePerm], path: &str, value: &[u8]| {
        let path = path.as_bytes().to_vec();
        Owned::Node(NodeScope::Committed, perms.to_vec(), path, value.to_vec())
    };
    let pending = |access, perms: &[NodePerm], value: &[u8]| {
        let scope = NodeScope::Pending { connection: id(1), transaction: TxId(77), access };
        Owned::Node(scope, perms.to_vec(), b"/local/domain/3/data/a".to_vec(), value.to_vec())
    };
    let owner = [perm(Access::None, 3)];
    vec![
        node(&[perm(Access::None, 0)], "/", b""),
        node(&[perm(Access::Both, 3), perm(Access::Read, 0), stale], "/local/domain/3", b"a\0\0\0"),
        node(&owner, "/local/domain/3/name", b"guest"),
        // Fills its last eight octets, with zeros and without.
        node(&owner, "/local/domain/3/k", b"value\0\0\0\0\0"),
        node(&owner, "/local/domain/3/l", b"ten octets"),
        pending(NodeAccess(3), &owner, b"seen"),
        pending(NodeAccess::REMOVED, &[], b""),
    ]
}

fn table(quotas: &[(&str, u32)]) -> QuotaTable {
    let mut table = QuotaTable::new();
    for (name, value) in quotas {
        table.push(name.as_bytes(), *value).unwrap();
    }
    table
}

pub(crate) fn id(number: u32) -> ConnectionId {
    ConnectionId::new(number).unwrap()
}
