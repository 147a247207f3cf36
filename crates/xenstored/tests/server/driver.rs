//! A server and what its connections were told.

use std::collections::BTreeMap;

use xenstore_proto::{
    Decoded, Decoder, DomId, Message, MessageType, Path, Reply, Request, RequestId, Token, TxId,
    WatchEvent, limits,
};
use xenstored::{ConnectionId, Server, Store};

/// What a connection was told, in order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Told {
    Reply(Reply),
    Event(String, String),
}

pub(crate) struct Driver {
    pub(crate) server: Server,
    told: BTreeMap<ConnectionId, Vec<Told>>,
    asked: Vec<MessageType>,
}

impl Driver {
    /// A server on a store of nodes with a value each, owned by domain 0.
    pub(crate) fn new(nodes: &[(&str, &str)]) -> Self {
        let mut store = Store::new();
        for (at, value) in nodes {
            store.write(&path(at), value.as_bytes()).unwrap();
        }
        Self::of(Server::new(store))
    }

    pub(crate) fn of(server: Server) -> Self {
        Self { server, told: BTreeMap::new(), asked: Vec::new() }
    }

    pub(crate) fn connect(&mut self, domid: u16) -> ConnectionId {
        self.server.connect(DomId::new(domid))
    }

    /// Sends a request and gives its reply; events are kept for [`Driver::events`].
    pub(crate) fn ask(&mut self, connection: ConnectionId, tx: TxId, request: &Request) -> Reply {
        let mut octets = Vec::new();
        request.encode(RequestId(0), tx, limits::PAYLOAD_MAX, &mut octets).unwrap();
        let mut decoder = Decoder::new(limits::PAYLOAD_MAX);
        decoder.push(&octets);
        let Decoded::Message(message) = decoder.decode().unwrap() else { panic!("half a message") };
        self.ask_raw(connection, message)
    }

    pub(crate) fn ask_raw(&mut self, connection: ConnectionId, mut message: Message) -> Reply {
        let number = u32::try_from(self.asked.len()).unwrap();
        self.asked.push(message.ty);
        message.request_id = RequestId(number);
        self.server.handle(connection, &message);
        self.drain();
        let told = self.told.get_mut(&connection).expect("a reply");
        let at = told.iter().rposition(|told| matches!(told, Told::Reply(_))).expect("a reply");
        let Told::Reply(reply) = told[at].clone() else { unreachable!() };
        reply
    }

    /// Sends a request and leaves everything unread.
    pub(crate) fn ask_unread(&mut self, connection: ConnectionId, request: &Request) {
        let mut octets = Vec::new();
        request.encode(RequestId(0), TxId::NONE, limits::PAYLOAD_MAX, &mut octets).unwrap();
        let mut decoder = Decoder::new(limits::PAYLOAD_MAX);
        decoder.push(&octets);
        let Decoded::Message(message) = decoder.decode().unwrap() else { panic!("half a message") };
        self.server.handle(connection, &message);
    }

    /// Everything a connection was told since the last time.
    pub(crate) fn told(&mut self, connection: ConnectionId) -> Vec<Told> {
        self.drain();
        self.told.remove(&connection).unwrap_or_default()
    }

    /// The events a connection was told since the last time, as `path token`.
    pub(crate) fn events(&mut self, connection: ConnectionId) -> Vec<String> {
        let events = self.told(connection).into_iter().filter_map(|told| match told {
            Told::Event(path, token) => Some(format!("{path} {token}")),
            Told::Reply(_) => None,
        });
        events.collect()
    }

    pub(crate) fn begin(&mut self, connection: ConnectionId) -> TxId {
        match self.ask(connection, TxId::NONE, &Request::TransactionStart) {
            Reply::Transaction(tx) => tx,
            other => panic!("no transaction: {other:?}"),
        }
    }

    pub(crate) fn end(&mut self, connection: ConnectionId, tx: TxId, commit: bool) -> Reply {
        self.ask(connection, tx, &Request::TransactionEnd { commit })
    }

    fn drain(&mut self) {
        while let Some(connection) = self.server.poll_ready() {
            while let Some(octets) = self.server.poll_output(connection) {
                let mut decoder = Decoder::new(limits::PAYLOAD_MAX);
                decoder.push(&octets);
                let Ok(Decoded::Message(message)) = decoder.decode() else { panic!("{octets:?}") };
                let told = if message.ty == MessageType::WATCH_EVENT {
                    let event = WatchEvent::decode(&message).unwrap();
                    Told::Event(event.path.to_string(), event.token.to_string())
                } else {
                    let asked = self.asked[usize::try_from(message.request_id.0).unwrap()];
                    Told::Reply(Reply::decode(asked, &message).unwrap())
                };
                self.told.entry(connection).or_default().push(told);
            }
        }
    }
}

pub(crate) fn path(text: &str) -> Path {
    text.parse().unwrap()
}

pub(crate) fn read(at: &str) -> Request {
    Request::Read(path(at))
}

pub(crate) fn directory(at: &str) -> Request {
    Request::Directory(path(at))
}

pub(crate) fn write(at: &str, value: &str) -> Request {
    Request::Write { path: path(at), value: value.into() }
}

pub(crate) fn mkdir(at: &str) -> Request {
    Request::Mkdir(path(at))
}

pub(crate) fn rm(at: &str) -> Request {
    Request::Rm(path(at))
}

pub(crate) fn get_perms(at: &str) -> Request {
    Request::GetPerms(at.parse().unwrap())
}

pub(crate) fn set_perms(at: &str, perms: &str) -> Request {
    Request::SetPerms { path: at.parse().unwrap(), perms: perms.parse().unwrap() }
}

pub(crate) fn watch(at: &str, token: &str, depth: Option<u32>) -> Request {
    let token = Token::from_octets(token.as_bytes()).unwrap();
    Request::Watch { path: at.parse().unwrap(), token, depth }
}

pub(crate) fn unwatch(at: &str, token: &str) -> Request {
    Request::Unwatch {
        path: at.parse().unwrap(),
        token: Token::from_octets(token.as_bytes()).unwrap(),
    }
}

pub(crate) fn names(names: &[&str]) -> Reply {
    Reply::Names(names.iter().map(|name| name.parse().unwrap()).collect())
}

pub(crate) fn value(value: &str) -> Reply {
    Reply::Value(value.into())
}
