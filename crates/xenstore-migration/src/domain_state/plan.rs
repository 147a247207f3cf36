//! What it takes to make a running Xenstore agree with a saved state.

mod attachment;

use std::collections::{BTreeMap, BTreeSet};

pub use attachment::Attachment;
use xenstore_proto::{DomId, Path, Perms};

use super::policy::{Effect, RestorePolicy};
use super::{DomainState, NodeState};

/// What to change, and what of the saved state is not put back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// To be carried out one after the other: parents come before their children, removals last.
    pub changes: Vec<Change>,
    /// Saved nodes that are not as saved now and will not be.
    pub left: Vec<Left>,
    /// What the policy wants besides nodes, for whoever can restore it.
    pub attachments: Vec<Attachment>,
    /// What the policy leaves besides nodes.
    pub attachments_left: Vec<Attachment>,
}

/// A change to one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is absent and its parent is there: write it, then set its permissions.
    Create {
        /// The node.
        path: Path,
        /// Its value.
        value: Vec<u8>,
        /// Its permissions.
        perms: Perms,
    },
    /// It has another value.
    SetValue {
        /// The node.
        path: Path,
        /// Its value.
        value: Vec<u8>,
    },
    /// It has other permissions.
    SetPerms {
        /// The node.
        path: Path,
        /// Its permissions.
        perms: Perms,
    },
    /// It goes, with all below it.
    Remove {
        /// The node.
        path: Path,
    },
}

impl Change {
    /// The node.
    pub const fn path(&self) -> &Path {
        match self {
            Self::Create { path, .. }
            | Self::SetValue { path, .. }
            | Self::SetPerms { path, .. }
            | Self::Remove { path } => path,
        }
    }
}

/// Nodes that are not as saved and will not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// The topmost of them.
    pub path: Path,
    /// How many: it and, below it without a gap, those left for the same reason.
    pub nodes: usize,
    /// Why.
    pub reason: LeftReason,
}

/// Why a node is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LeftReason {
    /// The toolstack makes it anew for every domain.
    #[error("the toolstack owns it")]
    Toolstack,
    /// No rule names it.
    #[error("the policy does not cover it")]
    NotCovered,
    /// A rule says so.
    #[error("the policy leaves it")]
    Rule,
    /// A rule would name it if it were the guest's.
    #[error("domain {owner} owns it")]
    OtherOwner {
        /// Whose it is, in the saved state or now.
        owner: DomId,
    },
    /// It has another value now, which a merge keeps.
    #[error("it has another value now")]
    Differs,
    /// It is absent, and so is its parent, which is not among what is created. Xenstore would invent the parent, with permissions
    /// nobody has chosen.
    #[error("its parent is absent and is not created")]
    NoParent,
    /// It is absent from the current state, but that does not hold its tree completely.
    #[error("the current state does not hold its tree")]
    NotSeen,
    /// It was not saved and would be removed, but below it is what stays.
    #[error("it was not saved, and below it is what stays")]
    NotEmpty,
}

/// What it takes to make `current` agree with `wanted` as far as the policy wants it. Neither is changed.
///
/// Whatever the policy says, what the toolstack makes itself is left alone: in the domain's tree `device`, `console`, `store`,
/// `cpu`, `memory`, `domid`, `name` and `vm` with all below them, and `backend` and `device-model`, which are of other
/// domains' devices; the node of the domain, and the nodes above it; and all of domain 0.
///
/// Absence counts only where a state holds the tree ([`DomainState::roots`]): nothing is created where `current` has not
/// looked, and nothing removed where `wanted` has not. Carrying the plan out and planning again gives no changes.
///
/// # Errors
///
/// If the states are of different domains: [`super::Translation`] comes first.
pub fn plan(
    current: &DomainState,
    wanted: &DomainState,
    policy: &RestorePolicy,
) -> Result<Plan, PlanError> {
    if current.domid != wanted.domid {
        return Err(PlanError::OtherDomain { current: current.domid, wanted: wanted.domid });
    }
    let own = Path::of_domain(wanted.domid);
    let planner = Planner { current, wanted, policy, own };
    let mut plan = Plan::default();
    let mut leaving = Leaving::default();
    planner.put_back(&mut plan, &mut leaving);
    planner.remove(&mut plan, &mut leaving);
    plan.left = leaving.left;
    let missing = attachment::missing(current, wanted);
    if policy.wants_attachments() {
        plan.attachments = missing;
    } else {
        plan.attachments_left = missing;
    }
    Ok(plan)
}

struct Planner<'a> {
    current: &'a DomainState,
    wanted: &'a DomainState,
    policy: &'a RestorePolicy,
    /// `/local/domain/DOMID`
    own: Path,
}

impl<'a> Planner<'a> {
    /// Creates and sets what was saved.
    fn put_back(&self, plan: &mut Plan, leaving: &mut Leaving<'a>) {
        let mut created = BTreeSet::new();
        for (path, node) in &self.wanted.nodes {
            let now = self.current.nodes.get(path);
            if now == Some(node) {
                continue;
            }
            let done = self.decide(path).and_then(|effect| match now {
                Some(now) => change(path, now, node, effect, &mut plan.changes),
                None => {
                    self.check_creation(path, &created)?;
                    created.insert(path);
                    let (path, value) = (path.clone(), node.value.clone());
                    plan.changes.push(Change::Create { path, value, perms: node.perms.clone() });
                    Ok(())
                }
            });
            if let Err(reason) = done {
                leaving.leave(path, reason);
            }
        }
    }

    /// Removes what was not saved, where the policy wants it exactly so.
    fn remove(&self, plan: &mut Plan, leaving: &mut Leaving<'a>) {
        let removable = |path: &Path| {
            !self.wanted.nodes.contains_key(path)
                && holds(self.wanted, path)
                && holds(self.current, path)
                && self.decide(path) == Ok(Effect::Replace)
        };
        let surplus: BTreeSet<&Path> =
            self.current.nodes.keys().filter(|path| removable(path)).collect();
        // Nodes below which something stays.
        let mut kept = BTreeSet::new();
        let staying = self.current.nodes.keys().filter(|path| !surplus.contains(path));
        for path in staying.chain(self.wanted.nodes.keys()) {
            let mut above = path.parent();
            while let Some(parent) = above {
                above = parent.parent();
                if !kept.insert(parent) {
                    break;
                }
            }
        }
        for path in &surplus {
            if kept.contains(*path) {
                leaving.leave(path, LeftReason::NotEmpty);
                continue;
            }
            let goes = |above: &Path| surplus.contains(above) && !kept.contains(above);
            if !path.parent().is_some_and(|above| goes(&above)) {
                plan.changes.push(Change::Remove { path: (*path).clone() });
            }
        }
    }

    fn decide(&self, path: &Path) -> Result<Effect, LeftReason> {
        if self.is_toolstacks(path) {
            return Err(LeftReason::Toolstack);
        }
        let owner = |state: &DomainState| state.nodes.get(path).map(|node| node.perms.owner());
        self.policy.decide(path, self.wanted.domid, [owner(self.wanted), owner(self.current)])
    }

    /// Whether a node is left alone whatever the policy says.
    fn is_toolstacks(&self, path: &Path) -> bool {
        if self.wanted.domid == DomId::DOM0 {
            return true;
        }
        match path.below(&self.own) {
            Some(below) => matches!(
                below.split('/').next(),
                Some(
                    "" | "device"
                        | "backend"
                        | "device-model"
                        | "console"
                        | "store"
                        | "cpu"
                        | "memory"
                        | "domid"
                        | "name"
                        | "vm"
                )
            ),
            None => self.own.is_at_or_below(path),
        }
    }

    fn check_creation(&self, path: &Path, created: &BTreeSet<&Path>) -> Result<(), LeftReason> {
        if !holds(self.current, path) {
            return Err(LeftReason::NotSeen);
        }
        let there =
            |parent: &Path| self.current.nodes.contains_key(parent) || created.contains(parent);
        match path.parent() {
            Some(parent) if there(&parent) => Ok(()),
            _ => Err(LeftReason::NoParent),
        }
    }
}

/// Whether a node that is not in the state does not exist.
fn holds(state: &DomainState, path: &Path) -> bool {
    state.roots.iter().any(|root| path.is_at_or_below(root))
}

/// What makes a node that is there as it was saved.
fn change(
    path: &Path,
    now: &NodeState,
    saved: &NodeState,
    effect: Effect,
    changes: &mut Vec<Change>,
) -> Result<(), LeftReason> {
    if now.value != saved.value {
        if effect == Effect::Merge && !now.value.is_empty() {
            return Err(LeftReason::Differs);
        }
        changes.push(Change::SetValue { path: path.clone(), value: saved.value.clone() });
    }
    if now.perms != saved.perms {
        changes.push(Change::SetPerms { path: path.clone(), perms: saved.perms.clone() });
    }
    Ok(())
}

/// Collects what is left, subtree by subtree.
#[derive(Default)]
struct Leaving<'a> {
    left: Vec<Left>,
    /// Nodes that are left, and where.
    at: BTreeMap<&'a Path, usize>,
}

impl<'a> Leaving<'a> {
    /// Parents come before their children.
    fn leave(&mut self, path: &'a Path, reason: LeftReason) {
        // Which nodes have another value is worth knowing one by one.
        let above = path.parent().filter(|_| reason != LeftReason::Differs);
        let entry = above.and_then(|parent| self.at.get(&parent).copied());
        let number = match entry {
            Some(number) if self.left[number].reason == reason => {
                self.left[number].nodes += 1;
                number
            }
            _ => {
                self.left.push(Left { path: path.clone(), nodes: 1, reason });
                self.left.len() - 1
            }
        };
        self.at.insert(path, number);
    }
}

/// Why there is no plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The states are of different domains.
    #[error("the saved state is of domain {wanted} and the current one of domain {current}")]
    OtherDomain {
        /// Whose the current state is.
        current: DomId,
        /// Whose the saved state is.
        wanted: DomId,
    },
}
