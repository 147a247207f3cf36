//! Domains that come and go, and what they may reach.

use xenstore_proto::{DomId, Errno, Message, MessageType, Reply, Request, RequestId, TxId};
use xenstored::Usage;

use super::{DENIED, Host, SEVEN};
use crate::driver::{
    directory, get_perms, mkdir, names, path, read, rm, set_perms, unwatch, watch, write,
};

#[test]
fn xsa_115_a_guest_hears_and_asks_only_what_it_may() {
    let mut host = Host::new();
    assert_eq!(host.us(&set_perms("/local/domain/8", "n8")), Reply::Ok);
    for at in ["/", "@introduceDomain", "@releaseDomain"] {
        assert_eq!(host.guest(&watch(at, "t", None)), Reply::Ok);
    }
    host.driver.events(host.guest);
    host.us(&write("/local/domain/8/key", "secret"));
    host.introduce(9);
    assert_eq!(host.driver.events(host.guest), [""; 0]);
    host.release(9);
    assert_eq!(host.driver.events(host.guest), ["@releaseDomain t"]);
    for request in [
        Request::IsDomainIntroduced(SEVEN),
        Request::Introduce { domid: DomId::new(9), gfn: 1, event_channel: 1 },
        Request::Release(DomId::new(8)),
        Request::Resume(DomId::new(8)),
        Request::SetTarget { domid: SEVEN, target: DomId::DOM0 },
        set_perms("@introduceDomain", "r7"),
        set_perms("@releaseDomain", "r7"),
    ] {
        assert_eq!(host.guest(&request), DENIED, "{request:?}");
    }
    // Watches are in no transaction, and do not care for its number.
    let stale = TxId(4711);
    assert_eq!(host.driver.ask(host.guest, stale, &watch("/x", "t", None)), Reply::Ok);
    assert_eq!(host.driver.ask(host.guest, stale, &unwatch("/x", "t")), Reply::Ok);
}

#[test]
fn xsa_233_a_domain_released_while_it_is_used_is_used_no_more() {
    let mut host = Host::new();
    let target = Request::SetTarget { domid: DomId::new(8), target: SEVEN };
    assert_eq!(host.us(&target), Reply::Ok);
    let stub = host.driver.connect(8);
    // In the middle of a request of its own.
    host.driver.server.set_interceptor(Some(Box::new(|server, _, _, _| {
        server.set_interceptor(None);
        assert_eq!(server.apply(Request::Release(SEVEN)), Reply::Ok);
    })));
    host.driver.ask_unread(host.guest, &write("data", "late"));
    assert!(!host.driver.server.is_open(host.guest));
    assert!(!host.driver.server.store().exists(&path("/local/domain/7/data")));
    // The other way round, and twice.
    assert_eq!(host.driver.ask(stub, TxId::NONE, &write("/local/domain/7", "")), DENIED);
    host.introduce(7);
    assert_eq!(host.us(&target), Reply::Ok);
    host.release(8);
    assert_eq!(host.us(&Request::Release(DomId::new(8))), Reply::Error(Errno::ENOENT));
    host.release(7);
    host.check();
}

#[test]
fn xsa_425_releasing_many_domains_in_a_row_skips_none() {
    let mut host = Host::new();
    for domid in 10..60 {
        host.introduce(domid);
        let connection = host.driver.connect(domid);
        let at = format!("/shared-{domid}");
        assert_eq!(host.us(&write(&at, "")), Reply::Ok);
        assert_eq!(host.us(&set_perms(&at, &format!("n{domid},r{}", domid + 1))), Reply::Ok);
        host.driver.ask(connection, TxId::NONE, &watch("/", "t", None));
        host.driver.begin(connection);
    }
    for domid in 10..60 {
        host.release(domid);
        host.check();
    }
    assert_eq!(host.us(&directory("/")), names(&["local"]));
    assert!(!host.driver.server.has_transactions());
}

#[test]
fn xsa_322_a_recycled_domid_inherits_nothing() {
    let mut host = Host::new();
    for (at, perms) in [
        ("/theirs", "n0,b7"),
        ("/theirs/listed", "r0,n3,w7,r9"),
        ("/local/domain/8/own", "n7"),
        ("@introduceDomain", "n0,r7"),
        ("@releaseDomain", "n7"),
    ] {
        if at.starts_with('/') {
            assert_eq!(host.us(&mkdir(at)), Reply::Ok);
        }
        assert_eq!(host.us(&set_perms(at, perms)), Reply::Ok);
    }
    assert_eq!(host.us(&write("/local/domain/7/data/deep/0", "not its own")), Reply::Ok);
    assert_eq!(host.us(&set_perms("/local/domain/7/data/deep", "n0")), Reply::Ok);
    assert_eq!(host.us(&Request::SetTarget { domid: SEVEN, target: DomId::new(8) }), Reply::Ok);
    assert_eq!(host.guest(&watch("/theirs", "t", None)), Reply::Ok);
    host.driver.begin(host.guest);
    host.us(&watch("/local", "ours", None));
    host.us(&watch("@releaseDomain", "ours", None));
    host.driver.events(host.us);
    host.release(7);
    // The nodes first, each once, then the release; that permissions have changed is not told.
    assert_eq!(
        host.driver.events(host.us),
        ["/local/domain/7 ours", "/local/domain/8/own ours", "@releaseDomain ours"]
    );
    for (at, left) in [
        ("/theirs", "n0"),
        ("/theirs/listed", "r0,n3,r9"),
        ("@introduceDomain", "n0"),
        ("@releaseDomain", "n0"),
    ] {
        assert_eq!(host.us(&get_perms(at)), Reply::Perms(left.parse().unwrap()), "{at}");
    }
    for gone in ["/local/domain/7", "/local/domain/8/own"] {
        assert_eq!(host.us(&read(gone)), Reply::Error(Errno::ENOENT), "{gone}");
    }
    host.check();
    // The next one of the number.
    host.introduce(7);
    let newcomer = host.driver.connect(7);
    assert_eq!(host.usage(), Usage::default());
    assert_eq!(host.driver.ask(newcomer, TxId::NONE, &read("/theirs")), DENIED);
    assert_eq!(host.driver.ask(newcomer, TxId::NONE, &write("/local/domain/8", "")), DENIED);
    assert_eq!(host.driver.end(newcomer, TxId(1), true), Reply::Error(Errno::ENOENT));
    host.us(&write("/theirs", "new"));
    assert_eq!(host.driver.events(newcomer), [""; 0]);
}

#[test]
fn xsa_417_a_transaction_open_at_the_release_gives_a_recycled_domid_nothing() {
    // Whether or not the release itself changes something in the store.
    for guest_has_nodes in [true, false] {
        let mut host = Host::new();
        if !guest_has_nodes {
            assert_eq!(host.us(&rm("/local/domain/7")), Reply::Ok);
        }
        for perms in ["n7", "n0,r7"] {
            let tx = host.driver.begin(host.us);
            assert_eq!(host.driver.ask(host.us, tx, &write("/given", "")), Reply::Ok);
            assert_eq!(host.driver.ask(host.us, tx, &set_perms("/given", perms)), Reply::Ok);
            let inside = host.driver.server.start_nested(host.us, tx).unwrap();
            host.release(7);
            assert_eq!(host.driver.end(host.us, inside, true), Reply::Error(Errno::EAGAIN));
            assert_eq!(host.driver.end(host.us, tx, true), Reply::Error(Errno::EAGAIN));
            assert_eq!(host.us(&read("/given")), Reply::Error(Errno::ENOENT));
            host.introduce(7);
            host.check();
        }
        // One that created something below the domain's nodes finds them gone.
        let tx = host.driver.begin(host.us);
        host.us(&mkdir("/home"));
        host.us(&set_perms("/home", "n7"));
        let late = host.driver.begin(host.us);
        assert_eq!(host.driver.ask(host.us, late, &mkdir("/home/new")), Reply::Ok);
        host.release(7);
        assert_eq!(host.driver.end(host.us, late, true), Reply::Error(Errno::EAGAIN));
        assert_eq!(host.driver.end(host.us, tx, true), Reply::Ok);
        host.check();
    }
}

#[test]
fn xsa_325_the_release_of_a_misbehaving_domain_is_still_told() {
    let mut host = Host::new();
    host.us(&watch("@releaseDomain", "ours", None));
    assert_eq!(host.guest(&watch("/", &"t".repeat(3000), None)), Reply::Ok);
    for i in 0.. {
        if !host.driver.server.is_open(host.guest) {
            break;
        }
        host.driver.server.apply(write(&format!("/flood/{}", i % 2000), ""));
    }
    let introduced = Request::IsDomainIntroduced(SEVEN);
    assert_eq!(host.us(&introduced), Reply::Introduced(true), "its connection is closed, no more");
    assert_eq!(host.usage().nodes, 2);
    host.driver.events(host.us);
    host.release(7);
    assert_eq!(host.driver.events(host.us), ["@releaseDomain ours"]);
}

#[test]
fn xsa_352_a_guest_gives_its_nodes_to_nobody() {
    let mut host = Host::new();
    let eperm = Reply::Error(Errno::EPERM);
    for perms in ["n0", "n8", "n8,b7"] {
        assert_eq!(host.guest(&set_perms("data", perms)), eperm);
        let tx = host.driver.begin(host.guest);
        assert_eq!(host.driver.ask(host.guest, tx, &set_perms("data", perms)), eperm);
        assert_eq!(host.driver.end(host.guest, tx, false), Reply::Ok);
    }
    assert_eq!(host.us(&set_perms("/local/domain/7/data", "n8")), Reply::Ok);
    host.check();
}

#[test]
fn xsa_353_the_root_has_permissions_like_any_node() {
    let mut host = Host::new();
    for request in [write("/", "x"), mkdir("/new"), set_perms("/", "b0"), rm("/local")] {
        assert_eq!(host.guest(&request), DENIED, "{request:?}");
    }
    assert_eq!(host.guest(&rm("/")), Reply::Error(Errno::EACCES));
    assert_eq!(host.us(&rm("/")), Reply::Error(Errno::EINVAL));
    assert_eq!(host.guest(&directory("/")), names(&["local"]));
    assert_eq!(host.us(&set_perms("/", "n0")), Reply::Ok);
    assert_eq!(host.guest(&directory("/")), DENIED);
}

#[test]
fn xsa_481_paths_that_end_where_a_domains_number_would_stand_are_paths() {
    let mut host = Host::new();
    let einval = Reply::Error(Errno::EINVAL);
    for connection in [host.us, host.guest] {
        let mut raw = |payload: &str| {
            let (ty, payload) = (MessageType::READ, payload.into());
            let message = Message { ty, request_id: RequestId(1), tx_id: TxId::NONE, payload };
            host.driver.ask_raw(connection, message)
        };
        for malformed in ["/local/domain/\0", "/local/domain//x\0", "/local/domain/7/\0", "\0"] {
            assert_eq!(raw(malformed), einval, "{malformed:?}");
        }
        for missing in ["/local/domain/x\0", "/local/domain/99999999999/x\0", "/local/domainx\0"] {
            let reply = raw(missing);
            let expected = [Errno::ENOENT, Errno::EACCES].map(Reply::Error);
            assert!(expected.contains(&reply), "{missing:?}: {reply:?}");
        }
    }
}
