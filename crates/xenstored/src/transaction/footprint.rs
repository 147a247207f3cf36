//! What a transaction depends on and has done, without the store that it started from.

use std::collections::{BTreeSet, HashSet};

use xenstore_proto::Path;

use super::{Change, Entry, Transaction, replay};
use crate::access::Actor;
use crate::store::Store;
use crate::tree::Node;

/// An open transaction as it can go on from the current store.
#[derive(Debug)]
pub(crate) struct Footprint {
    /// What it has read, or found missing: in the current store it would find the same.
    pub(crate) reads: BTreeSet<Path>,
    /// What it has changed, in the order of the first changes, and how the node would be if it was committed now; none if
    /// removed.
    pub(crate) changes: Vec<(Path, Option<Node>)>,
}

impl Transaction {
    /// `None` if it can only be answered with EAGAIN: it was given up, somebody has changed what it depends on, or what it has
    /// done is not said by what the nodes are then.
    pub(crate) fn footprint(&self, current: &Store, actor: Actor<'_>) -> Option<Footprint> {
        if self.given_up || self.parent.is_some() {
            return None;
        }
        let mut log = self.log.clone();
        if !self.reads.is_empty() {
            log.push(Entry::Reads(self.reads.clone()));
        }
        let (view, _) = replay(&mut log, current, actor).ok()?;
        let mut reads = BTreeSet::new();
        let mut changes: Vec<(Path, Option<Node>)> = Vec::new();
        let mut known: HashSet<&Path> = HashSet::new();
        let mut before = self.log.iter();
        for entry in &log {
            let (change, outcome) = match entry {
                Entry::Reads(read) => {
                    reads.extend(read.keys().cloned());
                    before.next();
                    continue;
                }
                Entry::Change(change, outcome) => (change, outcome),
            };
            // What comes out otherwise now might come out as before later.
            let Some(Entry::Change(_, then)) = before.next() else { return None };
            if then != outcome {
                return None;
            }
            let path = change.path();
            let (now, was) = (view.get(path), current.get(path));
            // What did nothing, or was refused, depends on what was there.
            if !entry.is_effective() {
                reads.insert(path.clone());
                if matches!(change, Change::Remove { .. }) {
                    reads.extend(path.parent());
                }
                continue;
            }
            // A node that was removed and is there has lost what it had, or its place among its parent's children.
            if matches!(change, Change::Remove { .. }) && now.is_some() {
                return None;
            }
            // A node that came and went may have left others above it, and goes again if somebody else makes it.
            if now.is_none() && was.is_none() {
                return None;
            }
            // What was written or permitted as it was before is not told from what was left alone, and somebody else may have changed it
            // by the commit.
            if let (Some(now), Some(was)) = (now, was) {
                let same_perms = now.perms() == was.perms();
                match change {
                    Change::SetPerms { .. } if same_perms => return None,
                    Change::Write { .. } if !same_perms && now.value() == was.value() => {
                        return None;
                    }
                    _ => {}
                }
            } else if matches!(change, Change::SetPerms { .. }) {
                reads.insert(path.clone());
            }
            // MKDIR lets others create the node first, and WRITE of no value does not: that nobody has is a condition then.
            if was.is_none() && now.is_some_and(|now| now.value().is_empty()) {
                reads.insert(path.clone());
            }
            if known.insert(path) {
                changes.push((path.clone(), now.map(Node::without_children)));
            }
        }
        Some(Footprint { reads, changes })
    }
}
