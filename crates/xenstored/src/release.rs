//! The end of a domain: nothing of it is left for the next one of its number.

use std::collections::HashMap;
use std::sync::Arc;

use xenstore_proto::{DomId, Errno, Path, Perms};

use crate::change::{Done, remove};
use crate::charges::Charges;
use crate::domains::DomainEvent;
use crate::events::Was;
use crate::interner::Interner;
use crate::server::Server;
use crate::store::Store;
use crate::tree::Node;

/// What a store has to do with a domain.
#[derive(Debug, Default)]
struct Traces {
    /// The nodes that it owns, but for those below others of these.
    owned: Vec<Path>,
    /// Nodes of others, with permissions that name it.
    named: Vec<Path>,
}

impl Server {
    /// Ends an introduced domain: closes its connections, removes the nodes that it owns with all below and the entries
    /// for it in the permissions of others, forgets its limits and what it has used, and tells the watchers: of the nodes,
    /// then of the release. Permissions that lose an entry are not told.
    ///
    /// Transactions in which somebody gives permissions to the domain are given up (EAGAIN): who did it meant this one.
    ///
    /// # Errors
    ///
    /// EIO, and nothing has happened, if what is left of the store cannot be kept.
    pub(crate) fn release(&mut self, domid: DomId) -> Result<(), Errno> {
        let removed = self.bury(domid)?;
        if let Some(rings) = &mut self.rings {
            rings.close(domid);
        }
        self.domains.release(domid, &mut self.interner);
        for connection in self.connections_of(domid) {
            self.disconnect(connection);
        }
        for state in self.connections.values_mut() {
            for transaction in state.transactions.values_mut().filter(|open| open.names(domid)) {
                self.accounts.of_domain(state.domid).transactions.octets -= transaction.octets();
                transaction.give_up();
            }
        }
        self.forget_kept_watches(domid);
        self.policy.released(domid);
        self.accounts.forget(domid);
        for (path, was) in &removed {
            self.fire_change(path, was);
        }
        self.fire_special(DomainEvent::Released, domid);
        Ok(())
    }

    /// Removes every trace of the domain from the store. Gives what is to be told.
    fn bury(&mut self, domid: DomId) -> Result<Vec<(Path, Was)>, Errno> {
        let before = self.before_change();
        let traces = Traces::of(domid, &self.store);
        let mut charges = Charges::default();
        let mut removed = Vec::with_capacity(traces.owned.len());
        self.store.stamp = self.stamp;
        for path in traces.owned {
            let (cost, done) = remove(&mut self.store, &path);
            charges.add_all(&cost);
            if let Done::Removed(_) = done {
                removed.push((path, Was::of(done)));
            }
        }
        self.stamp = self.store.stamp;
        for path in &traces.named {
            let Some(node) = self.store.get_mut(path) else { continue };
            let perms = without(domid, node.perms(), &mut self.interner);
            charges.add_all(&Charges::perms_set(path, node, &perms));
            node.set_perms(perms);
        }
        self.keep_since(before)?;
        self.accounts.settle(&charges);
        Ok(removed)
    }
}

/// The permissions without what they say of a domain. What it owned is domain 0's, and nobody else's.
pub(crate) fn without(domid: DomId, perms: &Perms, interner: &mut Interner) -> Arc<Perms> {
    let mut entries = perms.entries().to_vec();
    let others = entries.split_off(1).into_iter().filter(|entry| entry.domid != domid);
    let owned = perms.owner() == domid;
    if !owned {
        entries.extend(others);
    }
    let left = if owned { None } else { Perms::new(entries).ok() };
    interner.intern(left.unwrap_or_else(|| Perms::owned_by(DomId::DOM0)))
}

impl Traces {
    fn of(domid: DomId, store: &Store) -> Self {
        let mut traces = Self::default();
        // The nodes above the one that is looked at. Names are read only where something is found.
        let mut trail: Vec<&Node> = Vec::new();
        let mut pending: Vec<(usize, &Node)> = vec![(0, &store.root)];
        // Permissions are shared by many nodes, and known by where they are.
        let mut known: HashMap<*const Perms, Names> = HashMap::new();
        let mut last: (*const Perms, Names) = (std::ptr::null(), Names::No);
        while let Some((depth, node)) = pending.pop() {
            trail.truncate(depth);
            let perms = Arc::as_ptr(node.perms());
            if last.0 != perms {
                let names = known.entry(perms).or_insert_with(|| Names::of(domid, node.perms()));
                last = (perms, *names);
            }
            match last.1 {
                Names::No => {}
                // The root stays, as somebody else's.
                Names::AsOwner if depth > 0 => {
                    traces.owned.extend(path_to(&trail, node));
                    continue;
                }
                Names::AsOwner | Names::AsOther => traces.named.extend(path_to(&trail, node)),
            }
            if node.child_count() > 0 {
                trail.push(node);
                pending.extend(node.children_by_name().map(|child| (depth + 1, child)));
            }
        }
        // An order that does not depend on how the store is walked: watchers see it.
        traces.owned.sort_unstable();
        traces
    }
}

/// The path of a node below those of the trail, the first of which is the root.
fn path_to(trail: &[&Node], node: &Node) -> Option<Path> {
    let names = trail.iter().skip(1).chain((!trail.is_empty()).then_some(&node));
    let path: String = names.flat_map(|node| ["/", node.name()]).collect();
    if path.is_empty() { Some(Path::root()) } else { path.parse().ok() }
}

/// Whether permissions name a domain.
#[derive(Clone, Copy)]
enum Names {
    No,
    AsOwner,
    AsOther,
}

impl Names {
    fn of(domid: DomId, perms: &Perms) -> Self {
        match perms.entries().iter().position(|entry| entry.domid == domid) {
            Some(0) => Self::AsOwner,
            Some(_) => Self::AsOther,
            None => Self::No,
        }
    }
}
