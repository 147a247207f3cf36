//! States under another domain id.

use proptest::prelude::*;
use xenstore_migration::WatchDepth;
use xenstore_migration::domain_state::{
    ConnectionState, DomIdValues, PathValues, PendingNode, TransactionState, Translation,
    WatchState,
};
use xenstore_migration::{NodeAccess, domain_state::DomainState};
use xenstore_proto::{DomId, Path, Token, TxId};

use crate::any_state::VM;
use crate::{any_state, node, path, state};

const FROM: DomId = DomId::new(3);
const TO: DomId = DomId::new(8);
const NEW_VM: &str = "/vm/e2f4b6d8-10ac-4e35-8f77-5c9d3b2a4e02";

fn translation(from: DomId, to: DomId, vm: (&str, &str)) -> Translation {
    let tree = |above: &str| (path(&format!("{above}/{from}")), path(&format!("{above}/{to}")));
    let (libxl, backend) = (tree("/libxl"), tree("/local/domain/0/backend/vbd"));
    Translation::new(from, to)
        .tree(libxl.0, libxl.1)
        .tree(backend.0, backend.1)
        .tree(path(vm.0), path(vm.1))
}

/// Every domain id and every path that a state names.
fn names(state: &DomainState) -> (Vec<DomId>, Vec<String>) {
    let mut domids = vec![state.domid];
    let mut paths: Vec<_> = state.roots.iter().chain(state.nodes.keys()).map(text).collect();
    domids.extend(state.nodes.values().flat_map(|node| node.perms.entries()).map(|it| it.domid));
    if let Some(connection) = &state.connection {
        domids.extend(connection.target);
        paths.extend(connection.watches.iter().map(|watch| watch.path.to_string()));
        for (path, pending) in connection.transactions.iter().flat_map(|open| &open.nodes) {
            paths.push(text(path));
            if let PendingNode::Seen { node, .. } = pending {
                domids.extend(node.perms.entries().iter().map(|entry| entry.domid));
            }
        }
    }
    (domids, paths)
}

fn text(path: &Path) -> String {
    path.to_string()
}

proptest! {
    #[test]
    fn there_and_back_again_changes_nothing(state in any_state::state(FROM)) {
        let there = translation(FROM, TO, (VM, NEW_VM)).apply(&state).unwrap();
        let back = translation(TO, FROM, (NEW_VM, VM)).apply(&there).unwrap();
        prop_assert_eq!(back, state);
    }

    #[test]
    fn the_old_domain_is_named_nowhere_afterwards(state in any_state::state(FROM)) {
        let there = translation(FROM, TO, (VM, NEW_VM)).apply(&state).unwrap();
        let (domids, paths) = names(&there);
        prop_assert!(!domids.contains(&FROM));
        for old in ["/local/domain/3", "/libxl/3", "/local/domain/0/backend/vbd/3", VM] {
            let below = format!("{old}/");
            prop_assert!(!paths.iter().any(|path| path == old || path.starts_with(&below)));
        }
        prop_assert!(!paths.contains(&"@releaseDomain/3".to_owned()));
        let values = |state: &DomainState| {
            let mut values: Vec<_> = state.nodes.values().map(|node| node.value.clone()).collect();
            values.sort();
            values
        };
        prop_assert_eq!(values(&there), values(&state));
    }

    #[test]
    fn a_domain_that_keeps_its_id_keeps_everything(state in any_state::state(FROM)) {
        prop_assert_eq!(Translation::new(FROM, FROM).apply(&state).unwrap(), state);
    }

    #[test]
    fn domains_can_change_places(state in any_state::state(FROM)) {
        let swap = |from, to| Translation::new(from, to).domid(to, from);
        let other = DomId::new(77);
        let there = swap(FROM, other).apply(&state).unwrap();
        prop_assert_eq!(swap(other, FROM).apply(&there).unwrap(), state);
    }
}

#[test]
fn every_place_that_names_the_domain_is_translated() {
    let mut old = state(3, &["/local/domain/3 - n0,r3", "/local/domain/3/data 3 n3,b5,r3"]);
    let watch = |path: &str| WatchState {
        path: path.parse().unwrap(),
        token: Token::from_octets(*b"/local/domain/3").unwrap(),
        depth: Some(WatchDepth::Levels(1)),
    };
    let seen = |perms| PendingNode::Seen { access: NodeAccess::READ, node: node("v", perms) };
    let nodes = |at: &str, perms| [(path(at), seen(perms))].into();
    old.connection = Some(ConnectionState {
        target: Some(DomId::new(5)),
        watches: ["@releaseDomain/3", "@introduceDomain/5", "@other/3", "data", "/local/domain/3"]
            .map(watch)
            .to_vec(),
        transactions: vec![TransactionState {
            id: TxId(4),
            nodes: nodes("/local/domain/3/data/x", "n3,r5"),
        }],
        ..ConnectionState::default()
    });
    let translation = Translation::new(FROM, TO).domid(DomId::new(5), DomId::new(9));
    let new = translation.apply(&old).unwrap();
    assert_eq!(new.domid, TO);
    assert_eq!(old.other_domids(), [DomId::new(5)].into());
    assert_eq!(new.other_domids(), [DomId::new(9)].into());
    let lines = ["/local/domain/8 - n0,r8", "/local/domain/8/data 3 n8,b9,r8"];
    let expected = state(8, &lines);
    assert_eq!((&new.nodes, &new.roots), (&expected.nodes, &expected.roots));
    let connection = new.connection.unwrap();
    assert_eq!(connection.target, Some(DomId::new(9)));
    assert_eq!(
        connection.watches,
        ["@releaseDomain/8", "@introduceDomain/9", "@other/3", "data", "/local/domain/8"]
            .map(watch)
    );
    assert_eq!(connection.transactions[0].nodes, nodes("/local/domain/8/data/x", "n8,r9"));
}

#[test]
fn the_innermost_tree_counts_and_a_longer_name_is_another_tree() {
    let translation = Translation::new(FROM, TO)
        .tree(path("/a"), path("/x"))
        .tree(path("/a/b"), path("/y"))
        .tree(path("/c"), path("/e/f"));
    for (from, to) in [
        ("/a", "/x"),
        ("/a/c", "/x/c"),
        ("/a/b", "/y"),
        ("/a/b/c", "/y/c"),
        ("/local/domain/33", "/local/domain/33"),
        ("/local/domain/3", "/local/domain/8"),
        ("data", "data"),
        ("/c/z", "/e/f/z"),
    ] {
        assert_eq!(translation.translate_path(&path(from)), Ok(path(to)), "{from}");
    }
}

#[test]
fn values_change_only_where_a_rule_names_them() {
    let lines = [
        "/local/domain/3 - n0",
        "/local/domain/3/domid 3 n0",
        "/local/domain/3/vm /vm/old n0",
        "/local/domain/3/data 3 n3",
        "/local/domain/3/device - n0",
        "/local/domain/3/device/backend-id 05 n0",
        "/local/domain/3/device/other-id 77 n0",
        "/local/domain/3/device/backend /local/domain/3 n0",
        "/local/domain/3/device/note /local/domain/3. n0",
    ];
    let translation = Translation::new(FROM, TO)
        .domid(DomId::new(5), DomId::new(9))
        .tree(path("/vm/old"), path("/vm/new"))
        .values(DomIdValues::at(["domid".parse().unwrap(), "device/*".parse().unwrap()]))
        .values(PathValues::at(["vm".parse().unwrap(), "device/**".parse().unwrap()]));
    let expected = [
        "/local/domain/8 - n0",
        "/local/domain/8/domid 8 n0",
        "/local/domain/8/vm /vm/new n0",
        "/local/domain/8/data 3 n8",
        "/local/domain/8/device - n0",
        "/local/domain/8/device/backend-id 05 n0",
        "/local/domain/8/device/other-id 77 n0",
        "/local/domain/8/device/backend /local/domain/8 n0",
        "/local/domain/8/device/note /local/domain/3. n0",
    ];
    assert_eq!(translation.apply(&state(3, &lines)).unwrap(), state(8, &expected));
}
