//! Streams that are not those of one domain.

use xenstore_migration::domain_state::{
    DomainState, FromStreamError, PendingNode, RecordFault, StreamContents,
};
use xenstore_migration::{
    ByteOrder, ConnectionData, ConnectionId, ConnectionSpec, DomainData, GlobalData, NodeAccess,
    NodeData, NodePerm, NodeScope, PermFlags, Preamble, QuotaTable, Quotas, ReadOptions, Record,
    RecordType, StreamReader, TransactionData, UnknownData, Version, Violation, WatchData,
};
use xenstore_proto::{Access, DomId, TxId};

use crate::{node, path, stream_of};

const V2: Preamble = Preamble::new(Version::V2, ByteOrder::Big);
const PERMS: [NodePerm; 1] = [NodePerm::new(Access::None, DomId::new(3))];

fn id(number: u32) -> ConnectionId {
    ConnectionId::new(number).unwrap()
}

fn connection(number: u32, spec: ConnectionSpec) -> Record<'static> {
    let id = id(number);
    Record::Connection(ConnectionData {
        id,
        spec,
        input: b"",
        output_rest: 0,
        output: b"",
        unique_id: Some(17),
    })
}

fn ring(number: u32, domid: u16) -> Record<'static> {
    connection(number, ConnectionSpec::Ring { domid: DomId::new(domid), target: None, port: 4 })
}

fn committed(path: &str) -> Record<'_> {
    let path = path.as_bytes();
    Record::Node(NodeData { scope: NodeScope::Committed, perms: &PERMS, path, value: b"v" })
}

fn pending(transaction: u32, path: &str) -> Record<'_> {
    let (transaction, access) = (TxId(transaction), NodeAccess::READ);
    let scope = NodeScope::Pending { connection: id(1), transaction, access };
    Record::Node(NodeData { scope, perms: &PERMS, path: path.as_bytes(), value: b"v" })
}

fn watch(number: u32, path: &str) -> Record<'_> {
    Record::Watch(WatchData { connection: id(number), path: path.as_bytes(), token: b"t" })
}

fn transaction(number: u32) -> Record<'static> {
    let (connection, transaction) = (id(1), TxId(number));
    Record::Transaction(TransactionData { connection, transaction })
}

fn domain(domid: u16) -> Record<'static> {
    let (domid, quotas) = (DomId::new(domid), Quotas::NONE);
    Record::Domain(DomainData { domid, features: None, quotas })
}

fn read(records: &[Record<'_>]) -> Result<StreamContents, FromStreamError> {
    let stream = stream_of(V2, records);
    DomainState::from_stream(&mut StreamReader::open(&*stream, ReadOptions::default()).unwrap())
}

/// The fault, which is that of the last record.
fn fault(records: &[Record<'_>]) -> RecordFault {
    let FromStreamError::Record { place, fault } = read(records).unwrap_err() else {
        panic!("no fault of a record")
    };
    let before = stream_of(V2, &records[..records.len() - 1]);
    assert_eq!(place.index, records.len() as u64 - 1);
    assert_eq!(place.record_type, Some(records[records.len() - 1].record_type()));
    assert_eq!(place.offset, before.len() as u64 - 8);
    fault
}

fn violation(records: &[Record<'_>]) -> Violation {
    match fault(records) {
        RecordFault::Violation { source } => source,
        fault => panic!("{fault}"),
    }
}

#[test]
fn what_is_not_of_one_domain_is_refused_where_it_stands() {
    let global = Record::Global(GlobalData { socket_fd: None, event_channel_fd: None });
    let socket = connection(2, ConnectionSpec::Socket { fd: 4 });
    for records in [&[global][..], &[socket], &[ring(1, 3), socket], &[ring(1, 3), ring(2, 4)]] {
        assert!(matches!(violation(records), Violation::NotOfADomain { .. }));
    }
    let other = Violation::OtherDomain { domid: DomId::new(4) };
    assert_eq!(violation(&[ring(1, 3), domain(4)]), other);
    assert_eq!(violation(&[committed("/local/domain/3"), ring(1, 4)]), other);
    for shared in ["/", "/local", "/local/domain", "/vm", "/local/domain/4", "@releaseDomain"] {
        let fault = fault(&[ring(1, 3), committed(shared)]);
        assert_eq!(fault.to_string(), format!("node {shared} cannot be one domain's own"));
    }
}

#[test]
fn what_depends_on_something_that_was_not_told_is_refused() {
    let connection = id(2);
    assert_eq!(
        violation(&[ring(1, 3), watch(2, "data")]),
        Violation::UnknownConnection { connection }
    );
    assert!(matches!(violation(&[transaction(1)]), Violation::UnknownConnection { .. }));
    let found = violation(&[ring(1, 3), transaction(1), pending(2, "/vm")]);
    assert!(matches!(found, Violation::UnknownTransaction { .. }));
    let found = violation(&[ring(1, 3), committed("/vm/u/a"), committed("/vm/u")]);
    assert_eq!(found, Violation::ParentLater { path: (*b"/vm/u").into() });
}

#[test]
fn what_was_told_before_is_refused() {
    let found = violation(&[ring(1, 3), committed("/vm/u"), committed("/vm/u")]);
    assert_eq!(found, Violation::RepeatedNode { path: (*b"/vm/u").into() });
    let found = violation(&[ring(1, 3), transaction(1), pending(1, "/a"), pending(1, "/a")]);
    assert!(matches!(found, Violation::RepeatedNode { .. }));
    let found = violation(&[ring(1, 3), transaction(1), transaction(1)]);
    assert!(matches!(found, Violation::RepeatedTransaction { .. }));
    let found = violation(&[ring(1, 3), watch(1, "data"), watch(1, "data")]);
    assert!(matches!(found, Violation::RepeatedWatch { .. }));
    assert!(matches!(violation(&[domain(3), domain(3)]), Violation::RepeatedDomain { .. }));
    let mut table = QuotaTable::new();
    table.push(b"nodes", 1).unwrap();
    table.push(b"nodes", 2).unwrap();
    let (domid, quotas) = (DomId::new(3), table.quotas());
    let found = violation(&[Record::Domain(DomainData { domid, features: None, quotas })]);
    assert_eq!(found, Violation::RepeatedQuota { name: (*b"nodes").into() });
}

#[test]
fn names_that_are_none_are_refused() {
    assert!(matches!(violation(&[committed("/a.b")]), Violation::Path { .. }));
    assert!(matches!(violation(&[committed("data")]), Violation::RelativeNode { .. }));
    assert!(matches!(violation(&[ring(1, 3), watch(1, "a//b")]), Violation::Path { .. }));
    assert!(matches!(violation(&[ring(1, 3), transaction(0)]), Violation::TransactionZero));
    let mut table = QuotaTable::new();
    table.push(b"a b", 1).unwrap();
    let (domid, quotas) = (DomId::new(3), table.quotas());
    let found = violation(&[Record::Domain(DomainData { domid, features: None, quotas })]);
    assert!(matches!(found, Violation::QuotaName { .. }));
}

#[test]
fn what_is_pending_on_the_connection_are_messages() {
    let spec = ConnectionSpec::Ring { domid: DomId::new(3), target: None, port: 4 };
    let pending = |input, output_rest, output| {
        let data = ConnectionData { id: id(1), spec, input, output_rest, output, unique_id: None };
        violation(&[Record::Connection(data)])
    };
    let connection = id(1);
    assert_eq!(pending(&[0xff; 16], 0, b""), Violation::Input { connection });
    assert_eq!(pending(b"", 1, b"OK"), Violation::Output { connection });
}

#[test]
fn half_removed_nodes_and_nodes_without_an_owner_are_refused() {
    let scope =
        NodeScope::Pending { connection: id(1), transaction: TxId(1), access: NodeAccess::REMOVED };
    let with_value = NodeData { scope, perms: &[], path: b"/a", value: b"v" };
    let with_perms = NodeData { scope, perms: &PERMS, path: b"/a", value: b"" };
    for removed in [with_value, with_perms] {
        let found = violation(&[ring(1, 3), transaction(1), Record::Node(removed)]);
        assert!(matches!(found, Violation::HalfRemoved { .. }));
    }
    for (access, value) in [(NodeAccess::READ, &b"v"[..]), (NodeAccess::WRITTEN, b"")] {
        let scope = NodeScope::Pending { connection: id(1), transaction: TxId(1), access };
        let nobodys = NodeData { scope, perms: &[], path: b"/a", value };
        let found = violation(&[ring(1, 3), transaction(1), Record::Node(nobodys)]);
        assert!(matches!(found, Violation::HalfRemoved { .. }));
    }
    let scope = NodeScope::Committed;
    let unowned = NodeData { scope, perms: &[], path: b"/vm/u", value: b"v" };
    assert!(matches!(violation(&[Record::Node(unowned)]), Violation::NoOwner { .. }));
}

#[test]
fn a_stream_that_names_no_domain_is_refused() {
    assert!(matches!(read(&[]), Err(FromStreamError::NoDomain)));
    assert!(matches!(read(&[committed("/vm/u")]), Err(FromStreamError::NoDomain)));
    assert_eq!(read(&[domain(3)]).unwrap().state.domid, DomId::new(3));
    let own = read(&[committed("/local/domain/3")]).unwrap().state;
    assert_eq!(own.domid, DomId::new(3));
    assert_eq!(own.connection, None);
}

#[test]
fn a_cut_stream_is_no_state() {
    let stream = stream_of(V2, &[ring(1, 3), committed("/local/domain/3")]);
    for len in 16..stream.len() {
        let mut reader = StreamReader::open(&stream[..len], ReadOptions::default()).unwrap();
        let read = DomainState::from_stream(&mut reader);
        assert!(matches!(read, Err(FromStreamError::Read { .. })), "{len}");
    }
}

#[test]
fn records_of_unknown_types_are_given_back_or_refused() {
    let unknown = UnknownData { record_type: RecordType(99), body: b"12345" };
    let stream = stream_of(V2, &[ring(1, 3), Record::Unknown(unknown)]);
    let open = |options| StreamReader::open(&*stream, options).unwrap();
    let contents = DomainState::from_stream(&mut open(ReadOptions::default())).unwrap();
    let [unknown] = &contents.unknown[..] else { panic!("{contents:?}") };
    assert_eq!(unknown.body, b"12345");
    assert_eq!(unknown.place.to_string(), "record 1 (type 0x63) at octet 56");
    let refused = DomainState::from_stream(&mut open(ReadOptions::default().known_only()));
    assert!(matches!(refused, Err(FromStreamError::Read { .. })));
}

#[test]
fn rights_of_domains_that_are_gone_do_not_come_back() {
    let stale = |access, domid| NodePerm {
        flags: PermFlags::STALE,
        ..NodePerm::new(access, DomId::new(domid))
    };
    let read_by_9 = NodePerm::new(Access::Read, DomId::new(9));
    let perms = [stale(Access::Read, 5), stale(Access::Both, 7), read_by_9];
    let scope = NodeScope::Committed;
    let committed = NodeData { scope, perms: &perms, path: b"/vm/u", value: b"v" };
    let (connection, access) = (id(1), NodeAccess::WRITTEN);
    let scope = NodeScope::Pending { connection, transaction: TxId(1), access };
    let pending = NodeData { scope, perms: &perms[1..], path: b"/a", value: b"v" };
    let records = [ring(1, 3), transaction(1), Record::Node(committed), Record::Node(pending)];
    let contents = read(&records).unwrap();
    assert_eq!(contents.state.nodes[&path("/vm/u")], node("v", "r0,r9"));
    let open = &contents.state.connection.unwrap().transactions[0];
    let seen = PendingNode::Seen { access, node: node("v", "b0,r9") };
    assert_eq!(open.nodes[&path("/a")], seen);
    let gone: Vec<_> = contents
        .stale
        .iter()
        .map(|stale| format!("{} {} {}", stale.path, stale.number, stale.perm))
        .collect();
    assert_eq!(gone, ["/vm/u 0 r5", "/vm/u 1 b7", "/a 0 b7"]);
}

#[test]
fn permissions_with_unknown_flags_are_refused() {
    let perms = [PERMS[0], NodePerm { flags: PermFlags(2), ..PERMS[0] }];
    let scope = NodeScope::Committed;
    let node = NodeData { scope, perms: &perms, path: b"/vm/u", value: b"v" };
    assert!(matches!(fault(&[Record::Node(node)]), RecordFault::PermFlags { number: 1, .. }));
}
