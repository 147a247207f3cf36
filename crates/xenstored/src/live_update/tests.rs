//! A state that was handed over is the state that there was.

use std::sync::Arc;

use proptest::prelude::*;
use xenstore_migration::{
    GlobalData, OrderChecker, PeerChecker, ReadOptions, StreamKind, StreamReader, Version,
};
use xenstore_proto::{DomId, Errno, Features, Reply, Request, RequestId, TxId};

use super::{Capture, LinkPlace, LinkState, Restored, Successor};
use crate::access::{ChineseWall, Company, ConflictClass};
use crate::limits::PAYLOAD_MAX;
use crate::server::{ConnectionId, Server};
use crate::store::Store;

/// Domains of the connections: two toolstacks and two guests.
const DOMAINS: [u16; 4] = [0, 0, 7, 8];

/// A server with its connections, in the order in which they were made.
struct Host {
    server: Server,
    connections: Vec<ConnectionId>,
}

/// What a connection asks; of its transactions the last one or none.
#[derive(Clone, Debug)]
struct Step {
    connection: usize,
    in_transaction: bool,
    request: Request,
}

impl Host {
    fn new() -> Self {
        let mut server = Server::new(Store::new());
        for domid in [7, 8] {
            let domid = DomId::new(domid);
            server.apply(Request::Introduce { domid, gfn: 1, event_channel: 2 });
            let home = format!("/local/domain/{domid}").parse().unwrap();
            server.apply(Request::Mkdir(home));
            let path = format!("/local/domain/{domid}").parse::<xenstore_proto::Path>().unwrap();
            let perms = format!("n{domid},r0").parse().unwrap();
            server.apply(Request::SetPerms { path: path.into(), perms });
        }
        let connections = DOMAINS.map(|domid| server.connect(DomId::new(domid))).to_vec();
        Self { server, connections }
    }

    fn last_transaction(&self, connection: usize) -> Option<TxId> {
        let state = self.server.connections.get(&self.connections[connection])?;
        state.transactions.keys().next_back().copied()
    }

    /// What comes out of all connections.
    fn step(&mut self, step: &Step) -> Vec<(usize, Vec<u8>)> {
        let tx = if step.in_transaction { self.last_transaction(step.connection) } else { None };
        self.ask(step.connection, tx.unwrap_or(TxId::NONE), &step.request);
        self.drain()
    }

    fn ask(&mut self, connection: usize, tx: TxId, request: &Request) {
        let mut octets = Vec::new();
        request.encode(RequestId(5), tx, PAYLOAD_MAX, &mut octets).unwrap();
        let mut decoder = xenstore_proto::Decoder::new(PAYLOAD_MAX);
        decoder.push(&octets);
        let Ok(xenstore_proto::Decoded::Message(message)) = decoder.decode() else {
            unreachable!()
        };
        self.server.handle(self.connections[connection], &message);
    }

    fn drain(&mut self) -> Vec<(usize, Vec<u8>)> {
        let mut all = Vec::new();
        for (number, connection) in self.connections.iter().enumerate() {
            while let Some(message) = self.server.poll_output(*connection) {
                all.push((number, message.to_vec()));
            }
        }
        all
    }

    fn capture(&self, successor: Successor) -> Vec<u8> {
        let link = |(number, connection): (usize, &ConnectionId)| {
            let at = i32::try_from(number + 1).unwrap();
            let place = match DOMAINS[number] {
                0 => LinkPlace::Socket(10 + at),
                _ => LinkPlace::Ring(at.unsigned_abs()),
            };
            let (input, output) = (vec![1, 2, 3], vec![9; 5]);
            LinkState { connection: *connection, place, input, output, output_rest: 5 }
        };
        let links: Vec<_> = self.connections.iter().enumerate().map(link).collect();
        let global = GlobalData { socket_fd: Some(3), event_channel_fd: None };
        let (server, links) = (&self.server, &links[..]);
        let capture = Capture { server, links, global, successor, forced: true, farewell: None };
        capture.write(Vec::new()).unwrap()
    }

    fn restored(stream: &[u8]) -> Self {
        let new = Server::new(Store::new());
        let Restored { server, links, global } = Restored::read(stream, new, 1 << 40).unwrap();
        assert_eq!(global.socket_fd, Some(3));
        let connections = links.iter().map(|link| link.connection).collect();
        for link in links {
            assert_eq!((link.input, link.output, link.output_rest), (vec![1, 2, 3], vec![9; 5], 5));
        }
        Self { server, connections }
    }
}

fn path() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "/local/domain/[78](/[ab]){1,2}",
        2 => "(/[ab]){1,2}",
        1 => "[ab](/[ab])?",
    ]
}

fn request() -> impl Strategy<Value = Request> {
    let node = || path().prop_map(|path| path.parse::<xenstore_proto::Path>().unwrap());
    let perms = "[nrwb][078](,[nrwb][078])?";
    let token =
        "[xy]".prop_map(|token| xenstore_proto::Token::from_octets(token.into_bytes()).unwrap());
    let watched = prop_oneof![
        4 => node().prop_map(Into::into),
        1 => Just("@releaseDomain".parse::<xenstore_proto::PathOrSpecial>().unwrap()),
    ];
    let domid = || prop_oneof![Just(7), Just(8), Just(9)].prop_map(DomId::new);
    prop_oneof![
        6 => (node(), "[a-z]{0,2}").prop_map(|(path, value)| {
            Request::Write { path, value: value.into_bytes() }
        }),
        2 => node().prop_map(Request::Mkdir),
        3 => node().prop_map(Request::Rm),
        3 => (node(), perms).prop_map(|(path, perms)| {
            Request::SetPerms { path: path.into(), perms: perms.parse().unwrap() }
        }),
        3 => node().prop_map(Request::Read),
        2 => node().prop_map(Request::Directory),
        3 => (watched, token, prop_oneof![Just(None), Just(Some(0)), Just(Some(1))])
            .prop_map(|(path, token, depth)| Request::Watch { path, token, depth }),
        3 => Just(Request::TransactionStart),
        1 => any::<bool>().prop_map(|commit| Request::TransactionEnd { commit }),
        1 => domid().prop_map(|domid| Request::Introduce { domid, gfn: 1, event_channel: 2 }),
        1 => (domid(), domid()).prop_map(|(domid, target)| Request::SetTarget { domid, target }),
        1 => (domid(), 0..3_u32).prop_map(|(domid, value)| {
            Request::SetQuota { domid: Some(domid), quota: "watches".parse().unwrap(), value }
        }),
        1 => Just(Request::SetFeature { domid: DomId::new(9), features: Features::WATCH_DEPTH }),
    ]
}

fn history(len: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Step>> {
    let step = (0..DOMAINS.len(), any::<bool>(), request());
    let step = step.prop_map(|(connection, in_transaction, request)| {
        // Two transactions at a time in one connection would hide each other.
        let starts = matches!(request, Request::TransactionStart);
        Step { connection, in_transaction: in_transaction && !starts, request }
    });
    proptest::collection::vec(step, len)
}

proptest! {
    #[test]
    fn a_restored_server_writes_the_same_state_and_goes_on_alike(
        before in history(0..60),
        after in history(0..30),
    ) {
        let mut old = Host::new();
        for step in &before {
            old.step(step);
        }
        let state = old.capture(Successor::Own);
        let mut new = Host::restored(&state);
        prop_assert!(new.capture(Successor::Own) == state, "captured again, it is another");
        prop_assert_eq!(old.server.store(), new.server.store());
        for (domid, usage) in old.server.usage() {
            let now = new.server.usage_of(domid);
            let held = |usage: crate::Usage| (usage.nodes, usage.watches, usage.transactions);
            prop_assert_eq!(held(usage), held(now), "domain {}", domid);
        }
        // Transactions may be in conflict a little sooner; everything else is the same.
        let outside = after.iter().filter(|step| {
            !step.in_transaction && !matches!(step.request, Request::TransactionStart)
        });
        for step in outside {
            let (then, now) = (old.step(step), new.step(step));
            prop_assert_eq!(sorted(then), sorted(now), "{:?}", step);
        }
    }

    #[test]
    fn a_restored_transaction_makes_the_same_of_the_store_or_is_tried_again(
        before in history(5..60),
    ) {
        let mut old = Host::new();
        before.iter().for_each(|step| drop(old.step(step)));
        let mut new = Host::restored(&old.capture(Successor::Own));
        for connection in 0..DOMAINS.len() {
            while let Some(tx) = old.last_transaction(connection) {
                prop_assert_eq!(new.last_transaction(connection), Some(tx));
                let end = Request::TransactionEnd { commit: true };
                let then = old.server.ask(old.connections[connection], tx, end.clone());
                let now = new.server.ask(new.connections[connection], tx, end);
                if now == Reply::Error(Errno::EAGAIN) && then == Reply::Ok {
                    // Only what it did goes on; from here on the two differ.
                    return Ok(());
                }
                prop_assert_eq!(then, now);
                prop_assert_eq!(old.server.store(), new.server.store());
            }
        }
    }

    #[test]
    fn what_is_written_for_anybody_keeps_the_rules_of_the_stream(before in history(0..60)) {
        let mut host = Host::new();
        before.iter().for_each(|step| drop(host.step(step)));
        for successor in
            [Successor::Own, Successor::Stock(Version::V1), Successor::Stock(Version::V2)]
        {
            let state = host.capture(successor);
            let mut reader = StreamReader::open(&state[..], ReadOptions::default()).unwrap();
            let mut order = OrderChecker::new(reader.preamble(), StreamKind::LiveUpdate);
            let mut peer = PeerChecker::new(reader.preamble(), successor.peer());
            while let Some(placed) = reader.next_record().unwrap() {
                let wrong: Vec<_> = order.check(&placed.record).into_iter()
                    // What waits here is no message: a test's three octets.
                    .filter(|violation| !violation.to_string().contains("in-data"))
                    .filter(|violation| !violation.to_string().contains("out-data"))
                    .collect();
                prop_assert!(wrong.is_empty(), "{:?}: {:?}", placed, wrong);
                let trouble: Vec<_> = peer.check(&placed.record).into_iter()
                    .filter(|trouble| !is_told(trouble))
                    .collect();
                prop_assert!(trouble.is_empty(), "{:?}: {:?}", placed, trouble);
            }
        }
    }
}

/// What the stock daemon does to any state, its own included.
fn is_told(trouble: &xenstore_migration::PeerTrouble) -> bool {
    use xenstore_migration::PeerTrouble::{RightLost, TargetLater};
    matches!(trouble, RightLost { .. } | TargetLater { .. })
}

/// The order between connections is not told.
fn sorted(mut output: Vec<(usize, Vec<u8>)>) -> Vec<(usize, Vec<u8>)> {
    output.sort();
    output
}

#[test]
fn a_wall_stands_for_the_successors_clients_as_it_did() {
    let company = |name: &str| Company {
        name: name.to_owned(),
        paths: vec![format!("/{name}").parse().unwrap()],
        domains: Vec::new(),
    };
    let companies = vec![company("north"), company("south")];
    let class = ConflictClass { name: "banks".to_owned(), companies };
    let wall = || Arc::new(ChineseWall::new(std::slice::from_ref(&class)).unwrap());
    let mut old = Host::new();
    old.server = std::mem::replace(&mut old.server, Server::new(Store::new())).with_policy(wall());
    for path in ["/north", "/south"] {
        let path: xenstore_proto::Path = path.parse().unwrap();
        old.server.apply(Request::Mkdir(path.clone()));
        let perms = "r0".parse().unwrap();
        old.server.apply(Request::SetPerms { path: path.into(), perms });
    }
    let read = |host: &mut Host, path: &str| {
        let guest = host.connections[2];
        host.server.ask(guest, TxId::NONE, Request::Read(path.parse().unwrap()))
    };
    assert_eq!(read(&mut old, "/north"), Reply::Value(Vec::new()));
    let state = old.capture(Successor::Own);
    let new = Server::new(Store::new()).with_policy(wall());
    let Restored { server, links, .. } = Restored::read(&state[..], new, 1 << 40).unwrap();
    let connections = links.iter().map(|link| link.connection).collect();
    let mut new = Host { server, connections };
    assert_eq!(read(&mut new, "/south"), Reply::Error(Errno::EACCES));
    assert_eq!(read(&mut new, "/north"), Reply::Value(Vec::new()));
    // The stock daemon has no wall, and is told nothing of it.
    assert!(old.capture(Successor::Stock(Version::V2)).windows(5).all(|part| part != b"banks"));
}

#[test]
fn a_stream_that_is_no_state_is_refused_with_the_record_that_is_wrong() {
    let state = Host::new().capture(Successor::Own);
    let read = |octets: &[u8]| {
        let outcome = Restored::read(octets, Server::new(Store::new()), 1);
        let error = outcome.map(|_| ()).unwrap_err();
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        format!("{error}: {}", cause.unwrap_or_default())
    };
    assert!(read(b"nonsense").starts_with("not a state of a Xenstore server"));
    for end in (16..state.len() - 8).step_by(7) {
        let text = read(&state[..end]);
        assert!(text.starts_with("the state cannot be read: record "), "{end}: {text}");
    }
    let at = state.windows(6).position(|window| window == b"/local").unwrap();
    let mut other = state.clone();
    other[at + 1] = b'!';
    let text = read(&other);
    assert!(text.contains("(NODE_DATA)") && text.contains("/!ocal: not a path"), "{text}");
}
