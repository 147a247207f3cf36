//! A state carried between stock daemons, and within one.

use std::collections::BTreeMap;

use snapshot::xenstore_state::{Consistency, ExtractRequest, apply as apply_state, extract};
use stock_xenstore::Kind;
use xenstore_migration::domain_state::{DomainState, NodeState, RestorePolicy, Translation};
use xenstored::Store;
use xsclient::{Client, DomId, Nodes, Path, Perm, Perms};

use crate::hosts::{self, GUEST, VM, capture, deadline, knowing_all, open, path};
use crate::stock::{self, CAPTURED, CAPTURED_VM};

/// The whole store as seen through the protocol, node by node with permissions.
fn whole_store(client: &mut Client, domid: DomId) -> DomainState {
    let mut request = ExtractRequest::new(domid, deadline());
    request.roots = vec![path("/")];
    let extracted = extract(client, &request).unwrap();
    assert_eq!(extracted.consistency, Consistency::Consistent { attempts: 1 });
    extracted.state
}

fn comes_back(test: &str, kind: Kind) {
    let Some(daemon) = stock::start(test, kind) else { return };
    daemon.fill(hosts::HOST).unwrap();
    let mut client = open(daemon.socket());
    let before = whole_store(&mut client, GUEST);
    let state = extract(&mut client, &ExtractRequest::new(GUEST, deadline())).unwrap().state;
    client.write(&path("/local/domain/7/data/app"), b"overwritten").unwrap();
    client.write(&path("/local/domain/7/data/new/below"), b"").unwrap();
    client.rm(&path("/local/domain/7/control/feature-suspend")).unwrap();
    client.rm(&path(&format!("{VM}/image"))).unwrap();
    let perms = "n7,r3".parse().unwrap();
    client.set_perms(&path("/local/domain/7/data/app/deep").into(), &perms).unwrap();
    assert!(whole_store(&mut client, GUEST).nodes != before.nodes);

    let everything = knowing_all(&state, hosts::everything());
    let applied = apply_state(&mut client, &state, &everything).unwrap();
    assert!(applied.committed && applied.attempts == 1, "{applied:?}");
    assert_eq!(whole_store(&mut client, GUEST).nodes, before.nodes);
    let again = apply_state(&mut client, &state, &everything).unwrap();
    assert!(!again.committed && again.plan.changes.is_empty(), "{again:?}");
}

#[test]
fn an_earlier_state_comes_back_in_c_xenstored() {
    comes_back("an_earlier_state_comes_back_in_c_xenstored", Kind::C);
}

#[test]
fn an_earlier_state_comes_back_in_oxenstored() {
    comes_back("an_earlier_state_comes_back_in_oxenstored", Kind::OCaml);
}

/// Where the captured domain goes.
const TO: DomId = DomId::new(12);
const TO_VM: &str = "/vm/00000000-0000-4000-8000-00000000000c";

/// What the guest has written since it was created: node, value, permissions.
const GUEST_WROTE: [(&str, &[u8], &str); 11] = [
    ("control/feature-poweroff", b"1", "n3"),
    ("control/feature-reboot", b"1", "n3"),
    ("control/feature-suspend", b"1", "n3"),
    ("data/app", b"\x00\xff\n\x80", "n3"),
    ("data/app/deep/er", b"below", "n3,r0"),
    ("data/for-a-neighbour", b"hello", "n3,b5,r0"),
    ("attr/eth0/ip", b"10.0.0.3", "n3"),
    ("attr/os/name", b"linux", "n3"),
    ("drivers/0/name", b"netfront", "n3"),
    // Of this boot: rings and event channels, which a restored guest sets up again.
    ("device/vbd/51712/ring-ref", b"8", "n3,r0"),
    ("device/vbd/51712/event-channel", b"15", "n3,r0"),
];

/// Nodes that a cooperative restore is about, as paths below the domain's own.
fn is_guest_owned(below: &str) -> bool {
    let mut names = below.splitn(2, '/');
    let (top, rest) = (names.next().unwrap_or_default(), names.next());
    match top {
        "data" | "attr" | "drivers" => true,
        "control" => rest.is_some_and(|rest| rest.starts_with("feature-")),
        _ => false,
    }
}

/// The listing of the captured domain as another: another id, another VM.
fn as_another(listing: &str) -> String {
    let renumbered = |text: &str| {
        let names = text.split('/').map(|name| if name == "3" { "12" } else { name });
        names.collect::<Vec<_>>().join("/").replace(CAPTURED_VM, TO_VM)
    };
    let mut store = Store::new();
    for node in Store::from_text(listing).unwrap().nodes() {
        let at = path(&renumbered(node.path.as_str()));
        let value = String::from_utf8(node.value.to_vec()).unwrap();
        let is_domid = matches!(at.name(), Some("domid" | "frontend-id"));
        let value = if is_domid && value == "3" { "12".to_owned() } else { renumbered(&value) };
        store.write(&at, value.as_bytes()).unwrap();
        store.set_perms(&at, perms_as_another(node.perms)).unwrap();
    }
    store.to_text()
}

fn perms_as_another(perms: &Perms) -> Perms {
    let entry = |entry: &Perm| match entry.domid {
        CAPTURED => Perm::new(entry.access, TO),
        _ => *entry,
    };
    Perms::new(perms.entries().iter().map(entry).collect::<Vec<_>>()).unwrap()
}

fn is_carried(test: &str, from: Kind, to: Kind) {
    let (Some(listing), Some(source), Some(target)) =
        (capture(test, "14-create-pvq"), stock::start(test, from), stock::start(test, to))
    else {
        return;
    };
    source.fill(&listing).unwrap();
    target.fill(&as_another(&listing)).unwrap();
    let (mut source, mut target) = (open(source.socket()), open(target.socket()));
    source.introduce(CAPTURED, 1, 1).unwrap();
    target.introduce(TO, 1, 1).unwrap();
    for (below, value, perms) in GUEST_WROTE {
        let at = path(&format!("/local/domain/3/{below}"));
        source.write(&at, value).unwrap();
        source.set_perms(&at.into(), &perms.parse().unwrap()).unwrap();
    }

    let extracted = extract(&mut source, &ExtractRequest::new(CAPTURED, deadline())).unwrap();
    assert_eq!(extracted.consistency, Consistency::Consistent { attempts: 1 });
    let translation = Translation::new(CAPTURED, TO).tree(path(CAPTURED_VM), path(TO_VM));
    let wanted = translation.apply(&extracted.state).unwrap();
    let before = whole_store(&mut target, TO).nodes;
    let cooperative = knowing_all(&wanted, RestorePolicy::cooperative());
    let applied = apply_state(&mut target, &wanted, &cooperative).unwrap();
    assert!(applied.committed, "{applied:?}");
    let after = whole_store(&mut target, TO).nodes;

    // What is the guest's is as it was, but for the id.
    let domain = path("/local/domain/12");
    let mut guest_owned = 0;
    for (at, node) in &extracted.state.nodes {
        let Some(below) = at.below(&path("/local/domain/3")).filter(|below| is_guest_owned(below))
        else {
            continue;
        };
        let carried = &after[&domain.join(below).unwrap()];
        assert_eq!(carried.value, node.value, "{below}");
        assert_eq!(carried.perms, perms_as_another(&node.perms), "{below}");
        guest_owned += 1;
    }
    assert!(guest_owned >= 16, "{guest_owned}");

    // What is the toolstack's is untouched, in all of the store.
    let is_toolstacks = |at: &&Path| !at.below(&domain).is_some_and(is_guest_owned);
    let of_toolstack = |nodes: &BTreeMap<Path, NodeState>| -> BTreeMap<Path, NodeState> {
        let kept = nodes.iter().filter(|(at, _)| is_toolstacks(at));
        kept.map(|(at, node)| (at.clone(), node.clone())).collect()
    };
    assert_eq!(of_toolstack(&after), of_toolstack(&before));
    assert!(of_toolstack(&after).len() > 150);
    assert_eq!(after.len() - of_toolstack(&after).len(), guest_owned);

    let again = apply_state(&mut target, &wanted, &cooperative).unwrap();
    assert!(again.plan.changes.is_empty() && !again.committed, "{again:?}");
    assert_eq!(whole_store(&mut target, TO).nodes, after);
}

#[test]
fn a_guests_own_part_goes_from_c_xenstored_to_oxenstored_under_a_new_id() {
    const TEST: &str = "a_guests_own_part_goes_from_c_xenstored_to_oxenstored_under_a_new_id";
    is_carried(TEST, Kind::C, Kind::OCaml);
}

#[test]
fn a_guests_own_part_goes_from_oxenstored_to_c_xenstored_under_a_new_id() {
    const TEST: &str = "a_guests_own_part_goes_from_oxenstored_to_c_xenstored_under_a_new_id";
    is_carried(TEST, Kind::OCaml, Kind::C);
}

#[test]
fn a_guests_own_part_goes_from_c_xenstored_to_another_under_a_new_id() {
    const TEST: &str = "a_guests_own_part_goes_from_c_xenstored_to_another_under_a_new_id";
    is_carried(TEST, Kind::C, Kind::C);
}
