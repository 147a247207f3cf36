//! Servers for tests: one that a test drives message by message, and one with a small store.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::Duration;

use xsclient::*;

use crate::under_test::{Client, over};

/// Long enough for a loaded machine; a test that waits so long has failed.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// Short enough to wait for on purpose.
pub(crate) const SHORT: Duration = Duration::from_millis(60);

pub(crate) fn path(text: &str) -> Path {
    text.parse().unwrap()
}

/// A client on a socket pair, whose other end `server` plays in a thread.
pub(crate) fn client_of<T: Send + 'static>(
    timeout: Duration,
    server: impl FnOnce(Peer) -> T + Send + 'static,
) -> (Client, JoinHandle<T>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let client = over(ours, Options::with_timeout(timeout));
    let thread = std::thread::spawn(move || server(Peer::new(theirs)));
    (client, thread)
}

/// The server's end of a connection.
pub(crate) struct Peer {
    pub(crate) stream: UnixStream,
    decoder: Decoder,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) id: RequestId,
    pub(crate) tx: TxId,
    pub(crate) request: Request,
}

impl Peer {
    pub(crate) fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(LONG)).unwrap();
        Self { stream, decoder: Decoder::new(limits::PAYLOAD_MAX) }
    }

    /// The next request; `None` when the client has gone.
    pub(crate) fn next(&mut self) -> Option<Asked> {
        loop {
            if let Decoded::Message(message) = self.decoder.decode().unwrap() {
                let request = Request::decode(&message).unwrap();
                return Some(Asked { id: message.request_id, tx: message.tx_id, request });
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) | Err(_) => return None,
                Ok(read) => self.decoder.push(&buffer[..read]),
            }
        }
    }

    pub(crate) fn expect(&mut self) -> Asked {
        self.next().expect("the client should have sent a request")
    }

    pub(crate) fn reply(&mut self, asked: &Asked, reply: &Reply) {
        self.send(&reply_octets(asked, reply));
    }

    pub(crate) fn event(&mut self, path: &str, token: &Token) {
        self.send(&event_octets(path, token));
    }

    /// Sends octets as they are; that the client may be gone is no failure of the server.
    pub(crate) fn send(&mut self, octets: &[u8]) -> bool {
        self.stream.write_all(octets).is_ok()
    }

    /// Answers from a store until the client goes.
    pub(crate) fn serve(mut self, store: &mut Store) {
        while let Some(asked) = self.next() {
            for message in store.answer(&asked) {
                self.send(&message);
            }
        }
    }
}

pub(crate) fn reply_octets(asked: &Asked, reply: &Reply) -> Vec<u8> {
    let mut octets = Vec::new();
    let ty = asked.request.message_type();
    reply.encode(ty, asked.id, asked.tx, limits::REPLY_PAYLOAD_TOLERATED, &mut octets).unwrap();
    octets
}

pub(crate) fn event_octets(path: &str, token: &Token) -> Vec<u8> {
    let event = WatchEvent { path: path.parse().unwrap(), token: token.clone() };
    let mut octets = Vec::new();
    event.encode(limits::PAYLOAD_MAX, &mut octets).unwrap();
    octets
}

/// A store of one client: enough of Xenstore to test a client with.
#[derive(Default)]
pub(crate) struct Store {
    nodes: BTreeMap<String, Vec<u8>>,
    transactions: HashMap<u32, BTreeMap<String, Vec<u8>>>,
    last_transaction: u32,
    watches: Vec<(PathOrSpecial, Token)>,
    generation: u64,
    /// Commits that will conflict before one succeeds.
    pub(crate) conflicts: u32,
    /// Directories are said to be too big, and read in parts.
    pub(crate) big_directories: bool,
    /// Octets of names in a part.
    pub(crate) part_octets: usize,
    /// DIRECTORY_PART is not known.
    pub(crate) no_parts: bool,
    /// How many parts are answered before each change of the directory; 0 for no change.
    pub(crate) change_after_parts: u32,
    /// How often the directory changes at most.
    pub(crate) changes_left: u32,
    parts: u32,
    pub(crate) seen: Vec<Asked>,
}

impl Store {
    pub(crate) fn with(nodes: &[(&str, &str)]) -> Self {
        let mut store = Self { part_octets: 64, ..Self::default() };
        for (path, value) in nodes {
            store.set(path, value.as_bytes());
        }
        store
    }

    pub(crate) fn set(&mut self, path: &str, value: &[u8]) {
        put(&mut self.nodes, path, value);
        self.generation += 1;
    }

    pub(crate) fn open_transactions(&self) -> usize {
        self.transactions.len()
    }

    pub(crate) fn watch_count(&self) -> usize {
        self.watches.len()
    }

    /// The messages that a request causes: events of changes, the reply, the first event of a watch.
    pub(crate) fn answer(&mut self, asked: &Asked) -> Vec<Vec<u8>> {
        self.seen.push(asked.clone());
        let mut changed = Vec::new();
        let mut after = Vec::new();
        let reply = self.act(asked, &mut changed, &mut after);
        let mut messages = Vec::new();
        for path in changed {
            let changed: Path = path.parse().unwrap();
            for (watched, token) in &self.watches {
                let PathOrSpecial::Node(watched) = watched else { continue };
                if changed.is_at_or_below(watched) {
                    messages.push(event_octets(&path, token));
                }
            }
        }
        messages.push(reply_octets(asked, &reply));
        messages.extend(after);
        messages
    }

    fn act(&mut self, asked: &Asked, changed: &mut Vec<String>, after: &mut Vec<Vec<u8>>) -> Reply {
        let tx = asked.tx.0;
        let ignores_tx = matches!(asked.request, Request::Watch { .. } | Request::Unwatch { .. });
        if tx != 0 && !ignores_tx && !self.transactions.contains_key(&tx) {
            return Reply::Error(Errno::ENOENT);
        }
        let big = self.big_directories;
        let nodes = self.transactions.get_mut(&tx).unwrap_or(&mut self.nodes);
        match &asked.request {
            Request::Read(path) => match nodes.get(path.as_str()) {
                Some(value) => Reply::Value(value.clone()),
                None => Reply::Error(Errno::ENOENT),
            },
            Request::Directory(path) => match children(nodes, path) {
                Some(_) if big => Reply::Error(Errno::E2BIG),
                Some(names) => Reply::Names(names),
                None => Reply::Error(Errno::ENOENT),
            },
            Request::DirectoryPart { .. } if self.no_parts => Reply::Error(Errno::ENOSYS),
            Request::DirectoryPart { path, offset } => self.part(path, *offset),
            Request::Write { path, value } => {
                put(nodes, path.as_str(), value);
                if tx == 0 {
                    self.generation += 1;
                    changed.push(path.to_string());
                }
                Reply::Ok
            }
            Request::Mkdir(path) => {
                if !nodes.contains_key(path.as_str()) {
                    put(nodes, path.as_str(), b"");
                    changed.push(path.to_string());
                }
                Reply::Ok
            }
            Request::Rm(path) => {
                nodes.retain(|node, _| !node.parse::<Path>().unwrap().is_at_or_below(path));
                changed.push(path.to_string());
                Reply::Ok
            }
            Request::GetPerms(_) => Reply::Perms("n0,r7".parse().unwrap()),
            Request::SetPerms { .. } => Reply::Ok,
            Request::TransactionStart => {
                self.last_transaction += 1;
                self.transactions.insert(self.last_transaction, self.nodes.clone());
                Reply::Transaction(TxId(self.last_transaction))
            }
            Request::TransactionEnd { commit } => {
                let Some(nodes) = self.transactions.remove(&tx) else {
                    return Reply::Error(Errno::ENOENT);
                };
                if *commit && self.conflicts > 0 {
                    self.conflicts -= 1;
                    return Reply::Error(Errno::EAGAIN);
                }
                if *commit {
                    self.nodes = nodes;
                }
                Reply::Ok
            }
            Request::Watch { path, token, .. } => {
                let watch = (path.clone(), token.clone());
                if self.watches.contains(&watch) {
                    return Reply::Error(Errno::EEXIST);
                }
                self.watches.push(watch);
                after.push(event_octets(path.as_str(), token));
                Reply::Ok
            }
            Request::Unwatch { path, token } => {
                let before = self.watches.len();
                self.watches.retain(|(p, t)| (p, t) != (path, token));
                if self.watches.len() < before { Reply::Ok } else { Reply::Error(Errno::ENOENT) }
            }
            Request::ResetWatches => {
                self.watches.clear();
                self.transactions.clear();
                Reply::Ok
            }
            Request::GetDomainPath(domid) => Reply::DomainPath(Path::of_domain(*domid)),
            Request::IsDomainIntroduced(domid) => Reply::Introduced(domid.get() < 10),
            Request::Control(words) => Reply::Text(words.join(&b' ')),
            Request::GetFeature(_) => Reply::Features(Features(14)),
            Request::GetQuota(QuotaQuery::Names) => Reply::QuotaNames(vec![
                QuotaName::from_octets(b"nodes").unwrap(),
                QuotaName::from_octets(b"watches").unwrap(),
            ]),
            Request::GetQuota(_) => Reply::QuotaValue(1000),
            Request::Unknown { .. } => Reply::Error(Errno::ENOSYS),
            _ => Reply::Ok,
        }
    }

    fn part(&mut self, path: &Path, offset: u32) -> Reply {
        self.parts += 1;
        if self.changes_left > 0
            && self.change_after_parts > 0
            && self.parts.is_multiple_of(self.change_after_parts)
        {
            self.changes_left -= 1;
            let new = path.join(&format!("new-{}", self.changes_left)).unwrap();
            self.set(new.as_str(), b"");
        }
        let Some(names) = children(&self.nodes, path) else { return Reply::Error(Errno::ENOENT) };
        let mut at = 0;
        let mut part = Vec::new();
        let mut octets = 0;
        let mut last = true;
        for name in names {
            let len = name.as_str().len() + 1;
            if at >= offset as usize {
                if octets + len > self.part_octets {
                    last = false;
                    break;
                }
                octets += len;
                part.push(name);
            }
            at += len;
        }
        Reply::Part(DirectoryPart { generation: self.generation, names: part, last })
    }
}

fn put(nodes: &mut BTreeMap<String, Vec<u8>>, path: &str, value: &[u8]) {
    let mut above = path.parse::<Path>().unwrap().parent();
    while let Some(parent) = above {
        nodes.entry(parent.to_string()).or_default();
        above = parent.parent();
    }
    nodes.insert(path.to_owned(), value.to_vec());
}

fn children(nodes: &BTreeMap<String, Vec<u8>>, path: &Path) -> Option<Vec<Name>> {
    nodes.get(path.as_str())?;
    let below = nodes.keys().filter_map(|node| {
        let node: Path = node.parse().unwrap();
        let below = node.below(path)?.to_owned();
        (!below.is_empty() && !below.contains('/')).then(|| below.parse().unwrap())
    });
    Some(below.collect())
}

/// A client of a store that a thread keeps; joining the thread gives the store back.
pub(crate) fn client_of_store(mut store: Store) -> (Client, JoinHandle<Store>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let client = over(ours, Options::with_timeout(LONG));
    let thread = std::thread::spawn(move || {
        Peer::new(theirs).serve(&mut store);
        store
    });
    (client, thread)
}
