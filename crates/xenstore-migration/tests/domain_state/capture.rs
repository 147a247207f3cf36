//! Domains as a real host had them.

use std::collections::BTreeMap;
use std::fs;

use xenstore_migration::domain_state::{
    DomainState, LeftReason, NodeState, RestorePolicy, Translation, plan,
};
use xenstore_migration::{ByteOrder, Peer, Preamble, StreamWriter, Version};
use xenstore_proto::{DomId, Features, Path, QuotaName};

use crate::{node, path, reader};

/// What was captured from a real host; `None` where there are no captures.
fn captured(test: &str, name: &str) -> Option<Vec<u8>> {
    let file = format!("{}/../../../shared/captures/{name}", env!("CARGO_MANIFEST_DIR"));
    match fs::read(&file) {
        Ok(octets) => Some(octets),
        Err(error) => {
            println!("skipped: {test}: {file}: {error}");
            None
        }
    }
}

/// A store as `xenstore-ls -f -p` printed it.
fn capture(test: &str, name: &str) -> Option<BTreeMap<Path, NodeState>> {
    let text = String::from_utf8(captured(test, &format!("xen-4.17/{name}/xenstore.txt"))?);
    Some(text.unwrap().lines().map(line).collect())
}

/// `/PATH = "VALUE"   (PERMS)`; there are no escapes in the values of the captures used here.
fn line(line: &str) -> (Path, NodeState) {
    let (at, rest) = line.split_once(" = \"").unwrap();
    let (value, perms) = rest.rsplit_once("\"   (").unwrap();
    assert!(!value.contains('\\'), "{line}");
    (path(at), node(value, perms.strip_suffix(')').unwrap()))
}

fn domain(store: &BTreeMap<Path, NodeState>, domid: u16) -> DomainState {
    let domid = DomId::new(domid);
    let own = Path::of_domain(domid);
    let vm = &store[&own.join("vm").unwrap()].value;
    let roots = [own, Path::from_octets(vm).unwrap(), path(&format!("/libxl/{domid}"))];
    let nodes = store.iter().filter(|(path, _)| roots.iter().any(|root| path.is_at_or_below(root)));
    DomainState {
        domid,
        nodes: nodes.map(|(path, node)| (path.clone(), node.clone())).collect(),
        roots: roots.into(),
        connection: None,
        quotas: BTreeMap::new(),
        features: None,
    }
}

#[test]
fn a_real_domain_comes_back_from_a_stream() {
    let Some(store) = capture("a_real_domain_comes_back_from_a_stream", "14-create-pvq") else {
        return;
    };
    let state = domain(&store, 3);
    assert_eq!(state.nodes.len(), 161);
    for version in [Version::V1, Version::V2] {
        let preamble = Preamble::new(version, ByteOrder::Little);
        let mut writer = StreamWriter::create(Vec::new(), preamble, Peer::Specification).unwrap();
        assert_eq!(state.to_stream(&mut writer).unwrap(), []);
        let stream = writer.finish().unwrap();
        let contents = DomainState::from_stream(&mut reader(&stream)).unwrap();
        assert_eq!(contents.state, state);
    }
}

#[test]
fn a_restored_domain_gets_back_what_its_guest_had_written() {
    let test = "a_restored_domain_gets_back_what_its_guest_had_written";
    let Some(store) = capture(test, "14-create-pvq") else { return };
    // As its toolstack made the domain anew, under another id and with another uuid.
    let fresh = domain(&store, 3);
    let vm = fresh.roots.iter().find(|root| root.as_str().starts_with("/vm/")).unwrap();
    let renumber = Translation::new(DomId::new(3), DomId::new(8))
        .tree(vm.clone(), path("/vm/7d1c2a90"))
        .tree(path("/libxl/3"), path("/libxl/8"));
    let fresh = renumber.apply(&fresh).unwrap();

    // As it was saved, with what a guest writes when it has booted.
    let mut saved = domain(&store, 3);
    let own = Path::of_domain(saved.domid);
    let mut wrote = |below: &str, value: &str| {
        saved.nodes.insert(own.join(below).unwrap(), node(value, "n3"));
    };
    wrote("control/feature-suspend", "1");
    wrote("data/os", "- with \u{e9}");
    wrote("data/report", "");
    wrote("data/report/ip", "10.0.0.7");
    wrote("device/vbd/51712/state", "4");
    wrote("error/console", "text");
    let wanted = renumber.apply(&saved).unwrap();

    let plan = plan(&fresh, &wanted, &RestorePolicy::cooperative()).unwrap();
    let changed: Vec<_> = plan.changes.iter().map(|it| it.path().to_string()).collect();
    assert_eq!(
        changed,
        [
            "/local/domain/8/control/feature-suspend",
            "/local/domain/8/data/os",
            "/local/domain/8/data/report",
            "/local/domain/8/data/report/ip",
        ]
    );
    let left: Vec<_> =
        plan.left.iter().map(|it| (it.path.to_string(), it.nodes, it.reason)).collect();
    assert_eq!(
        left,
        [
            ("/local/domain/8/device/vbd/51712/state".to_owned(), 1, LeftReason::Toolstack),
            ("/local/domain/8/error/console".to_owned(), 1, LeftReason::NotCovered),
        ]
    );
}

#[test]
fn a_domain_taken_out_of_a_stock_dump_is_the_one_that_was_listed() {
    let test = "a_domain_taken_out_of_a_stock_dump_is_the_one_that_was_listed";
    let Some(stream) = captured(test, "migration/c-4.17-host.bin") else { return };
    let Some(store) = capture(test, "14-create-pvq") else { return };
    let domid = DomId::new(3);
    let contents = DomainState::from_dump(&mut reader(&stream), domid, [path("/libxl/3")]).unwrap();
    assert_eq!(contents.stale, []);
    assert_eq!(contents.state, domain(&store, 3));
}

#[test]
fn a_connection_taken_out_of_a_stock_dump_has_its_watches_and_its_target() {
    let test = "a_connection_taken_out_of_a_stock_dump_has_its_watches_and_its_target";
    let Some(stream) = captured(test, "migration/c-xenstored-v2-basic-watch.bin") else { return };
    let of = |domid| {
        let domid = DomId::new(domid);
        DomainState::from_dump(&mut reader(&stream), domid, []).unwrap().state
    };
    let (first, second) = (of(1), of(2));
    let own = path("/local/domain/1");
    let name = path("/local/domain/1/name");
    assert_eq!(first.nodes.keys().collect::<Vec<_>>(), [&own, &name]);
    let connection = first.connection.unwrap();
    let watches = connection.watches.iter().map(|it| format!("{} {}", it.path, it.token));
    assert_eq!(watches.collect::<Vec<_>>(), ["name tk", "@releaseDomain rd"]);
    assert_eq!((connection.target, second.connection.unwrap().target), (None, Some(first.domid)));
    assert_eq!((first.features, second.features), (Some(Features(14)), Some(Features(14))));
    let nodes = QuotaName::from_octets(b"nodes").unwrap();
    assert_eq!((first.quotas.len(), first.quotas[&nodes]), (10, 1000));
}
