//! Connections to either server, and all those to one server together.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path as FsPath;
use std::time::{Duration, Instant};

use stock_xenstore::Guest;
use xenstore_proto::{
    Decoded, Decoder, Interest, Message, MessageType, RequestId, Transport, TxId, limits,
};
use xenstored::InProcess;

/// How long a reply may take: the stock daemon lets a guest wait that writes while others have transactions open.
const SOON: Duration = Duration::from_secs(5);

pub(crate) enum Link {
    Socket(UnixStream),
    Ring(Guest),
    InProcess(InProcess),
}

/// A client of one server.
pub(crate) struct Client {
    link: Link,
    decoder: Decoder,
    asked: u32,
}

/// What came on one connection, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    /// Payloads of events.
    pub(crate) events: Vec<Vec<u8>>,
    /// How many of them came before the reply; all, on a connection that asked nothing.
    pub(crate) before_reply: usize,
}

/// The clients of one server, in the same order for both.
pub(crate) struct Side {
    pub(crate) clients: Vec<Client>,
    heard: Vec<Heard>,
}

impl Client {
    pub(crate) fn on_socket(socket: &FsPath) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        Self::new(Link::Socket(stream))
    }

    pub(crate) fn new(link: Link) -> Self {
        Self { link, decoder: Decoder::new(limits::PAYLOAD_MAX), asked: 0 }
    }

    fn send(&mut self, ty: MessageType, payload: &[u8], tx_id: TxId) {
        self.asked += 1;
        let request_id = RequestId(self.asked);
        let mut octets = Vec::new();
        let message = Message { ty, request_id, tx_id, payload: payload.to_vec() };
        message.encode(limits::PAYLOAD_MAX, &mut octets).unwrap();
        match &mut self.link {
            Link::Socket(stream) => stream.write_all(&octets).unwrap(),
            Link::Ring(guest) => guest.write_all(&octets).unwrap(),
            Link::InProcess(transport) => {
                assert_eq!(transport.send(&octets).unwrap(), octets.len())
            }
        }
    }

    /// The reply to the last request, and the events before it.
    fn reply(&mut self, events: &mut Vec<Vec<u8>>) -> Message {
        loop {
            let message = self.next();
            if message.ty == MessageType::WATCH_EVENT {
                assert_eq!((message.request_id, message.tx_id), (RequestId(0), TxId::NONE));
                events.push(message.payload);
            } else {
                assert_eq!(message.request_id, RequestId(self.asked), "a reply to something else");
                return message;
            }
        }
    }

    fn next(&mut self) -> Message {
        let mut octets = [0; 8192];
        loop {
            match self.decoder.decode().unwrap() {
                Decoded::Message(message) => return message,
                Decoded::Need(_) => {
                    let len = match &mut self.link {
                        Link::Socket(stream) => stream.read(&mut octets).unwrap(),
                        Link::Ring(guest) => guest.read(&mut octets).unwrap(),
                        Link::InProcess(transport) => {
                            let deadline = Instant::now() + SOON;
                            assert!(transport.wait(Interest::Receive, deadline).unwrap().receive);
                            transport.receive(&mut octets).unwrap()
                        }
                    };
                    assert!(len > 0, "the server has closed the connection");
                    self.decoder.push(&octets[..len]);
                }
            }
        }
    }
}

impl Side {
    pub(crate) fn new(clients: Vec<Client>) -> Self {
        let heard = clients.iter().map(|_| Heard::default()).collect();
        Self { clients, heard }
    }

    /// Asks something and waits for the reply.
    pub(crate) fn ask(
        &mut self,
        client: usize,
        ty: MessageType,
        payload: &[u8],
        tx: TxId,
    ) -> Message {
        self.clients[client].send(ty, payload, tx);
        let heard = &mut self.heard[client];
        let reply = self.clients[client].reply(&mut heard.events);
        heard.before_reply = heard.events.len();
        assert_eq!(reply.tx_id, tx, "the reply is in another transaction");
        reply
    }

    /// Waits until every client has got all that was queued for it, and gives that out.
    ///
    /// An event is queued no later than the reply to the request that caused it, or right behind it: it comes before
    /// the reply to whatever is asked next.
    pub(crate) fn settle(&mut self) -> Vec<Heard> {
        for client in &mut self.clients {
            client.send(MessageType::GET_DOMAIN_PATH, b"1\0", TxId::NONE);
        }
        for (client, heard) in self.clients.iter_mut().zip(&mut self.heard) {
            client.reply(&mut heard.events);
        }
        self.heard.iter_mut().map(std::mem::take).collect()
    }
}
