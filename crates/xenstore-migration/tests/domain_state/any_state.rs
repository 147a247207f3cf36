//! Any state that a domain can have, with names that meet often.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use xenstore_migration::domain_state::{
    ConnectionState, DomainState, NodeState, PendingNode, TransactionState, WatchState,
};
use xenstore_migration::{NodeAccess, WatchDepth};
use xenstore_proto::{
    Access, DomId, Features, Path, PathOrSpecial, Perm, Perms, QuotaName, Token, TxId,
};

use crate::path;

pub(crate) const VM: &str = "/vm/7d1c2a90-4b1e-4c7d-9a55-0b6f2f1d6a01";

/// Names at the top of a domain's tree, those of the guest and of the toolstack.
const TOP: [&str; 14] = [
    "data", "attr", "drivers", "control", "feature", "error", "device", "console", "store", "cpu",
    "memory", "domid", "name", "vm",
];
const BELOW: [&str; 6] =
    ["feature-suspend", "feature-x", "shutdown", "platform-feature-y", "a", "a-b"];

pub(crate) fn state(domid: DomId) -> impl Strategy<Value = DomainState> {
    let quotas = btree_map("[a-z][a-z-]{0,8}", any::<u32>(), 0..3);
    (nodes(domid), option::of(connection(domid)), quotas, option::of(any::<u32>())).prop_map(
        move |((roots, nodes), connection, quotas, features)| DomainState {
            domid,
            roots,
            nodes,
            connection,
            quotas: quotas
                .into_iter()
                .map(|(name, value)| (QuotaName::from_octets(name.as_bytes()).unwrap(), value))
                .collect(),
            features: features.map(Features),
        },
    )
}

/// Roots, of which some may have no node, and nodes with all between them and a root.
fn nodes(domid: DomId) -> impl Strategy<Value = (BTreeSet<Path>, BTreeMap<Path, NodeState>)> {
    let roots = [
        format!("/local/domain/{domid}"),
        VM.to_owned(),
        format!("/libxl/{domid}"),
        format!("/local/domain/0/backend/vbd/{domid}"),
    ];
    let named = [0.95, 0.5, 0.5, 0.5].map(prop::bool::weighted);
    // Most nodes are in the domain's own tree.
    let number = prop_oneof![3 => Just(0), 1 => 0..roots.len()];
    (named, vec((below(), any_node(domid), number), 0..24)).prop_map(move |(named, found)| {
        let roots = roots.iter().zip(named);
        let named: Vec<_> = roots.filter(|(_, named)| *named).map(|it| path(it.0)).collect();
        let mut nodes = BTreeMap::new();
        for (below, node, number) in found {
            let Some(root) = named.get(number % named.len().max(1)) else { continue };
            let mut at = Some(below.map_or(root.clone(), |below| root.join(&below).unwrap()));
            while let Some(path) = at.filter(|path| path.is_at_or_below(root)) {
                at = path.parent();
                nodes.entry(path).or_insert_with(|| node.clone());
            }
        }
        (named.into_iter().collect(), nodes)
    })
}

fn below() -> impl Strategy<Value = Option<String>> {
    let names = vec(prop::sample::select(&BELOW[..]), 0..3);
    option::weighted(
        0.9,
        (prop::sample::select(&TOP[..]), names)
            .prop_map(|(top, names)| [&[top], &names[..]].concat().join("/")),
    )
}

pub(crate) fn any_node(domid: DomId) -> impl Strategy<Value = NodeState> {
    let value = prop_oneof![Just(Vec::new()), vec(any::<u8>(), 0..4), Just(b"1".to_vec())];
    (value, perms(domid)).prop_map(|(value, perms)| NodeState { value, perms })
}

/// Most nodes are the guest's.
fn perms(domid: DomId) -> impl Strategy<Value = Perms> {
    let access = prop::sample::select(&[Access::None, Access::Read, Access::Write, Access::Both]);
    let who = prop_oneof![3 => Just(domid), 1 => Just(DomId::DOM0), 1 => Just(DomId::new(77))];
    let any_entries = vec((access, who).prop_map(|(access, domid)| Perm::new(access, domid)), 1..4);
    prop_oneof![
        Just(Perms::owned_by(domid)),
        any_entries.prop_map(|entries| Perms::new(entries).unwrap())
    ]
}

fn connection(domid: DomId) -> impl Strategy<Value = ConnectionState> {
    let watches = vec(watch(domid), 0..4);
    let transactions = btree_map(1..9_u32, pending_nodes(domid), 0..3);
    let target = option::of(prop_oneof![Just(DomId::DOM0), Just(DomId::new(77))]);
    (target, input(), output(), watches, transactions).prop_map(
        |(target, input, (output_rest, output), watches, transactions)| {
            let mut seen = BTreeSet::new();
            let new = |watch: &WatchState| seen.insert((watch.path.clone(), watch.token.clone()));
            ConnectionState {
                target,
                input,
                output_rest,
                output,
                watches: watches.into_iter().filter(new).collect(),
                transactions: transactions
                    .into_iter()
                    .map(|(id, nodes)| TransactionState { id: TxId(id), nodes })
                    .collect(),
            }
        },
    )
}

/// Whole requests, and maybe a part of one.
fn input() -> impl Strategy<Value = Vec<u8>> {
    (vec(message(), 0..3), message(), any::<prop::sample::Index>()).prop_map(
        |(whole, part, len)| [whole.concat(), part[..len.index(part.len())].to_vec()].concat(),
    )
}

/// Maybe the rest of a message, with its length, and whole ones.
fn output() -> impl Strategy<Value = (u16, Vec<u8>)> {
    (vec(any::<u8>(), 0..20), vec(message(), 0..3)).prop_map(|(rest, whole)| {
        (u16::try_from(rest.len()).unwrap(), [rest, whole.concat()].concat())
    })
}

fn message() -> impl Strategy<Value = Vec<u8>> {
    (any::<[u32; 3]>(), vec(any::<u8>(), 0..20)).prop_map(|([kind, request, tx], payload)| {
        let len = u32::try_from(payload.len()).unwrap();
        let header = [kind, request, tx, len].map(u32::to_le_bytes);
        [header.as_flattened(), &payload].concat()
    })
}

fn watch(domid: DomId) -> impl Strategy<Value = WatchState> {
    let paths = [
        "@releaseDomain".to_owned(),
        "@introduceDomain".to_owned(),
        format!("@releaseDomain/{domid}"),
        "@releaseDomain/0".to_owned(),
        "device/suspend".to_owned(),
        "control".to_owned(),
        format!("/local/domain/{domid}/data"),
        format!("{VM}/name"),
        "/".to_owned(),
        "/local/domain/0/backend".to_owned(),
    ];
    let depth = prop_oneof![
        any::<u16>().prop_map(WatchDepth::Levels),
        Just(WatchDepth::Levels(u16::MAX)),
        Just(WatchDepth::Unlimited),
        Just(WatchDepth::Untold),
    ];
    let token = vec(1..=255_u8, 0..8).prop_map(|token| Token::from_octets(token).unwrap());
    (prop::sample::select(paths.to_vec()), token, option::of(depth)).prop_map(
        |(path, token, depth)| WatchState {
            path: path.parse::<PathOrSpecial>().unwrap(),
            token,
            depth,
        },
    )
}

fn pending_nodes(domid: DomId) -> impl Strategy<Value = BTreeMap<Path, PendingNode>> {
    let at = prop_oneof![
        Just(path("/")),
        Just(path("/local/domain/0/backend")),
        below().prop_map(move |below| match below {
            Some(below) => Path::of_domain(domid).join(&below).unwrap(),
            None => Path::of_domain(domid),
        }),
    ];
    let pending = prop_oneof![
        Just(PendingNode::Removed),
        Just(PendingNode::Missed),
        (1..=u16::MAX, any_node(domid)).prop_map(|(access, node)| {
            let access = NodeAccess(access);
            PendingNode::Seen { access, node }
        }),
    ];
    btree_map(at, pending, 0..4)
}
