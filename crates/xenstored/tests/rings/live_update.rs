//! A successor goes on with the rings that its predecessor had bound.

use std::time::{Duration, Instant};

use xenstore_migration::{
    ByteOrder, ConnectionData, ConnectionId, ConnectionSpec, GlobalData, NodeData, NodePerm,
    NodeScope, Peer, Preamble, Record, StreamWriter, Version, WatchData,
};
use xenstore_proto::{Access, DomId, Message, MessageType, Reply, Request, RequestId, TxId};
use xenstored::xen::{Hypervisor, LocalPort, RemotePort, SimulatedHypervisor, SimulatedXen};
use xenstored::{Embedded, Inheritance, Server, Serving, Store, UnixServer};

use crate::served::{Guest, SOON, read, wire, write};

const SEVEN: DomId = DomId::new(7);
const EIGHT: DomId = DomId::new(8);

/// The state of a server with one guest on a ring, which has sent the beginning of a request and is owed an answer.
fn state(port: LocalPort, input: &[u8], output: &[u8]) -> Vec<u8> {
    let preamble = Preamble::new(Version::V2, ByteOrder::NATIVE);
    let mut writer = StreamWriter::create(Vec::new(), preamble, Peer::Specification).unwrap();
    let connection = ConnectionId::new(1).unwrap();
    let spec = ConnectionSpec::Ring { domid: SEVEN, target: None, port: port.0 };
    let root = [NodePerm::new(Access::None, DomId::DOM0)];
    let open = [NodePerm::new(Access::Read, DomId::DOM0)];
    let node = |path, perms, value| {
        Record::Node(NodeData { scope: NodeScope::Committed, perms, path, value })
    };
    let records = [
        Record::Global(GlobalData { socket_fd: None, event_channel_fd: None }),
        Record::Connection(ConnectionData {
            id: connection,
            spec,
            input,
            output_rest: 0,
            output,
            unique_id: None,
        }),
        Record::Watch(WatchData { connection, path: b"/a", token: b"token" }),
        node(b"/", &root, b""),
        node(b"/a", &open, b"old"),
    ];
    for record in &records {
        writer.write(record).unwrap();
    }
    writer.finish().unwrap()
}

/// A successor that has not inherited the event channels, and serves.
fn take_over(xen: &SimulatedXen, state: &[u8]) -> (Embedded, UnixServer, tempfile::TempDir) {
    go_on(xen.hypervisor(), state)
}

/// A successor that has, and serves.
fn succeed(xen: &SimulatedXen, state: &[u8]) -> (Embedded, UnixServer, tempfile::TempDir) {
    go_on(xen.inherited_hypervisor(), state)
}

fn go_on(xen: SimulatedHypervisor, state: &[u8]) -> (Embedded, UnixServer, tempfile::TempDir) {
    let server = Server::new(Store::new());
    let (server, inheritance) = Inheritance::take(state, server, 1000).unwrap();
    let xenstore = Embedded::from(server);
    let dir = tempfile::tempdir().unwrap();
    let serving = serving(xen, &dir).inherited(inheritance);
    let served = serving.start(&xenstore).unwrap();
    (xenstore, served, dir)
}

fn serving(xen: SimulatedHypervisor, dir: &tempfile::TempDir) -> Serving {
    let serving = Serving::new(dir.path().join("socket")).rings(xen);
    serving.in_flight(dir.path().join("in-flight"))
}

#[test]
fn ports_stay_bound_watches_stay_set_and_no_octet_is_lost() {
    let xen = SimulatedXen::new();
    let mut guest = Guest::new(xen.create(SEVEN));
    let channel = xen.hypervisor().bind(SEVEN, xen.store_port()).unwrap();
    let port = channel.port();
    // Executing a successor drops nothing.
    std::mem::forget(channel);
    let request = wire(&read("/a"));
    let mut event = Vec::new();
    let payload = b"/a\0token\0".to_vec();
    let owed = Message {
        ty: MessageType::WATCH_EVENT,
        request_id: RequestId(0),
        tx_id: TxId::NONE,
        payload,
    };
    owed.encode(4096, &mut event).unwrap();
    let state = state(port, &request[..9], &event);
    // The rest of the request is in the ring, and its event was the predecessor's.
    guest.kernel.put(&request[9..]);

    let (xenstore, _served, _dir) = succeed(&xen, &state);
    assert_eq!(guest.event(), "/a");
    assert_eq!(guest.answer().payload, b"old");
    xenstore.apply(write("/a", "new"));
    assert_eq!(guest.event(), "/a");
    assert_eq!(guest.value("/a").unwrap(), b"new");
    // Its own ring was not among what was left, and is opened.
    assert!(xen.is_bound(DomId::DOM0));

    // The port that it has is the one that a toolstack names: INTRODUCE keeps it.
    let introduce = Request::Introduce { domid: SEVEN, gfn: 0, event_channel: xen.store_port().0 };
    assert_eq!(xenstore.apply(introduce), Reply::Ok);
    let mut guest = Guest::new(xen.guest(SEVEN));
    assert_eq!(guest.value("/a").unwrap(), b"new");
}

#[test]
fn event_channels_that_a_dead_predecessor_has_not_left_are_bound_anew() {
    let xen = SimulatedXen::new();
    let mut guest = Guest::new(xen.create(SEVEN));
    // Whatever number the port had, it is nobody's now.
    let state = state(LocalPort(77), &wire(&read("/a"))[..9], b"");
    let (xenstore, _served, _dir) = take_over(&xen, &state);
    assert!(xen.is_bound(SEVEN) && xen.is_mapped(SEVEN));
    guest.send(&wire(&read("/a"))[9..]);
    assert_eq!(guest.answer().payload, b"old");
    xenstore.apply(write("/a", "new"));
    assert_eq!(guest.event(), "/a", "what it watched is watched");
}

#[test]
fn a_ring_that_cannot_be_taken_over_leaves_its_domain_introduced() {
    let xen = SimulatedXen::new();
    let _guest = xen.create(SEVEN);
    xen.set_mappable(SEVEN, false);
    let state = state(LocalPort(77), b"", b"");
    let (xenstore, _served, _dir) = take_over(&xen, &state);
    let introduced = xenstore.apply(Request::IsDomainIntroduced(SEVEN));
    assert_eq!(introduced, Reply::Introduced(true));
    xen.set_mappable(SEVEN, true);
    let introduce = Request::Introduce { domid: SEVEN, gfn: 0, event_channel: xen.store_port().0 };
    assert_eq!(xenstore.apply(introduce), Reply::Ok);
    let mut guest = Guest::new(xen.guest(SEVEN));
    assert_eq!(guest.value("/a").unwrap(), b"old");
}

#[test]
fn half_a_request_that_was_handed_over_survives_the_death_of_the_successor() {
    let xen = SimulatedXen::new();
    let mut guest = Guest::new(xen.create(SEVEN));
    let request = wire(&read("/a"));
    let (xenstore, served, dir) = take_over(&xen, &state(LocalPort(77), &request[..9], b""));
    served.stop();
    let next = Embedded::new(xenstore.snapshot());
    let _served = serving(xen.hypervisor(), &dir).start(&next).unwrap();
    guest.send(&request[9..]);
    assert_eq!(guest.answer().payload, b"old");
}

/// A successor without the event channels took every number for a port of its own. Here the number is that of what tells of domains'
/// ends, which was given up with the ring.
#[test]
fn a_number_of_a_port_that_was_not_inherited_is_nobodys() {
    let xen = SimulatedXen::new();
    let (_guest, _other) = (xen.create(SEVEN), xen.create(EIGHT));
    // Somebody else has bound the domain's port: it does not wait for a server.
    let channel = xen.hypervisor().bind(SEVEN, xen.store_port()).unwrap();
    // The next number, which the successor binds first.
    let state = state(LocalPort(channel.port().0 + 1), b"", b"");
    let (xenstore, _served, _dir) = take_over(&xen, &state);
    assert!(!xen.is_mapped(SEVEN), "the ring is not served");
    let introduced = xenstore.apply(Request::IsDomainIntroduced(SEVEN));
    assert_eq!(introduced, Reply::Introduced(true));
    let introduce = Request::Introduce { domid: EIGHT, gfn: 0, event_channel: xen.store_port().0 };
    assert_eq!(xenstore.apply(introduce), Reply::Ok);
    for domid in [SEVEN, EIGHT] {
        xen.destroy(domid);
        let deadline = Instant::now() + SOON;
        while xen.exists(domid) {
            assert!(Instant::now() < deadline, "nobody heard that domain {domid} died");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    drop(channel);
}

/// A successor that had inherited them looked for a port that waits for a server all the same, and found one that waits for something else.
#[test]
fn a_port_that_was_inherited_is_kept_whatever_else_the_domain_offers() {
    let xen = SimulatedXen::new();
    let mut guest = Guest::new(xen.create(SEVEN));
    xen.offer_port(SEVEN, RemotePort(3));
    let channel = xen.hypervisor().bind(SEVEN, xen.store_port()).unwrap();
    let port = channel.port();
    std::mem::forget(channel);
    let (_xenstore, _served, _dir) = succeed(&xen, &state(port, b"", b""));
    assert_eq!(guest.value("/a").unwrap(), b"old");
}
