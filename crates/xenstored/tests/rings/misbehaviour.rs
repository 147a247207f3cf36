//! A guest that does not behave is given up, and nobody else notices.

use std::time::Instant;

use xenstore_proto::{DomId, Errno, Reply, Request};
use xenstored::Quota;
use xenstored::xen::{Direction, Field, Indices};

use crate::served::{Guest, Host, SOON, read, set_perms, watch, wire, wire_in, write};

use Direction::{Requests, Responses};

const SEVEN: DomId = DomId::new(7);

/// Waits until the server has said that something is wrong with a ring.
fn error_of(guest: &Guest) -> u32 {
    let deadline = Instant::now() + SOON;
    loop {
        let error = guest.kernel.page().field(Field::Error);
        if error != 0 || !guest.kernel.wait_for_event(deadline).unwrap() {
            return error;
        }
    }
}

/// Others are served, the end of the bad one is told, and its successor is a domain as any other.
fn assert_isolated(host: &Host, mut good: Guest) {
    host.xenstore.apply(write("/a", "kept"));
    host.xenstore.apply(set_perms("/a", "r0"));
    assert_eq!(good.value("/a").unwrap(), b"kept");
    let mut watcher = host.watcher();
    assert_eq!(host.introduce(7), Reply::Ok);
    let mut revived = Guest::new(host.xen.guest(SEVEN));
    assert_eq!(revived.value("/a").unwrap(), b"kept");
    host.xen.destroy(SEVEN);
    assert_eq!(watcher.event(), "@releaseDomain");
    assert!(!host.xen.exists(SEVEN));
}

#[test]
fn indices_that_make_no_sense_are_error_2() {
    for direction in [Requests, Responses] {
        let host = Host::new();
        let (mut bad, good) = (host.domain(7), host.domain(8));
        assert_eq!(bad.value("/").unwrap_err(), Errno::EACCES);
        bad.kernel.put(&wire(&read("/a")));
        bad.kernel.page().set_indices(direction, Indices { taken: 0, put: 5000 });
        bad.kernel.notify();
        assert_eq!(error_of(&bad), 2);
        assert_isolated(&host, good);
    }
}

#[test]
fn a_header_that_claims_too_much_is_error_3() {
    let host = Host::new();
    let (mut bad, good) = (host.domain(7), host.domain(8));
    let header: Vec<u8> = [2_u32, 1, 0, 1_000_000].iter().flat_map(|n| n.to_ne_bytes()).collect();
    bad.send(&header);
    assert_eq!(error_of(&bad), 3);
    assert_isolated(&host, good);
}

#[test]
fn garbage_half_messages_and_zeros_harm_nobody_else() {
    for host in Host::both() {
        let (mut bad, good) = (host.domain(7), host.domain(8));
        bad.send(&wire(&read("/a"))[..5]);
        let garbage: Vec<u8> = (0..2064_u32).map(|n| u8::try_from(n * 7 % 251).unwrap()).collect();
        bad.kernel.page().overwrite(0, &garbage);
        bad.kernel.notify();
        assert_eq!(error_of(&bad), 2);
        assert_isolated(&host, good);
    }
}

#[test]
fn a_guest_that_never_reads_is_held_back_and_loses_nothing() {
    for host in Host::both() {
        let (mut lazy, mut good) = (host.domain(7), host.domain(8));
        host.xenstore.apply(write("/a", vec![b'x'; 1000]));
        host.xenstore.apply(set_perms("/a", "r0"));
        // As much as the server takes of it: it stops when too much is unanswered.
        let request = wire(&read("/a"));
        let mut sent = 0;
        loop {
            let Indices { taken, put } = lazy.kernel.page().indices(Requests);
            let room = 1024 - put.wrapping_sub(taken) as usize;
            if room >= request.len() {
                assert_eq!(lazy.kernel.put(&request), request.len());
                lazy.kernel.notify();
                sent += 1;
                continue;
            }
            // Whoever is served after it was: the server has seen all of it, and has had its turn.
            for _ in 0..3 {
                assert_eq!(good.value("/a").unwrap(), vec![b'x'; 1000]);
            }
            if lazy.kernel.page().indices(Requests) == (Indices { taken, put }) {
                break;
            }
        }
        assert!(
            sent < 200,
            "the server has taken {sent} requests that nobody reads the answers of"
        );
        for _ in 0..sent {
            assert_eq!(lazy.answer().payload, vec![b'x'; 1000]);
        }
        assert_eq!(lazy.value("/a").unwrap(), vec![b'x'; 1000]);
    }
}

#[test]
fn events_that_nobody_reads_are_error_1_in_the_end() {
    let host = Host::new();
    let (mut lazy, good) = (host.domain(7), host.domain(8));
    host.xenstore.apply(write("/many", ""));
    host.xenstore.apply(set_perms("/many", "r0"));
    assert_eq!(lazy.ask(&watch("/many")), Reply::Ok);
    host.xenstore.with(|server| server.set_quota(Some(SEVEN), Quota::Memory, 1));
    for number in 0..20_000 {
        host.xenstore.apply(write(&format!("/many/child-of-some-length-{number}"), ""));
    }
    assert_eq!(error_of(&lazy), 1);
    assert_isolated(&host, good);
}

#[test]
fn limits_hold_on_rings() {
    let host = Host::new();
    let mut guest = host.domain(7);
    host.xenstore.with(|server| server.set_quota(Some(SEVEN), Quota::Watches, 3));
    let outcomes: Vec<_> = ["/a", "/b", "/c", "/d"].map(|path| guest.ask(&watch(path))).into();
    assert_eq!(outcomes[..3], [Reply::Ok, Reply::Ok, Reply::Ok]);
    assert_eq!(outcomes[3], Reply::Error(Errno::ENOSPC));
}

#[test]
fn a_guest_that_connects_again_has_nothing_of_before() {
    let host = Host::new();
    let mut guest = host.domain(7);
    host.xenstore.apply(write("/a", ""));
    host.xenstore.apply(set_perms("/a", "r0"));
    assert_eq!(guest.ask(&watch("/a")), Reply::Ok);
    assert_eq!(guest.event(), "/a");
    let Reply::Transaction(tx) = guest.ask(&Request::TransactionStart) else {
        panic!("no transaction")
    };
    for rounds in 0..3 {
        // In the middle of a request.
        guest.send(&wire(&read("/a"))[..17]);
        guest.kernel.ask_to_reconnect();
        let deadline = Instant::now() + SOON;
        while guest.kernel.page().field(Field::Connection) != 0 {
            assert!(guest.kernel.wait_for_event(deadline).unwrap(), "round {rounds}");
        }
        guest = Guest::new(host.xen.guest(SEVEN));
        host.xenstore.apply(write("/a", "x"));
        guest.send(&wire_in(&read("/a"), tx, 5));
        let answer = guest.next();
        assert_eq!(answer.payload, b"ENOENT\0", "the transaction is gone, and no event came first");
        assert_eq!(guest.ask(&read("/a")), Reply::Value(b"x".to_vec()));
    }
}
