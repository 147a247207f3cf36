//! What a transaction depends on and has done, without the store that it started from.

use std::collections::{BTreeMap, HashSet};

use xenstore_proto::Path;

use super::{Aspects, Change, Entry, Transaction};
use crate::store::Store;
use crate::tree::Node;

/// An open transaction as it can go on from the current store.
#[derive(Debug)]
pub(crate) struct Footprint {
    /// What it has read, and what of it only: the current store has the same.
    pub(crate) reads: Vec<Path>,
    /// What it has changed, in the order of the first changes, and how the node is in its view; none if removed.
    pub(crate) changes: Vec<(Path, Option<Node>)>,
}

impl Transaction {
    /// `None` if it can only be answered with EAGAIN: it was given up, somebody has changed what it depends on, or what it has
    /// done is not said by what the nodes are now.
    pub(crate) fn footprint(&self, current: &Store) -> Option<Footprint> {
        if self.given_up || self.parent.is_some() {
            return None;
        }
        let reads = self.read_nodes();
        let unchanged =
            |(path, aspects): (&Path, &Aspects)| match (self.base.get(path), current.get(path)) {
                (Some(then), Some(now)) => aspects.agree(then, now),
                (None, None) => true,
                _ => false,
            };
        if !reads.iter().all(unchanged) {
            return None;
        }
        let mut changes: Vec<(Path, Option<Node>)> = Vec::new();
        let mut known: HashSet<Path> = HashSet::new();
        for entry in self.log.iter().filter(|entry| entry.is_effective()) {
            let Entry::Change(change, _) = entry else { continue };
            let path = change.path();
            let (now, before) = (self.view.get(path), self.base.get(path));
            if matches!(change, Change::Remove { .. }) && now.is_some() && before.is_some() {
                return None;
            }
            // Made and removed: what was made on the way to it, or is there by now, is in no node.
            if now.is_none() && before.is_none() {
                return None;
            }
            // It would find nothing to do, which the node as it is in the view does not say.
            if matches!(change, Change::Mkdir { .. }) && current.get(path).is_some() {
                return None;
            }
            // What it wrote to, or what was above what it created, must not be gone.
            if current.nearest(path).1 > self.base.nearest(path).1 {
                return None;
            }
            if now.is_some_and(|now| !self.says_what_it_did(path, now, current)) {
                return None;
            }
            // What was made on the way to it has permissions of its own by now.
            let above = std::iter::successors(path.parent(), Path::parent);
            let mut made: Vec<Path> = above.take_while(|at| self.base.get(at).is_none()).collect();
            while let Some(at) = made.pop().filter(|_| now.is_some()) {
                if current.get(&at).is_some() {
                    return None;
                }
                let node = self.view.get(&at).map(Node::without_children);
                if known.insert(at.clone()) {
                    changes.push((at, node));
                }
            }
            if known.insert(path.clone()) {
                changes.push((path.clone(), now.map(Node::without_children)));
            }
        }
        Some(Footprint { reads: reads.into_keys().collect(), changes })
    }

    /// Whether making the node as it is in the view changes no more of the current store than the transaction did: if others have
    /// changed it, what the transaction has not set itself would go back to what it was.
    fn says_what_it_did(&self, path: &Path, now: &Node, current: &Store) -> bool {
        let effective = self.log.iter().filter(|entry| entry.is_effective());
        let (mut value, mut perms) = (false, false);
        for entry in effective {
            match entry {
                Entry::Change(Change::Write { path: at, .. }, _) if at == path => value = true,
                Entry::Change(Change::SetPerms { path: at, .. }, _) if at == path => perms = true,
                Entry::Change(..) | Entry::Reads(_) => {}
            }
        }
        match current.get(path) {
            Some(there) => {
                (value || there.value() == now.value()) && (perms || there.perms() == now.perms())
            }
            // What it made has inherited its permissions.
            None => perms || current.nearest(path).0.perms() == self.base.nearest(path).0.perms(),
        }
    }

    /// Each node read, and all that was ever read of it. What could not be changed counts as read.
    fn read_nodes(&self) -> BTreeMap<Path, Aspects> {
        let mut nodes: BTreeMap<Path, Aspects> = BTreeMap::new();
        let mut read = |path: &Path, aspects| {
            nodes.entry(path.clone()).or_default().add(aspects);
        };
        for entry in &self.log {
            match entry {
                Entry::Reads(reads) => {
                    reads.iter().for_each(|(path, (aspects, _))| read(path, *aspects));
                }
                Entry::Change(change, Err(_)) => read(change.path(), Aspects::ALL),
                // It has found that there was nothing to do.
                Entry::Change(change, Ok(_)) if !entry.is_effective() => {
                    read(change.path(), Aspects::default());
                    // A removal of what is missing depends on what is above.
                    if let (Change::Remove { .. }, Some(above)) = (change, change.path().parent()) {
                        read(&above, Aspects::default());
                    }
                }
                Entry::Change(_, Ok(_)) => {}
            }
        }
        self.reads.iter().for_each(|(path, (aspects, _))| read(path, *aspects));
        nodes
    }
}
