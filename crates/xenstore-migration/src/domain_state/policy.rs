//! Which nodes of a saved state are to be put back.

use xenstore_proto::{DomId, Path};

use super::pattern::NodePattern;
use super::plan::LeftReason;

/// Which nodes of a saved state are to be put back, and how: rules, of which the first that names a node decides. Nodes that no
/// rule names are left as they are.
///
/// Whatever the rules say, [`super::plan()`] leaves alone what the toolstack makes itself in the domain's tree, and the
/// node of the domain: see there.
///
/// ```
/// use xenstore_migration::domain_state::{RestorePolicy, RestoreRule, Treatment};
///
/// let policy = RestorePolicy::cooperative()
///     .before(RestoreRule::of_anybody("/vm/*/image/**".parse()?, Treatment::Merge));
/// assert_eq!(policy.rules().len(), 5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestorePolicy {
    rules: Vec<RestoreRule>,
    attachments: bool,
}

/// A rule about the nodes that a pattern names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreRule {
    /// Which nodes.
    pub pattern: NodePattern,
    /// Only nodes that belong to them.
    pub owner: Owner,
    /// What becomes of them.
    pub treatment: Treatment,
}

impl RestoreRule {
    /// A rule about nodes that the guest owns.
    pub const fn of_guest(pattern: NodePattern, treatment: Treatment) -> Self {
        Self { pattern, owner: Owner::Guest, treatment }
    }

    /// A rule about nodes whoever owns them.
    pub const fn of_anybody(pattern: NodePattern, treatment: Treatment) -> Self {
        Self { pattern, owner: Owner::Anybody, treatment }
    }
}

/// To whom a node has to belong for a rule to be about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// The domain itself, in the saved state and now, as far as the node is there.
    Guest,
    /// Anybody.
    Anybody,
}

/// What becomes of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Treatment {
    /// It stays as it is now.
    Leave,
    /// It is created if it is absent, and set if its value is empty and the saved one is not. Where it has the saved value
    /// after that, it gets the saved permissions. Another value stays.
    Merge,
    /// It becomes exactly as saved: created, set, or removed.
    Replace,
}

impl RestorePolicy {
    /// Leaves everything as it is.
    pub const fn nothing() -> Self {
        Self { rules: Vec::new(), attachments: false }
    }

    /// For a guest that knows that it has been restored: it registers its watches again and starts its transactions anew,
    /// but does not write again what it wrote when it booted.
    ///
    /// Merges what the guest owns in `data/**`, `attr/**`, `drivers/**` and `control/feature-*`.
    pub fn cooperative() -> Self {
        let merge = ["data/**", "attr/**", "drivers/**", "control/feature-*"];
        Self { rules: of_guest(&merge, Treatment::Merge), attachments: false }
    }

    /// For a guest that does not know: everything it owns in its tree becomes exactly as saved, and its watches, open
    /// transactions, quotas and features are wanted.
    ///
    /// Left alone is what a toolstack uses to talk to a running guest (`control/shutdown`, `control/sysrq`,
    /// `control/platform-feature-*`) or writes for it when it starts (`domain/**`, `libxl/**`, `image/**`, `hvmloader/**`,
    /// `platform/**`, `serial/**`), whoever owns it.
    pub fn exact() -> Self {
        let leave = [
            "control/shutdown",
            "control/sysrq",
            "control/platform-feature-*",
            "domain/**",
            "libxl/**",
            "image/**",
            "hvmloader/**",
            "platform/**",
            "serial/**",
        ];
        let mut rules: Vec<_> = leave
            .iter()
            .map(|text| RestoreRule::of_anybody(pattern(text), Treatment::Leave))
            .collect();
        rules.extend(of_guest(&["**"], Treatment::Replace));
        Self { rules, attachments: true }
    }

    /// Adds a rule that counts before those there are.
    #[must_use]
    pub fn before(mut self, rule: RestoreRule) -> Self {
        self.rules.insert(0, rule);
        self
    }

    /// Adds a rule that counts where none of those there are does.
    #[must_use]
    pub fn after(mut self, rule: RestoreRule) -> Self {
        self.rules.push(rule);
        self
    }

    /// Says whether watches, transactions, quotas and features are wanted.
    #[must_use]
    pub const fn with_attachments(mut self, wanted: bool) -> Self {
        self.attachments = wanted;
        self
    }

    /// The rules, the first that counts first.
    pub fn rules(&self) -> &[RestoreRule] {
        &self.rules
    }

    /// Whether watches, transactions, quotas and features are wanted.
    pub const fn wants_attachments(&self) -> bool {
        self.attachments
    }

    /// Whether a node is merged or replaced, or why it is left. `owners` are who owns it in the states that have it.
    pub(super) fn decide(
        &self,
        path: &Path,
        domid: DomId,
        owners: [Option<DomId>; 2],
    ) -> Result<Effect, LeftReason> {
        let stranger = owners.into_iter().flatten().find(|owner| *owner != domid);
        let mut otherwise = LeftReason::NotCovered;
        for rule in self.rules.iter().filter(|rule| rule.pattern.matches(path, domid)) {
            match (rule.owner, stranger) {
                (Owner::Guest, Some(owner)) => {
                    otherwise = LeftReason::OtherOwner { owner };
                    continue;
                }
                (Owner::Guest, None) | (Owner::Anybody, _) => {}
            }
            return match rule.treatment {
                Treatment::Leave => Err(LeftReason::Rule),
                Treatment::Merge => Ok(Effect::Merge),
                Treatment::Replace => Ok(Effect::Replace),
            };
        }
        Err(otherwise)
    }
}

/// What a rule does that does something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Merge,
    Replace,
}

fn of_guest(patterns: &[&str], treatment: Treatment) -> Vec<RestoreRule> {
    patterns.iter().map(|text| RestoreRule::of_guest(pattern(text), treatment)).collect()
}

/// One of the patterns of this file.
fn pattern(text: &str) -> NodePattern {
    text.parse().expect("the patterns of this file are parsed by its tests")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: DomId = DomId::new(3);

    fn decide(policy: &RestorePolicy, below: &str, owner: DomId) -> Result<Effect, LeftReason> {
        let path = Path::of_domain(GUEST).join(below).unwrap();
        policy.decide(&path, GUEST, [Some(owner), None])
    }

    #[test]
    fn a_cooperative_guest_gets_back_what_it_told_the_host() {
        let policy = RestorePolicy::cooperative();
        for below in ["data", "data/x/y", "attr/os", "drivers/0", "control/feature-suspend"] {
            assert_eq!(decide(&policy, below, GUEST), Ok(Effect::Merge), "{below}");
        }
        for below in ["control", "control/shutdown", "control/platform-feature-x", "error", "x"] {
            assert_eq!(decide(&policy, below, GUEST), Err(LeftReason::NotCovered), "{below}");
        }
        let owner = DomId::DOM0;
        assert_eq!(decide(&policy, "data/x", owner), Err(LeftReason::OtherOwner { owner }));
        assert!(!policy.wants_attachments());
    }

    #[test]
    fn an_unknowing_guest_gets_back_all_it_owns_but_what_the_toolstack_talks_through() {
        let policy = RestorePolicy::exact();
        for below in ["data", "error/x", "feature", "control/feature-s3", "anything"] {
            assert_eq!(decide(&policy, below, GUEST), Ok(Effect::Replace), "{below}");
        }
        for below in ["control/shutdown", "control/sysrq", "image/x", "hvmloader", "libxl/x"] {
            assert_eq!(decide(&policy, below, GUEST), Err(LeftReason::Rule), "{below}");
        }
        let owner = DomId::DOM0;
        assert_eq!(decide(&policy, "vm-data/x", owner), Err(LeftReason::OtherOwner { owner }));
        assert!(policy.wants_attachments());
    }

    #[test]
    fn the_first_rule_that_names_a_node_and_its_owner_decides() {
        let pattern = || "data/**".parse::<NodePattern>().unwrap();
        let policy = RestorePolicy::nothing()
            .after(RestoreRule::of_guest(pattern(), Treatment::Leave))
            .after(RestoreRule::of_anybody(pattern(), Treatment::Replace))
            .after(RestoreRule::of_anybody(pattern(), Treatment::Merge));
        assert_eq!(decide(&policy, "data/x", GUEST), Err(LeftReason::Rule));
        assert_eq!(decide(&policy, "data/x", DomId::DOM0), Ok(Effect::Replace));
        let first = RestoreRule::of_anybody(pattern(), Treatment::Merge);
        assert_eq!(decide(&policy.before(first), "data/x", GUEST), Ok(Effect::Merge));
    }

    #[test]
    fn a_node_that_changed_hands_is_not_the_guests() {
        let path = Path::of_domain(GUEST).join("data/x").unwrap();
        let owners = [Some(GUEST), Some(DomId::DOM0)];
        let decided = RestorePolicy::exact().decide(&path, GUEST, owners);
        assert_eq!(decided, Err(LeftReason::OtherOwner { owner: DomId::DOM0 }));
    }
}
