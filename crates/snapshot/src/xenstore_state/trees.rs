//! Which trees belong to a domain.

use std::collections::BTreeSet;

use xenstore_migration::domain_state::{NoVmTree, NodeState, vm_tree};
use xsclient::{DomId, Path};

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

    fn vm_named_by(&self, pointer: &NodeState) -> Vm {
        match vm_tree(self.domid, pointer) {
            Ok(path) => Vm::At(path),
            Err(NoVmTree::Guests) => Vm::Missing(MissingReason::VmIsGuests),
            Err(_) => Vm::Missing(MissingReason::NotAVm { value: pointer.value.clone() }),
        }
    }
}
