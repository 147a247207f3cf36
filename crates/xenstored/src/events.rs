//! Who hears of a change.

use std::sync::Arc;

use xenstore_proto::{DomId, Path, Perms, Token};

use crate::access::Subject;
use crate::change::Done;
use crate::domains::DomainEvent;
use crate::server::{ConnectionId, Server};
use crate::store::{Store, steps};
use crate::transaction::Committed;
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
            Was::Same => self.hear_at(path, &[], &mut heard),
            Was::Perms(old) => self.hear_at(path, &[old], &mut heard),
            Was::Removed(gone) => {
                let old = |at: &Path| {
                    let below = at.below(path)?;
                    below
                        .split('/')
                        .filter(|name| !name.is_empty())
                        .try_fold(gone, |node, name| node.child(name))
                };
                self.hear_below(path, old, &mut heard);
                self.hear_at(path, &[gone.perms()], &mut heard);
            }
        }
        self.tell(heard);
    }

    /// Tells the watchers of a commit: each changed node once, in the order of the first changes. What was created
    /// and removed again is not told.
    pub(crate) fn fire_commit(&mut self, committed: &Committed) {
        let mut heard = Vec::new();
        for changed in &committed.changed {
            let path = &changed.path;
            if changed.removed {
                self.hear_below(path, |at| committed.old.get(at), &mut heard);
            }
            if self.watches.covering(path).next().is_none() {
                continue;
            }
            let old = committed.old.get(path);
            if old.is_none() && !self.store.exists(path) {
                continue;
            }
            let old_parent = path.parent().and_then(|parent| committed.old.get(&parent));
            let old_perms: Vec<_> = old.into_iter().chain(old_parent).map(Node::perms).collect();
            self.hear_at(path, &old_perms, &mut heard);
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
                .is_some_and(|subject| self.domains.may_hear(&subject, event))
        };
        let heard = (plain.chain(one))
            .filter(|(watch, _)| may_hear(watch.connection))
            .map(|(watch, path)| (watch.connection, path.into(), watch.token.clone()))
            .collect();
        self.tell(heard);
    }

    /// The watches that cover a node. Who may read the node or its parent, now or with what they had before, hears.
    fn hear_at(&self, path: &Path, before: &[&Arc<Perms>], heard: &mut Vec<Event>) {
        let mut now = None;
        for watch in self.watches.covering(path) {
            let Some(subject) = self.subject_of(watch.connection) else { continue };
            let now = now.get_or_insert_with(|| node_and_parent(&self.store, path));
            if may_read_any(&subject, now.iter().chain(before).copied()) {
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
            let parent = at.parent().and_then(|parent| old(&parent));
            let before = std::iter::once(gone).chain(parent).map(Node::perms);
            let known: Vec<_> = before.chain(node_and_parent(&self.store, &at)).collect();
            for watch in watches {
                let Some(subject) = self.subject_of(watch.connection) else { continue };
                if may_read_any(&subject, known.iter().copied()) {
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

fn may_read_any<'a>(subject: &Subject, mut perms: impl Iterator<Item = &'a Arc<Perms>>) -> bool {
    subject.privileged || perms.any(|perms| subject.may_read(perms))
}

/// The permissions of a node and of the one above it, of what there is.
fn node_and_parent<'a>(store: &'a Store, path: &Path) -> Vec<&'a Arc<Perms>> {
    let mut found = Vec::with_capacity(2);
    let (node, missing) = store.nearest(path);
    let depth = steps(path).count();
    if missing == 0 {
        found.push(node.perms());
        let parent = steps(path)
            .take(depth.saturating_sub(1))
            .try_fold(&store.root, |node, name| node.child(name));
        found.extend(parent.map(Node::perms));
    } else if missing == 1 {
        found.push(node.perms());
    }
    found
}
