//! Restoring a state: all of it or nothing, and nothing twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use snapshot::xenstore_state::{
    Applied, ApplyError, ApplyRequest, LimitExceeded, Means, StatePart, apply as apply_state,
    extract, extract_with,
};
use stock_xenstore::Kind;
use xenstore_migration::domain_state::{
    ConnectionState, DomainState, NodeState, RestorePolicy, TransactionState, WatchState,
};
use xenstored::{Embedded, Store};
use xsclient::{
    Client, DomId, Errno, Features, MessageType, Nodes, Options, Path, QuotaName, Reply, Request,
    Token, TxId,
};

use crate::faults::{self, Fate};
use crate::hosts::{
    self, GUEST, Knows, VM, apply, client, deadline, extract_guest, nodes_below, path, remove,
    request, serve, set_perms, write,
};
use crate::stock;

/// Everything becomes as it was, but for what only a toolstack makes.
fn everything() -> ApplyRequest {
    let mut request = ApplyRequest::new(hosts::everything(), deadline());
    request.known.insert(DomId::new(5));
    request
}

#[test]
fn nobody_gets_rights_by_a_number_that_the_caller_does_not_know() {
    let (state, xenstore) = earlier_and_later();
    let before = xenstore.snapshot().to_text();
    let mut request = everything();
    request.known.clear();
    let applied = apply_state(&mut client(&xenstore), &state, &request).unwrap();
    assert_eq!(applied.strangers, [DomId::new(5)].into());
    assert!(!applied.committed && !applied.plan.changes.is_empty());
    assert_eq!(xenstore.snapshot().to_text(), before);
    let applied = apply_state(&mut client(&xenstore), &state, &everything()).unwrap();
    assert!(applied.committed && applied.strangers.is_empty());
    let again = apply_state(&mut client(&xenstore), &state, &request).unwrap();
    assert_eq!((again.strangers.len(), again.plan.changes.len()), (0, 0));
}

/// The state of the guest, and the store after the guest went on.
fn earlier_and_later() -> (DomainState, Embedded) {
    let xenstore = hosts::xenstore();
    let state = extract_guest(&xenstore).state;
    for change in later() {
        apply(&xenstore, change);
    }
    (state, xenstore)
}

fn later() -> [Request; 6] {
    [
        write("/local/domain/7/data/app", b"overwritten"),
        write("/local/domain/7/data/new/below", b""),
        remove("/local/domain/7/control/feature-suspend"),
        set_perms("/local/domain/7/data/app/deep", "n7"),
        write(&format!("{VM}/image/cmdline"), b"quiet"),
        remove(&format!("{VM}/name")),
    ]
}

fn is_change(request: &Request) -> bool {
    matches!(
        request,
        Request::Write { .. } | Request::SetPerms { .. } | Request::Rm(_) | Request::Mkdir(_)
    )
}

/// Counts the requests of clients that write or commit.
fn count_changes(xenstore: &Embedded) -> Arc<AtomicU32> {
    let count = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&count);
    xenstore.set_interceptor(Some(Box::new(move |_, _, _, request| {
        if is_change(request) || *request == (Request::TransactionEnd { commit: true }) {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    })));
    count
}

#[test]
fn an_earlier_state_comes_back_node_for_node_and_a_second_time_nothing_is_written() {
    let (state, xenstore) = earlier_and_later();
    let (server, _directory) = serve(&xenstore);
    for mut client in [client(&xenstore), hosts::open(server.path())] {
        let applied = apply_state(&mut client, &state, &everything()).unwrap();
        assert!(applied.committed && applied.attempts == 1, "{applied:?}");
        assert_eq!(extract_guest(&xenstore).state, state);
        let original = Store::from_text(hosts::HOST).unwrap();
        assert_eq!(nodes_below(&xenstore.snapshot(), &["/"]), nodes_below(&original, &["/"]));

        let changes = count_changes(&xenstore);
        let again = apply_state(&mut client, &state, &everything()).unwrap();
        assert!(again.plan.changes.is_empty() && !again.committed, "{again:?}");
        assert_eq!(changes.load(Ordering::Relaxed), 0);
        xenstore.set_interceptor(None);
        later().into_iter().for_each(|change| apply(&xenstore, change));
    }
}

#[test]
fn an_exact_restore_is_about_all_that_is_the_guests_and_nothing_else() {
    let (state, xenstore) = earlier_and_later();
    apply(&xenstore, write("/local/domain/7/name", b"renamed"));
    apply(&xenstore, write("/local/domain/7/device/vbd/51712/state", b"6"));
    let before = extract_guest(&xenstore).state;
    let request = hosts::knowing_all(&state, RestorePolicy::exact());
    assert!(apply_state(&mut client(&xenstore), &state, &request).unwrap().committed);
    let after = extract_guest(&xenstore).state;
    let is_guests = |at: &Path| {
        let of = |top| at.is_at_or_below(&path(top));
        of("/local/domain/7/data") || of("/local/domain/7/control/feature-suspend")
    };
    for at in state.nodes.keys().chain(after.nodes.keys()) {
        let expected = if is_guests(at) { &state } else { &before };
        assert_eq!(after.nodes.get(at), expected.nodes.get(at), "{at}");
    }
    assert!(!after.nodes.contains_key(&path("/local/domain/7/data/new")));
}

#[test]
fn a_dry_run_tells_the_plan_and_writes_nothing() {
    let (state, xenstore) = earlier_and_later();
    let before = xenstore.snapshot().to_text();
    let changes = count_changes(&xenstore);
    let mut request = everything();
    request.dry_run = true;
    let told = apply_state(&mut client(&xenstore), &state, &request).unwrap();
    assert!(!told.committed && !told.plan.changes.is_empty());
    assert_eq!(changes.load(Ordering::Relaxed), 0);
    assert_eq!(xenstore.snapshot().to_text(), before);
    request.dry_run = false;
    let applied = apply_state(&mut client(&xenstore), &state, &request).unwrap();
    assert_eq!(told.plan.changes, applied.plan.changes);
}

#[test]
fn nothing_is_seen_by_others_until_all_of_it_is() {
    let (state, xenstore) = earlier_and_later();
    let before = nodes_below(&xenstore.snapshot(), &["/"]);
    xenstore.set_interceptor(Some(Box::new(move |server, _, _, _| {
        assert_eq!(nodes_below(server.store(), &["/"]), before);
    })));
    assert!(apply_state(&mut client(&xenstore), &state, &everything()).unwrap().committed);
}

#[test]
fn a_domain_that_was_not_created_is_an_error_that_says_so() {
    let (mut state, xenstore) = earlier_and_later();
    let before = xenstore.snapshot().to_text();
    state.domid = DomId::new(9);
    let error = apply_state(&mut client(&xenstore), &state, &everything()).unwrap_err();
    assert!(matches!(error, ApplyError::NoSuchDomain { .. }), "{error}");
    assert_eq!(error.to_string(), "no domain 9 to restore into: Xenstore has no /local/domain/9");
    assert_eq!(xenstore.snapshot().to_text(), before);

    state.domid = DomId::ANY;
    let error = apply_state(&mut client(&xenstore), &state, &everything()).unwrap_err();
    assert!(matches!(error, ApplyError::ReservedDomId { .. }), "{error}");
    state.domid = GUEST;
    state.roots.insert(path("relative"));
    let error = apply_state(&mut client(&xenstore), &state, &everything()).unwrap_err();
    assert!(matches!(error, ApplyError::RelativePath { .. }), "{error}");
}

/// Changes a node of the guest's before each of the first `times` commits.
fn disturb(xenstore: &Embedded, times: u32) {
    let mut commits = 0;
    xenstore.set_interceptor(Some(Box::new(move |server, _, _, request| {
        if *request == (Request::TransactionEnd { commit: true }) && commits < times {
            commits += 1;
            server.apply(write("/local/domain/7/data/app", format!("{commits}").as_bytes()));
        }
    })));
}

#[test]
fn a_conflict_is_tried_again_on_what_is_there_then() {
    let (state, xenstore) = earlier_and_later();
    disturb(&xenstore, 3);
    let applied = apply_state(&mut client(&xenstore), &state, &everything()).unwrap();
    assert_eq!((applied.attempts, applied.committed), (4, true));
    assert_eq!(extract_guest(&xenstore).state, state);
}

#[test]
fn endless_conflicts_end_and_leave_the_store_alone() {
    let (state, xenstore) = earlier_and_later();
    disturb(&xenstore, u32::MAX);
    let mut request = everything();
    request.attempts = 5;
    let error = apply_state(&mut client(&xenstore), &state, &request).unwrap_err();
    assert!(matches!(error, ApplyError::Conflict { domid: GUEST, attempts: 5 }), "{error}");
    let (_, mut expected) = earlier_and_later();
    apply(&expected, write("/local/domain/7/data/app", b"5"));
    expected = Embedded::new(expected.snapshot());
    assert_eq!(xenstore.snapshot().to_text(), expected.snapshot().to_text());
}

#[test]
fn a_refused_change_leaves_the_store_as_it_was_and_is_named() {
    let (state, reference) = earlier_and_later();
    let plan = {
        let mut request = everything();
        request.dry_run = true;
        apply_state(&mut client(&reference), &state, &request).unwrap().plan
    };
    assert!(plan.changes.len() >= 5, "{plan:?}");
    // Each of the requests in turn.
    let mut refused = 0;
    for nth in 0.. {
        let (_, xenstore) = earlier_and_later();
        let before = xenstore.snapshot().to_text();
        let mut changes = 0;
        let mut client = faults::client(&xenstore, move |request| {
            changes += usize::from(is_change(request));
            if is_change(request) && changes == nth + 1 {
                return Fate::Answer(Reply::Error(Errno::ENOSPC));
            }
            Fate::Pass
        });
        match apply_state(&mut client, &state, &everything()) {
            Err(ApplyError::Refused { domid, operation, path, source }) => {
                assert_eq!((domid, source.errno()), (GUEST, Some(&Errno::ENOSPC)));
                assert_eq!(source.subject(), Some(path.as_str()));
                assert_eq!(source.operation(), operation);
                let made = [MessageType::WRITE, MessageType::SET_PERMS, MessageType::RM];
                assert!(made.contains(&operation), "{operation}");
                // Wait for the abort, which nobody waited for.
                client.read(&path.parent().unwrap()).unwrap();
                assert_eq!(xenstore.snapshot().to_text(), before);
                refused += 1;
            }
            Ok(applied) => {
                assert!(applied.committed);
                break;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    assert!(refused > plan.changes.len(), "{refused} requests for {} changes", plan.changes.len());
}

/// As a server does that counts the nodes of a domain only then.
#[test]
fn a_refused_commit_leaves_the_store_as_it_was() {
    let (state, xenstore) = earlier_and_later();
    let before = xenstore.snapshot().to_text();
    let mut client = faults::client(&xenstore, |request| match request {
        Request::TransactionEnd { commit: true } => Fate::Answer(Reply::Error(Errno::ENOSPC)),
        _ => Fate::Pass,
    });
    match apply_state(&mut client, &state, &everything()).unwrap_err() {
        ApplyError::Xenstore { domid: GUEST, source } => {
            assert_eq!(source.to_string(), "TRANSACTION_END: refused with ENOSPC");
        }
        error => panic!("{error:?}"),
    }
    assert_eq!(xenstore.snapshot().to_text(), before);
}

#[test]
fn what_the_caller_may_not_write_is_refused_whole() {
    let (state, xenstore) = earlier_and_later();
    let before = xenstore.snapshot().to_text();
    // The guest itself: it may write its data, but not in the tree of its VM.
    let transport = xenstore.transport(GUEST);
    let mut guest = Client::over(Box::new(transport), Options::default());
    let error = apply_state(&mut guest, &state, &everything()).unwrap_err();
    match error {
        ApplyError::Refused { path, source, .. } => {
            assert_eq!(source.errno(), Some(&Errno::EACCES), "{path}");
        }
        error => panic!("{error:?}"),
    }
    assert_eq!(xenstore.snapshot().to_text(), before);
}

#[test]
fn a_node_that_cannot_be_seen_is_not_overwritten() {
    let (state, xenstore) = earlier_and_later();
    apply(&xenstore, set_perms("/local/domain/7/data/app", "n0"));
    let before = xenstore.snapshot().to_text();
    let transport = xenstore.transport(GUEST);
    let mut guest = Client::over(Box::new(transport), Options::default());
    match apply_state(&mut guest, &state, &everything()).unwrap_err() {
        ApplyError::Unreadable { domid: GUEST, path: unread, source } => {
            assert_eq!(unread, path("/local/domain/7/data/app"));
            assert_eq!(source.errno(), Some(&Errno::EACCES));
        }
        error => panic!("{error:?}"),
    }
    assert_eq!(xenstore.snapshot().to_text(), before);
}

#[test]
fn a_value_that_fits_no_message_is_an_error_before_anything_is_sent() {
    let (mut state, xenstore) = earlier_and_later();
    let at = path("/local/domain/7/data/long");
    let perms = "n7".parse().unwrap();
    let room = 4096 - at.as_str().len() - 1;
    state.nodes.insert(at.clone(), NodeState { value: vec![b'x'; room + 1], perms });
    let changes = count_changes(&xenstore);
    match apply_state(&mut client(&xenstore), &state, &everything()).unwrap_err() {
        ApplyError::TooLong { domid: GUEST, operation, path, source: _ } => {
            assert_eq!((operation, path), (MessageType::WRITE, at.clone()));
        }
        error => panic!("{error:?}"),
    }
    assert_eq!(changes.load(Ordering::Relaxed), 0);

    state.nodes.get_mut(&at).unwrap().value.pop();
    assert!(apply_state(&mut client(&xenstore), &state, &everything()).unwrap().committed);
    assert_eq!(xenstore.snapshot().read(&at).unwrap().len(), room);
}

#[test]
fn oxenstored_refuses_a_value_that_others_take_and_nothing_is_half_done() {
    const TEST: &str = "oxenstored_refuses_a_value_that_others_take_and_nothing_is_half_done";
    let Some(daemon) = stock::start(TEST, Kind::OCaml) else { return };
    daemon.fill(hosts::HOST).unwrap();
    let mut client = hosts::open(daemon.socket());
    let mut state = extract(&mut client, &request(Means::Transport)).unwrap().state;
    let before = state.clone();
    let at = path("/local/domain/7/data/long");
    let long = NodeState { value: vec![b'x'; 2049], perms: "n7".parse().unwrap() };
    state.nodes.insert(path("/local/domain/7/data/a-short-one"), long.clone());
    state.nodes.get_mut(&path("/local/domain/7/data/a-short-one")).unwrap().value.truncate(9);
    state.nodes.insert(at.clone(), long);
    match apply_state(&mut client, &state, &everything()).unwrap_err() {
        ApplyError::Refused { operation: MessageType::WRITE, path, source, .. } => {
            assert_eq!((path, source.errno()), (at, Some(&Errno::E2BIG)));
        }
        error => panic!("{error:?}"),
    }
    assert_eq!(extract(&mut client, &request(Means::Transport)).unwrap().state, before);
}

#[test]
fn a_server_that_goes_while_it_commits_leaves_the_outcome_unknown_and_a_second_apply_finds_out() {
    let (state, xenstore) = earlier_and_later();
    let mut client = faults::client(&xenstore, |request| match request {
        Request::TransactionEnd { commit: true } => Fate::HangUp,
        _ => Fate::Pass,
    });
    let error = apply_state(&mut client, &state, &everything()).unwrap_err();
    assert!(matches!(error, ApplyError::OutcomeUnknown { domid: GUEST, .. }), "{error:?}");
    let again = apply_state(&mut hosts::client(&xenstore), &state, &everything()).unwrap();
    assert!(again.plan.changes.is_empty(), "it had been committed");

    let (state, xenstore) = earlier_and_later();
    let mut client = faults::client(&xenstore, |request| match request {
        Request::Write { .. } => Fate::HangUp,
        _ => Fate::Pass,
    });
    let error = apply_state(&mut client, &state, &everything()).unwrap_err();
    assert!(matches!(error, ApplyError::Xenstore { domid: GUEST, .. }), "{error:?}");
}

#[test]
fn limits_and_deadlines_hold() {
    let (state, xenstore) = earlier_and_later();
    let mut request = everything();
    request.limits.nodes = 10;
    let error = apply_state(&mut client(&xenstore), &state, &request).unwrap_err();
    assert!(
        matches!(
            error,
            ApplyError::TooLarge { domid: GUEST, source: LimitExceeded::Nodes { max: 10 } }
        ),
        "{error:?}"
    );
    let mut request = everything();
    request.deadline = std::time::Instant::now();
    let error = apply_state(&mut client(&xenstore), &state, &request).unwrap_err();
    assert!(
        matches!(&error, ApplyError::Xenstore { source, .. } if source.is_timeout()),
        "{error:?}"
    );
}

#[test]
fn the_round_trips_do_not_grow_with_the_nodes() {
    let trips = |nodes: usize| {
        let xenstore = hosts::xenstore();
        let mut state = extract_guest(&xenstore).state;
        for n in 0..nodes {
            let node = NodeState { value: b"x".to_vec(), perms: "n7".parse().unwrap() };
            state.nodes.insert(path(&format!("/local/domain/7/data/{n}")), node);
        }
        let Applied { round_trips, committed: true, plan, .. } =
            apply_state(&mut client(&xenstore), &state, &everything()).unwrap()
        else {
            panic!("{nodes} nodes were not written")
        };
        assert_eq!(plan.changes.len(), nodes);
        round_trips
    };
    // Start, read, change, commit.
    assert_eq!([10, 20, 500].map(trips), [4; 3]);
}

#[test]
fn what_a_state_holds_and_an_apply_does_not_restore_is_said() {
    let xenstore = hosts::xenstore();
    let nothing =
        apply_state(&mut client(&xenstore), &extract_guest(&xenstore).state, &everything());
    assert!(nothing.unwrap().unapplied.is_empty());

    let watch = WatchState {
        path: "device".parse().unwrap(),
        token: Token::from_octets(b"xenbus".to_vec()).unwrap(),
        depth: None,
    };
    let transaction = TransactionState { id: TxId(5), nodes: Default::default() };
    let connection = ConnectionState {
        target: Some(DomId::new(8)),
        input: vec![1],
        watches: vec![watch],
        transactions: vec![transaction],
        ..ConnectionState::default()
    };
    let mut source = Knows(Some(connection));
    let extracted =
        extract_with(&mut client(&xenstore), &request(Means::Fence), &mut source).unwrap();
    let mut state = extracted.state;
    state.features = Some(Features(12));
    let nodes = QuotaName::from_octets(b"nodes").unwrap();
    state.quotas.insert(nodes.clone(), 2000);
    let applied = apply_state(&mut client(&xenstore), &state, &everything()).unwrap();
    assert!(!applied.committed);
    let parts: Vec<_> = applied.unapplied.into_iter().map(|unapplied| unapplied.part).collect();
    assert_eq!(
        parts,
        [
            StatePart::Watches,
            StatePart::Transactions,
            StatePart::PendingData,
            StatePart::Target,
            StatePart::Features,
            StatePart::Quota(nodes),
        ]
    );
}
