//! Plans, one by one.

use xenstore_migration::domain_state::{
    Attachment, Change, ConnectionState, DomainState, LeftReason, Plan, PlanError, RestorePolicy,
    RestoreRule, TransactionState, Treatment, WatchState, plan,
};
use xenstore_proto::{DomId, Features, QuotaName, Token, TxId};

use crate::{node, path, state};

const OWN: [&str; 2] = ["/local/domain/3 - n0,r3", "/local/domain/3/data - n3"];

fn with(lines: &[&str]) -> DomainState {
    state(3, &[&OWN[..], lines].concat())
}

fn planned(now: &[&str], saved: &[&str], policy: &RestorePolicy) -> Plan {
    plan(&with(now), &with(saved), policy).unwrap()
}

fn left(plan: &Plan) -> Vec<String> {
    let line = |left: &xenstore_migration::domain_state::Left| {
        format!("{} {}: {}", left.path, left.nodes, left.reason)
    };
    plan.left.iter().map(line).collect()
}

fn create(at: &str, value: &str, perms: &str) -> Change {
    let node = node(value, perms);
    Change::Create { path: path(at), value: node.value, perms: node.perms }
}

fn set_value(at: &str, value: &str) -> Change {
    Change::SetValue { path: path(at), value: value.into() }
}

fn set_perms(at: &str, perms: &str) -> Change {
    Change::SetPerms { path: path(at), perms: perms.parse().unwrap() }
}

fn remove(at: &str) -> Change {
    Change::Remove { path: path(at) }
}

#[test]
fn a_merge_creates_what_is_absent_and_sets_what_is_blank() {
    let plan = planned(
        &[
            "/local/domain/3/data/blank - n3",
            "/local/domain/3/data/kept other n3",
            "/local/domain/3/data/kept/below other n3",
            "/local/domain/3/data/open 1 n3",
            "/local/domain/3/data/set x n3",
        ],
        &[
            "/local/domain/3/data/absent - n3,r7",
            "/local/domain/3/data/absent/below 1 n3",
            "/local/domain/3/data/blank 1 n3,r7",
            "/local/domain/3/data/kept saved n3,r7",
            "/local/domain/3/data/kept/below saved n3",
            "/local/domain/3/data/open 1 n3,r7",
            "/local/domain/3/data/set - n3",
        ],
        &RestorePolicy::cooperative(),
    );
    assert_eq!(
        plan.changes,
        [
            create("/local/domain/3/data/absent", "", "n3,r7"),
            create("/local/domain/3/data/absent/below", "1", "n3"),
            set_value("/local/domain/3/data/blank", "1"),
            set_perms("/local/domain/3/data/blank", "n3,r7"),
            set_perms("/local/domain/3/data/open", "n3,r7"),
        ]
    );
    assert_eq!(
        left(&plan),
        [
            "/local/domain/3/data/kept 1: it has another value now",
            "/local/domain/3/data/kept/below 1: it has another value now",
            "/local/domain/3/data/set 1: it has another value now",
        ]
    );
}

#[test]
fn an_exact_restore_removes_what_was_not_saved_topmost_first() {
    let plan = planned(
        &[
            "/local/domain/3/data/new - n3",
            "/local/domain/3/data/new-er - n3",
            "/local/domain/3/data/new/below 1 n3",
            "/local/domain/3/data/old other n3",
        ],
        &["/local/domain/3/data/old saved n3"],
        &RestorePolicy::exact(),
    );
    assert_eq!(
        plan.changes,
        [
            set_value("/local/domain/3/data/old", "saved"),
            remove("/local/domain/3/data/new"),
            remove("/local/domain/3/data/new-er"),
        ]
    );
    assert_eq!(plan.left, []);
}

#[test]
fn a_node_above_what_stays_is_not_removed() {
    let plan = planned(
        &["/local/domain/3/data/new - n3", "/local/domain/3/data/new/hosts 1 n0"],
        &[],
        &RestorePolicy::exact(),
    );
    assert_eq!(plan.changes, []);
    assert_eq!(
        left(&plan),
        ["/local/domain/3/data/new 1: it was not saved, and below it is what stays"]
    );
}

#[test]
fn a_node_whose_parent_would_be_invented_is_left() {
    let saved = ["/local/domain/3/control - n0,r3", "/local/domain/3/control/feature-suspend 1 n3"];
    let plan = planned(&[], &saved, &RestorePolicy::cooperative());
    assert_eq!(plan.changes, []);
    assert_eq!(
        left(&plan),
        [
            "/local/domain/3/control 1: the policy does not cover it",
            "/local/domain/3/control/feature-suspend 1: its parent is absent and is not created",
        ]
    );
    let parent = RestoreRule::of_anybody("control".parse().unwrap(), Treatment::Merge);
    let plan = planned(&[], &saved, &RestorePolicy::cooperative().before(parent));
    assert_eq!(plan.changes.len(), 2);
    assert_eq!(plan.left, []);
}

#[test]
fn what_was_not_looked_at_is_neither_created_nor_removed() {
    let now = with(&["/vm/new - n0", "/vm/new/image - n0"]);
    let saved = with(&["/vm/old - n0", "/vm/old/image - n0", "/vm/old/image/kernel k n0"]);
    let rule = RestoreRule::of_anybody("/vm/*/**".parse().unwrap(), Treatment::Replace);
    let plan = plan(&now, &saved, &RestorePolicy::nothing().before(rule)).unwrap();
    assert_eq!(plan.changes, []);
    assert_eq!(left(&plan), ["/vm/old 3: the current state does not hold its tree"]);
}

#[test]
fn of_a_tree_seen_in_part_nothing_is_removed() {
    let mut now = with(&["/local/domain/3/data/new 1 n3"]);
    now.roots = [path("/local/domain/3/control")].into();
    let plan = plan(&now, &with(&[]), &RestorePolicy::exact()).unwrap();
    assert_eq!(plan, Plan::default());
}

#[test]
fn a_node_above_a_saved_tree_is_not_removed() {
    // The saved state holds the domain's tree, and knows of nothing at /vm/u but what is at /vm/u/image.
    let now = with(&["/vm/u - n0"]);
    let mut saved = with(&["/vm/u/image - n0"]);
    saved.roots.insert(path("/vm/u"));
    let rule = RestoreRule::of_anybody("/vm/**".parse().unwrap(), Treatment::Replace);
    let plan = plan(&now, &saved, &RestorePolicy::nothing().before(rule)).unwrap();
    assert_eq!(plan.changes, [create("/vm/u/image", "", "n0")]);
    assert_eq!(plan.left[0].reason, LeftReason::NotEmpty);
}

#[test]
fn the_nodes_above_the_domain_are_left_even_if_a_rule_names_them_all() {
    let now = state(3, &["/ - n0", "/local - n0", "/local/domain - n0", "/local/other - n0"]);
    let saved = state(3, &["/ x n3", "/local x n3"]);
    let rule = RestoreRule::of_anybody("/**".parse().unwrap(), Treatment::Replace);
    let plan = plan(&now, &saved, &RestorePolicy::nothing().before(rule)).unwrap();
    assert_eq!(plan.changes, [remove("/local/other")]);
    assert_eq!(left(&plan), ["/ 2: the toolstack owns it"]);
}

#[test]
fn the_toolstacks_nodes_are_left_even_if_a_rule_names_them_all() {
    let now = [
        "/local/domain/3/device - n3",
        "/local/domain/3/device/new 1 n3",
        "/local/domain/3/name now n0,r3",
    ];
    let saved = [
        "/local/domain/3/console - n3",
        "/local/domain/3/cpu - n3",
        "/local/domain/3/device saved n3",
        "/local/domain/3/device/vbd - n3",
        "/local/domain/3/device/vbd/51712 1 n3",
        "/local/domain/3/name saved n0,r3",
    ];
    let rule = RestoreRule::of_anybody("/**".parse().unwrap(), Treatment::Replace);
    let plan = planned(&now, &saved, &RestorePolicy::exact().before(rule));
    assert_eq!(plan.changes, []);
    assert_eq!(
        left(&plan),
        [
            "/local/domain/3/console 1: the toolstack owns it",
            "/local/domain/3/cpu 1: the toolstack owns it",
            "/local/domain/3/device 3: the toolstack owns it",
            "/local/domain/3/name 1: the toolstack owns it",
        ]
    );
}

#[test]
fn a_driver_domains_backends_are_not_removed_and_of_the_host_nothing_is_changed() {
    let now = [
        "/local/domain/3/backend - n3",
        "/local/domain/3/backend/vbd - n3",
        "/local/domain/3/error - n3",
    ];
    let planned = planned(&now, &[], &RestorePolicy::exact());
    assert_eq!(planned.changes, [remove("/local/domain/3/error")]);

    let host = |nodes: &[&str]| state(0, nodes);
    let now = host(&["/local/domain/0 - n0", "/local/domain/0/data - n0"]);
    let saved = host(&["/local/domain/0 - n0"]);
    let of_host = plan(&now, &saved, &RestorePolicy::exact());
    assert_eq!(of_host.unwrap().changes, []);
}

#[test]
fn a_rule_about_the_guests_nodes_is_not_about_those_of_the_host() {
    let saved = ["/local/domain/3/data/hosts 1 n0,r3", "/local/domain/3/data/hosts/below 1 n3"];
    let plan = planned(&[], &saved, &RestorePolicy::cooperative());
    assert_eq!(
        left(&plan),
        [
            "/local/domain/3/data/hosts 1: domain 0 owns it",
            "/local/domain/3/data/hosts/below 1: its parent is absent and is not created",
        ]
    );
}

#[test]
fn states_of_two_domains_have_no_plan() {
    let error = plan(&state(4, &[]), &state(3, &[]), &RestorePolicy::exact());
    let (current, wanted) = (DomId::new(4), DomId::new(3));
    assert_eq!(error, Err(PlanError::OtherDomain { current, wanted }));
}

#[test]
fn what_is_not_a_node_is_wanted_or_left_and_never_forgotten() {
    let watch = |token: &[u8]| WatchState {
        path: "data".parse().unwrap(),
        token: Token::from_octets(token).unwrap(),
        depth: None,
    };
    let open = |id| TransactionState { id: TxId(id), nodes: Default::default() };
    let mut saved = with(&[]);
    saved.connection = Some(ConnectionState {
        target: Some(DomId::new(5)),
        input: vec![1, 2],
        output_rest: 0,
        output: vec![3],
        watches: vec![watch(b"a"), watch(b"b")],
        transactions: vec![open(1), open(2)],
    });
    let quota = QuotaName::from_octets(b"nodes").unwrap();
    saved.quotas.insert(quota.clone(), 0);
    saved.features = Some(Features(6));
    let mut now = with(&[]);
    now.connection = Some(ConnectionState {
        watches: vec![watch(b"a")],
        transactions: vec![open(1)],
        ..ConnectionState::default()
    });
    let missing = [
        Attachment::Target(DomId::new(5)),
        Attachment::Watch(watch(b"b")),
        Attachment::Transaction(open(2)),
        Attachment::Messages { input: 2, output: 1 },
        Attachment::Quota { name: quota, value: 0 },
        Attachment::Features(Features(6)),
    ];
    let exact = plan(&now, &saved, &RestorePolicy::exact()).unwrap();
    assert_eq!((&exact.attachments[..], &exact.attachments_left[..]), (&missing[..], &[][..]));
    let cooperative = plan(&now, &saved, &RestorePolicy::cooperative()).unwrap();
    assert_eq!(cooperative.attachments_left, missing);
    assert_eq!(cooperative.attachments, []);
    assert_eq!(plan(&saved, &saved, &RestorePolicy::exact()), Ok(Plan::default()));
    // A server that does not tell is asked for everything.
    let mut untold = now.clone();
    untold.connection = None;
    let all = plan(&untold, &saved, &RestorePolicy::exact()).unwrap();
    assert_eq!(all.attachments.len(), missing.len() + 2);
    // What is there now and was not saved is nothing to restore.
    now.connection.as_mut().unwrap().input = vec![9];
    saved.connection = Some(ConnectionState::default());
    let more_now = plan(&now, &saved, &RestorePolicy::exact()).unwrap();
    assert_eq!(more_now.attachments, missing[4..]);
}

#[test]
fn a_reason_is_told_for_every_rule_that_leaves() {
    let rule = RestoreRule::of_anybody("data/x".parse().unwrap(), Treatment::Leave);
    let policy = RestorePolicy::cooperative().before(rule);
    let plan = planned(&[], &["/local/domain/3/data/x 1 n3"], &policy);
    assert_eq!(plan.left[0].reason, LeftReason::Rule);
}
