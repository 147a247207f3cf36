//! A server that serves rings beside its socket, as its clients and its host see it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use xenstore_proto::{
    Decoded, Decoder, DomId, Errno, Interest, Message, MessageType, Reply, Request, RequestId,
    Token, Transport, TxId, limits,
};
use xenstored::xen::{SimulatedGuest, SimulatedXen};
use xenstored::{Embedded, Server, Serving, UnixServer};

/// Long enough for any event to come.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A simulated host with a server.
pub(crate) struct Host {
    pub(crate) xen: SimulatedXen,
    pub(crate) xenstore: Embedded,
    pub(crate) served: Option<UnixServer>,
    /// Whether messages in flight are kept.
    keeps: bool,
    dir: tempfile::TempDir,
}

/// A guest's client.
pub(crate) struct Guest {
    pub(crate) kernel: SimulatedGuest,
    decoder: Decoder,
    pub(crate) events: Vec<Message>,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self::with(Embedded::default(), SimulatedXen::new())
    }

    pub(crate) fn with(xenstore: Embedded, xen: SimulatedXen) -> Self {
        Self::keeping(true, xenstore, xen)
    }

    /// One that keeps messages in flight, and one that does not.
    pub(crate) fn both() -> [Self; 2] {
        [true, false].map(|keeps| Self::keeping(keeps, Embedded::default(), SimulatedXen::new()))
    }

    fn keeping(keeps: bool, xenstore: Embedded, xen: SimulatedXen) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut host = Self { xen, xenstore, served: None, keeps, dir };
        host.start();
        host
    }

    pub(crate) fn start(&mut self) {
        let mut serving = Serving::new(self.dir.path().join("socket")).rings(self.xen.hypervisor());
        if self.keeps {
            serving = serving.in_flight(self.dir.path().join("in-flight"));
        }
        self.served = Some(serving.start(&self.xenstore).unwrap());
    }

    /// Stops the server and starts another with the same store; what its domains have is lost, as if it had been killed.
    pub(crate) fn restart(&mut self) {
        self.served.take().unwrap().stop();
        self.xenstore = Embedded::from(Server::new(self.xenstore.snapshot()));
        self.start();
    }

    /// A domain that was introduced.
    pub(crate) fn domain(&self, domid: u16) -> Guest {
        let guest = Guest::new(self.xen.create(DomId::new(domid)));
        assert_eq!(self.introduce(domid), Reply::Ok);
        guest
    }

    pub(crate) fn introduce(&self, domid: u16) -> Reply {
        self.introduce_with(domid, self.xen.store_port().0)
    }

    pub(crate) fn introduce_with(&self, domid: u16, event_channel: u32) -> Reply {
        let domid = DomId::new(domid);
        self.xenstore.apply(Request::Introduce { domid, gfn: 0, event_channel })
    }

    /// A client on the socket, with a watch on the ends of domains, whose first event it has got.
    pub(crate) fn watcher(&self) -> SocketClient {
        let stream = UnixStream::connect(self.served.as_ref().unwrap().path()).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let mut client = SocketClient { stream, decoder: Decoder::new(limits::PAYLOAD_MAX) };
        client.watch("@releaseDomain");
        client
    }
}

pub(crate) struct SocketClient {
    stream: UnixStream,
    decoder: Decoder,
}

impl SocketClient {
    pub(crate) fn watch(&mut self, path: &str) {
        self.stream.write_all(&wire(&watch(path))).unwrap();
        assert_eq!(self.next().payload, b"OK\0");
        assert_eq!(self.next().ty, MessageType::WATCH_EVENT);
    }

    pub(crate) fn next(&mut self) -> Message {
        loop {
            match self.decoder.decode().unwrap() {
                Decoded::Message(message) => return message,
                Decoded::Need(more) => {
                    let mut octets = vec![0; more];
                    self.stream.read_exact(&mut octets).unwrap();
                    self.decoder.push(&octets);
                }
            }
        }
    }

    /// The path of the next event.
    pub(crate) fn event(&mut self) -> String {
        let message = self.next();
        assert_eq!(message.ty, MessageType::WATCH_EVENT);
        event_path(&message)
    }

    /// Fails if anything has come, once everything before has.
    pub(crate) fn assert_quiet(&mut self) {
        self.stream.write_all(&wire(&read("/"))).unwrap();
        assert_eq!(self.next().ty, MessageType::READ);
    }
}

pub(crate) fn event_path(message: &Message) -> String {
    let path = message.payload.split(|octet| *octet == 0).next().unwrap();
    String::from_utf8(path.to_vec()).unwrap()
}

impl Guest {
    pub(crate) fn new(kernel: SimulatedGuest) -> Self {
        Self { kernel, decoder: Decoder::new(limits::PAYLOAD_MAX), events: Vec::new() }
    }

    pub(crate) fn send(&mut self, mut octets: &[u8]) {
        let deadline = Instant::now() + SOON;
        while !octets.is_empty() {
            let ready = self.kernel.wait(Interest::ReceiveOrSend, deadline).unwrap();
            assert!(ready.receive || ready.send, "the server has taken nothing");
            if ready.receive {
                self.receive();
            }
            if ready.send {
                let sent = self.kernel.send(octets).unwrap();
                octets = &octets[sent..];
            }
        }
    }

    fn receive(&mut self) {
        let mut octets = [0; 1024];
        let len = self.kernel.receive(&mut octets).unwrap();
        self.decoder.push(&octets[..len]);
    }

    /// The next message, be it an event.
    pub(crate) fn next(&mut self) -> Message {
        let deadline = Instant::now() + SOON;
        loop {
            if let Decoded::Message(message) = self.decoder.decode().unwrap() {
                return message;
            }
            let ready = self.kernel.wait(Interest::Receive, deadline).unwrap();
            assert!(ready.receive, "the server has not answered");
            self.receive();
        }
    }

    /// The next answer; events are put aside.
    pub(crate) fn answer(&mut self) -> Message {
        loop {
            let message = self.next();
            if message.ty != MessageType::WATCH_EVENT {
                return message;
            }
            self.events.push(message);
        }
    }

    pub(crate) fn event(&mut self) -> String {
        let message = if self.events.is_empty() { self.next() } else { self.events.remove(0) };
        assert_eq!(message.ty, MessageType::WATCH_EVENT);
        event_path(&message)
    }

    pub(crate) fn ask(&mut self, request: &Request) -> Reply {
        self.send(&wire(request));
        let message = self.answer();
        Reply::decode(request.message_type(), &message).unwrap()
    }

    /// The value of a node.
    pub(crate) fn value(&mut self, path: &str) -> Result<Vec<u8>, Errno> {
        match self.ask(&read(path)) {
            Reply::Value(value) => Ok(value),
            Reply::Error(errno) => Err(errno),
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn wire(request: &Request) -> Vec<u8> {
    wire_in(request, TxId::NONE, 1)
}

pub(crate) fn wire_in(request: &Request, tx: TxId, number: u32) -> Vec<u8> {
    let mut octets = Vec::new();
    request.encode(RequestId(number), tx, limits::PAYLOAD_MAX, &mut octets).unwrap();
    octets
}

pub(crate) fn read(path: &str) -> Request {
    Request::Read(path.parse().unwrap())
}

pub(crate) fn write(path: &str, value: impl Into<Vec<u8>>) -> Request {
    Request::Write { path: path.parse().unwrap(), value: value.into() }
}

pub(crate) fn watch(path: &str) -> Request {
    let token = Token::from_octets(*b"token").unwrap();
    Request::Watch { path: path.parse().unwrap(), token, depth: None }
}

pub(crate) fn set_perms(path: &str, perms: &str) -> Request {
    Request::SetPerms { path: path.parse().unwrap(), perms: perms.parse().unwrap() }
}
