//! Defects that the comparison with the stock daemon (`tests/differential`) has shown.

use xenstore_proto::{Errno, Message, MessageType, Reply, RequestId, TxId};

use crate::driver::{Driver, mkdir, path, rm, watch};

fn raw(ty: MessageType, payload: &str) -> Message {
    let payload = payload.as_bytes().to_vec();
    Message { ty, request_id: RequestId(0), tx_id: TxId::NONE, payload }
}

#[test]
fn who_may_not_remove_the_root_is_told_so() {
    let mut driver = Driver::new(&[]);
    let (dom0, guest) = (driver.connect(0), driver.connect(7));
    assert_eq!(driver.ask(guest, TxId::NONE, &rm("/")), Reply::Error(Errno::EACCES));
    assert_eq!(driver.ask(dom0, TxId::NONE, &rm("/")), Reply::Error(Errno::EINVAL));
}

#[test]
fn a_commit_does_not_tell_of_a_node_that_somebody_else_had_created() {
    let mut driver = Driver::new(&[]);
    let (dom0, watcher) = (driver.connect(0), driver.connect(0));
    let tx = driver.begin(dom0);
    assert_eq!(driver.ask(dom0, tx, &mkdir("/a")), Reply::Ok);
    assert_eq!(driver.ask(dom0, tx, &mkdir("/b")), Reply::Ok);
    assert_eq!(driver.ask(watcher, TxId::NONE, &mkdir("/a")), Reply::Ok);
    assert_eq!(driver.ask(watcher, TxId::NONE, &watch("/", "t", None)), Reply::Ok);
    driver.events(watcher);
    assert_eq!(driver.end(dom0, tx, true), Reply::Ok);
    assert_eq!(driver.events(watcher), ["/b t"]);
}

#[test]
fn what_the_protocol_reserves_after_the_arguments_is_ignored() {
    let mut driver = Driver::new(&[("/a", "1")]);
    let dom0 = driver.connect(0);
    for (ty, payload) in [
        (MessageType::SET_PERMS, "/a\0n0\0r7\0reserved"),
        (MessageType::WATCH, "/a\0token\0reserved"),
        (MessageType::UNWATCH, "/a\0token\0reserved"),
        (MessageType::INTRODUCE, "7\x001\x001\0reserved\0"),
    ] {
        assert_eq!(driver.ask_raw(dom0, raw(ty, payload)), Reply::Ok, "{ty}");
    }
    assert_eq!(driver.server.store().perms(&path("/a")).unwrap().to_string(), "n0,r7");
    for (ty, payload) in
        [(MessageType::SET_PERMS, "/a\0reserved"), (MessageType::WATCH, "/a\0reserved")]
    {
        assert_eq!(driver.ask_raw(dom0, raw(ty, payload)), Reply::Error(Errno::EINVAL), "{ty}");
    }
}
