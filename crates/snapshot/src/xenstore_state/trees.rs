//! Which trees belong to a domain.

use std::collections::BTreeSet;

use xenstore_migration::domain_state::NodeState;
use xsclient::{DomId, Path, Perms};

use super::levels::{Reading, Seen};
use super::limits::Limits;
use super::missing::{Missing, MissingReason, StatePart};

/// The trees of one domain: `/local/domain/DOMID`, what its node `vm` names, and what the caller named.
#[derive(Debug)]
pub(super) struct Trees {
    domid: DomId,
    pub(super) domain: Path,
    /// `/local/domain/DOMID/vm`
    pointer: Path,
    extra: BTreeSet<Path>,
    vm: Vm,
}

#[derive(Debug)]
enum Vm {
    NotSeen,
    At(Path),
    Missing(MissingReason),
}

impl Trees {
    pub(super) fn new(domid: DomId, extra: &[Path]) -> Self {
        let domain = Path::of_domain(domid);
        let pointer = domain.join("vm").expect("the path of a domain leaves room for a name");
        Self { domid, domain, pointer, extra: extra.iter().cloned().collect(), vm: Vm::NotSeen }
    }

    /// A reading that starts at the roots, with the node that tells the last root asked for beside them.
    pub(super) fn reading(&self, limits: Limits) -> Reading {
        let mut reading = Reading::new(limits);
        self.roots().into_iter().for_each(|root| reading.want(root));
        reading.want(self.pointer.clone());
        reading
    }

    /// All roots known so far.
    pub(super) fn roots(&self) -> BTreeSet<Path> {
        let mut roots = self.extra.clone();
        roots.insert(self.domain.clone());
        if let Vm::At(path) = &self.vm {
            roots.insert(path.clone());
        }
        roots
    }

    /// Looks whether the reading has told by now where the tree of the VM is, and has it read. Gives its root, once.
    pub(super) fn find_vm(&mut self, reading: &mut Reading) -> Option<Path> {
        if !matches!(self.vm, Vm::NotSeen) {
            return None;
        }
        self.vm = match reading.seen(&self.pointer)? {
            Seen::Absent { .. } => Vm::Missing(MissingReason::NoSuchNode),
            Seen::Unreadable(error) => Vm::Missing(MissingReason::Unreadable(error.clone())),
            Seen::Node(node) => self.vm_named_by(node),
        };
        let Vm::At(path) = &self.vm else { return None };
        reading.want(path.clone());
        Some(path.clone())
    }

    /// The roots that were read, with notes about those that were not.
    pub(super) fn read_roots(&self, reading: &Reading) -> (BTreeSet<Path>, Vec<Missing>) {
        let mut roots = BTreeSet::new();
        let mut missing = Vec::new();
        if let Vm::Missing(reason) = &self.vm {
            missing.push(Missing::new(StatePart::VmTree, reason.clone()));
        }
        for root in self.roots() {
            let reason = match reading.seen(&root) {
                Some(Seen::Node(_)) => {
                    roots.insert(root);
                    continue;
                }
                Some(Seen::Unreadable(error)) => MissingReason::Unreadable(error.clone()),
                Some(Seen::Absent { listed: true }) => MissingReason::Vanished,
                Some(Seen::Absent { listed: false }) | None => MissingReason::NoSuchNode,
            };
            let is_vm = matches!(&self.vm, Vm::At(path) if *path == root);
            let part = if is_vm { StatePart::VmTree } else { StatePart::Tree(root) };
            missing.push(Missing::new(part, reason));
        }
        (roots, missing)
    }

    /// A domain that can write the pointer could have another's tree carried along with its own.
    fn vm_named_by(&self, pointer: &NodeState) -> Vm {
        if self.domid != DomId::DOM0 && can_write(&pointer.perms, self.domid) {
            return Vm::Missing(MissingReason::VmIsGuests);
        }
        match Path::from_octets(&pointer.value) {
            Ok(path) if is_vm(&path) => Vm::At(path),
            _ => Vm::Missing(MissingReason::NotAVm { value: pointer.value.clone() }),
        }
    }
}

fn is_vm(path: &Path) -> bool {
    path.is_absolute()
        && matches!(path.components().collect::<Vec<_>>()[..], ["vm", name] if is_uuid(name))
}

/// As libxl and XAPI write it: 8-4-4-4-12 hexadecimal digits.
fn is_uuid(name: &str) -> bool {
    let groups: Vec<&str> = name.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    let digits = groups.iter().flat_map(|group| group.bytes()).all(|c| c.is_ascii_hexdigit());
    lengths == [8, 4, 4, 4, 12] && digits
}

/// Whether a domain may write, by an entry of its own, as the owner, or as anybody.
fn can_write(perms: &Perms, domid: DomId) -> bool {
    let own = perms.entries()[1..].iter().find(|entry| entry.domid == domid);
    let access = own.map_or(perms.others(), |entry| entry.access);
    let any = perms.entries()[1..]
        .iter()
        .any(|entry| entry.domid == DomId::ANY && entry.access.can_write());
    perms.owner() == domid || access.can_write() || any
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: DomId = DomId::new(7);

    #[test]
    fn only_uuids_name_a_vm() {
        for (path, expected) in [
            ("/vm/cd960499-35aa-4f97-b54f-e3d7694cc7b4", true),
            ("/vm/CD960499-35aa-4f97-b54f-e3d7694cc7b4", true),
            ("/vm/cd960499-35aa-4f97-b54f-e3d7694cc7b4/image", false),
            ("/vm/cd96049935aa4f97b54fe3d7694cc7b4", false),
            ("/vm/zd960499-35aa-4f97-b54f-e3d7694cc7b4", false),
            ("/vm", false),
            ("/local/cd960499-35aa-4f97-b54f-e3d7694cc7b4", false),
            ("vm/cd960499-35aa-4f97-b54f-e3d7694cc7b4", false),
            ("/", false),
        ] {
            assert_eq!(is_vm(&path.parse().unwrap()), expected, "{path}");
        }
    }

    #[test]
    fn whoever_owns_a_node_or_may_write_it_can_write_it() {
        for (perms, expected) in [
            ("n0,r7", false),
            ("r0", false),
            ("n0,w8", false),
            ("w0,n7", false),
            ("n7,r0", true),
            ("n0,w7", true),
            ("n0,b7", true),
            ("w0", true),
            ("b0,r8", true),
            ("n0,b32757", true),
        ] {
            assert_eq!(can_write(&perms.parse().unwrap(), GUEST), expected, "{perms}");
        }
    }
}
