//! The Xenstore state of one domain: streams, dumps, translation, plans.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod any_state;
mod capture;
mod dump;
mod faults;
mod plan_properties;
mod plans;
mod stream;
mod translation;
mod translation_refused;

use xenstore_migration::domain_state::{DomainState, NodeState};
use xenstore_migration::{Peer, Preamble, ReadOptions, Record, StreamReader, StreamWriter};
use xenstore_proto::{DomId, Path};

pub(crate) fn path(text: &str) -> Path {
    text.parse().unwrap()
}

pub(crate) fn node(value: &str, perms: &str) -> NodeState {
    NodeState { value: value.into(), perms: perms.parse().unwrap() }
}

/// A state with a node for each line, `PATH VALUE PERMS` with `-` for an empty value. The roots are the nodes without a parent.
pub(crate) fn state(domid: u16, lines: &[&str]) -> DomainState {
    let nodes: std::collections::BTreeMap<_, _> = lines
        .iter()
        .map(|line| {
            let fields: Vec<_> = line.split(' ').collect();
            let [at, value, perms] = fields[..] else { panic!("{line}") };
            (path(at), node(if value == "-" { "" } else { value }, perms))
        })
        .collect();
    let orphan = |at: &&Path| !at.parent().is_some_and(|above| nodes.contains_key(&above));
    let roots = nodes.keys().filter(orphan).cloned().collect();
    let (connection, quotas, features) = (None, std::collections::BTreeMap::new(), None);
    DomainState { domid: DomId::new(domid), roots, nodes, connection, quotas, features }
}

/// The stream of some records.
pub(crate) fn stream_of(preamble: Preamble, records: &[Record<'_>]) -> Vec<u8> {
    let mut writer = StreamWriter::create(Vec::new(), preamble, Peer::Specification).unwrap();
    records.iter().for_each(|record| writer.write(record).unwrap());
    writer.finish().unwrap()
}

pub(crate) fn reader(stream: &[u8]) -> StreamReader<&[u8]> {
    StreamReader::open(stream, ReadOptions::default()).unwrap()
}
