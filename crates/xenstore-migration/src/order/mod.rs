//! Whether the records of a stream go together.

mod kind;
mod messages;
mod violation;

use std::collections::HashSet;

pub use kind::AssumedKind;
pub(crate) use messages::check_messages;
pub use violation::Violation;
use xenstore_proto::{DomId, PathOrSpecial, QuotaName, TxId};

use crate::preamble::{Preamble, Version};
use crate::record::{
    ConnectionData, ConnectionId, ConnectionSpec, NodeAccess, NodeData, NodeScope, Quotas, Record,
    RecordType, WatchDepth,
};

/// Checks record by record what holds between the records of a stream: dependencies come earlier, parents before their
/// children, nothing is told twice, and nothing is of a later version.
///
/// It remembers the paths of all nodes, so that its memory grows with the stream.
///
/// ```
/// use xenstore_migration::{OrderChecker, ReadOptions, StreamKind, StreamReader};
///
/// let stream: &[u8] = include_bytes!("../../testdata/one-node.bin");
/// let mut reader = StreamReader::open(stream, ReadOptions::default())?;
/// let mut order = OrderChecker::new(reader.preamble(), StreamKind::LiveUpdate);
/// let mut found = Vec::new();
/// while let Some(placed) = reader.next_record()? {
///     found.extend(order.check(&placed.record).iter().map(|v| format!("{}: {v}", placed.place)));
/// }
/// assert_eq!(found, ["record 0 (NODE_DATA) at octet 16: node /tool comes before its parent, or without one"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct OrderChecker {
    version: Version,
    kind: StreamKind,
    global: bool,
    global_quota: bool,
    connections: HashSet<ConnectionId>,
    /// Domains with a ring.
    rings: HashSet<DomId>,
    watches: HashSet<WatchKey>,
    transactions: HashSet<(ConnectionId, TxId)>,
    domains: HashSet<DomId>,
    nodes: HashSet<Box<[u8]>>,
    pending: HashSet<(ConnectionId, TxId, Box<[u8]>)>,
    /// Parents of nodes that came without them.
    parents_missed: HashSet<Box<[u8]>>,
}

/// A watch: its connection, path and token.
type WatchKey = (ConnectionId, Box<[u8]>, Box<[u8]>);

/// What a stream is for, which decides what has to be in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    /// All that a server knows.
    LiveUpdate,
    /// What one domain owns, on its way to another host: one ring connection, no descriptors, no quotas of the server. The
    /// nodes above its own are not in it.
    Domain,
}

impl OrderChecker {
    /// Nothing has been seen yet.
    pub fn new(preamble: Preamble, kind: StreamKind) -> Self {
        Self {
            version: preamble.version,
            kind,
            global: false,
            global_quota: false,
            connections: HashSet::new(),
            rings: HashSet::new(),
            watches: HashSet::new(),
            transactions: HashSet::new(),
            domains: HashSet::new(),
            nodes: HashSet::new(),
            pending: HashSet::new(),
            parents_missed: HashSet::new(),
        }
    }

    /// What is wrong with the next record of the stream, itself or where it stands.
    pub fn check(&mut self, record: &Record<'_>) -> Vec<Violation> {
        let mut found = Vec::new();
        match record {
            Record::Global(_) => {
                once(&mut self.global, RecordType::GLOBAL_DATA, &mut found);
                self.not_of_a_domain(RecordType::GLOBAL_DATA, &mut found);
            }
            Record::GlobalQuota(quota) => {
                once(&mut self.global_quota, RecordType::GLOBAL_QUOTA_DATA, &mut found);
                self.not_of_a_domain(RecordType::GLOBAL_QUOTA_DATA, &mut found);
                check_quotas(&[quota.per_domain, quota.global], &mut found);
            }
            Record::Connection(connection) => self.check_connection(connection, &mut found),
            Record::Watch(watch) => {
                self.check_watch(watch.connection, watch.path, watch.token, &mut found);
            }
            Record::WatchExtended(watch) => {
                if self.version < Version::V2 {
                    found.push(Violation::LaterVersion { record_type: record.record_type() });
                }
                if watch.depth == WatchDepth::Untold {
                    found.push(Violation::DepthUntold);
                }
                self.check_watch(watch.connection, watch.path, watch.token, &mut found);
            }
            Record::Transaction(transaction) => {
                let (connection, transaction) = (transaction.connection, transaction.transaction);
                self.known(connection, &mut found);
                if transaction == TxId::NONE {
                    found.push(Violation::TransactionZero);
                }
                if !self.transactions.insert((connection, transaction)) {
                    found.push(Violation::RepeatedTransaction { connection, transaction });
                }
            }
            Record::Node(node) => self.check_node(node, &mut found),
            Record::Domain(domain) => {
                self.check_domain(domain.domid, &mut found);
                if !self.domains.insert(domain.domid) {
                    found.push(Violation::RepeatedDomain { domid: domain.domid });
                }
                check_quotas(&[domain.quotas], &mut found);
            }
            Record::Unknown(unknown) => {
                found.push(Violation::UnknownType { record_type: unknown.record_type });
            }
        }
        found
    }

    fn check_connection(&mut self, connection: &ConnectionData<'_>, found: &mut Vec<Violation>) {
        let id = connection.id;
        let domid = match connection.spec {
            ConnectionSpec::Ring { domid, .. } => Some(domid),
            ConnectionSpec::Socket { .. } => None,
            ConnectionSpec::Unknown { kind, .. } => {
                found.push(Violation::ConnectionKind { kind });
                None
            }
        };
        let is_second = !self.connections.is_empty();
        if let Some(domid) = domid {
            if !is_second {
                self.check_domain(domid, found);
            }
            if !self.rings.insert(domid) {
                found.push(Violation::RepeatedRing { domid });
            }
        }
        if self.kind == StreamKind::Domain && (domid.is_none() || is_second) {
            found.push(Violation::NotOfADomain { record_type: RecordType::CONNECTION_DATA });
        }
        found.extend(check_messages(connection));
        if !self.connections.insert(id) {
            found.push(Violation::RepeatedConnection { connection: id });
        }
    }

    /// Whether a record is of the domain that others were of, connection or DOMAIN_DATA.
    fn check_domain(&self, domid: DomId, found: &mut Vec<Violation>) {
        let mut others = self.rings.iter().chain(&self.domains).filter(|other| **other != domid);
        if self.kind == StreamKind::Domain && others.next().is_some() {
            found.push(Violation::OtherDomain { domid });
        }
    }

    fn check_watch(
        &mut self,
        connection: ConnectionId,
        path: &[u8],
        token: &[u8],
        found: &mut Vec<Violation>,
    ) {
        self.known(connection, found);
        if let Err(reason) = PathOrSpecial::from_octets(path) {
            found.push(Violation::Path { path: path.into(), reason });
        }
        if !self.watches.insert((connection, path.into(), token.into())) {
            found.push(Violation::RepeatedWatch { connection, path: path.into() });
        }
    }

    fn check_node(&mut self, node: &NodeData<'_>, found: &mut Vec<Violation>) {
        let path = node.path;
        match PathOrSpecial::from_octets(path) {
            Ok(PathOrSpecial::Node(parsed)) if !parsed.is_absolute() => {
                found.push(Violation::RelativeNode { path: path.into() });
            }
            Ok(_) => {}
            Err(reason) => found.push(Violation::Path { path: path.into(), reason }),
        }
        let NodeScope::Pending { connection, transaction, access } = node.scope else {
            return self.check_committed(node, found);
        };
        self.known(connection, found);
        if !self.transactions.contains(&(connection, transaction)) {
            found.push(Violation::UnknownTransaction { connection, transaction });
        }
        let removed = access == NodeAccess::REMOVED;
        let absent = node.perms.is_empty();
        let may_be_absent = removed || access == NodeAccess::READ;
        if (removed && !absent) || (absent && (!may_be_absent || !node.value.is_empty())) {
            found.push(Violation::HalfRemoved { path: path.into() });
        }
        if !self.pending.insert((connection, transaction, path.into())) {
            found.push(Violation::RepeatedNode { path: path.into() });
        }
    }

    fn check_committed(&mut self, node: &NodeData<'_>, found: &mut Vec<Violation>) {
        let path = node.path;
        if node.perms.is_empty() {
            found.push(Violation::NoOwner { path: path.into() });
        }
        if !self.nodes.insert(path.into()) {
            found.push(Violation::RepeatedNode { path: path.into() });
        }
        if self.parents_missed.contains(path) {
            found.push(Violation::ParentLater { path: path.into() });
        }
        if let Some(parent) = parent(path)
            && !self.nodes.contains(parent)
        {
            match self.kind {
                StreamKind::LiveUpdate => found.push(Violation::NoParent { path: path.into() }),
                StreamKind::Domain => {
                    self.parents_missed.insert(parent.into());
                }
            }
        }
    }

    fn known(&self, connection: ConnectionId, found: &mut Vec<Violation>) {
        if !self.connections.contains(&connection) {
            found.push(Violation::UnknownConnection { connection });
        }
    }

    fn not_of_a_domain(&self, record_type: RecordType, found: &mut Vec<Violation>) {
        if self.kind == StreamKind::Domain {
            found.push(Violation::NotOfADomain { record_type });
        }
    }
}

/// The path above; none for the root and for special names.
fn parent(path: &[u8]) -> Option<&[u8]> {
    match path.iter().rposition(|octet| *octet == b'/')? {
        0 if path.len() == 1 => None,
        0 => Some(b"/"),
        at if path.starts_with(b"/") => Some(&path[..at]),
        _ => None,
    }
}

fn once(seen: &mut bool, record_type: RecordType, found: &mut Vec<Violation>) {
    if std::mem::replace(seen, true) {
        found.push(Violation::Repeated { record_type });
    }
}

fn check_quotas(quotas: &[Quotas<'_>], found: &mut Vec<Violation>) {
    let mut seen = HashSet::new();
    for (name, _) in quotas.iter().flat_map(Quotas::iter) {
        if QuotaName::from_octets(name).is_err() {
            found.push(Violation::QuotaName { name: name.into() });
        }
        if !seen.insert(name) {
            found.push(Violation::RepeatedQuota { name: name.into() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_what_is_before_the_last_slash() {
        for (path, above) in [
            ("/", None),
            ("/a", Some("/")),
            ("/a/b", Some("/a")),
            ("@releaseDomain", None),
            ("@releaseDomain/3", None),
            ("a/b", None),
            ("", None),
        ] {
            assert_eq!(parent(path.as_bytes()), above.map(str::as_bytes), "{path}");
        }
    }
}
