//! Looking nodes up and changing them on behalf of somebody: what the protocol's operations mean, outside and
//! inside transactions.

use std::sync::Arc;

use xenstore_proto::{Errno, Path, Perm, Perms};

use crate::access::{Actor, Object};
use crate::charges::{Charges, size};
use crate::limits::PERMS_MAX;
use crate::quota::Quota;
use crate::store::Store;
use crate::tree::Node;
use crate::walk::Nodes;

/// What an operation does to a node. Paths are absolute.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Write { path: Path, value: Vec<u8> },
    Mkdir { path: Path },
    Remove { path: Path },
    SetPerms { path: Path, perms: Arc<Perms> },
}

/// What came of a change.
#[derive(Debug)]
pub(crate) enum Done {
    /// An existing node has a new value.
    Written,
    /// The node is new, and so are `steps - 1` above it.
    Created { steps: usize },
    /// The node had these permissions before.
    PermsSet { old: Arc<Perms> },
    /// This is gone.
    Removed(Node),
    /// There was nothing to do.
    Nothing,
}

/// A node that the subject may read.
pub(crate) fn readable<'a>(
    store: &'a Store,
    actor: Actor<'_>,
    path: &Path,
) -> Result<&'a Node, Errno> {
    existing(store, path, |object| actor.reads(object)).map_err(|missing| missing.errno)
}

impl Change {
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Write { path, .. }
            | Self::Mkdir { path }
            | Self::Remove { path }
            | Self::SetPerms { path, .. } => path,
        }
    }

    pub(crate) fn into_path(self) -> Path {
        match self {
            Self::Write { path, .. }
            | Self::Mkdir { path }
            | Self::Remove { path }
            | Self::SetPerms { path, .. } => path,
        }
    }

    /// Octets that remembering the change takes, roughly.
    pub(crate) fn octets(&self) -> usize {
        let more = match self {
            Self::Write { value, .. } => value.len(),
            Self::SetPerms { perms, .. } => size_of_val(perms.entries()),
            Self::Mkdir { .. } | Self::Remove { .. } => 0,
        };
        size_of::<Self>() + self.path().as_str().len() + more
    }

    /// Changes the store and adds what that costs whom to `charges`, or answers why not and changes nothing.
    pub(crate) fn apply(
        &self,
        store: &mut Store,
        actor: Actor<'_>,
        charges: &mut Charges,
    ) -> Result<Done, Errno> {
        let found = existing(store, self.path(), |object| actor.writes(object));
        let (cost, done) = match (self, found) {
            (Self::Write { path, value }, Ok(node)) => {
                actor.fits(size(node.perms(), value.len(), node.child_names_octets()))?;
                let cost = Charges::written(node, value);
                actor.affords(&cost)?;
                if let Some(node) = store.get_mut(path) {
                    node.set_value(value);
                }
                (cost, Done::Written)
            }
            (Self::Mkdir { .. }, Ok(_)) => return Ok(Done::Nothing),
            (Self::Write { path, value }, Err(missing)) => {
                create(store, actor, path, value, missing)?
            }
            (Self::Mkdir { path }, Err(missing)) => create(store, actor, path, b"", missing)?,
            (Self::Remove { path }, Ok(_)) if path.is_root() => return Err(Errno::EINVAL),
            (Self::Remove { path }, Ok(node)) => {
                if actor.policy.guards_below() && !writes_all_below(actor, path, node) {
                    return Err(Errno::EACCES);
                }
                remove(store, path)
            }
            // Who removes what is not there finds the work done, as long as there was a place for it.
            (Self::Remove { .. }, Err(missing))
                if missing.errno == Errno::ENOENT && missing.steps == 1 =>
            {
                return Ok(Done::Nothing);
            }
            (Self::Remove { .. } | Self::SetPerms { .. }, Err(missing)) => {
                return Err(missing.errno);
            }
            (Self::SetPerms { path, perms }, Ok(node)) => {
                check_perms(actor, Object { path: path.as_str(), perms: node.perms() }, perms)?;
                actor.fits(size(perms, node.value().len(), node.child_names_octets()))?;
                let cost = Charges::perms_set(path, node, perms);
                actor.affords(&cost)?;
                let node = store.get_mut(path).ok_or(Errno::ENOENT)?;
                (cost, Done::PermsSet { old: node.set_perms(Arc::clone(perms)) })
            }
        };
        charges.add_all(&cost);
        Ok(done)
    }
}

/// Removes a node that is not the root, whoever asks.
pub(crate) fn remove(store: &mut Store, path: &Path) -> (Charges, Done) {
    let Some(gone) = store.take(path) else { return (Charges::default(), Done::Nothing) };
    let cost = Charges::removed(path, &gone, store.nearest(path).0);
    (cost, Done::Removed(gone))
}

/// Whether an actor may give an object `new` permissions.
pub(crate) fn check_perms(actor: Actor<'_>, object: Object<'_>, new: &Perms) -> Result<(), Errno> {
    if !actor.owns(object) {
        return Err(Errno::EACCES);
    }
    if !new.owner().is_real() {
        return Err(Errno::ENOENT);
    }
    let entries = new.entries().len();
    if entries > PERMS_MAX || !actor.quotas.allow(Quota::NodePermissions, entries) {
        return Err(Errno::ENOSPC);
    }
    if !actor.subject.privileged && new.owner() != object.perms.owner() {
        return Err(Errno::EPERM);
    }
    Ok(())
}

/// A node that cannot be had.
struct Missing {
    errno: Errno,
    /// How many names of the path are missing; 0 if the node is there.
    steps: usize,
}

/// The node, if it exists and is `allowed`. Whether it exists stays hidden unless the nearest node that does is
/// allowed.
fn existing<'a>(
    store: &'a Store,
    path: &Path,
    allowed: impl Fn(Object<'_>) -> bool,
) -> Result<&'a Node, Missing> {
    let (node, steps) = store.nearest(path);
    match (steps, allowed(Object { path: path.as_str(), perms: node.perms() })) {
        (0, true) => Ok(node),
        (_, true) => Err(Missing { errno: Errno::ENOENT, steps }),
        (_, false) => Err(Missing { errno: Errno::EACCES, steps }),
    }
}

/// Whether the actor could write each node below on its own. Asked without touching: nothing is learnt of them.
fn writes_all_below(actor: Actor<'_>, path: &Path, node: &Node) -> bool {
    let mut nodes = Nodes::below(path, node);
    while let Some((path, node)) = nodes.advance() {
        let object = Object { path, perms: node.perms() };
        if !actor.policy.access(actor.subject, object).can_write() {
            return false;
        }
    }
    true
}

fn create(
    store: &mut Store,
    actor: Actor<'_>,
    path: &Path,
    value: &[u8],
    missing: Missing,
) -> Result<(Charges, Done), Errno> {
    if missing.errno != Errno::ENOENT {
        return Err(missing.errno);
    }
    let (nearest, steps) = store.nearest(path);
    let inherited = nearest.perms();
    let subject = actor.subject;
    let perms = if subject.privileged || inherited.owner() == subject.domid {
        Arc::clone(inherited)
    } else {
        let mut entries = inherited.entries().to_vec();
        entries[0] = Perm::new(inherited.others(), subject.domid);
        Arc::new(Perms::new(entries).map_err(|_| Errno::EINVAL)?)
    };
    let mut names = path.components().rev().take(steps);
    // From below: the node itself, those on the way to it, and the one that was there.
    let mut below = names.next().map_or(0, |name| name.len() + 1);
    actor.fits(size(&perms, value.len(), 0))?;
    for name in names {
        actor.fits(size(&perms, 0, below))?;
        below = name.len() + 1;
    }
    actor.fits(size(inherited, nearest.value().len(), nearest.child_names_octets() + below))?;
    let cost = Charges::created(path, steps, nearest, &perms, value);
    actor.affords(&cost)?;
    store.create_missing(path, steps, value, &perms);
    Ok((cost, Done::Created { steps: missing.steps }))
}

impl Actor<'_> {
    /// Whether a node may have this size.
    fn fits(&self, size: usize) -> Result<(), Errno> {
        if self.quotas.allow(Quota::NodeSize, size) { Ok(()) } else { Err(Errno::ENOSPC) }
    }

    fn affords(&self, charges: &Charges) -> Result<(), Errno> {
        self.accounts.map_or(Ok(()), |accounts| accounts.allow(charges))
    }
}
