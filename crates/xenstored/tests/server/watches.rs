//! What watches tell, and when.

use xenstore_proto::{DomId, Errno, Reply, Request, TxId};
use xenstored::ConnectionId;

use crate::driver::{
    Driver, Told, directory, mkdir, read, rm, set_perms, unwatch, value, watch, write,
};

fn ask(driver: &mut Driver, connection: ConnectionId, request: &Request) -> Reply {
    driver.ask(connection, TxId::NONE, request)
}

fn event(path: &str, token: &str) -> Told {
    Told::Event(path.into(), token.into())
}

#[test]
fn an_event_comes_before_the_reply_of_its_cause_and_the_first_one_after_the_reply_to_watch() {
    let mut driver = Driver::new(&[]);
    let us = driver.connect(0);
    let ok = || Told::Reply(Reply::Ok);
    ask(&mut driver, us, &watch("/a", "t", None));
    assert_eq!(driver.told(us), [ok(), event("/a", "t")]);
    ask(&mut driver, us, &write("/a/b", "1"));
    assert_eq!(driver.told(us), [event("/a/b", "t"), ok()]);
    let tx = driver.begin(us);
    driver.ask(us, tx, &write("/a/c", "1"));
    assert_eq!(driver.told(us).len(), 2, "no event before the commit");
    driver.end(us, tx, true);
    assert_eq!(driver.told(us), [event("/a/c", "t"), ok()]);
}

#[test]
fn the_same_path_may_be_watched_with_different_tokens_only() {
    let mut driver = Driver::new(&[]);
    let (us, others) = (driver.connect(0), driver.connect(0));
    for (connection, request, reply) in [
        (us, watch("/a", "1", None), Reply::Ok),
        (us, watch("/a", "2", None), Reply::Ok),
        (us, watch("/a", "1", Some(3)), Reply::Error(Errno::EEXIST)),
        (others, watch("/a", "1", None), Reply::Ok),
        (us, watch("name", "1", None), Reply::Ok),
        (us, watch("/local/domain/0/name", "1", None), Reply::Error(Errno::EEXIST)),
        (us, unwatch("/a", "1"), Reply::Ok),
        (us, unwatch("/a", "1"), Reply::Error(Errno::ENOENT)),
        (us, unwatch("name", "1"), Reply::Ok),
    ] {
        assert_eq!(ask(&mut driver, connection, &request), reply, "{request:?}");
    }
    driver.events(us);
    driver.events(others);
    ask(&mut driver, us, &mkdir("/a"));
    assert_eq!(driver.events(us), ["/a 2"]);
    assert_eq!(driver.events(others), ["/a 1"]);
}

#[test]
fn events_of_a_relative_watch_are_relative() {
    let mut driver = Driver::new(&[]);
    let us = driver.connect(0);
    ask(&mut driver, us, &watch("device", "t", None));
    assert_eq!(driver.events(us), ["device t"]);
    ask(&mut driver, us, &write("/local/domain/0/device/vbd/1", ""));
    assert_eq!(driver.events(us), ["device/vbd/1 t"]);
    ask(&mut driver, us, &rm("/local/domain/0"));
    assert_eq!(driver.events(us), ["device t"], "told of what it watches, not of what was above");
}

#[test]
fn a_removal_is_told_to_who_watches_what_went_with_it_and_nobody_else_below() {
    let mut driver = Driver::new(&[("/d/x/deep", ""), ("/d/y", "")]);
    let us = driver.connect(0);
    for at in ["/", "/d", "/d/x", "/d/x/deep", "/d/x/deep/never", "/d/z", "/dd", "/d-"] {
        ask(&mut driver, us, &watch(at, "t", None));
    }
    driver.events(us);
    ask(&mut driver, us, &rm("/d"));
    assert_eq!(driver.events(us), ["/d/x/deep t", "/d/x t", "/d t"], "once each, deepest first");
    ask(&mut driver, us, &rm("/d"));
    assert_eq!(driver.events(us), [""; 0], "nothing was there");
    let told_twice = ask(&mut driver, us, &watch("/", "other", None));
    assert_eq!(told_twice, Reply::Ok);
    driver.events(us);
    ask(&mut driver, us, &mkdir("/d"));
    assert_eq!(driver.events(us), ["/d t", "/d other"]);
}

#[test]
fn depth_limits_how_far_below_a_watch_hears() {
    let mut driver = Driver::new(&[]);
    let us = driver.connect(0);
    for (token, depth) in [("0", Some(0)), ("1", Some(1)), ("all", None)] {
        ask(&mut driver, us, &watch("/d", token, depth));
    }
    driver.events(us);
    ask(&mut driver, us, &write("/d/x/y", ""));
    assert_eq!(driver.events(us), ["/d/x/y all"]);
    ask(&mut driver, us, &write("/d/x", ""));
    assert_eq!(driver.events(us), ["/d/x 1", "/d/x all"]);
    ask(&mut driver, us, &write("/d", ""));
    assert_eq!(driver.events(us), ["/d 0", "/d 1", "/d all"]);
}

#[test]
fn who_may_read_neither_node_nor_parent_hears_nothing_and_a_withdrawn_permission_is_the_last_news()
{
    let mut driver = Driver::new(&[("/p/x", "")]);
    let (us, guest) = (driver.connect(0), driver.connect(7));
    ask(&mut driver, guest, &watch("/p/x", "t", None));
    assert_eq!(driver.events(guest), ["/p/x t"], "the first event comes whatever is there");
    ask(&mut driver, us, &write("/p/x", "1"));
    assert_eq!(driver.events(guest), [""; 0]);
    ask(&mut driver, us, &set_perms("/p/x", "r0"));
    ask(&mut driver, us, &write("/p/x", "2"));
    assert_eq!(
        driver.events(guest),
        ["/p/x t", "/p/x t"],
        "two requests, two events: each was read in between"
    );
    ask(&mut driver, us, &set_perms("/p/x", "n0"));
    assert_eq!(driver.events(guest), ["/p/x t"]);
    ask(&mut driver, us, &write("/p/x", "3"));
    assert_eq!(driver.events(guest), [""; 0]);
    ask(&mut driver, us, &set_perms("/p", "r0"));
    ask(&mut driver, us, &write("/p/x", "4"));
    assert_eq!(driver.events(guest), ["/p/x t"], "who may list the directory may know");
}

#[test]
fn special_watches_tell_of_domains() {
    let mut driver = Driver::new(&[]);
    let (us, guest) = (driver.connect(0), driver.connect(8));
    for connection in [us, guest] {
        for (at, depth) in [
            ("@introduceDomain", None),
            ("@releaseDomain", None),
            ("@releaseDomain", Some(1)),
            ("@releaseDomain", Some(0)),
            ("@releaseDomain/7", None),
            ("@releaseDomain/6", None),
        ] {
            let token = depth.map_or("plain".into(), |depth: u32| depth.to_string());
            assert_eq!(ask(&mut driver, connection, &watch(at, &token, depth)), Reply::Ok);
            assert_eq!(driver.events(connection), [format!("{at} {token}")]);
        }
    }
    let introduce =
        |domid| Request::Introduce { domid: DomId::new(domid), gfn: 0, event_channel: 1 };
    ask(&mut driver, us, &introduce(7));
    assert_eq!(driver.events(us), ["@introduceDomain plain"]);
    assert_eq!(driver.events(guest), [""; 0], "introductions are for the privileged only");
    ask(&mut driver, us, &introduce(7));
    assert_eq!(driver.events(us), [""; 0], "it was introduced before");
    ask(&mut driver, us, &Request::Release(DomId::new(7)));
    let released = ["@releaseDomain plain", "@releaseDomain/7 1", "@releaseDomain/7 plain"];
    assert_eq!(driver.events(us), released);
    assert_eq!(driver.events(guest), released);
}

#[test]
fn a_domain_introduced_again_has_lost_its_watches_and_transactions() {
    let mut driver = Driver::new(&[]);
    let (us, guest) = (driver.connect(0), driver.connect(7));
    let introduce = Request::Introduce { domid: DomId::new(7), gfn: 0, event_channel: 1 };
    ask(&mut driver, us, &introduce);
    ask(&mut driver, us, &set_perms("/", "r0"));
    ask(&mut driver, guest, &watch("/", "t", None));
    let tx = driver.begin(guest);
    driver.events(guest);
    ask(&mut driver, us, &introduce);
    ask(&mut driver, us, &mkdir("/x"));
    assert_eq!(driver.events(guest), [""; 0]);
    assert_eq!(driver.end(guest, tx, true), Reply::Error(Errno::ENOENT));
}

#[test]
fn a_closed_connection_takes_its_watches_and_transactions_with_it() {
    let mut driver = Driver::new(&[("/a", "1")]);
    let (us, others) = (driver.connect(0), driver.connect(0));
    ask(&mut driver, others, &watch("/", "t", None));
    let tx = driver.begin(others);
    driver.ask(others, tx, &write("/a", "2"));
    driver.told(others);
    driver.server.disconnect(others);
    ask(&mut driver, us, &write("/b", "1"));
    assert_eq!(driver.told(others), []);
    assert_eq!(driver.server.poll_output(others), None);
    assert_eq!(ask(&mut driver, us, &read("/a")), value("1"));
    assert_ne!(driver.server.connect(DomId::DOM0), others, "numbers are not given twice");
}

#[test]
fn a_commit_that_withdraws_a_permission_is_the_last_news_of_all_that_it_changes() {
    let mut driver = Driver::new(&[("/p/x", "")]);
    let (us, guest) = (driver.connect(0), driver.connect(7));
    ask(&mut driver, us, &set_perms("/p", "n0,r7"));
    ask(&mut driver, guest, &watch("/p", "t", None));
    driver.events(guest);
    let tx = driver.begin(us);
    driver.ask(us, tx, &write("/p/x", "1"));
    driver.ask(us, tx, &set_perms("/p", "n0"));
    driver.end(us, tx, true);
    assert_eq!(driver.events(guest), ["/p/x t", "/p t"], "it could list the directory before");
    ask(&mut driver, us, &write("/p/x", "2"));
    assert_eq!(driver.events(guest), [""; 0]);
}

#[test]
fn created_and_removed_in_one_transaction_is_not_told() {
    let mut driver = Driver::new(&[("/old/below", "")]);
    let us = driver.connect(0);
    ask(&mut driver, us, &watch("/", "t", None));
    ask(&mut driver, us, &watch("/old/below", "b", None));
    let tx = driver.begin(us);
    for request in
        [mkdir("/new"), write("/a", ""), rm("/new"), write("/a", "2"), rm("/old"), mkdir("/old")]
    {
        assert_eq!(driver.ask(us, tx, &request), Reply::Ok);
    }
    driver.events(us);
    driver.end(us, tx, true);
    assert_eq!(driver.events(us), ["/a t", "/old/below b", "/old t"], "each node once");
    ask(&mut driver, us, &write("/old/below", "value"));
    let tx = driver.begin(us);
    driver.ask(us, tx, &rm("/old"));
    driver.ask(us, tx, &write("/old/below/deeper", ""));
    driver.events(us);
    driver.end(us, tx, true);
    let expected = ["/old/below b", "/old t", "/old/below/deeper t", "/old/below/deeper b"];
    assert_eq!(driver.events(us), expected, "created again on the way, and so not what it was");
}

#[test]
fn a_guest_has_a_limited_number_of_watches() {
    let mut driver = Driver::new(&[]);
    let guest = driver.connect(7);
    for i in 0..128 {
        assert_eq!(ask(&mut driver, guest, &watch("/x", &i.to_string(), None)), Reply::Ok);
    }
    let over = watch("/x", "over", None);
    assert_eq!(ask(&mut driver, guest, &over), Reply::Error(Errno::ENOSPC));
    ask(&mut driver, guest, &Request::ResetWatches);
    assert_eq!(ask(&mut driver, guest, &over), Reply::Ok);
}

#[test]
fn an_event_too_long_for_a_message_is_dropped() {
    let mut driver = Driver::new(&[]);
    let us = driver.connect(0);
    let token = "t".repeat(4000);
    ask(&mut driver, us, &watch("/d", &token, None));
    assert_eq!(driver.events(us).len(), 1);
    ask(&mut driver, us, &mkdir("/d/short"));
    assert_eq!(driver.events(us).len(), 1);
    ask(&mut driver, us, &mkdir(&format!("/d/{}", "x".repeat(200))));
    assert_eq!(driver.events(us).len(), 0);
    assert_eq!(
        ask(&mut driver, us, &directory("/d")),
        Reply::Names(vec!["short".parse().unwrap(), "x".repeat(200).parse().unwrap()])
    );
}

#[test]
fn a_connection_that_never_reads_its_events_is_closed_and_no_other() {
    let mut driver = Driver::new(&[]);
    let (us, guest) = (driver.connect(0), driver.connect(7));
    ask(&mut driver, us, &set_perms("/", "r0"));
    ask(&mut driver, guest, &watch("/", &"t".repeat(3000), None));
    let mut written = 0;
    while driver.server.is_open(guest) {
        written += 1;
        assert!(written < 10_000);
        let change = write(&format!("/n{written}"), "");
        assert_eq!(driver.server.apply(change), Reply::Ok);
    }
    assert!(written > 2_621_440 / 4096);
    assert!(driver.server.is_open(us));
    assert_eq!(driver.server.poll_output(guest), None);
}

#[test]
fn the_same_change_again_and_again_costs_a_slow_reader_one_event() {
    let mut driver = Driver::new(&[]);
    let us = driver.connect(0);
    ask(&mut driver, us, &watch("/a", "t", None));
    driver.events(us);
    for i in 0..100_000 {
        driver.server.apply(write("/a", &i.to_string()));
    }
    assert_eq!(driver.events(us), ["/a t"]);
}
