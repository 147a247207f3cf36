//! What holds between the records of a stream, and what becomes of them in another one.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../stream/any_record.rs"]
mod any_record;
mod conversion;
mod order;
mod peers;

use any_record::Owned;
use xenstore_migration::{ConnectionId, ConnectionSpec, NodePerm, NodeScope};
use xenstore_proto::{Access, DomId};

pub(crate) fn id(number: u32) -> ConnectionId {
    ConnectionId::new(number).unwrap()
}

pub(crate) fn ring(number: u32, domid: u16, target: Option<u16>) -> Owned {
    let (domid, target) = (DomId::new(domid), target.map(DomId::new));
    connection(number, ConnectionSpec::Ring { domid, target, port: 3 })
}

pub(crate) fn socket(number: u32) -> Owned {
    connection(number, ConnectionSpec::Socket { fd: 9 })
}

pub(crate) fn connection(number: u32, spec: ConnectionSpec) -> Owned {
    let (input, output) = (Vec::new(), Vec::new());
    Owned::Connection { id: id(number), spec, input, output_rest: 0, output, unique_id: None }
}

pub(crate) fn node(path: &str, owner: u16) -> Owned {
    let perms = vec![NodePerm::new(Access::None, DomId::new(owner))];
    Owned::Node(NodeScope::Committed, perms, path.into(), b"value".to_vec())
}

pub(crate) fn watch(number: u32, path: &str) -> Owned {
    Owned::Watch(id(number), path.into(), b"token".to_vec())
}
