//! The permission model of Xenstore.

use xenstore_proto::{Access, DomId, Perms};

use super::{AccessPolicy, Object, Subject};

/// The standard model: the control domain may do everything, an owner everything with its nodes, others what the
/// node's permissions say.
///
/// A domain without an entry has that for any domain, or else the owner's entry's letter. What a domain and its target
/// are allowed is put together, so that a target never takes a permission away; in C xenstored it can, where its entry
/// comes first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Standard;

impl AccessPolicy for Standard {
    fn access(&self, subject: &Subject, object: Object<'_>) -> Access {
        access(subject, object.perms)
    }

    fn owns(&self, subject: &Subject, object: Object<'_>) -> bool {
        owns(subject, object.perms)
    }
}

fn access(subject: &Subject, perms: &Perms) -> Access {
    if owns(subject, perms) {
        return Access::Both;
    }
    let entry_of = |domid: DomId| {
        perms.entries()[1..].iter().find(|entry| entry.domid == domid).map(|entry| entry.access)
    };
    let access_of =
        |domid| entry_of(domid).or_else(|| entry_of(DomId::ANY)).unwrap_or(perms.others());
    let own = access_of(subject.domid);
    subject.target.map_or(own, |target| own.union(access_of(target)))
}

fn owns(subject: &Subject, perms: &Perms) -> bool {
    subject.privileged || perms.owner() == subject.domid || Some(perms.owner()) == subject.target
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(domid: u16, target: Option<u16>, perms: &str) -> Access {
        let target = target.map(DomId::new);
        let subject = Subject { domid: DomId::new(domid), target, privileged: domid == 0 };
        access(&subject, &perms.parse().unwrap())
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
            (3, Some(4), "r0,n4", Access::Read),
            (3, Some(4), "r0,w4", Access::Both),
            (3, None, "n0,r32757", Access::Read),
            (3, None, "n0,r32757,n3", Access::None),
        ] {
            assert_eq!(allowed(domid, target, perms), expected, "{domid} {target:?} {perms}");
        }
    }

    /// Every list of up to two entries besides the owner's.
    #[test]
    fn no_target_ever_takes_a_permission_away() {
        let entries: Vec<String> = ["n", "r", "w", "b"]
            .iter()
            .flat_map(|letter| [3, 4, 9].map(|domid| format!("{letter}{domid}")))
            .collect();
        let mut lists = entries.clone();
        for first in &entries {
            for second in &entries {
                lists.push(format!("{first},{second}"));
                lists.extend(entries.iter().map(|third| format!("{first},{second},{third}")));
            }
        }
        for perms in lists {
            let (without, with) = (allowed(3, None, &perms), allowed(3, Some(4), &perms));
            assert_eq!(without.union(with), with, "{perms}: {without:?} to {with:?}");
        }
    }
}
