//! A ring carries the octets that a socket would, and loses nothing when its server dies.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use xenstore_proto::{DomId, Features};
use xenstored::xen::{
    Direction, DomainState, Field, Hypervisor, Indices, LocalPort, PortState, RemotePort, Ring,
    ShutdownReason, SimulatedGuest, SimulatedXen, XenError,
};

use Direction::{Requests, Responses};

const GUEST: DomId = DomId::new(7);

pub(crate) fn open(xen: &SimulatedXen, domid: DomId) -> Ring {
    let mut hypervisor = xen.hypervisor();
    let channel = hypervisor.bind(domid, xen.store_port()).unwrap();
    Ring::open(hypervisor.map_ring(domid).unwrap(), channel, domid, Features::default())
}

fn pair() -> (SimulatedXen, SimulatedGuest, Ring) {
    let xen = SimulatedXen::new();
    let guest = xen.create(GUEST);
    let mut ring = open(&xen, GUEST);
    ring.settle(0).unwrap();
    assert!(told(&guest), "a domain is told that it is served");
    (xen, guest, ring)
}

/// Whether an event has come to the guest since it last looked.
fn told(guest: &SimulatedGuest) -> bool {
    guest.wait_for_event(Instant::now()).unwrap()
}

/// Reads what there is.
fn read(ring: &mut Ring) -> Vec<u8> {
    let (mut all, mut some) = (Vec::new(), [0; 300]);
    loop {
        match ring.read(&mut some) {
            Ok(len) => all.extend_from_slice(&some[..len]),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                return all;
            }
        }
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect()
}

fn tested() -> impl Strategy<Value = Vec<(usize, usize, usize, usize)>> {
    prop::collection::vec((0..1500_usize, 1..1500_usize, 0..1500_usize, 1..1500_usize), 1..40)
}

proptest! {
    #[test]
    fn both_directions_carry_the_octets_in_order_across_the_ends_of_ring_and_number(
        start in prop_oneof![any::<u32>(), (u32::MAX - 3000)..=u32::MAX],
        moves in tested(),
    ) {
        let xen = SimulatedXen::new();
        let guest = xen.create(GUEST);
        for direction in [Requests, Responses] {
            guest.page().set_indices(direction, Indices { taken: start, put: start });
        }
        let mut ring = open(&xen, GUEST);
        let octets = pattern(60_000);
        let (mut put, mut got, mut written, mut taken) = (0, Vec::new(), 0, Vec::new());
        for (to_put, to_read, to_write, to_take) in moves {
            put += guest.put(&octets[put..put + to_put]);
            let mut buffer = vec![0; to_read];
            match ring.read(&mut buffer) {
                Ok(len) => got.extend_from_slice(&buffer[..len]),
                Err(error) => prop_assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            match ring.write(&octets[written..written + to_write]) {
                Ok(len) => written += len,
                Err(error) => prop_assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            ring.settle(0).unwrap();
            let mut buffer = vec![0; to_take];
            let len = guest.take(&mut buffer);
            taken.extend_from_slice(&buffer[..len]);
        }
        got.extend(read(&mut ring));
        prop_assert_eq!(&got[..], &octets[..put]);
        let mut rest = [0; 1024];
        let len = guest.take(&mut rest);
        taken.extend_from_slice(&rest[..len]);
        prop_assert_eq!(&taken[..], &octets[..written]);
    }
}

#[test]
fn a_request_that_was_not_answered_is_there_for_the_next_server() {
    let (xen, guest, mut ring) = pair();
    guest.put(b"answered unanswered");
    assert_eq!(read(&mut ring), b"answered unanswered");
    assert_eq!(ring.write(b"answer").unwrap(), 6);
    assert!(!told(&guest), "nothing is said before it is settled");
    ring.settle(b"unanswered".len()).unwrap();
    assert!(told(&guest));
    assert!(read(&mut ring).is_empty(), "the same server does not read it again");
    drop(ring);
    let mut next = open(&xen, GUEST);
    assert_eq!(read(&mut next), b"unanswered");
    let mut answer = [0; 10];
    assert_eq!(guest.take(&mut answer), 6);
}

/// A ring full of an answered request and the beginning of the next was given back as a whole: the next server found the
/// middle of a message, and the guest never got an answer.
#[test]
fn the_beginning_of_a_request_is_there_for_the_next_server_also_when_the_ring_is_full() {
    let (xen, guest, mut ring) = pair();
    let (first, second) = (pattern(930), pattern(900));
    assert_eq!(guest.put(&first), 930);
    let begun = guest.put(&second);
    assert_eq!(begun, 1024 - 930);
    assert_eq!(read(&mut ring).len(), 1024);
    assert_eq!(ring.write(b"answer").unwrap(), 6);
    ring.settle(begun).unwrap();
    drop(ring);
    let mut next = open(&xen, GUEST);
    assert_eq!(guest.put(&second[begun..]), second.len() - begun);
    assert_eq!(read(&mut next), second);
}

#[test]
fn a_message_longer_than_the_ring_goes_on_also_where_the_domain_keeps_an_octet_free() {
    for free in [0, 1] {
        let (_xen, guest, mut ring) = pair();
        let message = pattern(4112);
        let (mut put, mut got) = (0, Vec::new());
        while got.len() < message.len() {
            let before = put + got.len();
            let Indices { taken, put: end } = guest.page().indices(Requests);
            let room = 1024 - free - end.wrapping_sub(taken) as usize;
            let part = &message[put..message.len().min(put + room)];
            put += guest.put(part);
            got.extend(read(&mut ring));
            // All of it is held: the message is not complete.
            ring.settle(got.len()).unwrap();
            assert!(put + got.len() > before, "stuck at {put} and {}", got.len());
        }
        assert_eq!(got, message);
    }
}

#[test]
fn what_a_ring_offers_is_in_its_page() {
    let xen = SimulatedXen::new();
    let guest = xen.create(GUEST);
    let mut hypervisor = xen.hypervisor();
    let channel = hypervisor.bind(GUEST, xen.store_port()).unwrap();
    let page = hypervisor.map_ring(GUEST).unwrap();
    guest.page().set_field(Field::Error, 3);
    let _ring = Ring::open(page, channel, GUEST, Features::WATCH_DEPTH);
    assert_eq!(guest.page().field(Field::Features), 1 | 2 | 4);
    assert_eq!(guest.page().field(Field::Error), 0);
}

#[test]
fn an_event_is_sent_for_what_was_read_or_written_and_for_nothing_else() {
    let (_xen, guest, mut ring) = pair();
    ring.settle(0).unwrap();
    assert!(!told(&guest));
    guest.put(b"r");
    read(&mut ring);
    ring.settle(0).unwrap();
    assert!(told(&guest));
    ring.settle(0).unwrap();
    assert!(!told(&guest));
    ring.write(b"w").unwrap();
    ring.settle(0).unwrap();
    assert!(told(&guest));
}

#[test]
fn a_domain_asks_for_a_new_start_and_gets_an_empty_ring() {
    let (_xen, guest, mut ring) = pair();
    guest.put(b"half a mess");
    let mut some = [0; 4];
    ring.read(&mut some).unwrap();
    ring.write(b"half an ans").unwrap();
    guest.ask_to_reconnect();
    for outcome in [ring.read(&mut some), ring.write(b"wer")] {
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    let before = guest.page().indices(Requests);
    ring.settle(0).unwrap();
    assert_eq!(guest.page().indices(Requests), before, "the page is the domain's until the reset");
    told(&guest);
    ring.reset();
    assert!(told(&guest));
    assert_eq!(guest.page().field(Field::Connection), 0);
    for direction in [Requests, Responses] {
        assert_eq!(guest.page().indices(direction), Indices::START);
    }
    guest.put(b"anew");
    assert_eq!(read(&mut ring), b"anew");
}

/// hvmloader clears the page when it has got its last answer, and that may be before the server has said what it took.
#[test]
fn a_page_that_is_cleared_between_answer_and_settling_is_a_new_beginning() {
    for first in [true, false] {
        let (_xen, guest, mut ring) = pair();
        if !first {
            guest.put(b"before");
            read(&mut ring);
            ring.settle(0).unwrap();
        }
        guest.put(b"last request");
        read(&mut ring);
        ring.write(b"last answer").unwrap();
        guest.page().overwrite(0, &[0; 4096]);
        ring.settle(0).unwrap();
        assert_eq!(guest.page().indices(Requests), Indices::START);
        guest.put(b"the kernel's first");
        assert_eq!(read(&mut ring), b"the kernel's first");
        ring.write(b"answer").unwrap();
        ring.settle(0).unwrap();
        let mut answer = [0; 20];
        assert_eq!(guest.take(&mut answer), 6);
        assert_eq!((&answer[..6], ring.fault()), (&b"answer"[..], None));
    }
}

#[test]
fn what_a_server_had_bound_and_mapped_is_free_when_it_is_gone() {
    let (xen, _guest, ring) = pair();
    let mut hypervisor = xen.hypervisor();
    let refused = hypervisor.bind(GUEST, xen.store_port());
    assert!(matches!(refused, Err(XenError::Bind { domid: GUEST, .. })));
    let bound = PortState::Bound(DomId::DOM0);
    assert_eq!(hypervisor.port_state(GUEST, xen.store_port()).unwrap(), bound);
    assert_eq!(hypervisor.port_state(GUEST, RemotePort(60)).unwrap(), PortState::Closed);
    xen.destroy(GUEST);
    assert_eq!(hypervisor.domain_state(GUEST).unwrap(), DomainState::Dying);
    assert!(xen.is_mapped(GUEST) && xen.is_bound(GUEST));
    drop(ring);
    assert!(!xen.is_mapped(GUEST) && !xen.is_bound(GUEST));
    assert_eq!(hypervisor.domain_state(GUEST).unwrap(), DomainState::Gone);
    assert!(hypervisor.domains().unwrap().is_empty());
}

#[test]
fn a_masked_port_keeps_its_event_until_it_is_unmasked() {
    let (xen, guest, ring) = pair();
    let mut hypervisor = xen.hypervisor();
    let deaths = hypervisor.bind_domain_events().unwrap();
    assert!(matches!(hypervisor.bind_domain_events(), Err(XenError::BindDomainEvents(_))));
    guest.notify();
    guest.notify();
    assert_eq!(hypervisor.take_pending().unwrap(), [ring.port()]);
    guest.notify();
    assert_eq!(hypervisor.take_pending().unwrap(), [] as [LocalPort; 0]);
    hypervisor.unmask(&[ring.port()]).unwrap();
    assert_eq!(hypervisor.take_pending().unwrap(), [ring.port()]);
    xen.shut_down(GUEST, ShutdownReason::SUSPEND);
    assert_eq!(hypervisor.take_pending().unwrap(), [deaths.port()]);
    let suspended = DomainState::Shutdown(ShutdownReason::SUSPEND);
    assert_eq!(hypervisor.domain_state(GUEST).unwrap(), suspended);
}

#[test]
fn an_event_sent_from_another_thread_wakes_the_guest() {
    let (_xen, guest, mut ring) = pair();
    let server = std::thread::spawn(move || {
        ring.write(b"x").unwrap();
        ring.settle(0).unwrap();
        ring
    });
    assert!(guest.wait_for_event(Instant::now() + Duration::from_secs(20)).unwrap());
    server.join().unwrap();
}
