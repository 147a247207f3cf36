//! Which transactions conflict: the scenarios of the stock daemons, with what we answer.

use xenstore_proto::{DomId, Errno, Reply, Request, TxId};

use crate::driver::{
    Driver, directory, get_perms, mkdir, names, path, read, rm, set_perms, value, write,
};

const AGAIN: Reply = Reply::Error(Errno::EAGAIN);

/// What the transaction does, what others do before it commits, what the commit answers, and what is there afterwards.
struct Scenario {
    name: &'static str,
    inside: Vec<Request>,
    meanwhile: Vec<Request>,
    answer: Reply,
    after: Vec<(&'static str, Option<&'static str>)>,
}

fn check(scenario: Scenario) {
    let Scenario { name, inside, meanwhile, answer, after } = scenario;
    for in_transaction in [false, true] {
        let mut driver =
            Driver::new(&[("/a", "a"), ("/b", "b"), ("/d/x/deep", "x"), ("/d/y", "y")]);
        let (us, others) = (driver.connect(0), driver.connect(0));
        let ours = driver.begin(us);
        let theirs = if in_transaction { driver.begin(others) } else { TxId::NONE };
        for request in &inside {
            driver.ask(us, ours, request);
        }
        for request in &meanwhile {
            assert_eq!(driver.ask(others, theirs, request), Reply::Ok, "{name}: {request:?}");
        }
        if in_transaction {
            assert_eq!(driver.end(others, theirs, true), Reply::Ok, "{name}: the others' commit");
        }
        assert_eq!(driver.end(us, ours, true), answer, "{name}");
        for (at, value) in &after {
            let found =
                driver.server.store().read(&path(at)).map(|value| str::from_utf8(value).unwrap());
            assert_eq!(found, *value, "{name}: {at}");
        }
        assert_eq!(driver.end(us, ours, true), Reply::Error(Errno::ENOENT), "{name}: it is over");
    }
}

#[test]
fn changes_in_different_places_do_not_conflict() {
    check(Scenario {
        name: "different existing nodes",
        inside: vec![write("/a", "1")],
        meanwhile: vec![write("/b", "2")],
        answer: Reply::Ok,
        after: vec![("/a", Some("1")), ("/b", Some("2"))],
    });
    check(Scenario {
        name: "different children of one directory",
        inside: vec![write("/d/one", "1")],
        meanwhile: vec![write("/d/two", "2")],
        answer: Reply::Ok,
        after: vec![("/d/one", Some("1")), ("/d/two", Some("2"))],
    });
    check(Scenario {
        name: "different devices, the directory missing before",
        inside: vec![write("/new/one/state", "1")],
        meanwhile: vec![write("/new/two/state", "2")],
        answer: Reply::Ok,
        after: vec![("/new/one/state", Some("1")), ("/new/two/state", Some("2"))],
    });
    check(Scenario {
        name: "value read, child added",
        inside: vec![read("/d"), write("/a", "1")],
        meanwhile: vec![write("/d/new", "")],
        answer: Reply::Ok,
        after: vec![("/a", Some("1"))],
    });
    check(Scenario {
        name: "list read, value changed",
        inside: vec![directory("/d"), write("/a", "1")],
        meanwhile: vec![write("/d", "new")],
        answer: Reply::Ok,
        after: vec![("/a", Some("1")), ("/d", Some("new"))],
    });
    check(Scenario {
        name: "value read, permissions changed",
        inside: vec![read("/d"), write("/a", "1")],
        meanwhile: vec![set_perms("/d", "r0")],
        answer: Reply::Ok,
        after: vec![("/a", Some("1"))],
    });
    check(Scenario {
        name: "child created, the directory's permissions changed: it takes the new ones",
        inside: vec![write("/d/new", "1")],
        meanwhile: vec![set_perms("/d", "r3")],
        answer: Reply::Ok,
        after: vec![("/d/new", Some("1"))],
    });
    check(Scenario {
        name: "list read, something deeper added",
        inside: vec![directory("/d"), write("/a", "1")],
        meanwhile: vec![write("/d/x/more", "")],
        answer: Reply::Ok,
        after: vec![("/a", Some("1"))],
    });
}

#[test]
fn what_was_read_and_changed_conflicts() {
    check(Scenario {
        name: "value",
        inside: vec![read("/b"), write("/a", "1")],
        meanwhile: vec![write("/b", "2")],
        answer: AGAIN,
        after: vec![("/a", Some("a"))],
    });
    check(Scenario {
        name: "list of children",
        inside: vec![directory("/d"), write("/a", "1")],
        meanwhile: vec![write("/d/new", "2")],
        answer: AGAIN,
        after: vec![("/a", Some("a"))],
    });
    check(Scenario {
        name: "permissions",
        inside: vec![get_perms("/d"), write("/a", "1")],
        meanwhile: vec![set_perms("/d", "r0")],
        answer: AGAIN,
        after: vec![("/a", Some("a"))],
    });
    check(Scenario {
        name: "permissions that a new node took from above",
        inside: vec![write("/d/new", "1"), get_perms("/d/new")],
        meanwhile: vec![set_perms("/d", "r3")],
        answer: AGAIN,
        after: vec![("/d/new", None)],
    });
    check(Scenario {
        name: "a missing node that was created",
        inside: vec![read("/new"), write("/a", "1")],
        meanwhile: vec![write("/new", "2")],
        answer: AGAIN,
        after: vec![("/a", Some("a"))],
    });
    check(Scenario {
        name: "a node that was removed",
        inside: vec![read("/b"), write("/a", "1")],
        meanwhile: vec![rm("/b")],
        answer: AGAIN,
        after: vec![("/a", Some("a"))],
    });
    check(Scenario {
        name: "the removal of a missing node that was created",
        inside: vec![rm("/new"), write("/a", "1")],
        meanwhile: vec![write("/new", "2")],
        answer: AGAIN,
        after: vec![("/a", Some("a")), ("/new", Some("2"))],
    });
}

#[test]
fn what_was_changed_back_does_not_conflict() {
    check(Scenario {
        name: "value",
        inside: vec![read("/b"), write("/a", "1")],
        meanwhile: vec![write("/b", "2"), write("/b", "b")],
        answer: Reply::Ok,
        after: vec![("/a", Some("1"))],
    });
    check(Scenario {
        name: "list of children",
        inside: vec![directory("/d"), write("/a", "1")],
        meanwhile: vec![mkdir("/d/new"), rm("/d/new")],
        answer: Reply::Ok,
        after: vec![("/a", Some("1"))],
    });
    check(Scenario {
        name: "list of children, but in another order",
        inside: vec![directory("/d"), write("/a", "1")],
        meanwhile: vec![rm("/d/x"), mkdir("/d/x")],
        answer: AGAIN,
        after: vec![("/a", Some("a"))],
    });
}

#[test]
fn a_transaction_that_changes_nothing_always_commits() {
    check(Scenario {
        name: "reads only",
        inside: vec![read("/b"), directory("/d"), mkdir("/d/x"), rm("/d/nothing")],
        meanwhile: vec![write("/b", "2"), rm("/d")],
        answer: Reply::Ok,
        after: vec![("/b", Some("2")), ("/d", None)],
    });
}

#[test]
fn of_two_blind_writes_the_later_commit_wins() {
    check(Scenario {
        name: "an existing node",
        inside: vec![write("/a", "1")],
        meanwhile: vec![write("/a", "2")],
        answer: Reply::Ok,
        after: vec![("/a", Some("1"))],
    });
    check(Scenario {
        name: "an existing node, its own value read back",
        inside: vec![write("/a", "1"), read("/a")],
        meanwhile: vec![write("/a", "2")],
        answer: Reply::Ok,
        after: vec![("/a", Some("1"))],
    });
    check(Scenario {
        name: "a new node",
        inside: vec![write("/new", "1")],
        meanwhile: vec![write("/new", "2")],
        answer: Reply::Ok,
        after: vec![("/new", Some("1"))],
    });
}

#[test]
fn removal_wins_over_changes_below_but_never_the_other_way_round() {
    check(Scenario {
        name: "a guest keeps writing below what is removed",
        inside: vec![rm("/d")],
        meanwhile: vec![write("/d/x/deep", "2"), write("/d/new", "2")],
        answer: Reply::Ok,
        after: vec![("/d", None)],
    });
    check(Scenario {
        name: "both remove",
        inside: vec![rm("/d")],
        meanwhile: vec![rm("/d")],
        answer: Reply::Ok,
        after: vec![("/d", None)],
    });
    check(Scenario {
        name: "written below what was removed",
        inside: vec![write("/d/x/new", "1")],
        meanwhile: vec![rm("/d/x")],
        answer: AGAIN,
        after: vec![("/d/x", None)],
    });
    check(Scenario {
        name: "written and removed",
        inside: vec![write("/d/x/deep", "1")],
        meanwhile: vec![rm("/d/x/deep")],
        answer: AGAIN,
        after: vec![("/d/x/deep", None)],
    });
    check(Scenario {
        name: "found there by MKDIR and removed",
        inside: vec![mkdir("/d/x"), write("/a", "1")],
        meanwhile: vec![rm("/d/x")],
        answer: AGAIN,
        after: vec![("/a", Some("a")), ("/d/x", None)],
    });
}

#[test]
fn reads_repeat_and_see_ones_own_changes() {
    let mut driver = Driver::new(&[("/d/old", "1")]);
    let (us, others) = (driver.connect(0), driver.connect(0));
    let tx = driver.begin(us);
    driver.ask(us, tx, &write("/d/new", "mine"));
    driver.ask(others, TxId::NONE, &write("/d/old", "2"));
    driver.ask(others, TxId::NONE, &write("/d/new", "theirs"));
    driver.ask(others, TxId::NONE, &mkdir("/d/third"));
    assert_eq!(driver.ask(us, tx, &read("/d/old")), value("1"));
    assert_eq!(driver.ask(us, tx, &read("/d/new")), value("mine"));
    assert_eq!(driver.ask(us, tx, &directory("/d")), names(&["old", "new"]));
    assert_eq!(driver.ask(us, TxId::NONE, &directory("/d")), names(&["old", "new", "third"]));
    assert_eq!(driver.end(us, tx, false), Reply::Ok);
    assert_eq!(driver.ask(us, TxId::NONE, &read("/d/new")), value("theirs"));
}

#[test]
fn transactions_are_started_and_ended_as_the_stock_daemon_has_it() {
    let mut driver = Driver::new(&[]);
    let (us, others) = (driver.connect(0), driver.connect(0));
    let tx = driver.begin(us);
    assert_eq!(tx, TxId(1), "numbers start at 1 for each connection");
    assert_eq!(driver.begin(others), TxId(1));
    assert_eq!(driver.ask(us, tx, &Request::TransactionStart), Reply::Error(Errno::EBUSY));
    assert_eq!(driver.ask(us, TxId(9), &Request::TransactionStart), Reply::Error(Errno::ENOENT));
    assert_eq!(driver.ask(us, TxId(9), &read("/")), Reply::Error(Errno::ENOENT));
    assert_eq!(driver.end(us, TxId::NONE, true), Reply::Error(Errno::ENOENT));
    assert_eq!(driver.begin(us), TxId(2));
    assert_eq!(driver.ask(us, tx, &Request::ResetWatches), Reply::Ok);
    assert_eq!(driver.end(us, tx, true), Reply::Error(Errno::ENOENT));
    assert_eq!(driver.end(us, TxId(2), true), Reply::Error(Errno::ENOENT));
}

#[test]
fn an_unprivileged_connection_has_few_transactions_and_they_remember_little() {
    let mut driver = Driver::new(&[]);
    let guest = driver.connect(7);
    for _ in 0..10 {
        driver.begin(guest);
    }
    let over = driver.ask(guest, TxId::NONE, &Request::TransactionStart);
    assert_eq!(over, Reply::Error(Errno::ENOSPC));
    let longest = "x".repeat(2000);
    let refused = (0..10_000).find(|i| {
        driver.ask(guest, TxId(1), &read(&format!("/{longest}{i}"))) == Reply::Error(Errno::ENOSPC)
    });
    assert_eq!(refused, Some(1024), "as many nodes as the quota says");
    let memory = |driver: &Driver| driver.server.usage_of(DomId::new(7)).memory;
    let refused = (0..10_000).find(|i| {
        driver.ask(guest, TxId(2), &write(&format!("/{i}"), &longest))
            == Reply::Error(Errno::ENOSPC)
    });
    assert!(refused.is_some_and(|after| after < 1024), "{refused:?}: its memory is used up");
    assert!((2_600_000..=2_621_440).contains(&memory(&driver)), "{}", memory(&driver));
    assert_eq!(driver.end(guest, TxId(2), false), Reply::Ok);
    assert_eq!(driver.end(guest, TxId(1), true), Reply::Ok);
}
