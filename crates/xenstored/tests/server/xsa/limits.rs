//! What a domain can use up, and what is left when something fails.

use xenstore_proto::{DomId, Errno, Message, MessageType, Path, Reply, Request, RequestId, TxId};
use xenstored::{Quota, Server, Store, Usage, fuzzing};

use super::{Host, OVER, SEVEN};
use crate::driver::{Driver, directory, mkdir, path, read, rm, set_perms, value, watch, write};

#[test]
fn xsa_72_a_reply_longer_than_a_message_is_an_error_that_fits() {
    let mut host = Host::new();
    for i in 0..500 {
        assert_eq!(host.us(&mkdir(&format!("/many/child-{i}"))), Reply::Ok);
    }
    assert_eq!(host.us(&directory("/many")), Reply::Error(Errno::E2BIG));
    let tx = host.driver.begin(host.us);
    let reply = host.driver.ask(host.us, tx, &directory("/many"));
    assert_eq!(reply, Reply::Error(Errno::E2BIG));
}

#[test]
fn xsa_206_a_guest_that_keeps_writing_does_not_starve_anybodys_transaction() {
    let mut host = Host::new();
    for round in 0..50 {
        let tx = host.driver.begin(host.us);
        for i in 0..12 {
            let at = format!("/local/domain/7/device/vif/{round}/key-{i}");
            assert_eq!(host.driver.ask(host.us, tx, &write(&at, "x")), Reply::Ok);
            // Beside, above, below and in the same place.
            for at in ["data", "data/more", "device", "device/vif"] {
                assert_eq!(host.guest(&write(at, &format!("{round}-{i}"))), Reply::Ok);
            }
            host.guest(&write(&format!("device/vif/{round}/key-{i}"), "mine"));
        }
        assert_eq!(host.driver.end(host.us, tx, true), Reply::Ok, "at the first try");
    }
}

#[test]
fn xsa_272_every_way_to_write_is_under_the_quota() {
    let mut host = Host::new();
    host.driver.server.set_quota(Some(SEVEN), Quota::Nodes, 2);
    host.driver.server.set_quota(Some(SEVEN), Quota::NodeSize, 100);
    let long = "x".repeat(101);
    for in_transaction in [false, true] {
        let tx = if in_transaction { host.driver.begin(host.guest) } else { TxId::NONE };
        for (request, at_once) in [
            (write("new", ""), false),
            (mkdir("new"), false),
            (write("data/a/b/c", ""), false),
            (mkdir("data/a/b/c"), false),
            (write("data", &long), true),
            (write("data/new", &long), true),
            (set_perms("data", &format!("n7{}", ",r1".repeat(5))), true),
        ] {
            let tx = if in_transaction { tx } else { TxId::NONE };
            let reply = host.driver.ask(host.guest, tx, &request);
            assert_eq!(
                reply,
                if in_transaction && !at_once { Reply::Ok } else { OVER },
                "{request:?}"
            );
        }
        if in_transaction {
            assert_eq!(host.driver.end(host.guest, tx, true), OVER);
        }
        assert_eq!(host.usage().nodes, 2);
    }
}

#[test]
fn xsa_323_how_long_a_path_may_be_does_not_depend_on_the_domains_number() {
    for domid in [7_u16, 31_000] {
        let mut driver = Driver::new(&[(&format!("/local/domain/{domid}"), "")]);
        let (us, guest) = (driver.connect(0), driver.connect(domid));
        let home = set_perms(&format!("/local/domain/{domid}"), &format!("n{domid}"));
        assert_eq!(driver.ask(us, TxId::NONE, &home), Reply::Ok);
        driver.server.set_quota(Some(domid.into()), Quota::NodeSize, 0);
        let longest = "x".repeat(2048);
        assert_eq!(driver.ask(guest, TxId::NONE, &mkdir(&longest)), Reply::Ok);
        let longer = format!("/local/domain/{domid}/{longest}x");
        assert_eq!(driver.ask(guest, TxId::NONE, &mkdir(&longer)), Reply::Error(Errno::EINVAL));
    }
}

#[test]
fn xsa_324_an_event_longer_than_a_message_is_not_sent() {
    let mut host = Host::new();
    assert_eq!(host.guest(&watch("data", &"t".repeat(4080), None)), Reply::Ok);
    host.driver.events(host.guest);
    for (at, told) in [("data/fits", 1), ("data/does-not-fit", 0)] {
        assert_eq!(host.guest(&write(at, "")), Reply::Ok);
        assert_eq!(host.driver.events(host.guest).len(), told, "{at}");
    }
    assert!(host.driver.server.is_open(host.guest));
}

#[test]
fn xsa_326_a_guest_that_takes_all_it_can_gets_no_more_than_its_quota() {
    let mut host = Host::new();
    let limit = u64::from(host.driver.server.quotas(SEVEN).get(Quota::Memory));
    let (long, longer) = ("x".repeat(1900), "t".repeat(3000));
    for i in 0..200 {
        host.driver.ask_unread(host.guest, &watch("/", &format!("{i}{longer}"), None));
        host.driver.ask_unread(host.guest, &Request::TransactionStart);
    }
    for i in 0..1500 {
        host.driver.ask_unread(host.guest, &write(&format!("data/{}/{i}", i / 100), &long));
        for tx in 1..=10 {
            let request = write(&format!("data/{i}"), &long);
            if host.driver.server.is_open(host.guest) {
                host.driver.server.ask(host.guest, TxId(tx), request);
            }
        }
        // What waits to be read comes on top, up to as much again.
        assert!(host.usage().memory <= 2 * limit + 4096, "{:?}", host.usage());
    }
    host.check();
    assert!(!host.driver.server.is_open(host.guest), "it has read nothing");
    let usage = host.usage();
    assert_eq!((usage.watches, usage.transactions, usage.outstanding), (0, 0, 0));
    assert!(usage.memory <= limit, "{usage:?}");
}

#[test]
fn xsa_330_watches_that_are_reset_are_gone_also_from_what_is_counted() {
    let mut host = Host::new();
    let before = host.usage();
    for _ in 0..20 {
        for i in 0..128 {
            assert_eq!(host.guest(&watch(&format!("/x/{i}"), "t", None)), Reply::Ok);
        }
        host.driver.events(host.guest);
        assert_eq!(host.guest(&Request::ResetWatches), Reply::Ok);
        assert_eq!(host.usage(), before);
    }
    host.us(&rm("/local/domain/8"));
    host.us(&mkdir("/x/1"));
    assert_eq!(host.driver.events(host.guest), [""; 0]);
}

#[test]
fn xsa_414_what_cannot_be_created_whole_is_not_created_in_part() {
    let mut host = Host::new();
    let limit = u32::try_from(host.usage().nodes).unwrap() + 2;
    host.driver.server.set_quota(Some(SEVEN), Quota::Nodes, limit);
    let before = host.driver.server.store().clone();
    assert_eq!(host.guest(&mkdir("data/a/b/c")), OVER);
    let long = "x".repeat(2100);
    assert_eq!(host.guest(&write("data/a/b", &long)), OVER);
    assert_eq!(host.driver.server.store(), &before);
    assert_eq!(host.guest(&mkdir("data/a/b")), Reply::Ok);
    host.check();
}

#[test]
fn xsa_415_a_commit_that_fails_leaves_nothing_of_the_transaction() {
    let mut host = Host::new();
    host.driver.server.set_quota(Some(SEVEN), Quota::Nodes, 4);
    let tx = host.driver.begin(host.guest);
    for request in [write("data", "new"), mkdir("a"), mkdir("b"), mkdir("c")] {
        assert_eq!(host.driver.ask(host.guest, tx, &request), Reply::Ok);
    }
    let (before, usage) = (host.driver.server.store().clone(), host.usage());
    assert_eq!(host.driver.end(host.guest, tx, true), OVER);
    assert_eq!(host.driver.server.store(), &before);
    assert_eq!((host.usage().nodes, host.usage().transactions), (usage.nodes, 0));
    host.check();
}

#[test]
fn xsa_416_what_a_request_needed_is_given_back_though_its_reply_is_not_read() {
    let mut host = Host::new();
    let before = host.usage().memory;
    let tx = host.driver.begin(host.guest);
    for i in 0..500 {
        let request = write(&format!("data/{i}"), &"x".repeat(1000));
        assert_eq!(host.driver.ask(host.guest, tx, &request), Reply::Ok);
    }
    assert!(host.usage().memory > before + 500_000);
    let end = Request::TransactionEnd { commit: false };
    assert_eq!(host.driver.server.ask(host.guest, tx, end), Reply::Ok);
    host.driver.ask_unread(host.guest, &read("data"));
    assert!(host.usage().memory < before + 100, "{:?}", host.usage());
}

#[test]
fn xsa_418_the_deepest_tree_is_handled_on_a_small_stack() {
    let work = || {
        let deepest: Path = "/x".repeat(1536).parse().unwrap();
        let mut server = Server::new(Store::new());
        let connection = server.connect(DomId::DOM0);
        let perms = |perms: &str| Request::SetPerms {
            path: path("/x").into(),
            perms: perms.parse().unwrap(),
        };
        let introduce = Request::Introduce { domid: SEVEN, gfn: 1, event_channel: 1 };
        assert_eq!(server.apply(introduce), Reply::Ok);
        for release in [false, true] {
            let start = server.ask(connection, TxId::NONE, Request::TransactionStart);
            let Reply::Transaction(tx) = start else { unreachable!() };
            assert_eq!(server.ask(connection, tx, Request::Mkdir(deepest.clone())), Reply::Ok);
            assert_eq!(server.apply(mkdir("/other")), Reply::Ok);
            let end = Request::TransactionEnd { commit: true };
            assert_eq!(server.ask(connection, tx, end), Reply::Ok);
            assert_eq!(server.apply(perms("n7")), Reply::Ok);
            fuzzing::accounts_are_exact(&server);
            let gone = if release { Request::Release(SEVEN) } else { rm("/x") };
            assert_eq!(server.apply(gone), Reply::Ok);
            assert!(!server.store().exists(&path("/x")));
        }
    };
    std::thread::Builder::new().stack_size(128 << 10).spawn(work).unwrap().join().unwrap();
}

#[test]
fn xsa_419_the_death_of_a_domain_resets_what_it_is_charged_for() {
    let mut host = Host::new();
    host.driver.server.set_quota(None, Quota::Nodes, 5);
    for _ in 0..20 {
        let connection = host.driver.connect(7);
        assert_eq!(host.us(&mkdir("/home")), Reply::Ok);
        assert_eq!(host.us(&set_perms("/home", "n7")), Reply::Ok);
        let mut created = 0;
        while host.driver.ask(connection, TxId::NONE, &mkdir(&format!("/home/{created}")))
            == Reply::Ok
        {
            created += 1;
            if created == 4 && host.usage().nodes == 5 {
                break;
            }
        }
        host.driver.ask(connection, TxId::NONE, &watch("/", "t", None));
        host.driver.begin(connection);
        host.release(7);
        assert_eq!(host.usage(), Usage::default());
        host.introduce(7);
        host.check();
    }
}

#[test]
fn xsa_420_numbers_as_wide_as_they_come_are_taken_or_refused() {
    let mut host = Host::new();
    let raw = |ty, payload: &str| Message {
        ty,
        request_id: RequestId(u32::MAX),
        tx_id: TxId::NONE,
        payload: payload.replace('|', "\0").into(),
    };
    let einval = Reply::Error(Errno::EINVAL);
    for (ty, payload, reply) in [
        (MessageType::DIRECTORY_PART, "/|4294967296|", Some(einval.clone())),
        (MessageType::DIRECTORY_PART, "/|-1|", Some(einval.clone())),
        (MessageType::DIRECTORY_PART, "/|4294967295|", None),
        (MessageType::RELEASE, "65536|", Some(einval.clone())),
        (MessageType::RELEASE, "32752|", Some(Reply::Error(Errno::ENOENT))),
        (MessageType::INTRODUCE, "9|18446744073709551615|4294967295|", Some(Reply::Ok)),
        (MessageType::INTRODUCE, "9|1|4294967296|", Some(einval.clone())),
        (MessageType::SET_QUOTA, "nodes|4294967296|", Some(einval)),
        (MessageType::SET_QUOTA, "nodes|4294967295|", Some(Reply::Ok)),
    ] {
        let got = host.driver.ask_raw(host.us, raw(ty, payload));
        match reply {
            Some(reply) => assert_eq!(got, reply, "{ty} {payload:?}"),
            None => assert!(matches!(got, Reply::Part(_)), "{ty} {payload:?}: {got:?}"),
        }
    }
    let stale = host.driver.ask(host.us, TxId(u32::MAX), &read("/"));
    assert_eq!(stale, Reply::Error(Errno::ENOENT));
}

#[test]
fn xsa_421_a_transaction_leaves_no_node_without_one_above() {
    for meanwhile in [rm("/local/domain/7/data"), rm("/local/domain/7")] {
        let mut host = Host::new();
        let tx = host.driver.begin(host.guest);
        assert_eq!(host.driver.ask(host.guest, tx, &write("data/a/b", "orphan")), Reply::Ok);
        assert_eq!(host.us(&meanwhile), Reply::Ok);
        assert_eq!(host.driver.end(host.guest, tx, true), Reply::Error(Errno::EAGAIN));
        for node in host.driver.server.store().nodes() {
            let above = node.path.parent();
            assert!(above.is_none_or(|above| host.driver.server.store().exists(&above)));
        }
        host.check();
    }
}

#[test]
fn xsa_440_what_is_counted_may_be_below_zero_on_the_way() {
    let mut host = Host::new();
    for i in 0..3 {
        assert_eq!(host.guest(&mkdir(&format!("data/{i}"))), Reply::Ok);
    }
    let tx = host.driver.begin(host.guest);
    for i in 0..3 {
        assert_eq!(host.driver.ask(host.guest, tx, &rm(&format!("data/{i}"))), Reply::Ok);
    }
    // Meanwhile, the nodes become another's: what the transaction takes away is no longer the guest's.
    for i in 0..3 {
        assert_eq!(host.us(&set_perms(&format!("/local/domain/7/data/{i}"), "n8,b7")), Reply::Ok);
        host.check();
    }
    assert_eq!(host.driver.end(host.guest, tx, true), Reply::Ok);
    assert_eq!(host.driver.server.usage_of(DomId::new(8)).nodes, 0);
    host.check();
    // A transaction that takes away more than it adds, and adds first or last.
    for order in [[0, 1, 2], [2, 1, 0]] {
        let tx = host.driver.begin(host.guest);
        let requests = [mkdir("data/new"), rm("data"), write("data", "again")];
        for request in order.map(|at| requests[at].clone()) {
            assert_eq!(host.driver.ask(host.guest, tx, &request), Reply::Ok);
        }
        assert_eq!(host.driver.end(host.guest, tx, true), Reply::Ok);
        host.check();
    }
}

#[test]
fn xsa_483_a_domain_that_dies_over_its_quota_leaves_the_next_one_all_of_it() {
    let mut host = Host::new();
    host.driver.server.set_quota(Some(SEVEN), Quota::Nodes, 1);
    host.driver.server.set_quota(Some(SEVEN), Quota::Memory, 10);
    assert_eq!(host.guest(&mkdir("data/new")), OVER);
    host.release(7);
    host.introduce(7);
    let newcomer = host.driver.connect(7);
    assert_eq!(host.us(&mkdir("/home")), Reply::Ok);
    assert_eq!(host.us(&set_perms("/home", "n7")), Reply::Ok);
    for i in 0..999 {
        let mkdir = mkdir(&format!("/home/{}/{i}", i / 100));
        let reply = host.driver.ask(newcomer, TxId::NONE, &mkdir);
        assert!(reply == Reply::Ok || host.usage().nodes == 1000, "{i}: {reply:?}");
    }
    assert_eq!(host.usage().nodes, 1000);
    host.check();
}

#[test]
fn xsa_484_watches_are_reset_inside_a_transaction() {
    let mut host = Host::new();
    assert_eq!(host.guest(&watch("data", "t", None)), Reply::Ok);
    let tx = host.driver.begin(host.guest);
    let inner = host.driver.server.start_nested(host.guest, tx).unwrap();
    assert_eq!(host.driver.ask(host.guest, tx, &write("data", "lost")), Reply::Ok);
    assert_eq!(host.driver.ask(host.guest, inner, &Request::ResetWatches), Reply::Ok);
    for tx in [tx, inner] {
        assert_eq!(host.driver.end(host.guest, tx, true), Reply::Error(Errno::ENOENT));
    }
    host.driver.events(host.guest);
    assert_eq!(host.guest(&write("data", "kept")), Reply::Ok);
    assert_eq!(host.driver.events(host.guest), [""; 0]);
    assert_eq!(host.guest(&read("data")), value("kept"));
    host.check();
}
