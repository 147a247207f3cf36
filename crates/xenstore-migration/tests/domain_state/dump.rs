//! One domain out of the dump of a whole server.

use xenstore_migration::domain_state::{DomainState, DumpContents, FromDumpError, NoVmTree};
use xenstore_migration::{
    ByteOrder, ConnectionData, ConnectionId, ConnectionSpec, DomainData, GlobalData, NodeData,
    NodePerm, NodeScope, PermFlags, Preamble, Quotas, Record, RecordType, TransactionData,
    UnknownData, Version, Violation, WatchData, WatchDepth, WatchExtendedData,
};
use xenstore_proto::{Access, DomId, Features, TxId};

use crate::{path, reader, stream_of};

const V2: Preamble = Preamble::new(Version::V2, ByteOrder::Little);
const PERMS: [NodePerm; 2] = [
    NodePerm::new(Access::None, DomId::new(3)),
    NodePerm { access: Access::Read, flags: PermFlags::STALE, domid: DomId::new(9) },
];

fn id(number: u32) -> ConnectionId {
    ConnectionId::new(number).unwrap()
}

fn ring(number: u32, domid: u16) -> Record<'static> {
    let spec = ConnectionSpec::Ring { domid: DomId::new(domid), target: None, port: 4 };
    let (id, input, output) = (id(number), b"in", b"out");
    Record::Connection(ConnectionData { id, spec, input, output_rest: 3, output, unique_id: None })
}

/// The toolstack's, with a right of the guest's that is gone.
const TOOLSTACKS: [NodePerm; 2] = [NodePerm::new(Access::None, DomId::DOM0), PERMS[1]];

fn node<'a>(path: &'a str, value: &'a str) -> Record<'a> {
    let perms = if path.ends_with("/vm") { &TOOLSTACKS } else { &PERMS };
    let (path, value) = (path.as_bytes(), value.as_bytes());
    Record::Node(NodeData { scope: NodeScope::Committed, perms, path, value })
}

/// A server with domains 3 and 4; `/vm` before or after the domains' trees.
fn dump(vm_first: bool) -> Vec<Record<'static>> {
    let quotas = Quotas::NONE;
    let vm = [
        node("/vm", ""),
        node("/vm/7d1c2a90-0000-4000-8000-000000000003", ""),
        node("/vm/7d1c2a90-0000-4000-8000-000000000003/name", "three"),
        node("/vm/7d1c2a90-0000-4000-8000-000000000003-1", ""),
        node("/vm/7d1c2a90-0000-4000-8000-000000000004", ""),
        node("/vm/7d1c2a90-0000-4000-8000-000000000004/name", "four"),
    ];
    let domains = [
        node("/local", ""),
        node("/local/domain", ""),
        node("/local/domain/4", ""),
        node("/local/domain/4/vm", "/vm/7d1c2a90-0000-4000-8000-000000000004"),
        node("/local/domain/3", ""),
        node("/local/domain/3/vm", "/vm/7d1c2a90-0000-4000-8000-000000000003"),
        node("/local/domain/3/data", ""),
        node("/local/domain/33", ""),
    ];
    let mut records = vec![
        Record::Global(GlobalData { socket_fd: Some(5), event_channel_fd: None }),
        ring(1, 4),
        Record::Watch(WatchData { connection: id(1), path: b"data", token: b"of 4" }),
        ring(2, 3),
        Record::Watch(WatchData { connection: id(2), path: b"data", token: b"of 3" }),
        Record::WatchExtended(WatchExtendedData {
            connection: id(2),
            depth: WatchDepth::Levels(1),
            path: b"@releaseDomain",
            token: b"of 3",
        }),
        Record::Transaction(TransactionData { connection: id(2), transaction: TxId(7) }),
        node("/", ""),
    ];
    records.extend(if vm_first { &vm[..] } else { &domains[..] });
    records.extend(if vm_first { &domains[..] } else { &vm[..] });
    let unknown = UnknownData { record_type: RecordType(99), body: b"12345678" };
    records.extend([
        node("/libxl", ""),
        node("/libxl/3", ""),
        node("/libxl/3/type", "pv"),
        node("@releaseDomain", ""),
        Record::Domain(DomainData { domid: DomId::new(4), features: Some(Features(1)), quotas }),
        Record::Domain(DomainData { domid: DomId::new(3), features: Some(Features(6)), quotas }),
        Record::Unknown(unknown),
    ]);
    records
}

fn read(records: &[Record<'_>], extra: &[&str]) -> Result<DumpContents, FromDumpError> {
    let stream = stream_of(V2, records);
    let extra: Vec<_> = extra.iter().map(|text| path(text)).collect();
    DomainState::from_dump(&mut reader(&stream), DomId::new(3), extra)
}

#[test]
fn a_domain_takes_its_trees_and_its_connection_out_of_a_dump_in_either_order() {
    let after = read(&dump(false), &["/libxl/3", "/gone"]).unwrap();
    let first = read(&dump(true), &["/libxl/3", "/gone"]).unwrap();
    for contents in [&after, &first] {
        let paths: Vec<_> = contents.state.nodes.keys().map(ToString::to_string).collect();
        assert_eq!(
            paths,
            [
                "/libxl/3",
                "/libxl/3/type",
                "/local/domain/3",
                "/local/domain/3/data",
                "/local/domain/3/vm",
                "/vm/7d1c2a90-0000-4000-8000-000000000003",
                "/vm/7d1c2a90-0000-4000-8000-000000000003/name",
            ]
        );
        let roots: Vec<_> = contents.state.roots.iter().map(ToString::to_string).collect();
        assert_eq!(
            roots,
            ["/gone", "/libxl/3", "/local/domain/3", "/vm/7d1c2a90-0000-4000-8000-000000000003"]
        );
        let connection = contents.state.connection.as_ref().unwrap();
        assert_eq!((&*connection.input, &*connection.output), (&b"in"[..], &b"out"[..]));
        let tokens: Vec<_> = connection.watches.iter().map(|w| w.token.to_string()).collect();
        assert_eq!(tokens, ["of 3", "of 3"]);
        assert_eq!(connection.watches[1].depth, Some(WatchDepth::Levels(1)));
        assert_eq!(connection.transactions.len(), 1);
        assert_eq!(contents.state.features, Some(Features(6)));
        assert_eq!(contents.unknown.len(), 1);
        assert_eq!(contents.stale.len(), 7);
    }
    assert_eq!(after.state, first.state);
}

#[test]
fn a_domain_whose_vm_names_no_tree_of_its_own_has_none() {
    for value in [
        "",
        "/vm",
        "/vm/7d1c2a90-0000-4000-8000-000000000003/name",
        "/local/domain/4",
        "7d1c2a90-0000-4000-8000-000000000003",
    ] {
        let mut records = dump(true);
        let at = records.iter().position(|it| {
            *it == node("/local/domain/3/vm", "/vm/7d1c2a90-0000-4000-8000-000000000003")
        });
        records[at.unwrap()] = node("/local/domain/3/vm", value);
        let state = read(&records, &[]).unwrap().state;
        assert_eq!(state.roots.iter().collect::<Vec<_>>(), [&path("/local/domain/3")], "{value}");
        assert!(state.nodes.keys().all(|at| at.is_at_or_below(&path("/local/domain/3"))));
    }
}

#[test]
fn a_guest_that_can_write_its_node_vm_has_no_tree_below_vm() {
    let mut records = dump(true);
    for record in &mut records {
        if let Record::Node(node) = record
            && node.path == b"/local/domain/3/vm"
        {
            node.perms = &PERMS;
        }
    }
    let contents = read(&records, &[]).unwrap();
    assert_eq!(contents.no_vm_tree, Some(NoVmTree::Guests));
    assert!(contents.state.nodes.keys().all(|at| at.is_at_or_below(&path("/local/domain/3"))));
}

#[test]
fn a_domain_that_is_not_there_is_no_empty_state() {
    let records = [ring(1, 4), node("/", ""), node("/vm", "")];
    assert!(matches!(read(&records, &[]), Err(FromDumpError::NoDomain { .. })));
    let connected = [ring(1, 3), node("/", "")];
    assert!(read(&connected, &[]).unwrap().state.nodes.is_empty());
    assert!(matches!(read(&[], &["data"]), Err(FromDumpError::RelativeRoot { .. })));
}

#[test]
fn records_of_the_domain_have_to_make_sense() {
    for (records, index) in [
        (&[ring(1, 3), ring(2, 3)][..], 1),
        (&[ring(1, 3), ring(1, 4)], 1),
        (&[node("/local/domain/3", ""), node("/local/domain/3", "")], 1),
        (&[node("/local/domain/3/data", "")], 0),
        (&[node("/vm/7d1c2a90-0000-4000-8000-000000000003/name", "")], 0),
        (&[node("relative", "")], 0),
    ] {
        let Err(FromDumpError::Record { place, .. }) = read(records, &[]) else {
            panic!("{records:?}")
        };
        assert_eq!(place.index, index);
    }
    let error = read(&[node("/local/domain/3/data", "")], &[]).unwrap_err();
    let FromDumpError::Record { fault, .. } = error else { panic!("{error}") };
    let no_parent = Violation::NoParent { path: (*b"/local/domain/3/data").into() };
    assert_eq!(fault, no_parent.into());
}
