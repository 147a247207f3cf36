//! What is read, and what is said about what could not be.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use snapshot::xenstore_state::{
    ConnectionSource, ConnectionSourceError, Consistency, ExtractError, ExtractRequest,
    LimitExceeded, Means, Missing, MissingReason, StatePart, extract, extract_with,
};
use xenstore_migration::domain_state::{ConnectionState, WatchState};
use xenstored::{Embedded, Store};
use xsclient::{Client, DomId, Errno, Features, Options, Request, Token};

use crate::faults::{self, Fate};
use crate::hosts::{
    self, GUEST, Knows, VM, apply, client, deadline, extract_guest, nodes_below, path, remove,
    request, serve, set_perms, write,
};

fn parts(missing: &[Missing]) -> BTreeSet<StatePart> {
    missing.iter().map(|missing| missing.part.clone()).collect()
}

/// Why the tree of the VM is missing.
fn without_vm(xenstore: &Embedded) -> MissingReason {
    let extracted = extract_guest(xenstore);
    assert_eq!(extracted.state.roots, BTreeSet::from([path("/local/domain/7")]));
    let nodes = nodes_below(&xenstore.snapshot(), &["/local/domain/7"]);
    assert_eq!(extracted.state.nodes, nodes);
    let mut missing = extracted.missing.into_iter();
    missing.find(|missing| missing.part == StatePart::VmTree).unwrap().reason
}

const OF_CONNECTION: [StatePart; 4] =
    [StatePart::Watches, StatePart::Transactions, StatePart::PendingData, StatePart::Target];

#[test]
fn every_node_of_the_domains_trees_is_read_and_none_of_another() {
    let xenstore = hosts::xenstore();
    let (server, _directory) = serve(&xenstore);
    let expected = nodes_below(&xenstore.snapshot(), &["/local/domain/7", VM]);
    assert!(expected.len() == 17, "{}", expected.len());
    for mut client in [client(&xenstore), hosts::open(server.path())] {
        for means in [Means::Transport, Means::Fence, Means::Transaction] {
            let extracted = extract(&mut client, &request(means)).unwrap();
            assert_eq!(extracted.state.domid, GUEST);
            assert_eq!(extracted.state.nodes, expected, "{means:?}");
            assert_eq!(extracted.state.roots, BTreeSet::from([path("/local/domain/7"), path(VM)]));
            assert_eq!(extracted.consistency, Consistency::Consistent { attempts: 1 });
        }
    }
}

#[test]
fn trees_that_the_caller_names_are_read_too_and_an_absent_one_is_said_to_be() {
    let xenstore = hosts::xenstore();
    let mut request = request(Means::Transport);
    // One within a tree that is read anyway, too.
    request.roots = ["/libxl/7", "/local/domain/7/data", "/nowhere/at/all"].map(path).to_vec();
    let extracted = extract(&mut client(&xenstore), &request).unwrap();
    let roots = ["/libxl/7", "/local/domain/7", VM];
    assert_eq!(extracted.state.roots, roots.map(path).into());
    assert_eq!(extracted.state.nodes, nodes_below(&xenstore.snapshot(), &roots));
    let absent = StatePart::Tree(path("/nowhere/at/all"));
    let missing = extracted.missing.iter().find(|missing| missing.part == absent).unwrap();
    assert!(matches!(missing.reason, MissingReason::NoSuchNode), "{missing}");
}

#[test]
fn a_whole_store_can_be_a_root() {
    let xenstore = hosts::xenstore();
    let mut request = request(Means::Transport);
    request.roots = vec![path("/")];
    let extracted = extract(&mut client(&xenstore), &request).unwrap();
    assert_eq!(extracted.state.nodes, nodes_below(&xenstore.snapshot(), &["/"]));
}

#[test]
fn what_the_protocol_does_not_tell_is_missing_and_not_left_out_silently() {
    let xenstore = hosts::xenstore();
    let extracted = extract_guest(&xenstore);
    assert_eq!(extracted.state.connection, None);
    assert_eq!(extracted.state.features, None);
    assert!(extracted.state.quotas.is_empty());
    // The domain is not introduced: it has no features and no quotas that could be lost.
    assert_eq!(parts(&extracted.missing), BTreeSet::from(OF_CONNECTION));
    for missing in &extracted.missing {
        assert!(matches!(missing.reason, MissingReason::NoConnection), "{missing}");
    }
    client(&xenstore).introduce(GUEST, 1, 1).unwrap();
    let extracted = extract_guest(&xenstore);
    assert_eq!(extracted.state.features, Some(Features(12)));
    let quotas = extracted.state.quotas.iter().map(|(name, limit)| (name.as_str(), *limit));
    assert!(
        quotas.clone().any(|quota| quota == ("nodes", 1000)),
        "{:?}",
        quotas.collect::<Vec<_>>()
    );
    assert_eq!(parts(&extracted.missing), BTreeSet::from(OF_CONNECTION));
}

struct Fails;

impl ConnectionSource for Fails {
    fn connection(&mut self, _: DomId) -> Result<Option<ConnectionState>, ConnectionSourceError> {
        Err("the server is gone".into())
    }
}

#[test]
fn what_a_connection_source_tells_is_in_the_state_and_no_longer_missing() {
    let xenstore = hosts::xenstore();
    let watch = WatchState {
        path: "device".parse().unwrap(),
        token: Token::from_octets(b"xenbus".to_vec()).unwrap(),
        depth: None,
    };
    let connection = ConnectionState {
        target: Some(DomId::new(8)),
        input: vec![1, 2, 3],
        watches: vec![watch],
        ..ConnectionState::default()
    };
    for means in [Means::Fence, Means::Transaction] {
        let mut client = client(&xenstore);
        let mut source = Knows(Some(connection.clone()));
        let extracted = extract_with(&mut client, &request(means), &mut source).unwrap();
        assert_eq!(extracted.state.connection, Some(connection.clone()));
        let missing = parts(&extracted.missing);
        assert!(OF_CONNECTION.iter().all(|part| !missing.contains(part)), "{missing:?}");
    }

    let extracted =
        extract_with(&mut client(&xenstore), &request(Means::Fence), &mut Knows(None)).unwrap();
    assert_eq!(extracted.state.connection, None);
    for missing in extracted.missing.iter().filter(|m| OF_CONNECTION.contains(&m.part)) {
        assert!(matches!(missing.reason, MissingReason::NoConnection), "{missing}");
    }
    assert!(parts(&extracted.missing).is_superset(&BTreeSet::from(OF_CONNECTION)));
}

#[test]
fn a_source_that_fails_leaves_no_watch_and_no_transaction_behind() {
    let xenstore = hosts::xenstore();
    let mut client = client(&xenstore);
    for means in [Means::Fence, Means::Transaction] {
        let error = extract_with(&mut client, &request(means), &mut Fails).unwrap_err();
        assert!(matches!(error, ExtractError::ConnectionSource { domid: GUEST, .. }), "{error}");
        apply(&xenstore, write("/local/domain/7/name", b"changed"));
        client.features(None).unwrap();
        assert_eq!(client.statistics().events_unknown, 0, "{means:?}");
        assert!(extract(&mut client, &request(means)).is_ok());
    }
}

#[test]
fn a_node_vm_that_names_no_vm_or_is_the_guests_word_leads_nowhere() {
    let xenstore = hosts::xenstore();
    apply(&xenstore, remove("/local/domain/7/vm"));
    assert!(matches!(without_vm(&xenstore), MissingReason::NoSuchNode));

    for value in
        ["", "/", "/vm", "/local/domain/8", "vm/x", "/vm/../etc", "no path at all", "/vm/x"]
    {
        apply(&xenstore, write("/local/domain/7/vm", value.as_bytes()));
        apply(&xenstore, set_perms("/local/domain/7/vm", "n0,r7"));
        match without_vm(&xenstore) {
            MissingReason::NotAVm { value: told } => assert_eq!(told, value.as_bytes()),
            reason => panic!("{value:?}: {reason}"),
        }
    }

    // Another's, which the guest would like to see.
    for perms in ["n7", "n0,b7", "w0"] {
        apply(&xenstore, write("/local/domain/7/vm", VM.as_bytes()));
        apply(&xenstore, set_perms("/local/domain/7/vm", perms));
        assert!(matches!(without_vm(&xenstore), MissingReason::VmIsGuests), "{perms}");
    }

    apply(&xenstore, set_perms("/local/domain/7/vm", "n0,r7"));
    apply(&xenstore, remove(VM));
    assert!(matches!(without_vm(&xenstore), MissingReason::NoSuchNode));
}

#[test]
fn no_domain_is_an_error_that_says_so() {
    let xenstore = hosts::xenstore();
    for means in [Means::Fence, Means::Transaction] {
        let mut request = ExtractRequest::new(DomId::new(9), deadline());
        request.means = means;
        let error = extract(&mut client(&xenstore), &request).unwrap_err();
        assert!(matches!(error, ExtractError::NoSuchDomain { .. }), "{error}");
        assert_eq!(error.to_string(), "no domain 9: Xenstore has no /local/domain/9");
    }
    let reserved = ExtractRequest::new(DomId::SELF, deadline());
    let error = extract(&mut client(&xenstore), &reserved).unwrap_err();
    assert!(matches!(error, ExtractError::ReservedDomId { .. }), "{error}");
    let mut relative = request(Means::Fence);
    relative.roots = vec![path("data")];
    let error = extract(&mut client(&xenstore), &relative).unwrap_err();
    assert!(matches!(error, ExtractError::RelativeRoot { .. }), "{error}");
}

/// As a stub domain would read it: what it may not see is named, with all below it left out.
#[test]
fn nodes_that_cannot_be_read_are_named_and_left_out_with_all_below() {
    let xenstore = hosts::xenstore();
    apply(&xenstore, set_perms("/local/domain/7/data", "n7,r9"));
    apply(&xenstore, write("/local/domain/7/data/app/deep/er", b""));
    for readable in ["", "/vm", "/name", "/domid", "/device", "/device/vbd", "/control"] {
        apply(&xenstore, set_perms(&format!("/local/domain/7{readable}"), "n0,r7,r9"));
    }
    apply(&xenstore, set_perms("/local/domain/7/data/app/deep/er", "n7,r9"));
    let transport = xenstore.transport(DomId::new(9));
    let mut client = Client::over(Box::new(transport), Options::default());
    let extracted = extract(&mut client, &request(Means::Fence)).unwrap();
    let unreadable: BTreeSet<String> = extracted
        .missing
        .iter()
        .filter_map(|missing| match (&missing.part, &missing.reason) {
            (StatePart::Node(path), MissingReason::Unreadable(error)) => {
                assert_eq!(error.errno(), Some(&Errno::EACCES));
                Some(path.to_string())
            }
            _ => None,
        })
        .collect();
    let expected = ["device/vbd/51712", "control/feature-suspend", "data/app"];
    assert_eq!(unreadable, expected.map(|name| format!("/local/domain/7/{name}")).into());
    assert_eq!(extracted.state.nodes.len(), 8);
    assert!(parts(&extracted.missing).contains(&StatePart::VmTree));

    apply(&xenstore, set_perms("/local/domain/7", "n0"));
    let error = extract(&mut client, &request(Means::Fence)).unwrap_err();
    assert!(matches!(error, ExtractError::Refused { domid: GUEST, .. }), "{error}");
}

/// A watch that is left would send events to the caller's client as long as that lives.
#[test]
fn a_fence_is_taken_down_when_reading_fails() {
    let xenstore = hosts::xenstore();
    let standing = Arc::new(AtomicI32::new(0));
    let counted = Arc::clone(&standing);
    let mut client = faults::client(&xenstore, move |request| {
        let more = match request {
            Request::Watch { .. } => 1,
            Request::Unwatch { .. } => -1,
            _ => 0,
        };
        counted.fetch_add(more, Ordering::SeqCst);
        Fate::Pass
    });
    let mut request = request(Means::Fence);
    request.limits.nodes = 5;
    let error = extract(&mut client, &request).unwrap_err();
    assert!(matches!(error, ExtractError::TooLarge { .. }), "{error:?}");
    assert_eq!(standing.load(Ordering::SeqCst), 0, "watches that still stand");
    request.domid = DomId::new(99);
    let error = extract(&mut client, &request).unwrap_err();
    assert!(matches!(error, ExtractError::NoSuchDomain { .. }), "{error:?}");
    assert_eq!(standing.load(Ordering::SeqCst), 0, "watches that still stand");
}

#[test]
fn a_guest_that_writes_without_end_does_not_make_the_reader_hold_without_end() {
    let xenstore = hosts::xenstore();
    let nodes = nodes_below(&xenstore.snapshot(), &["/local/domain/7", VM]);
    let octets: usize =
        nodes.iter().map(|(path, node)| path.as_str().len() + node.value.len()).sum();
    let mut request = request(Means::Transport);
    request.limits.nodes = nodes.len();
    assert!(extract(&mut client(&xenstore), &request).is_ok());
    request.limits.nodes -= 1;
    let error = extract(&mut client(&xenstore), &request).unwrap_err();
    let expected = LimitExceeded::Nodes { max: nodes.len() - 1 };
    assert!(
        matches!(&error, ExtractError::TooLarge { source, .. } if *source == expected),
        "{error:?}"
    );
    request.limits.nodes += 1;
    request.limits.octets = octets;
    for means in [Means::Fence, Means::Transaction] {
        request.means = means;
        let mut client = client(&xenstore);
        let error = extract(&mut client, &request).unwrap_err();
        assert!(
            matches!(
                error,
                ExtractError::TooLarge { source: LimitExceeded::Octets { .. }, domid: GUEST }
            ),
            "{error:?}"
        );
        // Nothing is left of it on the connection.
        apply(&xenstore, write("/local/domain/7/name", b"changed"));
        client.features(None).unwrap();
        assert_eq!(client.statistics().events_unknown, 0);
    }
}

#[test]
fn a_deep_path_is_read_to_its_end() {
    let xenstore = hosts::xenstore();
    let deep = format!("/local/domain/7/data{}", "/x".repeat(500));
    apply(&xenstore, write(&deep, b"here"));
    let extracted = extract_guest(&xenstore);
    assert_eq!(extracted.state.nodes[&path(&deep)].value, b"here");
}

#[test]
fn a_directory_larger_than_a_reply_is_read_in_parts() {
    let mut store = Store::from_text(hosts::HOST).unwrap();
    for n in 0..2000 {
        store.write(&path(&format!("/local/domain/7/data/entry-{n}")), b"x").unwrap();
    }
    let xenstore = Embedded::new(store);
    for means in [Means::Fence, Means::Transaction] {
        let mut client = client(&xenstore);
        let extracted = extract(&mut client, &request(means)).unwrap();
        assert_eq!(
            extracted.state.nodes,
            nodes_below(&xenstore.snapshot(), &["/local/domain/7", VM])
        );
        assert!(client.statistics().directory_pages > 1);
        assert_eq!(extracted.consistency, Consistency::Consistent { attempts: 1 });
    }
}

#[test]
fn a_server_that_does_not_answer_in_time_is_an_error() {
    let xenstore = hosts::xenstore();
    let mut request = request(Means::Transport);
    request.deadline = std::time::Instant::now();
    let error = extract(&mut client(&xenstore), &request).unwrap_err();
    match &error {
        ExtractError::Xenstore { domid: GUEST, source } => assert!(source.is_timeout()),
        error => panic!("{error:?}"),
    }
}
