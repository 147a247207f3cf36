//! What a domain had on its connection, given to the one it has now.

use std::collections::{BTreeMap, BTreeSet};

use xenstore_migration::NodeAccess;
use xenstore_migration::WatchDepth;
use xenstore_migration::domain_state::{DomainState, NodeState, PendingNode, TransactionState};
use xenstore_proto::{Errno, Path, PathOrSpecial, Token};

use crate::access::{Actor, Subject};
use crate::change::readable;
use crate::limits::{PERMS_MAX, VALUE_MAX};
use crate::live_update::{PendingNode as Repeated, PendingTransaction};
use crate::quota::Quota;
use crate::server::{ConnectionId, Server};
use crate::tree::Node;

impl Server {
    /// Gives a domain the watches and open transactions of a state: all, or on an error nothing. Watches are told nothing at
    /// first: the domain has had that event.
    ///
    /// A transaction goes on if all that it relied on is as it was; otherwise it has its number, and is answered with EAGAIN.
    /// It is carried out again as the domain, by the permissions and quotas that are now.
    ///
    /// Target, quotas and features are not looked at: there are requests for these. ENOENT if the domain has no
    /// connection, EBUSY if it has several; EINVAL if the state has none, or messages on the way, which nobody can restore; EEXIST for a
    /// watch or transaction that the connection has; ENOSPC for more than the domain may have.
    pub(super) fn give_domain_state(&mut self, state: &DomainState) -> Result<(), Errno> {
        let connection = self.connection_of_domain(state.domid)?;
        let given = state.connection.as_ref().ok_or(Errno::EINVAL)?;
        if !given.input.is_empty() || !given.output.is_empty() {
            return Err(Errno::EINVAL);
        }
        let subject = self.subject_of(connection).ok_or(Errno::ENOENT)?;
        self.check_room(connection, &subject, &given.transactions)?;
        let mut set: Vec<(&PathOrSpecial, &Token)> = Vec::new();
        for watch in &given.watches {
            let depth = match watch.depth {
                Some(WatchDepth::Levels(levels)) => Some(u32::from(levels)),
                Some(WatchDepth::Unlimited) => Some(u32::MAX),
                Some(WatchDepth::Untold) | None => None,
            };
            let (path, token) = (&watch.path, &watch.token);
            if let Err(errno) = self.watch(connection, &subject, path, token.clone(), depth) {
                for (path, token) in set {
                    // Each has been set just now, so that it is there.
                    let _ = self.unwatch(connection, &subject, path, token);
                }
                return Err(errno);
            }
            set.push((path, token));
        }
        for open in &given.transactions {
            let nodes = if self.goes_on(&subject, state, open) {
                repeated(state, open)
            } else {
                tracing::debug!(domid = %state.domid, tx = open.id.0, "transaction cannot go on");
                vec![Repeated::given_up()]
            };
            PendingTransaction { connection: super::capture::CONNECTION, tx: open.id, nodes }
                .open(self, connection);
        }
        Ok(())
    }

    fn check_room(
        &self,
        connection: ConnectionId,
        subject: &Subject,
        more: &[TransactionState],
    ) -> Result<(), Errno> {
        let state = self.connections.get(&connection).ok_or(Errno::ENOENT)?;
        if more.iter().any(|open| state.transactions.contains_key(&open.id)) {
            return Err(Errno::EEXIST);
        }
        let open = self.accounts.get(subject.domid).map_or(0, |account| account.transactions.count);
        let quotas = self.accounts.quotas(subject.domid);
        if more.is_empty() || quotas.allow(Quota::Transactions, open + more.len()) {
            Ok(())
        } else {
            Err(Errno::ENOSPC)
        }
    }

    /// Whether all that a transaction relied on is as it was, and the domain may have done what it did.
    fn goes_on(&self, subject: &Subject, state: &DomainState, open: &TransactionState) -> bool {
        let told = Told::of(state);
        let mut reliance = open.nodes.iter().zip(open.reliance());
        reliance.all(|((path, pending), (_, read))| {
            (!read || self.is_as_found(subject, &told, path, pending))
                && self.may_be_done(subject, &told, path, pending)
        })
    }

    fn is_as_found(
        &self,
        subject: &Subject,
        told: &Told<'_>,
        path: &Path,
        pending: &PendingNode,
    ) -> bool {
        let read_only = match pending {
            PendingNode::Seen { access, node } if *access == NodeAccess::READ => Some(node),
            _ => None,
        };
        let (there, missed) = (told.nodes.get(path), matches!(pending, PendingNode::Missed));
        let found = match (there, read_only) {
            (Some(there), Some(node)) if *there != *node => return false,
            (Some(_), None) if missed => return false,
            (Some(there), _) => Some(there),
            (None, _) if missed && !path.is_root() => None,
            // What it was before it was written is not told, and it is told that there was a node above it.
            (None, None)
                if matches!(pending, PendingNode::Seen { .. }) && told.above(path).is_some() =>
            {
                None
            }
            (None, Some(node)) if told.above(path).is_none() => Some(node),
            _ => return false,
        };
        let actor = Actor::new(subject, self.policy.as_ref(), &self.accounts);
        match (found, readable(&self.store, actor, path)) {
            (Some(found), Ok(now)) => {
                *found.value == *now.value()
                    && found.perms == **now.perms()
                    && told.has_children(path, now)
            }
            (None, Err(errno)) => errno == Errno::ENOENT,
            _ => false,
        }
    }

    /// Whether the domain may make a change, as far as making it again does not tell.
    fn may_be_done(
        &self,
        subject: &Subject,
        told: &Told<'_>,
        path: &Path,
        pending: &PendingNode,
    ) -> bool {
        let node = match pending {
            PendingNode::Missed => return true,
            PendingNode::Seen { access, .. } if !access.contains(NodeAccess::WRITTEN) => {
                return true;
            }
            PendingNode::Seen { node, .. } => Some(node),
            PendingNode::Removed => None,
        };
        // What it wrote to, or what was above what it created, must not be gone.
        let missing_then = if told.nodes.contains_key(path) { Some(0) } else { told.above(path) };
        let (nearest, missing) = self.store.nearest(path);
        let now = (missing == 0).then_some(nearest);
        missing <= missing_then.unwrap_or(0)
            && self.absolute(subject, path.clone()).is_ok()
            && node.is_none_or(|node| {
                let same_perms = now.is_some_and(|now| **now.perms() == node.perms);
                node.value.len() <= VALUE_MAX
                    && node.perms.entries().len() <= PERMS_MAX
                    && told.says_what_was_done(path, node, now, nearest)
                    && (same_perms || self.domains.may_name(subject.domid, &node.perms))
            })
    }
}

/// The nodes that are told with a state: which there were where its transactions have been.
struct Told<'s> {
    nodes: &'s BTreeMap<Path, NodeState>,
    /// By the path of the parent, names of children.
    children: BTreeMap<Path, BTreeSet<&'s str>>,
}

impl<'s> Told<'s> {
    fn of(state: &'s DomainState) -> Self {
        let mut children: BTreeMap<Path, BTreeSet<&str>> = BTreeMap::new();
        for path in state.nodes.keys() {
            if let (Some(parent), Some(name)) = (path.parent(), path.name()) {
                children.entry(parent).or_default().insert(name);
            }
        }
        Self { nodes: &state.nodes, children }
    }

    /// How many levels above the path, which is not told, the nearest node is that is: then there was nothing in between.
    fn above(&self, path: &Path) -> Option<usize> {
        let upwards = std::iter::successors(Some(path.clone()), Path::parent);
        { upwards }.position(|at| self.nodes.contains_key(&at))
    }

    /// Whether making a node as a transaction saw it undoes nothing that others have done since: what the transaction has not set
    /// itself would go back to what it was.
    fn says_what_was_done(
        &self,
        path: &Path,
        node: &NodeState,
        now: Option<&Node>,
        nearest: &Node,
    ) -> bool {
        match (self.nodes.get(path), now) {
            (Some(then), Some(now)) => {
                (*now.value() == *then.value || node.value != then.value)
                    && (**now.perms() == then.perms || node.perms != then.perms)
            }
            // An empty one may have been made by MKDIR, which leaves one that is there by now as it is.
            (None, Some(now)) => **now.perms() == node.perms && !node.value.is_empty(),
            // What it made has inherited its permissions.
            (_, None) => {
                let mut upwards = std::iter::successors(path.parent(), Path::parent);
                let above = upwards.find_map(|at| self.nodes.get(&at));
                above.is_some_and(|above| above.perms == **nearest.perms())
            }
        }
    }

    fn has_children(&self, path: &Path, now: &Node) -> bool {
        let children = now.children();
        let then = self.children.get(path);
        children.len() == then.map_or(0, BTreeSet::len)
            && children.iter().all(|child| then.is_some_and(|then| then.contains(child.name())))
    }
}

/// What a transaction has done, in an order in which it can be done again: what it has read is read first; nodes are created
/// from above, and removed from below.
///
/// Where it is not told what was done - an empty node made by MKDIR or by WRITE, a value written again or only permissions set -
/// the node counts as looked at, so that a change by somebody else is a conflict.
fn repeated(state: &DomainState, open: &TransactionState) -> Vec<Repeated> {
    let node = |path: &Path, access, node: Option<&NodeState>| Repeated {
        path: path.clone(),
        access,
        perms: node.map(|node| node.perms.clone()),
        value: node.map(|node| node.value.clone()).unwrap_or_default(),
    };
    let seen = |pending| match pending {
        &PendingNode::Seen { access, ref node } => Some((access, node)),
        PendingNode::Removed | PendingNode::Missed => None,
    };
    let is_unclear = |path: &Path, pending| {
        let before = state.nodes.get(path).map_or(&[][..], |node| &node.value);
        seen(pending).is_some_and(|(_, node)| node.value == before)
    };
    let reads = open.nodes.iter().zip(open.reliance());
    let reads = reads.filter(|((path, pending), (_, read))| *read || is_unclear(path, pending));
    let reads = reads.map(|((path, pending), _)| {
        node(path, NodeAccess::READ, seen(pending).map(|(_, node)| node))
    });
    let writes = open.nodes.iter().filter_map(|(path, pending)| {
        let (access, written) = seen(pending)?;
        let is_written = access.contains(NodeAccess::WRITTEN);
        is_written.then(|| node(path, NodeAccess::WRITTEN, Some(written)))
    });
    let removals = open.nodes.iter().rev();
    let removals = removals.filter(|(_, pending)| **pending == PendingNode::Removed);
    let removals = removals.map(|(path, _)| node(path, NodeAccess::REMOVED, None));
    reads.chain(writes).chain(removals).collect()
}
