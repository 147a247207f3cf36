//! What holds for every plan.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use xenstore_migration::domain_state::{
    Change, DomainState, LeftReason, NodePattern, NodeState, Plan, RestorePolicy, RestoreRule,
    Treatment, plan,
};
use xenstore_proto::{DomId, Path};

use crate::{any_state, node};

const GUEST: DomId = DomId::new(3);

type Nodes = BTreeMap<Path, NodeState>;

/// Carries a change out as a server does that refuses whatever a plan must not ask for.
fn apply(change: &Change, nodes: &mut Nodes) {
    match change {
        Change::Create { path, value, perms } => {
            assert!(nodes.contains_key(&path.parent().unwrap()), "{path} has no parent");
            let (value, perms) = (value.clone(), perms.clone());
            let before = nodes.insert(path.clone(), NodeState { value, perms });
            assert_eq!(before, None, "{path} is there");
        }
        Change::SetValue { path, value } => {
            let before = std::mem::replace(&mut nodes.get_mut(path).unwrap().value, value.clone());
            assert_ne!(before, *value, "{path} has the value");
        }
        Change::SetPerms { path, perms } => {
            let before = std::mem::replace(&mut nodes.get_mut(path).unwrap().perms, perms.clone());
            assert_ne!(before, *perms, "{path} has the permissions");
        }
        Change::Remove { path } => {
            assert!(nodes.contains_key(path), "{path} is gone");
            nodes.retain(|at, _| !at.is_at_or_below(path));
        }
    }
}

fn carry_out(plan: &Plan, state: &DomainState) -> DomainState {
    let mut after = state.clone();
    plan.changes.iter().for_each(|change| apply(change, &mut after.nodes));
    after
}

fn is_toolstacks(path: &Path) -> bool {
    let own = Path::of_domain(GUEST);
    let names = [
        "device",
        "backend",
        "device-model",
        "console",
        "store",
        "cpu",
        "memory",
        "domid",
        "name",
        "vm",
    ];
    own.is_at_or_below(path)
        || names.iter().any(|name| path.is_at_or_below(&own.join(name).unwrap()))
}

/// A state and what became of it: some nodes gone, some changed, some new.
fn now_and_saved() -> impl Strategy<Value = (DomainState, DomainState)> {
    let other = (any_state::state(GUEST), any_state::state(GUEST));
    let changed = any_state::state(GUEST).prop_flat_map(|saved| {
        let change = prop_oneof![Just(None), any_state::any_node(GUEST).prop_map(Some)];
        let changes = vec((any::<prop::sample::Index>(), change), 0..6);
        (Just(saved), changes, any::<bool>()).prop_map(|(saved, changes, lost)| {
            let mut now = saved.clone();
            for (at, change) in changes {
                let Some(path) = saved.nodes.keys().nth(at.index(saved.nodes.len().max(1))) else {
                    continue;
                };
                match change {
                    None => now.nodes.retain(|other, _| !other.is_at_or_below(path)),
                    Some(node) => {
                        now.nodes.entry(path.clone()).and_modify(|there| *there = node);
                    }
                }
            }
            if lost { (now, saved) } else { (saved, now) }
        })
    });
    prop_oneof![other, changed]
}

fn policy() -> impl Strategy<Value = RestorePolicy> {
    prop_oneof![Just(RestorePolicy::cooperative()), Just(RestorePolicy::exact()), any_rules(),]
}

fn any_rules() -> impl Strategy<Value = RestorePolicy> {
    let patterns = prop::sample::select(
        &[
            "/**",
            "**",
            "data/**",
            "data/*",
            "*",
            "*/a",
            "device/**",
            "/vm/*/*",
            "control",
            "/local/**",
        ][..],
    );
    let treatment = prop_oneof![1 => Just(Treatment::Leave), 1 => Just(Treatment::Merge), 2 => Just(Treatment::Replace)];
    vec((patterns, treatment, any::<bool>()), 0..4).prop_map(|rules| {
        let rule = |(pattern, treatment, guest): (&str, _, bool)| {
            let pattern: NodePattern = pattern.parse().unwrap();
            let of = if guest { RestoreRule::of_guest } else { RestoreRule::of_anybody };
            of(pattern, treatment)
        };
        rules.into_iter().map(rule).fold(RestorePolicy::nothing(), RestorePolicy::after)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_plan_can_be_carried_out_and_leaves_nothing_to_change(
        (now, saved) in now_and_saved(),
        policy in policy(),
    ) {
        let first = plan(&now, &saved, &policy).unwrap();
        let after = carry_out(&first, &now);
        let again = plan(&after, &saved, &policy).unwrap();
        prop_assert_eq!(&again.changes, &[]);
        prop_assert_eq!(again.left, first.left);
    }

    #[test]
    fn what_the_toolstack_owns_is_never_touched((now, saved) in now_and_saved(), policy in policy()) {
        let after = carry_out(&plan(&now, &saved, &policy).unwrap(), &now);
        let toolstacks = |state: &DomainState| -> Nodes {
            state.nodes.clone().into_iter().filter(|(path, _)| is_toolstacks(path)).collect()
        };
        prop_assert_eq!(toolstacks(&after), toolstacks(&now));
    }

    #[test]
    fn every_saved_node_is_as_saved_afterwards_or_listed(
        (now, saved) in now_and_saved(),
        policy in policy(),
    ) {
        let plan = plan(&now, &saved, &policy).unwrap();
        let after = carry_out(&plan, &now);
        let differ = saved.nodes.iter().filter(|(path, node)| after.nodes.get(path) != Some(node));
        let listed = plan.left.iter().filter(|left| left.reason != LeftReason::NotEmpty);
        let below = |path: &Path| listed.clone().any(|left| path.is_at_or_below(&left.path));
        let mut count = 0;
        for (path, _) in differ {
            count += 1;
            prop_assert!(below(path), "{path}");
        }
        prop_assert_eq!(count, listed.clone().map(|left| left.nodes).sum::<usize>());
    }

    #[test]
    fn the_policies_for_guests_change_only_what_the_guest_owns(
        (now, saved) in now_and_saved(),
        exact: bool,
    ) {
        let policy = if exact { RestorePolicy::exact() } else { RestorePolicy::cooperative() };
        let own = Path::of_domain(GUEST);
        let guests = |state: &DomainState, path: &Path| {
            state.nodes.get(path).is_none_or(|node| node.perms.owner() == GUEST)
        };
        for change in plan(&now, &saved, &policy).unwrap().changes {
            let path = change.path();
            prop_assert!(guests(&now, path) && guests(&saved, path), "{path}");
            let below = path.below(&own).unwrap();
            let merged = ["data", "attr", "drivers"].contains(&below.split('/').next().unwrap())
                || below.starts_with("control/feature-");
            prop_assert!(exact || merged, "{below}");
            let talks = ["control/shutdown", "control/platform-feature-y"];
            prop_assert!(!talks.contains(&below), "{below}");
        }
    }

    #[test]
    fn nothing_is_created_or_removed_where_nobody_has_looked(
        (now, saved) in now_and_saved(),
        policy in policy(),
    ) {
        let holds = |state: &DomainState, path: &Path| {
            state.roots.iter().any(|root| path.is_at_or_below(root))
        };
        for change in plan(&now, &saved, &policy).unwrap().changes {
            match change {
                Change::Create { path, .. } => prop_assert!(holds(&now, &path)),
                Change::Remove { path } => {
                    prop_assert!(holds(&saved, &path));
                    prop_assert!(!saved.nodes.keys().any(|at| at.is_at_or_below(&path)));
                }
                _ => {}
            }
        }
    }

    #[test]
    fn a_merge_loses_no_value((now, saved) in now_and_saved()) {
        let rule = RestoreRule::of_anybody("/**".parse().unwrap(), Treatment::Merge);
        let policy = RestorePolicy::nothing().after(rule);
        let after = carry_out(&plan(&now, &saved, &policy).unwrap(), &now);
        for (path, node) in now.nodes.iter().filter(|(_, node)| !node.value.is_empty()) {
            prop_assert_eq!(&after.nodes[path].value, &node.value);
        }
    }

    #[test]
    fn what_is_as_saved_needs_no_plan(saved in any_state::state(GUEST), policy in policy()) {
        prop_assert_eq!(plan(&saved, &saved, &policy).unwrap(), Plan::default());
    }

    #[test]
    fn replacing_everything_makes_the_guests_part_exactly_as_saved(
        (mut now, mut saved) in now_and_saved(),
    ) {
        let own = Path::of_domain(GUEST);
        let roots = std::iter::once(own.clone()).collect();
        for state in [&mut now, &mut saved] {
            state.roots = std::collections::BTreeSet::clone(&roots);
            state.nodes.retain(|path, _| path.is_at_or_below(&own));
        }
        for state in [&mut now, &mut saved] {
            state.nodes.insert(own.clone(), node("", "n0,r3"));
        }
        let rule = RestoreRule::of_anybody("**".parse().unwrap(), Treatment::Replace);
        let policy = RestorePolicy::nothing().after(rule);
        let after = carry_out(&plan(&now, &saved, &policy).unwrap(), &now);
        let rest = |state: &DomainState| -> Nodes {
            state.nodes.clone().into_iter().filter(|(path, _)| !is_toolstacks(path)).collect()
        };
        prop_assert_eq!(rest(&after), rest(&saved));
    }
}
