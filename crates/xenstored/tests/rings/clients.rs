//! What domains get on their rings.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use proptest::prelude::*;
use xenstore_proto::limits::HEADER_LEN;
use xenstore_proto::{DomId, Errno, MessageType, Reply, Request, TxId};
use xenstored::Server;
use xenstored::xen::{Field, SimulatedXen};

use crate::served::{Guest, Host, SOON, read, set_perms, watch, wire, wire_in, write};

#[test]
fn a_guest_asks_and_is_answered_as_who_it_is() {
    let host = Host::new();
    let mut guest = host.domain(7);
    assert_eq!(guest.kernel.page().field(Field::Features), 1 | 2 | 4 | 8);
    host.xenstore.apply(write("/local/domain/7", ""));
    host.xenstore.apply(set_perms("/local/domain/7", "n7"));
    assert_eq!(guest.ask(&write("data", "mine")), Reply::Ok);
    assert_eq!(guest.value("/local/domain/7/data").unwrap(), b"mine");
    assert_eq!(guest.ask(&write("/tool", "mine")), Reply::Error(Errno::EACCES));
    let introduce = Request::Introduce { domid: DomId::new(7), gfn: 0, event_channel: 1 };
    assert_eq!(guest.ask(&introduce), Reply::Error(Errno::EACCES));
}

#[test]
fn messages_longer_than_the_ring_pass_both_ways() {
    for host in Host::both() {
        let mut guest = host.domain(7);
        host.xenstore.apply(write("/local/domain/7", ""));
        host.xenstore.apply(set_perms("/local/domain/7", "n7"));
        let value: Vec<u8> = (0..2000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
        assert_eq!(guest.ask(&write("data", value.clone())), Reply::Ok);
        assert_eq!(guest.value("data").unwrap(), value);
    }
}

#[test]
fn a_guest_hears_of_what_it_watches_and_of_nothing_that_it_may_not_read() {
    let host = Host::new();
    let mut guest = host.domain(7);
    for path in ["/open", "/secret"] {
        host.xenstore.apply(write(path, ""));
        assert_eq!(guest.ask(&watch(path)), Reply::Ok);
        assert_eq!(guest.event(), path);
    }
    host.xenstore.apply(set_perms("/open", "r0"));
    assert_eq!(guest.event(), "/open");
    host.xenstore.apply(write("/secret", "x"));
    host.xenstore.apply(write("/open", "x"));
    assert_eq!(guest.event(), "/open");
}

#[test]
fn the_control_domains_own_ring_is_served_and_privileged() {
    let host = Host::new();
    let mut kernel = Guest::new(host.xen.guest(DomId::DOM0));
    // It looks for no Xenstore before that.
    assert!(kernel.kernel.wait_for_event(Instant::now() + SOON).unwrap());
    assert_eq!(kernel.ask(&write("/tool", "dom0's")), Reply::Ok);
    host.xen.create(DomId::new(7));
    let event_channel = host.xen.store_port().0;
    let introduce = Request::Introduce { domid: DomId::new(7), gfn: 0, event_channel };
    assert_eq!(kernel.ask(&introduce), Reply::Ok);
    let mut guest = Guest::new(host.xen.guest(DomId::new(7)));
    assert_eq!(guest.value("/tool").unwrap_err(), Errno::EACCES);
}

/// As long as a header is not taken, Linux sends no event for the payload that it puts behind it.
#[test]
fn the_beginning_of_a_message_is_taken_so_that_its_rest_brings_an_event() {
    for host in Host::both() {
        let mut guest = host.domain(7);
        let mut others = host.watcher();
        let request = wire(&read("/"));
        let (header, payload) = request.split_at(HEADER_LEN);
        assert_eq!(guest.kernel.put(header), header.len());
        guest.kernel.notify();
        // The server has read the header when others have been answered twice, and sleeps.
        (0..2).for_each(|_| others.assert_quiet());
        guest.send(payload);
        assert_eq!(guest.answer().ty, MessageType::ERROR);
    }
}

#[test]
fn a_guest_that_pipelines_without_reading_gets_every_answer_in_order() {
    for host in Host::both() {
        let mut guest = host.domain(7);
        let mut next = 0_u32;
        let mut expected = 0_u32;
        // More than the limit of outstanding requests, and than fits the two rings.
        for round in 1..=8_u32 {
            let batch: Vec<u8> = (0..30)
                .flat_map(|_| {
                    next += 1;
                    wire_in(&Request::GetDomainPath(DomId::new(7)), TxId::NONE, next)
                })
                .collect();
            guest.send(&batch);
            while expected < round * 30 {
                expected += 1;
                let answer = guest.answer();
                assert_eq!(
                    (answer.request_id.0, answer.ty),
                    (expected, MessageType::GET_DOMAIN_PATH)
                );
            }
        }
    }
}

/// One of a client's moves.
fn request() -> impl Strategy<Value = Request> {
    let path = prop::sample::select(vec!["/a", "/a/b", "/a/b/c", "/d", "/d/e"]);
    let value = prop_oneof![Just(0_usize), 0..40_usize, Just(3000)];
    prop_oneof![
        (path.clone(), value).prop_map(|(path, len)| write(path, vec![b'v'; len])),
        path.clone().prop_map(read),
        path.clone().prop_map(|path| Request::Directory(path.parse().unwrap())),
        path.clone().prop_map(|path| Request::Rm(path.parse().unwrap())),
        path.clone().prop_map(watch),
        path.prop_map(|path| set_perms(path, "n0,r7")),
        Just(Request::ResetWatches),
        Just(Request::TransactionStart),
        any::<bool>().prop_map(|commit| Request::TransactionEnd { commit }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_ring_gives_the_octets_that_a_socket_gives(
        history in prop::collection::vec((request(), 0..3_u32), 1..40)
    ) {
        let octets: Vec<u8> = (history.iter().zip(1..))
            .flat_map(|((request, tx), number)| wire_in(request, TxId(*tx), number))
            // The last answer is the only one of its number.
            .chain(wire_in(&read("/end"), TxId::NONE, 1000))
            .collect();
        let ends = |message: &[u8]| message.len() >= 4 && message[4..8] == 1000_u32.to_ne_bytes();

        let host = Host::new();
        let socket = host.served.as_ref().unwrap().path();
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(&octets).unwrap();
        let mut on_socket = Vec::new();
        loop {
            let mut message = vec![0; 16];
            stream.read_exact(&mut message).unwrap();
            let len = u32::from_ne_bytes(message[12..16].try_into().unwrap()) as usize;
            message.resize(16 + len, 0);
            stream.read_exact(&mut message[16..]).unwrap();
            on_socket.extend_from_slice(&message);
            if ends(&message) {
                break;
            }
        }

        let host = Host::with(Server::new(Default::default()).into(), SimulatedXen::new());
        let mut kernel = Guest::new(host.xen.guest(DomId::DOM0));
        kernel.send(&octets);
        let mut on_ring = Vec::new();
        loop {
            let mut message = Vec::new();
            kernel.next().encode(4096, &mut message).unwrap();
            on_ring.extend_from_slice(&message);
            if ends(&message) {
                break;
            }
        }
        prop_assert!(on_ring == on_socket);
    }
}

#[test]
fn an_answer_that_finds_no_room_is_sent_when_there_is_some() {
    for host in Host::both() {
        let mut guest = host.domain(7);
        host.xenstore.apply(write("/big", vec![b'x'; 3000]));
        host.xenstore.apply(set_perms("/big", "r0"));
        guest.send(&wire(&read("/big")));
        guest.send(&wire(&read("/big")));
        for _ in 0..2 {
            assert_eq!(guest.answer().payload, vec![b'x'; 3000]);
        }
    }
}
