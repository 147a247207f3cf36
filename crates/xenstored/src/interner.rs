//! Permissions are few and nodes are many: equal ones are kept once.

use std::collections::HashSet;
use std::sync::Arc;

use xenstore_proto::Perms;

/// Size below which the table is not searched for permissions that no node has any more.
const KEPT_MIN: usize = 256;

/// The permissions seen, shared.
#[derive(Debug, Default)]
pub(crate) struct Interner {
    known: HashSet<Arc<Perms>>,
    /// The size at which to look for unused ones: twice of what was in use the last time.
    full: usize,
}

impl Interner {
    pub(crate) fn intern(&mut self, perms: Perms) -> Arc<Perms> {
        if let Some(known) = self.known.get(&perms) {
            return Arc::clone(known);
        }
        if self.known.len() >= self.full.max(KEPT_MIN) {
            self.known.retain(|perms| Arc::strong_count(perms) > 1);
            self.full = self.known.len() * 2;
        }
        let shared = Arc::new(perms);
        self.known.insert(Arc::clone(&shared));
        shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xenstore_proto::DomId;

    #[test]
    fn equal_permissions_are_kept_once_and_unused_ones_not_for_ever() {
        let mut interner = Interner::default();
        let perms = |n: u16| Perms::owned_by(DomId::new(n));
        let kept = interner.intern(perms(7));
        for n in 0..5000 {
            interner.intern(perms(n));
        }
        assert!(Arc::ptr_eq(&kept, &interner.intern(perms(7))));
        assert!(interner.known.len() <= 2 * KEPT_MIN, "{}", interner.known.len());
    }
}
