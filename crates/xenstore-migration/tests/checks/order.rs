//! Streams in order have no violations, and every rule is found broken where it is.

use xenstore_migration::{
    ByteOrder, ConnectionSpec, GlobalData, NodeAccess, NodeScope, OrderChecker, Preamble,
    QuotaTable, ReadOptions, RecordType, StreamKind, StreamReader, TransactionData, Version,
    Violation, WatchDepth,
};
use xenstore_proto::{DomId, TxId};

use crate::any_record::Owned;
use crate::{connection, id, node, ring, socket, watch};

/// Each violation with the index of its record.
fn violations(version: Version, kind: StreamKind, records: &[Owned]) -> Vec<(usize, Violation)> {
    let mut order = OrderChecker::new(Preamble::new(version, ByteOrder::Little), kind);
    let found = records.iter().map(|record| order.check(&record.record())).enumerate();
    found.flat_map(|(index, found)| found.into_iter().map(move |what| (index, what))).collect()
}

fn transaction(number: u32, tx_id: u32) -> Owned {
    let transaction = TxId(tx_id);
    Owned::Transaction(TransactionData { connection: id(number), transaction })
}

fn pending(number: u32, tx_id: u32, access: NodeAccess, path: &str) -> Owned {
    let (connection, transaction) = (id(number), TxId(tx_id));
    let scope = NodeScope::Pending { connection, transaction, access };
    match node(path, 1) {
        Owned::Node(_, _, path, _) if access == NodeAccess::REMOVED => {
            Owned::Node(scope, Vec::new(), path, Vec::new())
        }
        Owned::Node(_, perms, path, value) => Owned::Node(scope, perms, path, value),
        other => other,
    }
}

fn global() -> Owned {
    Owned::Global(GlobalData { socket_fd: None, event_channel_fd: None })
}

fn quotas(names: &[&str]) -> QuotaTable {
    let mut table = QuotaTable::new();
    names.iter().for_each(|name| table.push(name.as_bytes(), 1).unwrap());
    table
}

/// What a server that followed the specification would write.
fn in_order() -> Vec<Owned> {
    vec![
        global(),
        Owned::GlobalQuota(quotas(&["nodes"]), quotas(&["clients"])),
        ring(1, 0, None),
        socket(2),
        ring(3, 1, Some(0)),
        watch(3, "name"),
        watch(3, "@releaseDomain"),
        Owned::WatchExtended(id(3), WatchDepth::Levels(1), b"/a".to_vec(), b"t".to_vec()),
        transaction(3, 7),
        node("@releaseDomain", 0),
        node("/", 0),
        node("/a", 0),
        node("/a/b", 1),
        pending(3, 7, NodeAccess::REMOVED, "/a/b"),
        pending(3, 7, NodeAccess::WRITTEN, "/a/c/d"),
        Owned::Domain(DomId::new(1), None, quotas(&["nodes", "watches"])),
    ]
}

#[test]
fn a_stream_in_order_has_no_violations() {
    assert_eq!(violations(Version::V2, StreamKind::LiveUpdate, &in_order()), []);
    let of_a_domain: Vec<_> = vec![
        ring(1, 5, None),
        watch(1, "/local/domain/5/a"),
        node("/local/domain/5", 0),
        node("/local/domain/5/a", 5),
        node("/vm/u", 0),
        Owned::Domain(DomId::new(5), None, quotas(&[])),
    ];
    assert_eq!(violations(Version::V1, StreamKind::Domain, &of_a_domain), []);
}

#[test]
fn each_record_told_twice_is_found() {
    let records = in_order();
    for (index, record) in records.iter().enumerate() {
        let mut twice = records.clone();
        twice.insert(index + 1, record.clone());
        let found = violations(Version::V2, StreamKind::LiveUpdate, &twice);
        assert!(!found.is_empty(), "{record:?}");
        assert!(found.iter().all(|(at, _)| *at == index + 1), "{found:?}");
    }
}

#[test]
fn each_dependency_that_comes_later_is_found() {
    // The records that others depend on, and how many records show that they are missing up to the end.
    for (index, dependents) in [(4, 6), (8, 2), (10, 1), (11, 1)] {
        let mut late = in_order();
        let moved = late.remove(index);
        late.push(moved);
        let found = violations(Version::V2, StreamKind::LiveUpdate, &late);
        let missing = found.iter().filter(|(_, what)| {
            matches!(
                what,
                Violation::UnknownConnection { .. }
                    | Violation::UnknownTransaction { .. }
                    | Violation::NoParent { .. }
            )
        });
        assert_eq!(missing.count(), dependents, "{index}: {found:?}");
    }
}

#[test]
fn each_rule_is_found_broken() {
    use Violation as V;
    let (path, node_path) = (|path: &str| path.as_bytes().into(), "/local/domain/5");
    let cases: Vec<(StreamKind, Vec<Owned>, usize, Violation)> = vec![
        (
            StreamKind::LiveUpdate,
            vec![connection(1, ConnectionSpec::Unknown { kind: 2, octets: [0; 8] })],
            0,
            V::ConnectionKind { kind: 2 },
        ),
        (StreamKind::LiveUpdate, vec![node("a", 0)], 0, V::RelativeNode { path: path("a") }),
        (StreamKind::LiveUpdate, vec![ring(1, 0, None), transaction(1, 0)], 1, V::TransactionZero),
        (
            StreamKind::LiveUpdate,
            vec![Owned::Unknown(RecordType(77), vec![1])],
            0,
            V::UnknownType { record_type: RecordType(77) },
        ),
        (
            StreamKind::LiveUpdate,
            vec![Owned::Domain(DomId::new(1), None, quotas(&["a b"]))],
            0,
            V::QuotaName { name: path("a b") },
        ),
        (
            StreamKind::LiveUpdate,
            vec![Owned::Domain(DomId::new(1), None, quotas(&["a", "a"]))],
            0,
            V::RepeatedQuota { name: path("a") },
        ),
        (
            StreamKind::Domain,
            vec![node("/local/domain/5/a", 5), node(node_path, 0)],
            1,
            V::ParentLater { path: path(node_path) },
        ),
        (
            StreamKind::Domain,
            vec![global()],
            0,
            V::NotOfADomain { record_type: RecordType::GLOBAL_DATA },
        ),
        (
            StreamKind::Domain,
            vec![socket(1)],
            0,
            V::NotOfADomain { record_type: RecordType::CONNECTION_DATA },
        ),
        (
            StreamKind::Domain,
            vec![ring(1, 5, None), ring(2, 6, None)],
            1,
            V::NotOfADomain { record_type: RecordType::CONNECTION_DATA },
        ),
        (
            StreamKind::Domain,
            vec![ring(1, 5, None), Owned::Domain(DomId::new(6), None, quotas(&[]))],
            1,
            V::OtherDomain { domid: DomId::new(6) },
        ),
        (
            StreamKind::Domain,
            vec![Owned::Domain(DomId::new(6), None, quotas(&[])), ring(1, 5, None)],
            1,
            V::OtherDomain { domid: DomId::new(5) },
        ),
        (
            StreamKind::Domain,
            [5, 6].map(|domid| Owned::Domain(DomId::new(domid), None, quotas(&[]))).to_vec(),
            1,
            V::OtherDomain { domid: DomId::new(6) },
        ),
        (
            StreamKind::Domain,
            vec![
                ring(1, 5, None),
                Owned::WatchExtended(id(1), WatchDepth::Levels(1), b"/a".to_vec(), Vec::new()),
            ],
            1,
            V::LaterVersion { record_type: RecordType::WATCH_DATA_EXTENDED },
        ),
        (
            StreamKind::Domain,
            vec![
                ring(1, 5, None),
                transaction(1, 4),
                match pending(1, 4, NodeAccess::READ, "/a") {
                    Owned::Node(scope, _, path, value) => {
                        Owned::Node(scope, Vec::new(), path, value)
                    }
                    other => other,
                },
            ],
            2,
            V::HalfRemoved { path: path("/a") },
        ),
    ];
    for (kind, records, index, expected) in cases {
        assert_eq!(violations(Version::V1, kind, &records), [(index, expected)]);
    }
    let no_owner = Owned::Node(NodeScope::Committed, Vec::new(), b"/".to_vec(), Vec::new());
    let found = violations(Version::V1, StreamKind::LiveUpdate, &[no_owner]);
    assert_eq!(found, [(0, V::NoOwner { path: path("/") })]);
    let odd = violations(Version::V1, StreamKind::Domain, &[node("/a//b", 0)]);
    assert!(matches!(&*odd, [(0, V::Path { .. })]), "{odd:?}");
}

#[test]
fn the_captured_dumps_are_in_order() {
    for name in ["c-4.17-host.bin", "c-xenstored-v2-basic-watch.bin", "c-xenstored-v2-partial.bin"]
    {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/captures/migration/");
        let Ok(stream) = std::fs::read(format!("{path}{name}")) else {
            println!("skipped: the_captured_dumps_are_in_order: {path}{name} is not there");
            continue;
        };
        let mut reader = StreamReader::open(&*stream, ReadOptions::default()).unwrap();
        let mut order = OrderChecker::new(reader.preamble(), StreamKind::LiveUpdate);
        while let Some(placed) = reader.next_record().unwrap() {
            assert_eq!(order.check(&placed.record), [], "{name}: {}", placed.place);
        }
    }
}
