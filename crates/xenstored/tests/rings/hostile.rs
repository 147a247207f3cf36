//! A domain that writes anything anywhere in its page at any time harms itself only.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use xenstore_proto::DomId;
use xenstored::xen::{
    Direction, Fault, Field, Indices, Ring, RingError, SimulatedGuest, SimulatedXen,
};

use Direction::{Requests, Responses};

use crate::stream::open;

const GUEST: DomId = DomId::new(7);

fn pair() -> (SimulatedGuest, Ring) {
    let xen = SimulatedXen::new();
    (xen.create(GUEST), open(&xen, GUEST))
}

/// Fails unless the ring is closed for this reason, and stays so.
fn assert_closed(ring: &mut Ring, guest: &SimulatedGuest, fault: Fault) {
    assert_eq!(guest.page().field(Field::Error), fault as u32);
    let before = whole(guest);
    let mut octets = [0; 9];
    for outcome in [ring.read(&mut octets), ring.write(b"x"), ring.settle(0).map(|()| 0)] {
        let error = outcome.unwrap_err();
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<RingError>());
        assert_eq!(inner, Some(&RingError { domid: GUEST, fault }));
    }
    assert!(whole(guest) == before, "the page of a closed ring was touched");
}

/// The page as the guest sees it.
fn whole(guest: &SimulatedGuest) -> (Vec<u8>, Vec<u8>, [Indices; 2], [u32; 3]) {
    let ring = |direction| {
        let mut octets = vec![0; 1024];
        guest.page().read(direction, 0, &mut octets);
        octets
    };
    let page = guest.page();
    let fields = [Field::Features, Field::Connection, Field::Error].map(|field| page.field(field));
    let indices = [Requests, Responses].map(|direction| page.indices(direction));
    (ring(Requests), ring(Responses), indices, fields)
}

#[test]
fn more_waiting_than_fits_closes_the_ring_until_it_is_reset() {
    for (taken, put) in [(0, 1025), (1, 0), (0, u32::MAX), (u32::MAX, 1024)] {
        let bad = Indices { taken, put };
        let (guest, mut ring) = pair();
        guest.page().set_indices(Requests, bad);
        assert_eq!(ring.read(&mut [0; 10]).unwrap_err().kind(), ErrorKind::Other);
        assert_closed(&mut ring, &guest, Fault::Index);
        ring.reset();
        assert_eq!((guest.page().field(Field::Error), ring.fault()), (0, None));
        guest.put(b"again");
        assert_eq!(ring.read(&mut [0; 10]).unwrap(), 5);

        let (guest, mut ring) = pair();
        guest.page().set_indices(Responses, bad);
        ring.write(b"answer").unwrap_err();
        assert_closed(&mut ring, &guest, Fault::Index);

        let (guest, mut ring) = pair();
        guest.put(b"request");
        ring.read(&mut [0; 10]).unwrap();
        guest.page().set_indices(Requests, bad);
        ring.settle(0).unwrap_err();
        assert_closed(&mut ring, &guest, Fault::Index);
    }
}

#[test]
fn the_first_reason_for_closing_a_ring_stays() {
    let (guest, mut ring) = pair();
    ring.fail(Fault::Protocol);
    ring.fail(Fault::Communication);
    assert_closed(&mut ring, &guest, Fault::Protocol);
    assert_eq!(Fault::Communication as u32, 1);
}

#[test]
fn a_full_ring_of_answers_is_not_written_over() {
    let (guest, mut ring) = pair();
    assert_eq!(ring.write(&[7; 2000]).unwrap(), 1024);
    assert_eq!(ring.write(b"more").unwrap_err().kind(), ErrorKind::WouldBlock);
    ring.settle(0).unwrap();
    let mut octets = [0; 2000];
    assert_eq!(guest.take(&mut octets), 1024);
    assert!(octets[..1024].iter().all(|octet| *octet == 7));
}

/// What a hostile domain does between two calls of the server.
#[derive(Clone, Debug)]
enum Mischief {
    Overwrite(usize, Vec<u8>),
    Number(usize, u32),
    Put(Vec<u8>),
    Take(usize),
    Reconnect,
    Clear,
}

/// What the server does.
#[derive(Clone, Debug)]
enum Step {
    Read(usize),
    Write(usize),
    Settle(usize),
    Reset,
}

fn mischief() -> impl Strategy<Value = Mischief> {
    let near = prop_oneof![any::<u32>(), 0..2100_u32, (u32::MAX - 2100)..=u32::MAX];
    prop_oneof![
        (0..4000_usize, prop::collection::vec(any::<u8>(), 0..96))
            .prop_map(|(at, octets)| Mischief::Overwrite(at, octets)),
        (0..8_usize, near).prop_map(|(field, value)| Mischief::Number(2048 + 4 * field, value)),
        prop::collection::vec(any::<u8>(), 0..1200).prop_map(Mischief::Put),
        (0..1200_usize).prop_map(Mischief::Take),
        Just(Mischief::Reconnect),
        Just(Mischief::Clear),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..2000_usize).prop_map(Step::Read),
        4 => (1..2000_usize).prop_map(Step::Write),
        4 => prop_oneof![Just(0), 0..2000_usize, Just(usize::MAX)].prop_map(Step::Settle),
        1 => Just(Step::Reset),
    ]
}

proptest! {
    /// Nothing panics, nothing is given that does not fit the ring, and the octets beyond the fields are never touched.
    #[test]
    fn whatever_is_written_into_the_page_the_server_goes_on(
        history in prop::collection::vec(
            prop_oneof![mischief().prop_map(Ok), step().prop_map(Err)], 1..80)
    ) {
        let (guest, mut ring) = pair();
        let mut buffer = [0; 2000];
        for happens in history {
            match happens {
                Ok(Mischief::Overwrite(at, octets)) => guest.page().overwrite(at, &octets),
                Ok(Mischief::Number(at, value)) => {
                    guest.page().overwrite(at, &value.to_ne_bytes());
                }
                Ok(Mischief::Put(octets)) => drop(guest.put(&octets)),
                Ok(Mischief::Take(len)) => drop(guest.take(&mut vec![0; len])),
                Ok(Mischief::Reconnect) => guest.ask_to_reconnect(),
                Ok(Mischief::Clear) => guest.page().overwrite(0, &[0; 4096]),
                Err(Step::Read(len)) => {
                    if let Ok(got) = ring.read(&mut buffer[..len]) {
                        prop_assert!((1..=len.min(1024)).contains(&got));
                    }
                }
                Err(Step::Write(len)) => {
                    if let Ok(written) = ring.write(&buffer[..len]) {
                        prop_assert!((1..=len.min(1024)).contains(&written));
                    }
                }
                Err(Step::Settle(held)) => drop(ring.settle(held)),
                Err(Step::Reset) => {
                    ring.reset();
                    prop_assert_eq!(guest.page().indices(Requests), Indices::START);
                }
            }
        }
        ring.reset();
        guest.put(b"after all");
        prop_assert_eq!(ring.read(&mut buffer).unwrap(), 9);
        prop_assert_eq!(&buffer[..9], b"after all");
    }
}

#[test]
fn numbers_that_change_while_they_are_read_do_not_lead_astray() {
    let (guest, mut ring) = pair();
    let (stop, started) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 1_u32;
            while !stop.load(Ordering::Relaxed) {
                number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let at = 2048 + 4 * (number >> 30) as usize;
                guest.page().overwrite(at, &((number >> 16) % 1100).to_ne_bytes());
                started.store(true, Ordering::Relaxed);
            }
        });
        while !started.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
        let (mut buffer, mut closed, mut moved) = ([0; 2000], 0_u32, 0_u64);
        for round in 0..200_000_usize {
            let len = 1 + round % buffer.len();
            let outcomes = [ring.read(&mut buffer[..len]), ring.write(&[5; 700])];
            for octets in outcomes.into_iter().flatten() {
                assert!((1..=1024).contains(&octets));
                moved += octets as u64;
            }
            if ring.settle(round % 3).is_err() {
                closed += 1;
                ring.reset();
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(closed > 0 && moved > 0, "closed {closed} times, moved {moved} octets");
    });
}
