//! Any record at all.

use proptest::collection::vec;
use proptest::prelude::*;
pub(crate) use xenstore_migration::OwnedRecord as Owned;
use xenstore_migration::{
    ByteOrder, ConnectionId, ConnectionSpec, GlobalData, NodeAccess, NodePerm, NodeScope,
    PermFlags, Preamble, QuotaTable, RecordType, TransactionData, Version, WatchDepth,
};
use xenstore_proto::{Access, DomId, Features, TxId};

pub(crate) fn preamble() -> impl Strategy<Value = Preamble> {
    let version = prop_oneof![Just(Version::V1), Just(Version::V2)];
    let byte_order = prop_oneof![Just(ByteOrder::Little), Just(ByteOrder::Big)];
    (version, byte_order).prop_map(|(version, byte_order)| Preamble { version, byte_order })
}

/// Records that a stream of that version can hold and its reader gives back as they are.
pub(crate) fn records(version: Version) -> impl Strategy<Value = Vec<Owned>> {
    vec(record(version), 0..12)
}

pub(crate) fn record(version: Version) -> impl Strategy<Value = Owned> {
    let v2 = version == Version::V2;
    prop_oneof![
        global(),
        connection(),
        (connection_id(), text(), text())
            .prop_map(|(id, path, token)| Owned::Watch(id, path, token)),
        (connection_id(), any::<u32>()).prop_map(|(connection, transaction)| {
            let transaction = TxId(transaction);
            Owned::Transaction(TransactionData { connection, transaction })
        }),
        node(),
        (quotas(), quotas())
            .prop_map(|(per_domain, global)| Owned::GlobalQuota(per_domain, global)),
        (domid(), any::<u32>(), quotas()).prop_map(move |(domid, features, quotas)| {
            Owned::Domain(domid, v2.then_some(Features(features)), quotas)
        }),
        (9..u32::MAX, octets(40))
            .prop_map(|(number, body)| Owned::Unknown(RecordType(number), body)),
        (connection_id(), depth(), text(), text()).prop_map(move |(id, depth, path, token)| {
            if v2 {
                Owned::WatchExtended(id, depth, path, token)
            } else {
                Owned::Watch(id, path, token)
            }
        }),
    ]
}

pub(crate) fn depth() -> impl Strategy<Value = WatchDepth> {
    prop_oneof![(0..u16::MAX).prop_map(WatchDepth::Levels), Just(WatchDepth::Unlimited)]
}

pub(crate) fn connection_id() -> impl Strategy<Value = ConnectionId> {
    (1..u32::MAX).prop_map(|number| ConnectionId::new(number).unwrap())
}

fn global() -> impl Strategy<Value = Owned> {
    let fd = || proptest::option::of(0..i32::MAX);
    (fd(), fd()).prop_map(|(socket_fd, event_channel_fd)| {
        Owned::Global(GlobalData { socket_fd, event_channel_fd })
    })
}

fn connection() -> impl Strategy<Value = Owned> {
    let target = (0..0x7FF0_u16).prop_map(DomId::new);
    let ring = (domid(), proptest::option::of(target), any::<u32>())
        .prop_map(|(domid, target, port)| ConnectionSpec::Ring { domid, target, port });
    let socket = any::<i32>().prop_map(|fd| ConnectionSpec::Socket { fd });
    let unknown = (2..u16::MAX, any::<[u8; 8]>())
        .prop_map(|(kind, octets)| ConnectionSpec::Unknown { kind, octets });
    let spec = prop_oneof![ring, socket, unknown];
    let data = (octets(40), any::<u16>(), octets(60));
    (connection_id(), spec, data, any::<Option<u64>>()).prop_map(|(id, spec, data, unique_id)| {
        let (input, rest, output) = data;
        let output_rest = rest.min(output.len().try_into().unwrap());
        Owned::Connection { id, spec, input, output_rest, output, unique_id }
    })
}

fn node() -> impl Strategy<Value = Owned> {
    let pending = (connection_id(), any::<u32>(), any::<u16>()).prop_map(|(id, tx_id, access)| {
        let (transaction, access) = (TxId(tx_id), NodeAccess(access));
        NodeScope::Pending { connection: id, transaction, access }
    });
    let scope = prop_oneof![Just(NodeScope::Committed), pending];
    (scope, vec(perm(), 0..6), text(), octets(50))
        .prop_map(|(scope, perms, path, value)| Owned::Node(scope, perms, path, value))
}

fn perm() -> impl Strategy<Value = NodePerm> {
    let access = prop_oneof![
        Just(Access::None),
        Just(Access::Read),
        Just(Access::Write),
        Just(Access::Both)
    ];
    (access, any::<u8>(), domid()).prop_map(|(access, flags, domid)| NodePerm {
        access,
        flags: PermFlags(flags),
        domid,
    })
}

fn quotas() -> impl Strategy<Value = QuotaTable> {
    vec((vec(1..=255_u8, 1..12), any::<u32>()), 0..5).prop_map(|quotas| {
        let mut table = QuotaTable::new();
        for (name, value) in quotas {
            table.push(&name, value).unwrap();
        }
        table
    })
}

fn domid() -> impl Strategy<Value = DomId> {
    any::<u16>().prop_map(DomId::new)
}

/// What a path, a token or a name can be as far as the stream goes.
fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "/[a-z]{1,9}(/[a-z0-9-]{1,9}){0,4}".prop_map(String::into_bytes),
        vec(1..=255_u8, 0..30)
    ]
}

fn octets(most: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..most)
}
