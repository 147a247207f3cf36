//! What each request answers.

use proptest::prelude::*;
use xenstore_proto::{DomId, Errno, Message, MessageType, Path, Reply, Request, RequestId, TxId};
use xenstored::{ConnectionId, Server, Store, limits};

use crate::driver::{
    Driver, directory, get_perms, mkdir, names, path, read, rm, set_perms, value, watch, write,
};

fn ask(driver: &mut Driver, connection: ConnectionId, request: &Request) -> Reply {
    driver.ask(connection, TxId::NONE, request)
}

fn error(errno: Errno) -> Reply {
    Reply::Error(errno)
}

#[test]
fn nodes_are_written_read_listed_and_removed() {
    let mut driver = Driver::new(&[]);
    let us = driver.connect(0);
    for (request, reply) in [
        (write("/a/b/c", "1"), Reply::Ok),
        (read("/a/b/c"), value("1")),
        (read("/a/b"), value("")),
        (directory("/a"), names(&["b"])),
        (directory("/a/b/c"), names(&[])),
        (mkdir("/a/b"), Reply::Ok),
        (mkdir("/a/d"), Reply::Ok),
        (directory("/a"), names(&["b", "d"])),
        (read("/nope"), error(Errno::ENOENT)),
        (directory("/nope"), error(Errno::ENOENT)),
        (rm("/a/b"), Reply::Ok),
        (rm("/a/b"), Reply::Ok),
        (rm("/a/b/c"), error(Errno::ENOENT)),
        (rm("/"), error(Errno::EINVAL)),
        (read("/a/b/c"), error(Errno::ENOENT)),
        // Relative to /local/domain/0.
        (write("name", "Domain-0"), Reply::Ok),
        (read("/local/domain/0/name"), value("Domain-0")),
    ] {
        assert_eq!(ask(&mut driver, us, &request), reply, "{request:?}");
    }
}

#[test]
fn permissions_decide_for_guests_and_hide_what_exists() {
    let mut driver =
        Driver::new(&[("/secret/x", "s"), ("/local/domain/7/data/k", "v"), ("/open", "o")]);
    let (us, guest) = (driver.connect(0), driver.connect(7));
    for (at, perms) in
        [("/local/domain/7", "n7,r8"), ("/local/domain/7/data", "n7"), ("/open", "r0")]
    {
        assert_eq!(ask(&mut driver, us, &set_perms(at, perms)), Reply::Ok);
    }
    for (request, reply) in [
        (read("/secret"), error(Errno::EACCES)),
        (read("/secret/x"), error(Errno::EACCES)),
        (read("/secret/nope"), error(Errno::EACCES)),
        (read("/open"), value("o")),
        (write("/open", "mine"), error(Errno::EACCES)),
        (write("/open/below", ""), error(Errno::EACCES)),
        (read("/open/below"), error(Errno::ENOENT)),
        (rm("/open"), error(Errno::EACCES)),
        (set_perms("/open", "b0"), error(Errno::EACCES)),
        // Its own base path is what its relative paths are relative to.
        (read("data"), value("")),
        (read("data/k"), error(Errno::EACCES)),
        (read("data/nope"), error(Errno::ENOENT)),
        (write("data/new/deep", "1"), Reply::Ok),
        (get_perms("data/new"), Reply::Perms("n7".parse().unwrap())),
        (set_perms("data", "n8"), error(Errno::EPERM)),
        (set_perms("data", "b7"), Reply::Ok),
        (set_perms("data/nope", "n7"), error(Errno::ENOENT)),
        (rm("data/k"), error(Errno::EACCES)),
        // Whoever may write a node may remove it with all below.
        (rm("data"), Reply::Ok),
    ] {
        assert_eq!(ask(&mut driver, guest, &request), reply, "{request:?}");
    }
    assert_eq!(ask(&mut driver, us, &set_perms("/open", "n32752")), error(Errno::ENOENT));
}

#[test]
fn a_new_node_belongs_to_the_guest_that_creates_it() {
    let mut driver = Driver::new(&[("/shared", "")]);
    let (us, guest) = (driver.connect(0), driver.connect(7));
    ask(&mut driver, us, &set_perms("/shared", "r0,b7,w8"));
    assert_eq!(ask(&mut driver, guest, &mkdir("/shared/a/b")), Reply::Ok);
    for at in ["/shared/a", "/shared/a/b"] {
        assert_eq!(ask(&mut driver, us, &get_perms(at)), Reply::Perms("r7,b7,w8".parse().unwrap()));
    }
    ask(&mut driver, us, &mkdir("/shared/a/ours"));
    assert_eq!(
        driver.server.store().perms(&path("/shared/a/ours")).unwrap().to_string(),
        "r7,b7,w8"
    );
}

#[test]
fn a_target_adds_permissions_and_never_takes_any() {
    let mut driver = Driver::new(&[("/x", "v")]);
    let (us, stub) = (driver.connect(0), driver.connect(3));
    ask(&mut driver, us, &set_perms("/x", "n0,r3,b4"));
    assert_eq!(ask(&mut driver, stub, &write("/x", "1")), error(Errno::EACCES));
    let target = Request::SetTarget { domid: DomId::new(3), target: DomId::new(4) };
    assert_eq!(ask(&mut driver, us, &target), error(Errno::ENOENT));
    for domid in [3, 4] {
        let introduce = Request::Introduce { domid: DomId::new(domid), gfn: 0, event_channel: 5 };
        assert_eq!(ask(&mut driver, us, &introduce), Reply::Ok);
    }
    assert_eq!(ask(&mut driver, stub, &target), error(Errno::EACCES));
    assert_eq!(ask(&mut driver, us, &target), Reply::Ok);
    assert_eq!(ask(&mut driver, stub, &write("/x", "1")), Reply::Ok);
    // The number may be another domain's later.
    ask(&mut driver, us, &Request::Release(DomId::new(4)));
    assert_eq!(ask(&mut driver, stub, &write("/x", "2")), error(Errno::EACCES));
}

#[test]
fn domains_are_introduced_and_released() {
    let mut driver = Driver::new(&[]);
    let (us, guest) = (driver.connect(0), driver.connect(7));
    let seven = DomId::new(7);
    let introduce = |domid, event_channel| Request::Introduce { domid, gfn: 1, event_channel };
    for (request, reply) in [
        (Request::IsDomainIntroduced(seven), Reply::Introduced(false)),
        (introduce(seven, 0), error(Errno::EINVAL)),
        (introduce(DomId::SELF, 1), error(Errno::EINVAL)),
        (introduce(seven, 1), Reply::Ok),
        (introduce(seven, 2), Reply::Ok),
        (Request::IsDomainIntroduced(seven), Reply::Introduced(true)),
        (Request::IsDomainIntroduced(DomId::SELF), Reply::Introduced(true)),
        (Request::Resume(seven), Reply::Ok),
        (Request::Resume(DomId::DOM0), error(Errno::EINVAL)),
        (Request::Resume(DomId::new(8)), error(Errno::ENOENT)),
        (Request::GetDomainPath(DomId::new(8)), Reply::DomainPath(path("/local/domain/8"))),
        (Request::Release(DomId::DOM0), error(Errno::EINVAL)),
        (Request::Release(DomId::new(8)), error(Errno::ENOENT)),
    ] {
        assert_eq!(ask(&mut driver, us, &request), reply, "{request:?}");
    }
    for request in [introduce(seven, 1), Request::Release(seven), Request::Resume(seven)] {
        assert_eq!(ask(&mut driver, guest, &request), error(Errno::EACCES), "{request:?}");
    }
    assert_eq!(ask(&mut driver, guest, &Request::IsDomainIntroduced(seven)), error(Errno::EACCES));
    assert_eq!(ask(&mut driver, us, &Request::Release(seven)), Reply::Ok);
    assert!(!driver.server.is_open(guest), "the connection goes with its domain");
}

#[test]
fn a_directory_too_long_for_a_reply_is_read_in_parts_that_belong_together() {
    let mut driver = Driver::new(&[("/d", "")]);
    let us = driver.connect(0);
    let children: Vec<String> = (0..1000).map(|i| format!("child-{i}")).collect();
    for child in &children {
        ask(&mut driver, us, &mkdir(&format!("/d/{child}")));
    }
    assert_eq!(ask(&mut driver, us, &directory("/d")), error(Errno::E2BIG));
    let part = |driver: &mut Driver, offset: usize| {
        let offset = u32::try_from(offset).unwrap();
        match ask(driver, us, &Request::DirectoryPart { path: path("/d"), offset }) {
            Reply::Part(part) => part,
            other => panic!("{other:?}"),
        }
    };
    let (mut listed, mut offset, mut generations) = (Vec::new(), 0, Vec::new());
    loop {
        let part = part(&mut driver, offset);
        offset += part.octets();
        generations.push(part.generation);
        listed.extend(part.names.iter().map(ToString::to_string));
        // A value below changes nothing of the list.
        ask(&mut driver, us, &write("/d/child-5", "new"));
        if part.last {
            break;
        }
        assert!(generations.len() < 10);
    }
    assert_eq!(listed, children);
    generations.dedup();
    assert_eq!(generations.len(), 1);
    assert!(part(&mut driver, offset).last && part(&mut driver, usize::MAX >> 32).names.is_empty());
    ask(&mut driver, us, &rm("/d/child-999"));
    ask(&mut driver, us, &mkdir("/d/child-999"));
    assert_ne!(part(&mut driver, 0).generation, generations[0]);
}

#[test]
fn a_value_that_no_reply_could_carry_is_refused_without_a_connection_too() {
    let mut server = Server::new(Store::new());
    let write = |len| Request::Write { path: path("/a"), value: vec![b'x'; len] };
    assert_eq!(server.apply(write(limits::VALUE_MAX)), Reply::Ok);
    assert_eq!(server.apply(write(limits::VALUE_MAX + 1)), error(Errno::E2BIG));
    assert_eq!(server.store().read(&path("/a")).map(<[u8]>::len), Some(limits::VALUE_MAX));
    assert_eq!(Store::from_text(server.store().to_text()).as_ref(), Ok(server.store()));
}

#[test]
fn malformed_requests_and_unknown_operations_are_told_apart() {
    let mut driver = Driver::new(&[]);
    let us = driver.connect(0);
    let raw = |ty, payload: &[u8]| Message {
        ty,
        request_id: RequestId(0),
        tx_id: TxId::NONE,
        payload: payload.to_vec(),
    };
    for (ty, payload, errno) in [
        (MessageType::READ, &b""[..], Errno::EINVAL),
        (MessageType::READ, b"/a", Errno::EINVAL),
        (MessageType::READ, b"/a\0b\0", Errno::EINVAL),
        (MessageType::READ, b"/a/\0", Errno::EINVAL),
        (MessageType::READ, b"@releaseDomain\0", Errno::EINVAL),
        (MessageType::WRITE, b"/a", Errno::EINVAL),
        (MessageType::SET_PERMS, b"/\0", Errno::EINVAL),
        (MessageType::SET_PERMS, b"/\0x0\0", Errno::EINVAL),
        (MessageType::WATCH, b"/a\0", Errno::EINVAL),
        (MessageType::TRANSACTION_END, b"X\0", Errno::ENOENT),
        (MessageType::CONTROL, b"nonsense\0", Errno::EINVAL),
        (MessageType::WATCH_EVENT, b"", Errno::ENOSYS),
        (MessageType::ERROR, b"", Errno::ENOSYS),
        (MessageType::RESTRICT, b"1\0", Errno::ENOSYS),
        (MessageType(4711), b"whatever", Errno::ENOSYS),
    ] {
        let mut message = raw(ty, payload);
        if ty == MessageType::TRANSACTION_END {
            message.tx_id = TxId(3);
        }
        assert_eq!(driver.ask_raw(us, message), error(errno), "{ty} {payload:?}");
    }
    // A transaction stays open when its end is malformed.
    let tx = driver.begin(us);
    let mut end = raw(MessageType::TRANSACTION_END, b"X\0");
    end.tx_id = tx;
    assert_eq!(driver.ask_raw(us, end), error(Errno::EINVAL));
    assert_eq!(driver.end(us, tx, true), Reply::Ok);
}

#[test]
fn special_names_have_permissions_of_their_own() {
    let mut driver = Driver::new(&[]);
    let (us, guest) = (driver.connect(0), driver.connect(7));
    let perms = |text: &str| Reply::Perms(text.parse().unwrap());
    assert_eq!(ask(&mut driver, guest, &get_perms("@releaseDomain")), perms("n0,r32757"));
    assert_eq!(ask(&mut driver, guest, &get_perms("@introduceDomain")), error(Errno::EACCES));
    assert_eq!(ask(&mut driver, guest, &set_perms("@introduceDomain", "n7")), error(Errno::EACCES));
    assert_eq!(ask(&mut driver, us, &set_perms("@introduceDomain", "n0,r7")), Reply::Ok);
    assert_eq!(ask(&mut driver, guest, &get_perms("@introduceDomain")), perms("n0,r7"));
    assert_eq!(ask(&mut driver, us, &get_perms("@nothing")), error(Errno::ENOENT));
}

#[test]
fn the_interceptor_lands_a_change_between_two_reads() {
    let mut driver = Driver::new(&[("/x", "old"), ("/y", "old")]);
    let us = driver.connect(0);
    let mut pending = Some(write("/y", "new"));
    driver.server.set_interceptor(Some(Box::new(move |server, connection, _, request| {
        assert_eq!(connection, us);
        if request.subject() == Some("/y")
            && let Some(change) = pending.take()
        {
            assert_eq!(server.apply(change), Reply::Ok);
        }
    })));
    assert_eq!(ask(&mut driver, us, &watch("/", "t", None)), Reply::Ok);
    driver.events(us);
    assert_eq!(ask(&mut driver, us, &read("/x")), value("old"));
    assert_eq!(ask(&mut driver, us, &read("/y")), value("new"));
    assert_eq!(driver.events(us), ["/y t"]);
    assert_eq!(driver.server.apply(Request::TransactionStart), error(Errno::EINVAL));
}

#[test]
fn an_interceptor_can_take_itself_away_and_sees_no_requests_of_its_own() {
    let mut driver = Driver::new(&[]);
    let us = driver.connect(0);
    let mut calls = 0;
    driver.server.set_interceptor(Some(Box::new(move |server, _, _, _| {
        calls += 1;
        let number = format!("/call-{calls}");
        assert_eq!(server.apply(mkdir(&number)), Reply::Ok);
        if calls == 2 {
            server.set_interceptor(None);
        }
    })));
    for _ in 0..4 {
        ask(&mut driver, us, &read("/"));
    }
    assert_eq!(ask(&mut driver, us, &directory("/")), names(&["call-1", "call-2"]));
}

proptest! {
    #[test]
    fn any_message_gets_one_reply(
        messages in proptest::collection::vec((0_u32..30, 0_u32..4, "[/ab@0-9TFnr\0]{0,12}"), 0..60), domid in 0_u16..2
    ) {
        let mut driver = Driver::new(&[("/a/b", "1")]);
        let connection = driver.connect(domid);
        for (ty, tx_id, payload) in messages {
            let (ty, tx_id) = (MessageType(ty), TxId(tx_id));
            let message = Message { ty, request_id: RequestId(7), tx_id, payload: payload.into() };
            driver.server.handle(connection, &message);
            let mut replies = 0;
            while let Some(octets) = driver.server.poll_output(connection) {
                replies += usize::from(octets[..4] != MessageType::WATCH_EVENT.0.to_ne_bytes());
            }
            prop_assert_eq!(replies, 1);
        }
    }
}

#[test]
fn the_longest_relative_path_is_refused_when_it_gets_too_long_below_its_base() {
    let mut driver = Driver::new(&[]);
    let us = driver.connect(0);
    let longest: Path = "x".repeat(2048).parse().unwrap();
    assert_eq!(ask(&mut driver, us, &Request::Mkdir(longest)), Reply::Ok);
    let value = "v".repeat(xenstore_proto::limits::PAYLOAD_MAX - 3);
    assert_eq!(ask(&mut driver, us, &write("/a", &value)), Reply::Ok);
    assert_eq!(ask(&mut driver, us, &read("/a")), Reply::Value(value.into()));
}
