//! Transactions: a snapshot, what was read of it, and what was changed.

mod footprint;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Instant;

use xenstore_proto::{DomId, Errno, Path, TxId};

use crate::access::Actor;
use crate::change::{Change, Done, readable};
use crate::charges::Charges;
use crate::quota::Quota;
use crate::store::Store;
use crate::tree::Node;

pub(crate) use footprint::Footprint;

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
///
/// A nested transaction starts from the view of the one around it and is committed into that by the same rules. What it
/// read and changed is then read and changed by the one around it.
#[derive(Debug)]
pub(crate) struct Transaction {
    /// The transaction around this one.
    pub(crate) parent: Option<TxId>,
    base: Store,
    view: Store,
    /// What was done up to the last change.
    log: Vec<Entry>,
    /// What was read since: the view has not changed, so that one answer a node is enough.
    reads: Reads,
    /// What the changes cost whom.
    charges: Charges,
    /// The nodes read, changed and created, if their number is limited.
    nodes: HashSet<Path>,
    /// Octets remembered, and the most there may be.
    octets: usize,
    pub(crate) octets_max: usize,
    /// When it has been open for too long, once that is known.
    deadline: Option<Instant>,
    /// Whether it can only be ended: it has forgotten everything.
    given_up: bool,
}

#[derive(Clone, Debug)]
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
    pub(crate) const ALL: Self = Self { value: true, children: true, perms: true };
}

/// What a commit makes of the store.
#[derive(Debug)]
pub(crate) struct Committed {
    /// The store as it becomes.
    pub(crate) new: Store,
    /// The nodes changed, each once, in the order of their first change.
    pub(crate) changed: Vec<ChangedNode>,
    /// What the changes cost whom.
    pub(crate) charges: Charges,
}

/// A node that a transaction changed.
#[derive(Debug)]
pub(crate) struct ChangedNode {
    pub(crate) path: Path,
    /// Whether it was removed at some point.
    pub(crate) removed: bool,
}

impl Transaction {
    pub(crate) fn start(store: &Store) -> Self {
        let (base, view) = (store.clone(), store.clone());
        Self {
            parent: None,
            base,
            view,
            log: Vec::new(),
            reads: Reads::new(),
            charges: Charges::default(),
            nodes: HashSet::new(),
            octets: 0,
            octets_max: 0,
            deadline: None,
            given_up: false,
        }
    }

    /// A transaction inside this one, which is `own`.
    pub(crate) fn start_nested(&self, own: TxId) -> Result<Self, Errno> {
        self.check_going_on()?;
        Ok(Self { parent: Some(own), ..Self::start(&self.view) })
    }

    /// The store as the transaction sees it.
    pub(crate) fn view(&self) -> &Store {
        &self.view
    }

    /// The store as the transaction sees it. Reading from it directly is not remembered.
    pub(crate) fn view_mut(&mut self) -> &mut Store {
        &mut self.view
    }

    /// Octets remembered.
    pub(crate) fn octets(&self) -> usize {
        self.octets
    }

    /// A node that the actor may read, remembering what of it is read; and how many octets that took.
    pub(crate) fn read(
        &mut self,
        actor: Actor<'_>,
        path: &Path,
        aspects: Aspects,
    ) -> Result<(&Node, usize), (Errno, usize)> {
        self.check_going_on().map_err(|errno| (errno, 0))?;
        let found = readable(&self.view, actor, path);
        if let Some((known, seen)) = self.reads.get_mut(path) {
            known.add(aspects);
            *seen = found.clone().map(|node| known.of(node));
            return found.map(|node| (node, 0)).map_err(|errno| (errno, 0));
        }
        let octets = size_of::<(Path, Aspects, Node)>() + path.as_str().len();
        if self.octets + octets > self.octets_max {
            return Err((Errno::ENOSPC, 0));
        }
        meet(&mut self.nodes, actor, path, 1).map_err(|errno| (errno, 0))?;
        self.octets += octets;
        self.reads.insert(path.clone(), (aspects, found.clone().map(|node| aspects.of(node))));
        found.map(|node| (node, octets)).map_err(|errno| (errno, octets))
    }

    pub(crate) fn change(&mut self, actor: Actor<'_>, change: Change) -> Result<(), Errno> {
        self.check_going_on()?;
        let octets = change.octets();
        if self.octets + octets > self.octets_max {
            return Err(Errno::ENOSPC);
        }
        let (_, missing) = self.view.nearest(change.path());
        meet(&mut self.nodes, actor, change.path(), missing.max(1))?;
        self.octets += octets;
        self.note_reads();
        let in_here = Actor { accounts: None, ..actor };
        let outcome = change.apply(&mut self.view, in_here, &mut self.charges).map(Outcome::from);
        let answer = outcome.as_ref().map(|_| ()).map_err(Clone::clone);
        self.log.push(Entry::Change(change, outcome));
        answer
    }

    /// What the transaction makes of the `current` store; EAGAIN if that has changed in a way that matters, and ENOSPC
    /// if somebody would own too much.
    pub(crate) fn commit(mut self, current: &Store, actor: Actor<'_>) -> Result<Committed, Errno> {
        self.check_going_on()?;
        if !self.log.iter().any(Entry::is_effective) {
            let (new, charges) = (current.clone(), Charges::default());
            return Ok(Committed { new, changed: Vec::new(), charges });
        }
        self.note_reads();
        let (mut new, charges) = if current.is_same(&self.base) {
            (self.view, self.charges)
        } else {
            replay(&mut self.log, current, actor)?
        };
        if let Some(accounts) = actor.accounts {
            accounts.allow(&charges)?;
        }
        new.stamp = new.stamp.max(current.stamp);
        Ok(Committed { new, changed: changed(self.log), charges })
    }

    /// Commits a nested transaction into this one; EAGAIN if others committed here have changed what it depends on.
    pub(crate) fn take_in(&mut self, mut inner: Self, actor: Actor<'_>) -> Result<(), Errno> {
        self.check_going_on()?;
        inner.check_going_on()?;
        if self.octets + inner.octets > self.octets_max {
            return Err(Errno::ENOSPC);
        }
        let new = inner.nodes.iter().filter(|path| !self.nodes.contains(*path)).count();
        if !actor.quotas.allow(Quota::TransactionNodes, self.nodes.len() + new) {
            return Err(Errno::ENOSPC);
        }
        self.note_reads();
        inner.note_reads();
        let (view, charges) = if self.view.is_same(&inner.base) {
            (inner.view, inner.charges)
        } else {
            replay(&mut inner.log, &self.view, Actor { accounts: None, ..actor })?
        };
        let stamp = self.view.stamp.max(view.stamp);
        self.view = Store { stamp, ..view };
        self.charges.add_all(&charges);
        self.log.append(&mut inner.log);
        self.nodes.extend(inner.nodes);
        self.octets += inner.octets;
        Ok(())
    }

    /// Whether the time is up. It starts to count at the first call.
    pub(crate) fn is_late(&mut self, now: Instant, deadline: Instant) -> bool {
        !self.given_up && *self.deadline.get_or_insert(deadline) <= now
    }

    /// Whether the transaction gives permissions to a domain.
    pub(crate) fn names(&self, domid: DomId) -> bool {
        self.log.iter().any(|entry| match entry {
            Entry::Change(Change::SetPerms { perms, .. }, Ok(_)) => {
                perms.entries().iter().any(|entry| entry.domid == domid)
            }
            _ => false,
        })
    }

    /// Forgets everything, and lets go of the store that it keeps. What is asked in it from now on is answered with
    /// EAGAIN: its number stays taken until it is ended, lest what is asked in it be answered as if it were nowhere.
    pub(crate) fn give_up(&mut self) {
        let parent = self.parent;
        *self = Self { parent, given_up: true, ..Self::start(&Store::new()) };
    }

    fn check_going_on(&self) -> Result<(), Errno> {
        if self.given_up { Err(Errno::EAGAIN) } else { Ok(()) }
    }

    fn note_reads(&mut self) {
        if !self.reads.is_empty() {
            self.log.push(Entry::Reads(std::mem::take(&mut self.reads)));
        }
    }
}

/// Counts a node and those above it, `levels` in all, if it is limited how many different ones there may be.
fn meet(
    nodes: &mut HashSet<Path>,
    actor: Actor<'_>,
    path: &Path,
    levels: usize,
) -> Result<(), Errno> {
    if actor.quotas.limit(Quota::TransactionNodes).is_none() {
        return Ok(());
    }
    let upwards = std::iter::successors(Some(path.clone()), Path::parent);
    let new: Vec<_> = upwards.take(levels).filter(|path| !nodes.contains(path)).collect();
    if !actor.quotas.allow(Quota::TransactionNodes, nodes.len() + new.len()) {
        return Err(Errno::ENOSPC);
    }
    nodes.extend(new);
    Ok(())
}

/// Does everything again on the current store, and keeps in the log what came of it now. EAGAIN if something comes out
/// differently.
fn replay(log: &mut [Entry], current: &Store, actor: Actor<'_>) -> Result<(Store, Charges), Errno> {
    let (mut store, mut charges) = (current.clone(), Charges::default());
    let actor = Actor { accounts: None, ..actor };
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
                let now = change.apply(&mut store, actor, &mut charges).map(Outcome::from);
                let same = match (&*then, &now) {
                    (Ok(then), Ok(now)) => then.allows(now),
                    (Err(then), Err(now)) => then == now,
                    _ => false,
                };
                *then = now;
                same
            }
        };
        if !same {
            return Err(Errno::EAGAIN);
        }
    }
    Ok((store, charges))
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

fn changed(mut log: Vec<Entry>) -> Vec<ChangedNode> {
    log.retain(Entry::is_effective);
    let mut order: HashMap<Path, usize> = HashMap::new();
    let mut changed: Vec<ChangedNode> = Vec::new();
    for entry in log {
        let Entry::Change(change, _) = entry else { continue };
        let removed = matches!(change, Change::Remove { .. });
        let path = change.into_path();
        match order.get(&path) {
            Some(&at) => changed[at].removed |= removed,
            None => {
                order.insert(path.clone(), changed.len());
                changed.push(ChangedNode { path, removed });
            }
        }
    }
    changed
}
