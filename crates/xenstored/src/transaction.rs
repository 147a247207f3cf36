//! Transactions: a snapshot, what was read of it, and what was changed.

use std::collections::{BTreeMap, HashMap};

use xenstore_proto::{Errno, Path};

use crate::access::Actor;
use crate::change::{Change, Done, readable};
use crate::store::Store;
use crate::tree::Node;

/// An open transaction.
///
/// Reads and changes go to a view that nobody else sees, so that reads repeat. A commit succeeds if the whole
/// transaction could as well have run at that moment with the same answers: if nothing else has changed, the view
/// becomes the store; otherwise everything is done again, in order, on the current store, and
///
/// - what was read has to be the same (each of value, list of children and permissions for itself, by content, so that
///   what was changed and changed back does not conflict; also that something was missing, or refused);
/// - changes have to come out the same.
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
    /// What was done up to the last change.
    log: Vec<Entry>,
    /// What was read since: the view has not changed, so that one answer a node is enough.
    reads: Reads,
    /// Octets remembered, and the most there may be.
    octets: usize,
    octets_max: usize,
}

#[derive(Debug)]
enum Entry {
    Reads(Reads),
    Change(Change, Result<Outcome, Errno>),
}

/// What was read of which node, and the node as far as it was read.
type Reads = BTreeMap<Path, (Aspects, Result<Node, Errno>)>;

/// What is read of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Aspects {
    value: bool,
    children: bool,
    perms: bool,
}

impl Aspects {
    pub(crate) const VALUE: Self = Self { value: true, children: false, perms: false };
    pub(crate) const CHILDREN: Self = Self { value: false, children: true, perms: false };
    pub(crate) const PERMS: Self = Self { value: false, children: false, perms: true };
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
        Self { base, view, log: Vec::new(), reads: Reads::new(), octets: 0, octets_max }
    }

    /// The store as the transaction sees it. Reading from it directly is not remembered.
    pub(crate) fn view_mut(&mut self) -> &mut Store {
        &mut self.view
    }

    /// A node that the subject may read, remembering what of it is read.
    pub(crate) fn read(
        &mut self,
        actor: Actor<'_>,
        path: &Path,
        aspects: Aspects,
    ) -> Result<&Node, Errno> {
        let found = readable(&self.view, actor, path);
        if let Some((known, seen)) = self.reads.get_mut(path) {
            known.add(aspects);
            *seen = found.clone().map(|node| known.of(node));
            return found;
        }
        let octets = size_of::<(Path, Aspects, Node)>() + path.as_str().len();
        if self.octets + octets > self.octets_max {
            return Err(Errno::ENOSPC);
        }
        self.octets += octets;
        self.reads.insert(path.clone(), (aspects, found.clone().map(|node| aspects.of(node))));
        found
    }

    pub(crate) fn change(&mut self, actor: Actor<'_>, change: Change) -> Result<(), Errno> {
        let octets = change.octets();
        if self.octets + octets > self.octets_max {
            return Err(Errno::ENOSPC);
        }
        self.octets += octets;
        if !self.reads.is_empty() {
            self.log.push(Entry::Reads(std::mem::take(&mut self.reads)));
        }
        let outcome = change.apply(&mut self.view, actor).map(Outcome::from);
        let answer = outcome.as_ref().map(|_| ()).map_err(Clone::clone);
        self.log.push(Entry::Change(change, outcome));
        answer
    }

    /// Makes the transaction's changes to `current`, or answers EAGAIN and changes nothing.
    pub(crate) fn commit(
        mut self,
        current: &mut Store,
        actor: Actor<'_>,
    ) -> Result<Committed, Errno> {
        if !self.log.iter().any(Entry::is_effective) {
            return Ok(Committed { old: current.clone(), changed: Vec::new() });
        }
        self.log.push(Entry::Reads(self.reads));
        let mut new = if current.is_same(&self.base) {
            self.view
        } else {
            replay(&self.log, current, actor)?
        };
        new.stamp = new.stamp.max(current.stamp);
        let old = std::mem::replace(current, new);
        Ok(Committed { old, changed: changed(self.log) })
    }
}

/// Does everything again on the current store. EAGAIN if something comes out differently.
fn replay(log: &[Entry], current: &Store, actor: Actor<'_>) -> Result<Store, Errno> {
    let mut store = current.clone();
    for entry in log {
        let same = match entry {
            Entry::Reads(reads) => reads.iter().all(|(path, (aspects, then))| {
                match (then, readable(&store, actor, path)) {
                    (Ok(then), Ok(now)) => aspects.agree(then, now),
                    (Err(then), Err(now)) => *then == now,
                    _ => false,
                }
            }),
            Entry::Change(change, then) => {
                match (then, change.apply(&mut store, actor).map(Outcome::from)) {
                    (Ok(then), Ok(now)) => then.allows(&now),
                    (Err(then), Err(now)) => *then == now,
                    _ => false,
                }
            }
        };
        if !same {
            return Err(Errno::EAGAIN);
        }
    }
    Ok(store)
}

impl Entry {
    /// Whether something was changed.
    fn is_effective(&self) -> bool {
        matches!(self, Self::Change(_, Ok(outcome)) if *outcome != Outcome::Nothing)
    }
}

impl Aspects {
    fn add(&mut self, other: Self) {
        self.value |= other.value;
        self.children |= other.children;
        self.perms |= other.perms;
    }

    /// The node as far as it was read: what is not kept need not be copied when it changes.
    fn of(self, node: &Node) -> Node {
        if self.children { node.clone() } else { node.without_children() }
    }

    fn agree(self, then: &Node, now: &Node) -> bool {
        (!self.value || then.value() == now.value())
            && (!self.perms || then.perms() == now.perms())
            && (!self.children || then.has_same_list(now))
    }
}

/// What came of a change, as far as a commit has to find it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Written,
    /// So many nodes of the path were missing.
    Created {
        steps: usize,
    },
    PermsSet,
    Removed,
    Nothing,
}

impl From<Done> for Outcome {
    fn from(done: Done) -> Self {
        match done {
            Done::Written => Self::Written,
            Done::Created { steps } => Self::Created { steps },
            Done::PermsSet { .. } => Self::PermsSet,
            Done::Removed(_) => Self::Removed,
            Done::Nothing => Self::Nothing,
        }
    }
}

impl Outcome {
    /// Whether a change that came out like this may come out like `now` in the commit.
    fn allows(self, now: &Self) -> bool {
        match (self, *now) {
            // What was above must not be gone.
            (Self::Created { steps: then }, Self::Created { steps: now }) => now <= then,
            // Somebody else created it meanwhile: the later write wins, and MKDIR finds nothing to do.
            (Self::Created { .. }, Self::Written | Self::Nothing) => true,
            (Self::Removed, Self::Nothing) => true,
            (then, now) => then == now,
        }
    }
}

fn changed(mut log: Vec<Entry>) -> Vec<Changed> {
    log.retain(Entry::is_effective);
    let mut order: HashMap<Path, usize> = HashMap::new();
    let mut changed: Vec<Changed> = Vec::new();
    for entry in log {
        let Entry::Change(change, _) = entry else { continue };
        let removed = matches!(change, Change::Remove { .. });
        let path = change.into_path();
        match order.get(&path) {
            Some(&at) => changed[at].removed |= removed,
            None => {
                order.insert(path.clone(), changed.len());
                changed.push(Changed { path, removed });
            }
        }
    }
    changed
}
