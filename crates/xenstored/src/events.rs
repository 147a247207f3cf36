//! Who hears of a change.

use std::sync::Arc;

use xenstore_proto::{DomId, Path, Perms, Token};

use crate::access::Changed;
use crate::change::Done;
use crate::domains::DomainEvent;
use crate::server::{ConnectionId, Server};
use crate::store::{Store, steps};
use crate::transaction::ChangedNode;
use crate::tree::Node;

/// What a changed node was before, as far as watchers depend on it.
pub(crate) enum Was {
    /// It did not change.
    Unchanged,
    /// It was not there, or had the permissions it has now.
    Same,
    /// It had these permissions.
    Perms(Arc<Perms>),
    /// It is gone, with what was below.
    Removed(Node),
}

impl Was {
    pub(crate) fn of(done: Done) -> Self {
        match done {
            Done::Written | Done::Created { .. } => Self::Same,
            Done::PermsSet { old } => Self::Perms(old),
            Done::Removed(node) => Self::Removed(node),
            Done::Nothing => Self::Unchanged,
        }
    }
}

impl Server {
    /// Tells the watchers of a change outside transactions.
    ///
    /// A change is told to the watches on the node and above. A removal is told as well to the watches set exactly
    /// on a node that went with it, with that node's path. Nodes created on the way to a new one are not told.
    pub(crate) fn fire_change(&mut self, path: &Path, was: &Was) {
        let mut heard = Vec::new();
        match was {
            Was::Unchanged => return,
            Was::Same => self.hear_at(path, Before::default(), &mut heard),
            Was::Perms(old) => {
                self.hear_at(path, Before { node: Some(old), above: None }, &mut heard);
            }
            Was::Removed(gone) => {
                let old = |at: &Path| {
                    let below = at.below(path)?;
                    below
                        .split('/')
                        .filter(|name| !name.is_empty())
                        .try_fold(gone, |node, name| node.child(name))
                };
                self.hear_below(path, old, &mut heard);
                let before = Before { node: Some(gone.perms()), above: None };
                self.hear_at(path, before, &mut heard);
            }
        }
        self.tell(heard);
    }

    /// Tells the watchers of a commit: each changed node once, in the order of the first changes. What was created
    /// and removed again is not told.
    pub(crate) fn fire_commit(&mut self, before: &Store, changed: &[ChangedNode]) {
        let mut heard = Vec::new();
        for changed in changed {
            let path = &changed.path;
            if changed.removed {
                self.hear_below(path, |at| before.get(at), &mut heard);
            }
            if self.watches.covering(path).next().is_none() {
                continue;
            }
            let old = before.get(path);
            if old.is_none() && !self.store.exists(path) {
                continue;
            }
            let above = path.parent().and_then(|parent| before.get(&parent));
            let old = Before { node: old.map(perms_of), above: above.map(perms_of) };
            self.hear_at(path, old, &mut heard);
        }
        self.tell(heard);
    }

    /// Tells of a domain: plain watches the name alone, watches with a depth the name with the domain, watches on
    /// one domain theirs.
    pub(crate) fn fire_special(&mut self, event: DomainEvent, domid: DomId) {
        let of_domain = format!("{}/{domid}", event.name());
        let plain = self.watches.on(event.name()).iter().filter_map(|watch| match watch.depth {
            None => Some((watch, event.name())),
            Some(0) => None,
            Some(_) => Some((watch, &*of_domain)),
        });
        let one = self.watches.on(&of_domain).iter().map(|watch| (watch, &*of_domain));
        let may_hear = |connection| {
            self.subject_of(connection)
                .is_some_and(|subject| self.domains.may_hear(self.actor(&subject), event))
        };
        let heard = (plain.chain(one))
            .filter(|(watch, _)| may_hear(watch.connection))
            .map(|(watch, path)| (watch.connection, path.into(), watch.token.clone()))
            .collect();
        self.tell(heard);
    }

    /// The watches that cover a node. Who may read the node or its parent, now or with what they had before, hears.
    fn hear_at(&self, path: &Path, before: Before<'_>, heard: &mut Vec<Event>) {
        let mut known = None;
        for watch in self.watches.covering(path) {
            let Some(subject) = self.subject_of(watch.connection) else { continue };
            let known = known.get_or_insert_with(|| Known::of(&self.store, path, before));
            if self.actor(&subject).hears(&known.changed(path)) {
                heard.push((
                    watch.connection,
                    path.as_str()[watch.left_out..].into(),
                    watch.token.clone(),
                ));
            }
        }
    }

    /// The watches on nodes that were below a removed one. What a transaction has created there again is not the same:
    /// that is told as well.
    fn hear_below<'a>(
        &self,
        path: &Path,
        old: impl Fn(&Path) -> Option<&'a Node>,
        heard: &mut Vec<Event>,
    ) {
        for (at, watches) in self.watches.below(path) {
            let Ok(at) = at.parse::<Path>() else { continue };
            let Some(gone) = old(&at) else { continue };
            let above = at.parent().and_then(|parent| old(&parent));
            let before = Before { node: Some(gone.perms()), above: above.map(perms_of) };
            let known = Known::of(&self.store, &at, before);
            for watch in watches {
                let Some(subject) = self.subject_of(watch.connection) else { continue };
                if self.actor(&subject).hears(&known.changed(&at)) {
                    let told = at.as_str()[watch.left_out..].into();
                    heard.push((watch.connection, told, watch.token.clone()));
                }
            }
        }
    }

    fn tell(&mut self, heard: Vec<Event>) {
        for (connection, path, token) in heard {
            self.push_event(connection, &path, &token, !path.starts_with('@'));
        }
    }
}

/// To whom, what path, which token.
type Event = (ConnectionId, Box<str>, Token);

/// The permissions that a changed node and the one above it had, as far as they were others.
#[derive(Clone, Copy, Default)]
struct Before<'a> {
    node: Option<&'a Perms>,
    above: Option<&'a Perms>,
}

/// The permissions that decide who hears of a change.
struct Known<'a> {
    node: Vec<&'a Perms>,
    above: Vec<&'a Perms>,
}

impl<'a> Known<'a> {
    fn of(store: &'a Store, path: &Path, before: Before<'a>) -> Self {
        let mut known = Self {
            node: before.node.into_iter().collect(),
            above: before.above.into_iter().collect(),
        };
        let (node, missing) = store.nearest(path);
        let depth = steps(path).count();
        if missing == 0 {
            known.node.push(node.perms());
            let above = steps(path)
                .take(depth.saturating_sub(1))
                .try_fold(&store.root, |node, name| node.child(name));
            known.above.extend(above.map(perms_of));
        } else if missing == 1 {
            known.above.push(node.perms());
        }
        known
    }

    fn changed<'k>(&'k self, path: &'k Path) -> Changed<'k> {
        Changed { path: path.as_str(), node: &self.node, above: &self.above }
    }
}

fn perms_of(node: &Node) -> &Perms {
    node.perms()
}
