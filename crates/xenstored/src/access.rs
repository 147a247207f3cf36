//! Who may do what with a node: the standard permission model, and the only place that knows it.

use xenstore_proto::{Access, DomId, Perms};

/// On whose behalf something is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) domid: DomId,
    /// The domain whose permissions this one has besides its own (SET_TARGET).
    pub(crate) target: Option<DomId>,
    /// Whether permissions do not apply: the control domain.
    pub(crate) privileged: bool,
}

impl Subject {
    pub(crate) const CONTROL: Self = Self { domid: DomId::DOM0, target: None, privileged: true };

    /// What the permissions allow.
    ///
    /// An owner may do everything. Otherwise, what the entries of the domain and of its target allow together; C
    /// xenstored takes the first of the two instead, so that gaining a target can lose access. Entries for any
    /// domain count where neither has one, and the first entry where there is none for any domain.
    pub(crate) fn access(&self, perms: &Perms) -> Access {
        if self.owns(perms) {
            return Access::Both;
        }
        let entry_of = |domid: DomId| {
            perms.entries()[1..].iter().find(|entry| entry.domid == domid).map(|entry| entry.access)
        };
        match (entry_of(self.domid), self.target.and_then(entry_of)) {
            (Some(own), Some(targets)) => own.union(targets),
            (Some(access), None) | (None, Some(access)) => access,
            (None, None) => entry_of(DomId::ANY).unwrap_or(perms.others()),
        }
    }

    pub(crate) fn may_read(&self, perms: &Perms) -> bool {
        self.access(perms).can_read()
    }

    pub(crate) fn may_write(&self, perms: &Perms) -> bool {
        self.access(perms).can_write()
    }

    /// Whether the subject may change the permissions.
    pub(crate) fn owns(&self, perms: &Perms) -> bool {
        self.privileged || perms.owner() == self.domid || Some(perms.owner()) == self.target
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(domid: u16, target: Option<u16>, perms: &str) -> Access {
        let target = target.map(DomId::new);
        let subject = Subject { domid: DomId::new(domid), target, privileged: domid == 0 };
        subject.access(&perms.parse().unwrap())
    }

    #[test]
    fn the_standard_model() {
        for (domid, target, perms, expected) in [
            (0, None, "n3", Access::Both),
            (3, None, "n3,r3", Access::Both),
            (4, None, "n3", Access::None),
            (4, None, "r3", Access::Read),
            (4, None, "r3,n4", Access::None),
            (4, None, "n3,w4", Access::Write),
            // A target's entry adds to one's own, in either order, and never takes away.
            (3, Some(4), "n0,r3,b4", Access::Both),
            (3, Some(4), "n0,b4,r3", Access::Both),
            (3, Some(4), "n0,r3,w4", Access::Both),
            (3, Some(4), "n4", Access::Both),
            (3, None, "n0,r32757", Access::Read),
            (3, None, "n0,r32757,n3", Access::None),
        ] {
            assert_eq!(access(domid, target, perms), expected, "{domid} {target:?} {perms}");
        }
    }
}
