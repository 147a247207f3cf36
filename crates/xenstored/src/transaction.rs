//! Transactions: a snapshot, what was read of it, and what was changed.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use xenstore_proto::{Errno, Path, Perms};

use crate::access::Subject;
use crate::change::{Change, Done, readable};
use crate::store::Store;
use crate::tree::Node;

/// An open transaction.
///
/// Reads and changes go to a view that nobody else sees, so that reads repeat. A commit succeeds if the whole
/// transaction could as well have run at that moment with the same answers:
///
/// - everything it read (value, list of children, permissions, each for itself; also that something was missing or refused)
///   is still the same, by content: what was changed and changed back does not conflict;
/// - its changes, made again on the current store, come out the same.
///
/// One that changed nothing has read one state of the store, the one it started from, and always succeeds.
///
/// Where that leaves a choice: of two blind writes to a node, or a removal and changes below it, the later commit
/// wins, so that a guest that keeps writing cannot hold up a toolstack; but what a transaction wrote to must not
/// have been removed meanwhile, lest half a device come back.
#[derive(Debug)]
pub(crate) struct Transaction {
    base: Store,
    view: Store,
    reads: BTreeMap<Path, Aspects>,
    changes: Vec<(Change, Result<Outcome, Errno>)>,
    /// Octets remembered in `reads` and `changes`, and the most there may be.
    octets: usize,
    octets_max: usize,
}

/// What was read of a node, besides that it is there or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Aspects {
    pub(crate) value: bool,
    pub(crate) children: bool,
    pub(crate) perms: bool,
}

impl Aspects {
    const EXISTENCE: Self = Self { value: false, children: false, perms: false };
    pub(crate) const VALUE: Self = Self { value: true, ..Self::EXISTENCE };
    pub(crate) const CHILDREN: Self = Self { children: true, ..Self::EXISTENCE };
    pub(crate) const PERMS: Self = Self { perms: true, ..Self::EXISTENCE };
}

/// What a commit did.
#[derive(Debug)]
pub(crate) struct Committed {
    /// The store as it was before.
    pub(crate) old: Store,
    /// The nodes changed, each once, in the order of their first change.
    pub(crate) changed: Vec<Changed>,
}

/// A node that a transaction changed.
#[derive(Debug)]
pub(crate) struct Changed {
    pub(crate) path: Path,
    /// Whether it was removed at some point.
    pub(crate) removed: bool,
}

impl Transaction {
    pub(crate) fn start(store: &Store, octets_max: usize) -> Self {
        let (base, view) = (store.clone(), store.clone());
        Self { base, view, reads: BTreeMap::new(), changes: Vec::new(), octets: 0, octets_max }
    }

    /// The store as the transaction sees it. Reading from it directly is not remembered.
    pub(crate) fn view_mut(&mut self) -> &mut Store {
        &mut self.view
    }

    /// A node that the subject may read, remembering what of it is read.
    pub(crate) fn read(
        &mut self,
        subject: &Subject,
        path: &Path,
        aspects: Aspects,
    ) -> Result<&Node, Errno> {
        self.remember_read(path, aspects)?;
        readable(&self.view, subject, path)
    }

    pub(crate) fn change(&mut self, subject: &Subject, change: Change) -> Result<(), Errno> {
        let octets = change.octets();
        if self.octets + octets > self.octets_max {
            return Err(Errno::ENOSPC);
        }
        let outcome = change.apply(&mut self.view, subject).map(Outcome::from);
        if let (Change::Remove { path }, Ok(Outcome::Nothing)) = (&change, &outcome) {
            self.remember_read(path, Aspects::EXISTENCE)?;
        }
        self.octets += octets;
        let answer = outcome.as_ref().map(|_| ()).map_err(Clone::clone);
        self.changes.push((change, outcome));
        answer
    }

    /// Makes the transaction's changes to `current`, or answers EAGAIN and changes nothing.
    pub(crate) fn commit(self, current: &mut Store, subject: &Subject) -> Result<Committed, Errno> {
        if !self.changes.iter().any(|(_, outcome)| is_effective(outcome)) {
            return Ok(Committed { old: current.clone(), changed: Vec::new() });
        }
        let mut new =
            if current.is_same(&self.base) { self.view } else { self.merge(current, subject)? };
        new.stamp = new.stamp.max(current.stamp);
        let old = std::mem::replace(current, new);
        Ok(Committed { old, changed: changed(self.changes) })
    }

    fn merge(&self, current: &Store, subject: &Subject) -> Result<Store, Errno> {
        for (path, aspects) in &self.reads {
            let then = readable(&self.base, subject, path);
            let now = readable(current, subject, path);
            let same = match (then, now) {
                (Ok(then), Ok(now)) => aspects.agree(then, now),
                (Err(then), Err(now)) => then == now,
                _ => false,
            };
            if !same {
                return Err(Errno::EAGAIN);
            }
        }
        let mut merged = current.clone();
        for (change, then) in &self.changes {
            let now = change.apply(&mut merged, subject).map(Outcome::from);
            let same = match (then, &now) {
                (Ok(then), Ok(now)) => then.allows(now),
                (Err(then), Err(now)) => then == now,
                _ => false,
            };
            if !same {
                return Err(Errno::EAGAIN);
            }
        }
        Ok(merged)
    }

    fn remember_read(&mut self, path: &Path, aspects: Aspects) -> Result<(), Errno> {
        if let Some(known) = self.reads.get_mut(path) {
            known.add(aspects);
            return Ok(());
        }
        let octets = size_of::<(Path, Aspects)>() + path.as_str().len();
        if self.octets + octets > self.octets_max {
            return Err(Errno::ENOSPC);
        }
        self.octets += octets;
        self.reads.insert(path.clone(), aspects);
        Ok(())
    }
}

impl Aspects {
    fn add(&mut self, other: Self) {
        self.value |= other.value;
        self.children |= other.children;
        self.perms |= other.perms;
    }

    fn agree(self, then: &Node, now: &Node) -> bool {
        (!self.value || then.value() == now.value())
            && (!self.perms || then.perms() == now.perms())
            && (!self.children || then.has_same_list(now))
    }
}

/// What came of a change, as far as a commit has to find it again.
#[derive(Debug)]
enum Outcome {
    Written,
    Created { inherited: Arc<Perms>, steps: usize },
    PermsSet,
    Removed,
    Nothing,
}

impl From<Done> for Outcome {
    fn from(done: Done) -> Self {
        match done {
            Done::Written => Self::Written,
            Done::Created { inherited, steps } => Self::Created { inherited, steps },
            Done::PermsSet { .. } => Self::PermsSet,
            Done::Removed(_) => Self::Removed,
            Done::Nothing => Self::Nothing,
        }
    }
}

impl Outcome {
    /// Whether a change that came out like this may come out like `now` in the commit.
    fn allows(&self, now: &Self) -> bool {
        match (self, now) {
            // What the new node took from above may have been read or passed on, and what was above must not be gone.
            (
                Self::Created { inherited: then, steps: missing_then },
                Self::Created { inherited: now, steps: missing_now },
            ) => then == now && missing_now <= missing_then,
            // Somebody else created it meanwhile: the later write wins. MKDIR finds nothing to do then.
            (Self::Created { .. }, Self::Written | Self::Nothing) => true,
            (Self::Removed, Self::Removed | Self::Nothing) => true,
            (Self::Written, Self::Written) | (Self::PermsSet, Self::PermsSet) => true,
            (Self::Nothing, Self::Nothing) => true,
            _ => false,
        }
    }
}

fn is_effective(outcome: &Result<Outcome, Errno>) -> bool {
    matches!(outcome, Ok(outcome) if !matches!(outcome, Outcome::Nothing))
}

fn changed(mut changes: Vec<(Change, Result<Outcome, Errno>)>) -> Vec<Changed> {
    changes.retain(|(_, outcome)| is_effective(outcome));
    let removals = changes.iter().filter(|(change, _)| matches!(change, Change::Remove { .. }));
    let removed: HashSet<Path> = removals.map(|(change, _)| change.path().clone()).collect();
    let mut seen = HashSet::new();
    let paths = changes.into_iter().map(|(change, _)| change.into_path());
    (paths.filter(|path| seen.insert(path.clone())))
        .map(|path| Changed { removed: removed.contains(&path), path })
        .collect()
}
