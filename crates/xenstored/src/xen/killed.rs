//! A server that is killed at every store that anybody else sees, and its successor on the same file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use xenstore_proto::limits::{HEADER_LEN, PAYLOAD_MAX};
use xenstore_proto::{
    Decoded, Decoder, DomId, Message, MessageType, Reply, Request, RequestId, Token,
    Transport as _, TxId,
};

use super::fuse::Fuse;
use super::{
    Direction, Field, Hypervisor as _, InFlight, Indices, Ring, SimulatedGuest, SimulatedXen,
};
use crate::{
    Backend, BackendError, Embedded, KeptNode, KeptWatch, NodeChange, Quota, Server, Serving,
    Store, UnixServer, WatchChange,
};

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
    kept: Kept,
}

/// What outlives a server of the store.
#[derive(Clone, Debug, Default)]
struct Kept(Arc<Mutex<Contents>>);

/// Nodes by their numbers, and watches.
type Contents = (BTreeMap<u64, KeptNode>, BTreeSet<KeptWatch>);

impl Backend for Kept {
    fn load(&mut self) -> Result<Vec<KeptNode>, BackendError> {
        Ok(self.0.lock().unwrap().0.values().cloned().collect())
    }

    fn keep(&mut self, changes: &[NodeChange]) -> Result<(), BackendError> {
        let nodes = &mut self.0.lock().unwrap().0;
        for change in changes {
            match change {
                NodeChange::Put(node) => drop(nodes.insert(node.id, node.clone())),
                NodeChange::Remove(id) => drop(nodes.remove(id)),
            }
        }
        Ok(())
    }

    fn load_watches(&mut self) -> Result<Vec<KeptWatch>, BackendError> {
        Ok(self.0.lock().unwrap().1.iter().cloned().collect())
    }

    fn keep_watch(&mut self, change: &WatchChange) -> Result<(), BackendError> {
        let watches = &mut self.0.lock().unwrap().1;
        match change {
            WatchChange::Put(watch) => drop(watches.insert(watch.clone())),
            WatchChange::Remove(watch) => drop(watches.remove(watch)),
            WatchChange::RemoveAll(domid) => watches.retain(|watch| watch.domid != *domid),
        }
        Ok(())
    }
}

impl Life {
    /// The domain's indices are at `start` when it is first served.
    fn begin(start: u32) -> Self {
        let xen = SimulatedXen::new();
        let guest = xen.create(SEVEN);
        for direction in [Direction::Requests, Direction::Responses] {
            guest.page().set_indices(direction, Indices { taken: start, put: start });
        }
        let dir = tempfile::tempdir().unwrap();
        let xenstore = Embedded::default();
        let mut life =
            Self { xen, guest, dir, xenstore, served: None, fuse: None, kept: Kept::default() };
        life.reopen();
        life.write("/local/domain/7", b"");
        life.write("/w", b"");
        life
    }

    /// A node of the domain.
    fn write(&self, path: &str, value: &[u8]) {
        let perms = "n7".parse().unwrap();
        let set = Request::SetPerms { path: path.parse().unwrap(), perms };
        for request in [write(path, value.to_vec()), set] {
            assert_eq!(self.xenstore.apply(request), Reply::Ok);
        }
    }

    /// Kills the server, if there is one.
    fn kill(&mut self) {
        if let Some(served) = self.served.take() {
            served.stop();
            self.reopen();
        }
    }

    /// Kills the server, if there is one, and starts another, to be killed after so many stores.
    fn serve(&mut self, stores: usize) {
        self.kill();
        let serving = Serving::new(self.dir.path().join("socket"))
            .rings(self.xen.hypervisor())
            .without_own_ring()
            .in_flight(self.in_flight());
        let fuse = Fuse::after(stores, self.guest.events());
        self.served = Some(fuse.protecting(|| serving.start(&self.xenstore)).unwrap());
        self.fuse = Some(fuse);
    }

    fn reopen(&mut self) {
        let mut server = Server::open(self.kept.clone(), Store::new()).unwrap();
        // Long values are what this is about.
        server.set_quota(Some(SEVEN), Quota::NodeSize, 0);
        self.xenstore = server.into();
    }

    fn in_flight(&self) -> std::path::PathBuf {
        self.dir.path().join("in-flight")
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
        let mut talk = Self {
            requests: Vec::new(),
            sent: (0, 0),
            chunks: chunks.to_vec(),
            turns: 0,
            received: Vec::new(),
            answers: Vec::new(),
            events: Vec::new(),
            decoder: Decoder::new(PAYLOAD_MAX),
        };
        talk.say(requests);
        talk
    }

    /// Has more to say. Requests are numbered from 1.
    fn say(&mut self, requests: &[Request]) {
        for request in requests {
            let number = RequestId(u32::try_from(self.requests.len()).unwrap() + 1);
            let mut octets = Vec::new();
            request.encode(number, TxId::NONE, PAYLOAD_MAX, &mut octets).unwrap();
            self.requests.push(octets);
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
            self.sent = if from + moved == request.len() {
                (number + 1, 0)
            } else {
                (number, from + moved)
            };
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
        let name = format!(
            "a-child-with-a-name-that-is-quite-long-so-that-few-of-them-are-enough-{number}"
        );
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

/// Kills a server before its first store, and then later and later by so many, until it has made all that there are.
fn at_every(step: usize, start: u32, chunks: &[usize]) -> usize {
    for stores in (0..).step_by(step) {
        let mut life = Life::begin(start);
        let (requests, expected) = conversation(&life);
        let mut talk = Talk::new(&requests, chunks);
        life.serve(stores);
        let killed = talk.through(&mut life, &mut std::iter::empty(), |_| true);
        talk.assert_answers(&expected);
        assert_eq!(talk.decoder.pending(), 0, "killed after {stores} stores: half a message more");
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
    let stores = at_every(1, 0, &[1024]);
    assert!(stores > 100, "{stores} stores are no conversation");
}

#[test]
fn wherever_a_server_is_killed_it_goes_on_where_the_indices_begin_again_at_0() {
    at_every(7, 0u32.wrapping_sub(3000), &[700, 16, 90]);
}

#[test]
fn wherever_a_server_is_killed_long_events_come_whole_and_answers_between_them_once() {
    let token = Token::from_octets(vec![b't'; 2000]).unwrap();
    let event = |path: &str| [path.as_bytes(), &[0], token.as_octets(), &[0]].concat();
    let written = ["/w/0", "/w/1"];
    for stores in 0.. {
        let mut life = Life::begin(77);
        life.write("/w/middle", &pattern(2100, 2100));
        life.serve(NEVER);
        let path = "/w".parse().unwrap();
        let watch = Request::Watch { path, token: token.clone(), depth: None };
        let mut talk = Talk::new(&[watch], &[1024]);
        talk.through(&mut life, &mut std::iter::empty(), |talk| talk.events.len() == 1);
        talk.say(&[
            write(written[0], b"x".to_vec()),
            read("/w/middle"),
            write(written[1], pattern(1, 1500)),
            read("/w/1"),
        ]);
        life.serve(stores);
        let killed = talk.through(&mut life, &mut std::iter::empty(), |talk| {
            let came = |path: &str| talk.events.iter().filter(|e| e.payload == event(path)).count();
            // What the dead one had not told is made up for by telling that anything may have changed.
            came("/w") >= 2 && (came(written[1]) > 0 || came("/w") >= 3)
        });
        talk.assert_answers(&[
            Reply::Ok,
            Reply::Ok,
            Reply::Value(pattern(2100, 2100)),
            Reply::Ok,
            Reply::Value(pattern(1, 1500)),
        ]);
        let known = ["/w", written[0], written[1]].map(event);
        assert!(talk.events.iter().all(|event| known.contains(&event.payload)));
        if killed == 0 {
            assert!(stores > 40, "{stores} stores are no conversation");
            return;
        }
    }
}

/// One of a guest's moves: to write so many octets, or to read what it wrote as its nth, if there is one.
#[derive(Clone, Copy, Debug)]
enum Move {
    Write(usize),
    Read(usize),
    ReadNothing,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let len = prop_oneof![0..40_usize, 0..4000_usize, 900..1200_usize];
    let one = prop_oneof![
        len.prop_map(Move::Write),
        (0..8_usize).prop_map(Move::Read),
        (0..8_usize).prop_map(Move::Read),
        Just(Move::ReadNothing),
    ];
    prop::collection::vec(one, 1..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// The model is a list of what was written.
    #[test]
    fn whatever_is_said_in_whatever_pieces_and_whenever_servers_are_killed_it_is_answered_as_by_one(
        moves in moves(),
        start in prop_oneof![any::<u32>(), (u32::MAX - 9000)..=u32::MAX],
        chunks in prop::collection::vec(prop_oneof![1..64_usize, 1..1500_usize, Just(1024)], 1..5),
        kills in prop::collection::vec(0..90_usize, 0..8),
    ) {
        let mut life = Life::begin(start);
        let mut written: Vec<Vec<u8>> = Vec::new();
        let (mut requests, mut expected) = (Vec::new(), Vec::new());
        for (number, one) in moves.into_iter().enumerate() {
            let (request, reply) = match one {
                Move::Write(len) => {
                    let value = pattern(number, len);
                    written.push(value.clone());
                    (write(&format!("data/{}", written.len() - 1), value), Reply::Ok)
                }
                Move::Read(nth) if nth < written.len() => {
                    (read(&format!("data/{nth}")), Reply::Value(written[nth].clone()))
                }
                Move::Read(_) | Move::ReadNothing => {
                    (read("data/none"), Reply::Error(xenstore_proto::Errno::ENOENT))
                }
            };
            requests.push(request);
            expected.push(reply);
        }
        let mut talk = Talk::new(&requests, &chunks);
        let mut kills = kills.into_iter();
        life.serve(kills.next().unwrap_or(NEVER));
        talk.through(&mut life, &mut kills, |_| true);
        talk.assert_answers(&expected);
        prop_assert_eq!(talk.decoder.pending(), 0);
    }
}

/// A guest in the middle of a long answer and of a long request.
fn in_the_middle() -> (Life, Talk) {
    let mut life = Life::begin(500);
    life.write("/w/long", &pattern(4000, 4000));
    life.serve(NEVER);
    let requests = [read("/w/long"), write("data/one", pattern(1, 3000))];
    let mut talk = Talk::new(&requests, &[200]);
    let deadline = Instant::now() + SOON;
    while talk.received.len() < 600 || talk.sent < (1, 600) {
        if !talk.turn(&mut life.guest) {
            assert!(life.guest.wait_for_event(deadline).unwrap());
        }
    }
    assert!(talk.sent < (2, 0) && talk.answers.is_empty(), "not in the middle");
    (life, talk)
}

#[test]
fn a_guest_that_was_killed_upon_in_the_middle_both_ways_goes_on_both_ways() {
    let (mut life, mut talk) = in_the_middle();
    life.serve(NEVER);
    talk.through(&mut life, &mut std::iter::empty(), |_| true);
    talk.assert_answers(&[Reply::Value(pattern(4000, 4000)), Reply::Ok]);
}

#[test]
fn a_domain_of_the_same_number_has_nothing_of_the_one_before() {
    let (mut life, _) = in_the_middle();
    let indices = |guest: &SimulatedGuest| {
        [Direction::Requests, Direction::Responses].map(|direction| guest.page().indices(direction))
    };
    let before = indices(&life.guest);
    life.kill();
    life.xen.destroy(SEVEN);
    life.guest = life.xen.create(SEVEN);
    // Even where its ring looks the same.
    let [requests, responses] = before.map(|indices| indices.put);
    let at_rest = |index| Indices { taken: index, put: index };
    life.guest.page().set_indices(Direction::Requests, at_rest(requests));
    life.guest.page().set_indices(Direction::Responses, at_rest(responses));
    life.serve(NEVER);
    let mut talk = Talk::new(&[read("/w")], &[1024]);
    talk.through(&mut life, &mut std::iter::empty(), |_| true);
    talk.assert_answers(&[Reply::Value(Vec::new())]);
}

#[test]
fn what_does_not_go_with_the_ring_is_not_used() {
    // The first four are the ring's, the last is the file's.
    for spoilt in 0..5 {
        let (mut life, _) = in_the_middle();
        let page = life.guest.page();
        let (requests, responses) =
            (page.indices(Direction::Requests), page.indices(Direction::Responses));
        life.kill();
        let page = life.guest.page();
        let at_rest = |index: u32| Indices { taken: index, put: index };
        page.set_indices(Direction::Requests, at_rest(requests.taken));
        page.set_indices(Direction::Responses, at_rest(responses.put));
        match spoilt {
            0 => page.set_indices(Direction::Responses, at_rest(responses.put.wrapping_add(9000))),
            1 => page.set_indices(Direction::Responses, at_rest(490)),
            2 => page.set_indices(Direction::Requests, at_rest(requests.taken.wrapping_add(2000))),
            3 => page.set_indices(Direction::Requests, at_rest(0)),
            _ => std::fs::write(life.in_flight(), vec![0x5A; 30_000]).unwrap(),
        }
        life.serve(NEVER);
        let mut talk = Talk::new(&[read("/w")], &[1024]);
        talk.through(&mut life, &mut std::iter::empty(), |_| true);
        talk.assert_answers(&[Reply::Value(Vec::new())]);
    }
}

#[test]
fn no_more_is_read_than_can_be_kept_and_an_answer_makes_room() {
    let xen = SimulatedXen::new();
    let guest = xen.create(SEVEN);
    let mut hypervisor = xen.hypervisor();
    let channel = hypervisor.bind(SEVEN, xen.store_port()).unwrap();
    let features = xenstore_proto::Features::default();
    let mut ring = Ring::open(hypervisor.map_ring(SEVEN).unwrap(), channel, SEVEN, features);
    let dir = tempfile::tempdir().unwrap();
    let mut file = InFlight::open(&dir.path().join("in-flight")).unwrap();
    let handle = hypervisor.domain_handle(SEVEN).unwrap();
    ring.keep_in(file.claim(SEVEN, handle).unwrap());
    let (mut buffer, mut all) = ([0; 2000], Vec::new());
    loop {
        let put = guest.put(&pattern(all.len(), 1024));
        match ring.read(&mut buffer) {
            Ok(len) => all.extend_from_slice(&buffer[..len]),
            Err(error) => {
                assert_eq!((error.kind(), put), (std::io::ErrorKind::WouldBlock, 1024));
                break;
            }
        }
        // Nothing of it is answered, and the ring is full.
        ring.settle(all.len()).unwrap();
    }
    assert_eq!(all.len(), 8192);
    assert!(!ring.has_more(), "nobody is to try for ever");
    ring.stage(b"an answer", 0, 8000).unwrap();
    assert!(ring.has_more());
    assert_eq!(ring.read(&mut buffer).unwrap(), 192);
    drop(ring);

    let channel = hypervisor.bind(SEVEN, xen.store_port()).unwrap();
    let mut next = Ring::open(hypervisor.map_ring(SEVEN).unwrap(), channel, SEVEN, features);
    let left = next.resume_in(file.claim(SEVEN, handle).unwrap());
    assert_eq!((&left.input[..], &left.output[..]), (&all[192..], &b"an answer"[..]));
}
