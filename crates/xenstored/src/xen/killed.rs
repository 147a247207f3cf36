//! A server that is killed at every store that anybody else sees, and its successor on the same file.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use xenstore_proto::limits::{HEADER_LEN, PAYLOAD_MAX};
use xenstore_proto::{
    Decoded, Decoder, DomId, Message, MessageType, Reply, Request, RequestId, Token, Transport as _,
    TxId,
};

use super::fuse::Fuse;
use super::{Direction, Field, Indices, SimulatedGuest, SimulatedXen};
use crate::{Embedded, Server, Serving, Store, UnixServer};

const SEVEN: DomId = DomId::new(7);

/// Long enough for anything to come.
const SOON: Duration = Duration::from_secs(60);

/// So many stores no test makes.
const NEVER: usize = usize::MAX;

/// A host with one domain, and the servers that it has one after the other.
struct Life {
    xen: SimulatedXen,
    guest: SimulatedGuest,
    dir: tempfile::TempDir,
    xenstore: Embedded,
    served: Option<UnixServer>,
    fuse: Option<Fuse>,
    keeps: Keeps,
}

/// What of the store outlives a server.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keeps {
    /// Its nodes, by the test itself.
    Nodes,
    /// Watches as well, in a database.
    #[cfg(feature = "sled")]
    Watches,
}

impl Life {
    /// The domain's indices are at `start` when it is first served.
    fn begin(start: u32, keeps: Keeps) -> Self {
        let xen = SimulatedXen::new();
        let guest = xen.create(SEVEN);
        for direction in [Direction::Requests, Direction::Responses] {
            guest.page().set_indices(direction, Indices { taken: start, put: start });
        }
        let dir = tempfile::tempdir().unwrap();
        let xenstore = Embedded::default();
        let mut life = Self { xen, guest, dir, xenstore, served: None, fuse: None, keeps };
        life.reopen();
        life.write("/local/domain/7", b"");
        life.write("/w", b"");
        life
    }

    /// A node of the domain.
    fn write(&self, path: &str, value: &[u8]) {
        let path: xenstore_proto::Path = path.parse().unwrap();
        let perms = "n7".parse().unwrap();
        let write = Request::Write { path: path.clone(), value: value.to_vec() };
        assert_eq!(self.xenstore.apply(write), Reply::Ok);
        let set = Request::SetPerms { path: path.into(), perms };
        assert_eq!(self.xenstore.apply(set), Reply::Ok);
    }

    /// Kills the server, if there is one, and starts another, to be killed after so many stores.
    fn serve(&mut self, stores: usize) {
        if let Some(served) = self.served.take() {
            served.stop();
            self.reopen();
        }
        let serving = Serving::new(self.dir.path().join("socket"))
            .rings(self.xen.hypervisor())
            .without_own_ring()
            .in_flight(self.dir.path().join("in-flight"));
        let fuse = Fuse::after(stores, self.guest.events());
        self.served = Some(fuse.protecting(|| serving.start(&self.xenstore)).unwrap());
        self.fuse = Some(fuse);
    }

    fn reopen(&mut self) {
        let store = self.xenstore.snapshot();
        self.xenstore = Embedded::default();
        self.xenstore = match self.keeps {
            Keeps::Nodes => Embedded::from(Server::new(store)),
            #[cfg(feature = "sled")]
            Keeps::Watches => {
                let path = self.dir.path().join("store");
                let hour = Duration::from_secs(3600);
                let backend = crate::SledBackend::open(&path, crate::SyncMode::Interval(hour));
                Embedded::from(Server::open(backend.unwrap(), Store::new()).unwrap())
            }
        };
    }

    fn is_killed(&self) -> bool {
        self.fuse.as_ref().is_some_and(Fuse::is_burnt)
    }
}

/// What a guest says and hears. It sends and receives by turns, as Linux's one thread does.
struct Talk {
    requests: Vec<Vec<u8>>,
    /// Requests that are in the ring as a whole, and octets of the next one.
    sent: (usize, usize),
    /// Octets at a time that it sends and receives, in turn.
    chunks: Vec<usize>,
    turns: usize,
    received: Vec<u8>,
    answers: Vec<Message>,
    events: Vec<Message>,
    decoder: Decoder,
}

impl Talk {
    fn new(requests: &[Request], chunks: &[usize]) -> Self {
        let encode = |(request, number): (&Request, u32)| {
            let mut octets = Vec::new();
            request.encode(RequestId(number), TxId::NONE, PAYLOAD_MAX, &mut octets).unwrap();
            octets
        };
        Self {
            requests: requests.iter().zip(1..).map(encode).collect(),
            sent: (0, 0),
            chunks: chunks.to_vec(),
            turns: 0,
            received: Vec::new(),
            answers: Vec::new(),
            events: Vec::new(),
            decoder: Decoder::new(PAYLOAD_MAX),
        }
    }

    /// Sends and receives some. Whether there was anything to do.
    fn turn(&mut self, guest: &mut SimulatedGuest) -> bool {
        let chunk = self.chunks[self.turns % self.chunks.len()];
        self.turns += 1;
        let (number, from) = self.sent;
        let mut moved = 0;
        if let Some(request) = self.requests.get(number) {
            let part = &request[from..request.len().min(from + chunk)];
            moved = guest.send(part).unwrap_or(0);
            self.sent =
                if from + moved == request.len() { (number + 1, 0) } else { (number, from + moved) };
        }
        let mut octets = vec![0; chunk];
        let len = guest.receive(&mut octets).unwrap_or(0);
        self.received.extend_from_slice(&octets[..len]);
        self.decoder.push(&octets[..len]);
        while let Decoded::Message(message) = self.decoder.decode().expect("in step") {
            let is_event = message.ty == MessageType::WATCH_EVENT;
            if is_event { &mut self.events } else { &mut self.answers }.push(message);
        }
        moved + len > 0
    }

    /// Goes on until everything is answered and `enough` has come. Servers are killed after these numbers of stores; says how
    /// many were.
    fn through(
        &mut self,
        life: &mut Life,
        kills: &mut impl Iterator<Item = usize>,
        enough: impl Fn(&Self) -> bool,
    ) -> usize {
        let deadline = Instant::now() + SOON;
        let mut killed = 0;
        while self.answers.len() < self.requests.len() || !enough(self) {
            if life.is_killed() {
                killed += 1;
                life.serve(kills.next().unwrap_or(NEVER));
            } else if !self.turn(&mut life.guest) {
                let error = life.guest.page().field(Field::Error);
                assert_eq!(error, 0, "the ring is closed after {killed} kills");
                let woken = life.guest.wait_for_event(deadline).unwrap();
                assert!(woken, "stuck after {killed} kills: {} answers", self.answers.len());
            }
        }
        killed
    }

    /// Nothing but these answers, each once, in order.
    fn assert_answers(&self, expected: &[Reply]) {
        assert_eq!(self.answers.len(), expected.len());
        for (number, (answer, expected)) in (1..).zip(self.answers.iter().zip(expected)) {
            assert_eq!(answer.request_id, RequestId(number));
            let sent = &self.requests[usize::try_from(number - 1).unwrap()];
            let ty = u32::from_ne_bytes(*sent.first_chunk().unwrap());
            let mut message = Vec::new();
            let ty = MessageType(ty);
            expected.encode(ty, answer.request_id, TxId::NONE, PAYLOAD_MAX, &mut message).unwrap();
            assert_eq!(answer.payload, message[HEADER_LEN..], "answer {number}");
        }
        assert_eq!(self.decoder.pending(), 0);
    }
}

fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|n| u8::try_from((n * 7 + seed * 13) % 251).unwrap()).collect()
}

fn read(path: &str) -> Request {
    Request::Read(path.parse().unwrap())
}

fn write(path: &str, value: Vec<u8>) -> Request {
    Request::Write { path: path.parse().unwrap(), value }
}

/// Long and short messages in both directions, and what is answered.
fn conversation(life: &Life) -> (Vec<Request>, Vec<Reply>) {
    for (path, len) in [("/w/long", 4000), ("/w/middle", 2100), ("/w/short", 3)] {
        life.write(path, &pattern(len, len));
    }
    let mut names = Vec::new();
    for number in 0..30 {
        let name = format!("a-child-with-a-name-that-is-quite-long-so-that-few-of-them-are-enough-{number}");
        life.write(&format!("/w/many/{name}"), b"");
        names.push(name.parse().unwrap());
    }
    let value = |path: &str, len| (read(path), Reply::Value(pattern(len, len)));
    [
        value("/w/short", 3),
        (write("data/one", pattern(1, 2500)), Reply::Ok),
        value("/w/long", 4000),
        (write("data/two", pattern(2, 10)), Reply::Ok),
        (Request::Directory("/w/many".parse().unwrap()), Reply::Names(names)),
        value("/w/short", 3),
        value("/w/middle", 2100),
        (write("data/three", pattern(3, 4000)), Reply::Ok),
        (read("data/one"), Reply::Value(pattern(1, 2500))),
        (read("data/three"), Reply::Value(pattern(3, 4000))),
        value("/w/short", 3),
    ]
    .into_iter()
    .unzip()
}

/// Kills a server after its first store, its second, and so on, until it has made all that there are.
fn at_every_store(start: u32, chunks: &[usize]) -> usize {
    for stores in 0.. {
        let mut life = Life::begin(start, Keeps::Nodes);
        let (requests, expected) = conversation(&life);
        let mut talk = Talk::new(&requests, chunks);
        life.serve(stores);
        let killed = talk.through(&mut life, &mut std::iter::empty(), |_| true);
        talk.assert_answers(&expected);
        let quiet = life.guest.page().indices(Direction::Responses);
        assert_eq!(quiet.taken, quiet.put, "killed after {stores} stores: there is more");
        if killed == 0 {
            return stores;
        }
    }
    unreachable!("no server makes so many stores")
}

#[test]
fn wherever_a_server_is_killed_each_request_is_answered_once_and_in_order() {
    let stores = at_every_store(0, &[1024]);
    assert!(stores > 100, "{stores} stores are no conversation");
}

#[test]
fn wherever_a_server_is_killed_it_goes_on_where_the_indices_begin_again_at_0() {
    at_every_store(0u32.wrapping_sub(3000), &[700, 16, 90]);
}
