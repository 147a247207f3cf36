//! What a domain has on its connection, carried by servers that tell it, and missed where they do not.

use std::sync::{Arc, Mutex};

use snapshot::xenstore_state::{
    Applied, Means, MissingReason, StatePart, UnappliedReason, apply as apply_state, extract,
};
use stock_xenstore::Kind;
use xenstore_migration::domain_state::{Attachment, DomainState, RestorePolicy, Translation};
use xenstored::{Embedded, Quota, Store};
use xsclient::{Client, DomId, Errno, Nodes, Options, Path, Reply, Request, TxId};

use crate::faults::{self, Fate};
use crate::hosts::{self, GUEST, VM, client, knowing_all, open, path, request, write};
use crate::stock;

/// Where the guest goes.
const TO: DomId = DomId::new(12);
const TO_VM: &str = "/vm/00000000-0000-4000-8000-00000000000c";

/// The guest's own end.
fn guest(xenstore: &Embedded, domid: DomId) -> Client {
    Client::over(Box::new(xenstore.transport(domid)), Options::default())
}

/// A host with the same guest under another number.
fn other_host() -> Embedded {
    let text = hosts::HOST.replace("/domain/7", "/domain/12").replace("n7", "n12");
    let text = text.replace("r7", "r12").replace(VM, TO_VM);
    Embedded::new(Store::from_text(&text).unwrap())
}

fn as_other(state: &DomainState) -> DomainState {
    let translation = Translation::new(GUEST, TO).tree(path(VM), path(TO_VM));
    translation.apply(state).unwrap()
}

fn restore(xenstore: &Embedded, wanted: &DomainState) -> Applied {
    let exact = knowing_all(wanted, RestorePolicy::exact());
    apply_state(&mut client(xenstore), wanted, &exact).unwrap()
}

/// A guest that watches, and has read and written in a transaction that is open.
struct Busy {
    xenstore: Embedded,
    client: Client,
    tx: TxId,
    watch: xsclient::Watch,
}

fn busy() -> Busy {
    let xenstore = hosts::xenstore();
    let mut client = guest(&xenstore, GUEST);
    let watch = client.watch(path("data"), Some(2)).unwrap();
    let mut transaction = client.transaction().unwrap();
    assert_eq!(transaction.read(&path("data/app")).unwrap(), b"\x00\xff\x80");
    transaction.write(&path("data/count"), b"1").unwrap();
    let tx = transaction.id();
    // It stays open.
    transaction.detach();
    Busy { xenstore, client, tx, watch }
}

/// What the busy guest hears, as somebody who reads its ring.
fn heard(xenstore: &Embedded, connection: xenstored::ConnectionId) -> Vec<String> {
    xenstore.with(|server| {
        let mut heard = Vec::new();
        while let Some(message) = server.poll_output(connection) {
            heard.push(message[16..].escape_ascii().to_string());
        }
        heard
    })
}

#[test]
fn watches_hear_and_transactions_commit_after_a_restore_elsewhere() {
    for means in [Means::Fence, Means::Transaction] {
        let Busy { xenstore, client: _guest, tx, .. } = busy();
        let extracted = extract(&mut client(&xenstore), &request(means)).unwrap();
        let missing = extracted.missing.iter().filter(|missing| {
            matches!(missing.part, StatePart::Watches | StatePart::Transactions | StatePart::Target)
        });
        assert_eq!(missing.count(), 0, "{:?}", extracted.missing);
        let connection = extracted.state.connection.as_ref().unwrap();
        assert_eq!((connection.watches.len(), connection.transactions.len()), (1, 1));

        let target = other_host();
        let moved = target.with(|server| server.connect(TO));
        let mut wanted = as_other(&extracted.state);
        // Read by the guest, as is usual before it is suspended.
        wanted.connection.as_mut().unwrap().output.clear();
        let applied = restore(&target, &wanted);
        assert!(applied.unapplied.is_empty(), "{:?}", applied.unapplied);
        assert_eq!(applied.given.len(), 2);
        assert_eq!(heard(&target, moved), Vec::<String>::new());

        hosts::apply(&target, write("/local/domain/12/data/app", b"\x00\xff\x80"));
        assert_eq!(heard(&target, moved).len(), 1);
        let ended =
            target.with(|server| server.ask(moved, tx, Request::TransactionEnd { commit: true }));
        assert_eq!(ended, Reply::Ok);
        assert_eq!(
            target.snapshot().read(&path("/local/domain/12/data/count")),
            Some(&b"1"[..]),
            "what it did before the save is done after the restore"
        );
        let again = restore(&target, &DomainState { connection: None, ..wanted });
        assert!(again.given.is_empty());
    }
}

#[test]
fn a_transaction_whose_reads_changed_meanwhile_is_told_to_try_again() {
    let Busy { xenstore, client: _guest, tx, .. } = busy();
    let extracted = extract(&mut client(&xenstore), &request(Means::Fence)).unwrap();
    let mut wanted = as_other(&extracted.state);
    wanted.connection.as_mut().unwrap().output.clear();
    let target = other_host();
    let moved = target.with(|server| server.connect(TO));
    hosts::apply(&target, write("/local/domain/12/data/app", b"other"));
    // The policy leaves what is there.
    let policy = RestorePolicy::nothing().with_attachments(true);
    let applied =
        apply_state(&mut client(&target), &wanted, &knowing_all(&wanted, policy)).unwrap();
    assert_eq!(applied.given.len(), 2, "{applied:?}");
    let ended =
        target.with(|server| server.ask(moved, tx, Request::TransactionEnd { commit: true }));
    assert_eq!(ended, Reply::Error(Errno::EAGAIN));
}

#[test]
fn a_second_apply_gives_nothing_twice_and_a_dry_run_gives_nothing() {
    let Busy { xenstore, client: _guest, .. } = busy();
    let mut wanted =
        as_other(&extract(&mut client(&xenstore), &request(Means::Fence)).unwrap().state);
    wanted.connection.as_mut().unwrap().output.clear();
    let target = other_host();
    let _moved = target.with(|server| server.connect(TO));
    let mut dry = knowing_all(&wanted, RestorePolicy::exact());
    dry.dry_run = true;
    let planned = apply_state(&mut client(&target), &wanted, &dry).unwrap();
    assert_eq!((planned.given.len(), planned.unapplied.len()), (2, 0));
    assert_eq!(target.with(|server| server.usage_of(TO).watches), 0);
    assert_eq!(restore(&target, &wanted).given, planned.given);
    let again = restore(&target, &wanted);
    assert!(again.given.is_empty() && again.unapplied.is_empty(), "{again:?}");
    let usage = target.with(|server| server.usage_of(TO));
    assert_eq!((usage.watches, usage.transactions), (1, 1));
}

#[test]
fn what_the_server_refuses_is_said_with_the_nodes_in_place() {
    let Busy { xenstore, client: _guest, .. } = busy();
    let mut wanted =
        as_other(&extract(&mut client(&xenstore), &request(Means::Fence)).unwrap().state);
    wanted.connection.as_mut().unwrap().output.clear();
    let target = other_host();
    let nobody = restore(&target, &wanted);
    let reasons = |applied: &Applied| -> Vec<_> {
        applied.unapplied.iter().map(ToString::to_string).collect()
    };
    let no_connection = [
        "watches: the domain has no connection",
        "open transactions: the domain has no connection",
    ];
    assert_eq!(reasons(&nobody)[..2], no_connection);
    target.with(|server| {
        server.set_quota(Some(TO), Quota::Transactions, 1);
        let moved = server.connect(TO);
        assert!(matches!(
            server.ask(moved, TxId::NONE, Request::TransactionStart),
            Reply::Transaction(_)
        ));
    });
    hosts::apply(&target, write("/local/domain/12/data/app", b"other"));
    let mut other_number = wanted.clone();
    other_number.connection.as_mut().unwrap().transactions[0].id = TxId(99);
    let refused = restore(&target, &other_number);
    let UnappliedReason::Refused(error) = &refused.unapplied[0].reason else {
        panic!("{refused:?}")
    };
    assert_eq!(error.errno(), Some(&Errno::ENOSPC));
    assert!(refused.committed && refused.given.is_empty());
    assert!(refused.plan.attachments.iter().any(|of| matches!(of, Attachment::Watch(_))));
    assert_eq!(target.with(|server| server.usage_of(TO).watches), 0, "all or nothing");
}

#[test]
fn a_transaction_does_not_give_rights_to_a_stranger() {
    let xenstore = hosts::xenstore();
    let mut busy = guest(&xenstore, GUEST);
    let mut transaction = busy.transaction().unwrap();
    transaction.set_perms(&path("data/app").into(), &"n7,r8".parse().unwrap()).unwrap();
    transaction.detach();
    let mut wanted =
        as_other(&extract(&mut client(&xenstore), &request(Means::Fence)).unwrap().state);
    wanted.connection.as_mut().unwrap().output.clear();
    let target = other_host();
    let _moved = target.with(|server| server.connect(TO));
    let policy = RestorePolicy::nothing().with_attachments(true);
    let mut request = knowing_all(&wanted, policy);
    request.known.clear();
    let applied = apply_state(&mut client(&target), &wanted, &request).unwrap();
    assert_eq!(applied.strangers, [DomId::new(8)].into());
    assert!(applied.given.is_empty());
    assert_eq!(target.with(|server| server.usage_of(TO).transactions), 0);
}

/// Watches enough for several pages; one more comes between the first and the second.
#[test]
fn a_state_of_several_pages_is_of_the_moment_of_the_first() {
    let Busy { xenstore, client: mut guest, .. } = busy();
    let watches: Vec<_> = (0..90)
        .map(|number| {
            let at: Path = format!("data/{}/{number}", "long".repeat(15)).parse().unwrap();
            guest.watch(at, None).unwrap()
        })
        .collect();
    let guest = Arc::new(Mutex::new(guest));
    let (mut pages, held) = (0, Arc::clone(&guest));
    let mut counting = faults::client(&xenstore, move |request| {
        if let Request::Control(words) = request
            && words[0] == b"domain-state"
        {
            pages += 1;
            if pages == 2 {
                let watched = held.lock().unwrap().watch(path("data/another"), None);
                watched.unwrap();
            }
        }
        Fate::Pass
    });
    let extracted = extract(&mut counting, &request(Means::Fence)).unwrap();
    let connection = extracted.state.connection.unwrap();
    // The guest had one before.
    assert_eq!(connection.watches.len(), watches.len() + 1);
}

#[test]
fn a_server_that_never_ends_or_lies_about_its_pages_is_found_out() {
    let answer = |text: &'static str| {
        let xenstore = hosts::xenstore();
        let mut client = faults::client(&xenstore, move |request| match request {
            Request::Control(_) => Fate::Answer(Reply::Text(text.into())),
            _ => Fate::Pass,
        });
        extract(&mut client, &request(Means::Fence))
    };
    // As oxenstored.
    let ignored = answer("OK").unwrap();
    assert!(ignored.missing.iter().any(|missing| {
        missing.part == StatePart::Watches && matches!(missing.reason, MissingReason::NotInProtocol)
    }));
    for lie in ["", "1 4 00", "1 99999999 00", "1 1 00", "1 0 ", "1 2 0000"] {
        match answer(lie) {
            Ok(extracted) => assert_eq!(extracted.state.connection, None, "{lie}"),
            Err(error) => drop(error.to_string()),
        }
    }
}

fn falls_back(test: &str, kind: Kind) {
    let Some(daemon) = stock::start(test, kind) else { return };
    daemon.fill(hosts::HOST).unwrap();
    let mut stock = open(daemon.socket());
    let extracted = extract(&mut stock, &request(Means::Transport)).unwrap();
    assert_eq!(extracted.state.connection, None);
    for part in [StatePart::Watches, StatePart::Transactions, StatePart::Target] {
        let missing = extracted.missing.iter().find(|missing| missing.part == part).unwrap();
        assert!(matches!(missing.reason, MissingReason::NotInProtocol), "{missing}");
    }

    // What one of ours has told is not restored there, and that is said.
    let Busy { xenstore, client: _guest, watch, .. } = busy();
    let wanted = extract(&mut client(&xenstore), &request(Means::Fence)).unwrap().state;
    assert!(wanted.connection.is_some(), "{watch:?}");
    let exact = knowing_all(&wanted, RestorePolicy::exact());
    let applied = apply_state(&mut stock, &wanted, &exact).unwrap();
    assert!(applied.given.is_empty());
    for part in [StatePart::Watches, StatePart::Transactions] {
        let found = applied.unapplied.iter().find(|unapplied| unapplied.part == part).unwrap();
        assert!(matches!(found.reason, UnappliedReason::NotInProtocol), "{found}");
    }
    // The daemon answers as before.
    let text = |client: &mut Client| client.read_text(&path("/local/domain/7/name")).unwrap();
    assert_eq!(text(&mut stock), "web");
}

#[test]
fn c_xenstored_tells_no_connection_and_takes_none_and_that_is_said() {
    falls_back("c_xenstored_tells_no_connection_and_takes_none_and_that_is_said", Kind::C);
}

#[test]
fn oxenstored_tells_no_connection_and_takes_none_and_that_is_said() {
    falls_back("oxenstored_tells_no_connection_and_takes_none_and_that_is_said", Kind::OCaml);
}
