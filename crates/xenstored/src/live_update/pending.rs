//! Open transactions: as records, and from them.

use std::collections::HashSet;

use xenstore_migration::{
    ConnectionId as StreamId, NodeAccess, NodeData, NodeScope, Record, TransactionData,
};
use xenstore_proto::{Errno, Path, Perms, TxId};

use super::capture::entries;
use crate::access::Subject;
use crate::change::Change;
use crate::requests::Place;
use crate::server::{ConnectionId, Server};
use crate::transaction::{Aspects, Footprint};

/// Writes the open transactions of a connection with what they have read and changed. One that cannot go on is said to have
/// found no root: it has its number still, and is answered with EAGAIN.
pub(crate) fn write<E>(
    server: &Server,
    connection: ConnectionId,
    id: StreamId,
    put: &mut impl FnMut(&Record<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let Some(state) = server.connections.get(&connection) else { return Ok(()) };
    let subject = server.domains.subject(state.domid);
    let actor = server.actor(&subject);
    for (tx, transaction) in &state.transactions {
        put(&Record::Transaction(TransactionData { connection: id, transaction: *tx }))?;
        let mut node = |path: &str, access, perms: Option<&Perms>, value: &[u8]| {
            let perms = perms.map(entries).unwrap_or_default();
            let scope = NodeScope::Pending { connection: id, transaction: *tx, access };
            put(&Record::Node(NodeData { scope, perms: &perms, path: path.as_bytes(), value }))
        };
        let Some(Footprint { reads, changes }) = transaction.footprint(&server.store, actor) else {
            node("/", NodeAccess::READ, None, b"")?;
            continue;
        };
        let changed: HashSet<&Path> = changes.iter().map(|(path, _)| path).collect();
        for path in reads.iter().filter(|path| !changed.contains(path)) {
            let now = server.store.get(path);
            let (perms, value) =
                now.map_or((None, &[][..]), |now| (Some(&**now.perms()), now.value()));
            node(path.as_str(), NodeAccess::READ, perms, value)?;
        }
        for (path, now) in &changes {
            let Some(now) = now else {
                node(path.as_str(), NodeAccess::REMOVED, None, b"")?;
                continue;
            };
            let read = if reads.contains(path) { NodeAccess::READ.0 } else { 0 };
            let access = NodeAccess(NodeAccess::WRITTEN.0 | read);
            node(path.as_str(), access, Some(now.perms()), now.value())?;
        }
    }
    Ok(())
}

/// An open transaction as a stream tells of it.
#[derive(Debug)]
pub(crate) struct PendingTransaction {
    pub(crate) connection: StreamId,
    pub(crate) tx: TxId,
    pub(crate) nodes: Vec<PendingNode>,
}

/// What a transaction did to a node.
#[derive(Debug)]
pub(crate) struct PendingNode {
    pub(crate) path: Path,
    pub(crate) access: NodeAccess,
    /// None of a node that is not there.
    pub(crate) perms: Option<Perms>,
    pub(crate) value: Vec<u8>,
}

impl PendingTransaction {
    /// Opens the transaction on the current store, and does in it what it has done. If that is not possible, it can only be
    /// ended.
    pub(crate) fn open(self, server: &mut Server, connection: ConnectionId) {
        let (Some(subject), Some(previous)) =
            (server.subject_of(connection), self.tx.0.checked_sub(1))
        else {
            return;
        };
        if !server.start_transaction_again(connection, TxId(previous)) {
            return;
        }
        let place = Place { connection, tx: self.tx };
        let lost = self.nodes.into_iter().any(|node| !node.repeat(server, place, &subject));
        if lost {
            tracing::debug!(tx = self.tx.0, "transaction cannot go on: it will be tried again");
            server.give_up_transaction(connection, self.tx);
        }
    }
}

impl PendingNode {
    /// Of a transaction that can only be answered with EAGAIN.
    pub(crate) fn given_up() -> Self {
        Self { path: Path::root(), access: NodeAccess::READ, perms: None, value: Vec::new() }
    }

    /// `false` if it cannot be done again.
    fn repeat(self, server: &mut Server, place: Place, subject: &Subject) -> bool {
        let path = self.path;
        // The record of a removed node has no room for whether it was read before.
        if self.access.contains(NodeAccess::READ) || self.access == NodeAccess::REMOVED {
            if path.is_root() && self.perms.is_none() {
                return false;
            }
            // What comes of it is remembered, also that there is no such node.
            let seen = server.node(Some(place), subject, &path, Aspects::ALL).map(|_| ());
            if seen == Err(Errno::ENOSPC) {
                return false;
            }
        }
        let mut change = |change: Change| server.change(Some(place), subject, change).is_ok();
        let Some(perms) = self.perms else {
            return self.access != NodeAccess::REMOVED || change(Change::Remove { path });
        };
        if !self.access.contains(NodeAccess::WRITTEN) {
            return true;
        }
        let now = server.transaction_view(place).and_then(|view| view.get(&path));
        let same_value = now.is_some_and(|now| now.value() == self.value);
        let same_perms = now.is_some_and(|now| **now.perms() == perms);
        let mut change = |change: Change| server.change(Some(place), subject, change).is_ok();
        // What was written although it was the same is told to watchers, too.
        if (!same_value || same_perms)
            && !change(Change::Write { path: path.clone(), value: self.value })
        {
            return false;
        }
        let now = server.transaction_view(place).and_then(|view| view.get(&path));
        if now.is_some_and(|now| **now.perms() == perms) {
            return true;
        }
        let perms = server.interner.intern(perms);
        server.change(Some(place), subject, Change::SetPerms { path, perms }).is_ok()
    }
}
