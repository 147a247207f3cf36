//! Transactions inside transactions, and transactions that are given up.

use std::time::{Duration, Instant};

use xenstore_proto::{DomId, Errno, Reply, Request, TxId};
use xenstored::{Embedded, OpenTransaction, Store};

use crate::driver::{Driver, directory, mkdir, names, path, read, rm, set_perms, value, write};

const AGAIN: Reply = Reply::Error(Errno::EAGAIN);

fn embedded() -> Embedded {
    let store =
        Store::from_text("/a = \"a\"   (n0)\n/b = \"b\"   (n0)\n/d = \"\"   (n0)\n").unwrap();
    Embedded::new(store)
}

fn outer(xenstore: &Embedded) -> OpenTransaction<'_> {
    xenstore.transaction(DomId::DOM0).unwrap()
}

fn held(xenstore: &Embedded, at: &str) -> Option<String> {
    let store = xenstore.snapshot();
    store.read(&path(at)).map(|value| String::from_utf8(value.to_vec()).unwrap())
}

#[test]
fn inner_abort_undoes_what_was_done_inside_and_no_more() {
    let xenstore = embedded();
    let outer = outer(&xenstore);
    assert_eq!(outer.ask(write("/a", "outer")), Reply::Ok);
    let inner = outer.nested().unwrap();
    assert_eq!(inner.ask(read("/a")), value("outer"), "it starts from what the outer one sees");
    assert_eq!(inner.ask(write("/a", "inner")), Reply::Ok);
    assert_eq!(inner.ask(rm("/b")), Reply::Ok);
    assert_eq!(outer.ask(read("/a")), value("outer"), "nobody else sees what it does");
    inner.abort();
    assert_eq!(outer.ask(read("/b")), value("b"));
    outer.commit().unwrap();
    assert_eq!(held(&xenstore, "/a").as_deref(), Some("outer"));
    assert_eq!(held(&xenstore, "/b").as_deref(), Some("b"));
    assert!(!xenstore.with(|server| server.has_transactions()));
}

#[test]
fn inner_abort_forgets_what_was_read_inside() {
    let xenstore = embedded();
    let outer = outer(&xenstore);
    let inner = outer.nested().unwrap();
    assert_eq!(inner.ask(read("/b")), value("b"));
    drop(inner);
    assert_eq!(outer.ask(write("/a", "outer")), Reply::Ok);
    assert_eq!(xenstore.apply(write("/b", "other")), Reply::Ok);
    outer.commit().unwrap();
}

#[test]
fn inner_commit_then_outer_abort_changes_nothing() {
    let xenstore = embedded();
    let before = xenstore.snapshot();
    let outer = outer(&xenstore);
    let inner = outer.nested().unwrap();
    let innermost = inner.nested().unwrap();
    assert_eq!(innermost.ask(write("/d/deep", "1")), Reply::Ok);
    innermost.commit().unwrap();
    assert_eq!(inner.ask(write("/a", "inner")), Reply::Ok);
    inner.commit().unwrap();
    assert_eq!(outer.ask(read("/d/deep")), value("1"));
    assert_eq!(xenstore.snapshot(), before, "nothing is real before the outer commit");
    outer.abort();
    assert_eq!(xenstore.snapshot(), before);
}

#[test]
fn inner_commit_then_outer_commit_makes_everything_real_at_once() {
    let xenstore = embedded();
    let outer = outer(&xenstore);
    let inner = outer.nested().unwrap();
    assert_eq!(inner.ask(write("/d/inner", "1")), Reply::Ok);
    inner.commit().unwrap();
    assert_eq!(outer.ask(write("/d/outer", "2")), Reply::Ok);
    outer.commit().unwrap();
    assert_eq!(xenstore.snapshot().children(&path("/d")), Some(vec!["inner", "outer"]));
}

#[test]
fn conflict_inside_between_two_side_by_side_costs_the_second_only_itself() {
    let xenstore = embedded();
    let outer = outer(&xenstore);
    let (one, two) = (outer.nested().unwrap(), outer.nested().unwrap());
    assert_eq!(one.ask(write("/a", "one")), Reply::Ok);
    assert_eq!(two.ask(read("/a")), value("a"));
    assert_eq!(two.ask(write("/b", "two")), Reply::Ok);
    one.commit().unwrap();
    assert!(two.commit().unwrap_err().is_conflict());
    assert_eq!(outer.ask(read("/b")), value("b"));
    // Once more, with what is there now.
    let two = outer.nested().unwrap();
    assert_eq!(two.ask(read("/a")), value("one"));
    assert_eq!(two.ask(write("/b", "two")), Reply::Ok);
    two.commit().unwrap();
    outer.commit().unwrap();
    assert_eq!(held(&xenstore, "/b").as_deref(), Some("two"));
}

#[test]
fn two_side_by_side_that_create_different_children_of_one_node_do_not_conflict() {
    let xenstore = embedded();
    let outer = outer(&xenstore);
    let (one, two) = (outer.nested().unwrap(), outer.nested().unwrap());
    assert_eq!(one.ask(write("/d/one/state", "1")), Reply::Ok);
    assert_eq!(two.ask(write("/d/two/state", "2")), Reply::Ok);
    one.commit().unwrap();
    two.commit().unwrap();
    assert_eq!(xenstore.apply(write("/d/three", "3")), Reply::Ok);
    outer.commit().unwrap();
    assert_eq!(xenstore.snapshot().children(&path("/d")), Some(vec!["three", "one", "two"]));
}

#[test]
fn conflict_inside_with_what_happens_outside_shows_at_the_outer_commit() {
    for (inside, meanwhile) in [
        (read("/b"), write("/b", "other")),
        (read("/nothing"), write("/nothing", "other")),
        (directory("/d"), mkdir("/d/other")),
    ] {
        let xenstore = embedded();
        let outer = outer(&xenstore);
        let inner = outer.nested().unwrap();
        inner.ask(inside.clone());
        inner.commit().unwrap();
        assert_eq!(outer.ask(write("/a", "outer")), Reply::Ok);
        assert_eq!(xenstore.apply(meanwhile), Reply::Ok);
        assert!(outer.commit().unwrap_err().is_conflict(), "{inside:?}");
        assert_eq!(held(&xenstore, "/a").as_deref(), Some("a"));
    }
}

#[test]
fn a_nested_transaction_hands_over_what_it_costs() {
    let xenstore = embedded();
    xenstore.with(|server| {
        let seven = DomId::new(7);
        assert_eq!(server.apply(set_perms("/d", "n7")), Reply::Ok);
        server.set_quota(Some(seven), xenstored::Quota::Nodes, 3);
        xenstored::fuzzing::accounts_are_exact(server);
    });
    for (inside, fits) in [(2, true), (1, false)] {
        let outer = xenstore.transaction(DomId::new(7)).unwrap();
        let inner = outer.nested().unwrap();
        for i in 0..inside {
            assert_eq!(inner.ask(mkdir(&format!("/d/{inside}-{i}"))), Reply::Ok);
        }
        inner.commit().unwrap();
        xenstore.with(|server| xenstored::fuzzing::accounts_are_exact(server));
        assert_eq!(outer.commit().is_ok(), fits);
        xenstore.with(|server| xenstored::fuzzing::accounts_are_exact(server));
    }
}

#[test]
fn an_outer_transaction_waits_for_those_inside_or_takes_them_with_it() {
    let mut driver = Driver::new(&[("/a", "a")]);
    let us = driver.connect(0);
    let outer = driver.begin(us);
    let inner = driver.server.start_nested(us, outer).unwrap();
    let innermost = driver.server.start_nested(us, inner).unwrap();
    assert_eq!(driver.end(us, outer, true), Reply::Error(Errno::EBUSY));
    assert_eq!(driver.ask(us, innermost, &write("/a", "1")), Reply::Ok);
    assert_eq!(driver.end(us, outer, false), Reply::Ok);
    for tx in [inner, innermost, outer] {
        assert_eq!(driver.end(us, tx, true), Reply::Error(Errno::ENOENT));
    }
    assert_eq!(driver.server.start_nested(us, TxId(99)), Err(Errno::ENOENT));
    assert!(!driver.server.has_transactions());
    // Over the protocol there is none inside another.
    let outer = driver.begin(us);
    let again = driver.ask(us, outer, &Request::TransactionStart);
    assert_eq!(again, Reply::Error(Errno::EBUSY));
}

#[test]
fn a_transaction_open_for_too_long_is_given_up_and_answers_so_until_it_is_ended() {
    let mut driver = Driver::new(&[("/a", "a")]);
    let (us, others) = (driver.connect(0), driver.connect(0));
    driver.server.set_transaction_limit(Duration::from_secs(10));
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let old = driver.begin(us);
    let inner = driver.server.start_nested(us, old).unwrap();
    assert_eq!(driver.ask(us, old, &write("/a", "old")), Reply::Ok);
    assert_eq!(driver.server.expire(at(0)), 0);
    let young = driver.begin(others);
    assert_eq!(driver.server.expire(at(9)), 0);
    assert_eq!(driver.server.expire(at(10)), 2);
    assert_eq!(driver.server.expire(at(11)), 0, "given up once");
    for tx in [old, inner] {
        // Not that there is no such node, or no such transaction: try again.
        for request in [read("/a"), write("/a", "x"), directory("/"), read("/nothing")] {
            assert_eq!(driver.ask(us, tx, &request), AGAIN, "{request:?}");
        }
    }
    assert_eq!(driver.server.start_nested(us, old), Err(Errno::EAGAIN));
    assert_eq!(driver.end(us, inner, true), AGAIN);
    assert_eq!(driver.end(us, old, true), AGAIN);
    assert_eq!(driver.end(us, old, true), Reply::Error(Errno::ENOENT));
    assert_eq!(driver.ask(others, young, &write("/a", "young")), Reply::Ok);
    assert_eq!(driver.end(others, young, true), Reply::Ok);
    assert_eq!(driver.ask(us, TxId::NONE, &read("/a")), value("young"));
    assert_eq!(driver.ask(us, TxId::NONE, &directory("/")), names(&["a"]));
    xenstored::fuzzing::accounts_are_exact(&driver.server);
}
