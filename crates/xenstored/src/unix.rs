//! Clients on a Unix socket: one thread, whoever is slow.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path as FsPath, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mio::net::{UnixListener, UnixStream};
use mio::{Events, Interest, Poll, Registry, Token};
use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;
use xenstore_proto::limits::PAYLOAD_MAX;
use xenstore_proto::{Decoded, Decoder, DomId};

use crate::embedded::{Embedded, Waker};
use crate::listen::{ServeError, listen};
use crate::server::ConnectionId;
use crate::watchful::Watchful;

/// Most clients at a time; later ones wait to be accepted. Well below what one process may have open on the hosts
/// we know.
const CLIENTS_MAX: usize = 4096;

/// Most octets read from one client before the next one's turn.
const TURN_OCTETS: usize = 16 << 10;

/// Octets written by one call, if there are so many.
const WRITE_OCTETS: usize = 64 << 10;

/// How long to wait for a free file descriptor before accepting is tried again: nothing tells when one gets free.
const ACCEPT_AGAIN: Duration = Duration::from_millis(500);

/// How often transactions are looked at that may have been open for too long: no more and no less often than this.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);
const FIRST_CLIENT: usize = 2;

/// A Unix socket that serves an [`Embedded`] server. Stopping or dropping it closes its clients' connections and
/// removes the socket.
#[derive(Debug)]
pub struct UnixServer {
    path: PathBuf,
    waker: Arc<LoopWaker>,
    thread: Option<JoinHandle<()>>,
    /// Device and inode of the socket: what another server puts in its place is not ours to remove.
    identity: (u64, u64),
}

impl UnixServer {
    pub(crate) fn start(embedded: Embedded, path: &FsPath) -> Result<Self, ServeError> {
        let failed =
            |action| move |source| ServeError::Io { action, path: path.to_owned(), source };
        let poll = Poll::new().map_err(failed("watch"))?;
        let waker = mio::Waker::new(poll.registry(), WAKER).map_err(failed("watch"))?;
        let mut listener = UnixListener::from_std(listen(path)?);
        let metadata = fs::symlink_metadata(path).map_err(failed("examine"))?;
        let registry = poll.registry();
        registry.register(&mut listener, LISTENER, Interest::READABLE).map_err(failed("watch"))?;
        let waker = Arc::new(LoopWaker { waker, state: Mutex::default() });
        let mut event_loop = EventLoop {
            embedded,
            poll,
            listener,
            waker: Arc::clone(&waker),
            clients: HashMap::new(),
            by_connection: HashMap::new(),
            next_client: FIRST_CLIENT,
            accept: Accept::Idle,
            looked: Instant::now(),
            work: BTreeSet::new(),
            share: vec![0; TURN_OCTETS].into(),
            watchful: Watchful::new(thread::available_parallelism().map_or(1, usize::from)),
        };
        let run = move || event_loop.run();
        let thread =
            thread::Builder::new().name("xenstored".into()).spawn(run).map_err(failed("serve"))?;
        let identity = (metadata.dev(), metadata.ino());
        Ok(Self { path: path.to_owned(), waker, thread: Some(thread), identity })
    }

    /// Where the socket is.
    pub fn path(&self) -> &FsPath {
        &self.path
    }

    /// Closes the clients' connections, removes the socket, and returns when that is done.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for UnixServer {
    fn drop(&mut self) {
        let ours = |metadata: fs::Metadata| (metadata.dev(), metadata.ino()) == self.identity;
        if fs::symlink_metadata(&self.path).is_ok_and(ours)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "socket not removed");
        }
        self.waker.stop();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

/// Tells the event loop from other threads what happened.
pub(crate) struct LoopWaker {
    waker: mio::Waker,
    state: Mutex<Wakeup>,
}

#[derive(Default)]
struct Wakeup {
    ready: Vec<ConnectionId>,
    stop: bool,
    /// Whether the loop waits, and has to be woken.
    asleep: bool,
}

impl LoopWaker {
    pub(crate) fn wake_for(&self, connection: ConnectionId) {
        self.wake(|state| state.ready.push(connection));
    }

    fn stop(&self) {
        self.wake(|state| state.stop = true);
    }

    fn wake(&self, change: impl FnOnce(&mut Wakeup)) {
        let mut state = self.lock();
        change(&mut state);
        if std::mem::take(&mut state.asleep)
            && let Err(error) = self.waker.wake()
        {
            tracing::error!(%error, "the thread that serves the socket cannot be woken");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Wakeup> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for LoopWaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoopWaker").finish_non_exhaustive()
    }
}

struct EventLoop {
    embedded: Embedded,
    poll: Poll,
    listener: UnixListener,
    waker: Arc<LoopWaker>,
    clients: HashMap<usize, Client>,
    by_connection: HashMap<ConnectionId, usize>,
    next_client: usize,
    accept: Accept,
    /// When transactions were last looked at that may have been open for too long.
    looked: Instant,
    /// Clients for whom something can be done.
    work: BTreeSet<usize>,
    /// What one client's octets are read into.
    share: Box<[u8]>,
    watchful: Watchful,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Accept {
    /// Nobody waits.
    Idle,
    /// Somebody may wait.
    Pending,
    /// Somebody waits, but there is no file descriptor left.
    Starved,
}

impl EventLoop {
    fn run(&mut self) {
        let mut events = Events::with_capacity(256);
        loop {
            let look = self.look_at_transactions();
            let timeout = {
                let mut state = self.waker.lock();
                if state.stop {
                    break;
                }
                let ready = std::mem::take(&mut state.ready);
                self.work.extend(
                    ready.iter().filter_map(|connection| self.by_connection.get(connection)),
                );
                let idle = self.work.is_empty() && !self.may_accept();
                let timeout = match self.accept {
                    _ if !idle => Some(Duration::ZERO),
                    Accept::Starved => Some(ACCEPT_AGAIN),
                    _ if self.watchful.looks_again(Instant::now()) => Some(Duration::ZERO),
                    _ => look,
                };
                state.asleep = timeout != Some(Duration::ZERO);
                if idle && !state.asleep {
                    drop(state);
                    thread::yield_now();
                }
                timeout
            };
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "socket no longer served");
                break;
            }
            self.waker.lock().asleep = false;
            if self.accept == Accept::Starved && events.is_empty() {
                self.accept = Accept::Pending;
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept = Accept::Pending,
                    WAKER => {}
                    Token(number) => {
                        if let Some(client) = self.clients.get_mut(&number) {
                            let readable = event.is_readable() || event.is_read_closed();
                            client.readable |= readable && !client.ended;
                            client.closing |= event.is_read_closed();
                            client.writable |= event.is_writable() || event.is_write_closed();
                            self.work.insert(number);
                        }
                    }
                }
            }
            if self.may_accept() {
                self.accept_all();
            }
            if !self.work.is_empty() {
                self.watchful.found(Instant::now);
            }
            for number in std::mem::take(&mut self.work) {
                self.turn(number);
            }
        }
        for (_, client) in self.clients.drain() {
            self.embedded.lock().disconnect(client.connection);
        }
    }

    /// Gives up what has been open for too long. Says in how long to look again, if anything is open.
    fn look_at_transactions(&mut self) -> Option<Duration> {
        let server = &mut self.embedded.lock().server;
        if !server.has_transactions() {
            return None;
        }
        let (least, most) = LOOK_EVERY;
        let pause = server.transaction_limit().clamp(least, most);
        let now = Instant::now();
        let since = now.duration_since(self.looked);
        if since < pause {
            return Some(pause - since);
        }
        self.looked = now;
        server.expire(now);
        Some(pause)
    }

    fn may_accept(&self) -> bool {
        self.accept == Accept::Pending && self.clients.len() < CLIENTS_MAX
    }

    fn accept_all(&mut self) {
        while self.clients.len() < CLIENTS_MAX {
            match self.listener.accept() {
                Ok((stream, _)) => self.add_client(stream),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.accept = Accept::Idle;
                    return;
                }
                // Who was waiting has gone.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::warn!(%error, "client not accepted");
                    self.accept = Accept::Starved;
                    return;
                }
            }
        }
    }

    fn add_client(&mut self, mut stream: UnixStream) {
        let number = self.next_client;
        self.next_client += 1;
        let registry = self.poll.registry();
        if let Err(error) = registry.register(&mut stream, Token(number), Interest::READABLE) {
            tracing::warn!(%error, "client not accepted");
            return;
        }
        match socket_peercred(&stream) {
            Ok(peer) if peer.uid.is_root() || peer.uid == geteuid() => {
                let (pid, uid) = (peer.pid.as_raw_nonzero(), peer.uid.as_raw());
                tracing::debug!(%pid, uid, "client connected");
            }
            Ok(peer) => {
                // Whoever reaches the socket has all rights; its mode may have been changed by mistake.
                tracing::warn!(uid = peer.uid.as_raw(), "client of another user refused");
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "client not accepted: whose it is cannot be told");
                return;
            }
        }
        let waker = Waker::Loop(Arc::clone(&self.waker));
        let connection = self.embedded.lock().connect(DomId::DOM0, waker);
        let client = Client {
            stream,
            connection,
            decoder: Decoder::new(PAYLOAD_MAX),
            undecoded: false,
            ended: false,
            output: Vec::new(),
            written: 0,
            readable: true,
            closing: false,
            writable: true,
            awaits_room: false,
        };
        self.clients.insert(number, client);
        self.by_connection.insert(connection, number);
        self.work.insert(number);
    }

    /// Does for one client what can be done without waiting, up to its share.
    fn turn(&mut self, number: usize) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        let turn = client.turn(&self.embedded, &mut self.share);
        let turn = match client.register(self.poll.registry(), Token(number)) {
            Ok(()) => turn,
            Err(error) => {
                tracing::error!(%error, "client given up: its socket cannot be watched");
                Turn::Gone
            }
        };
        match turn {
            Turn::Wait => {}
            Turn::More => {
                self.work.insert(number);
            }
            Turn::Gone => {
                let connection = client.connection;
                self.clients.remove(&number);
                self.by_connection.remove(&connection);
                self.embedded.lock().disconnect(connection);
                if self.accept == Accept::Starved {
                    self.accept = Accept::Pending;
                }
            }
        }
    }
}

struct Client {
    stream: UnixStream,
    connection: ConnectionId,
    decoder: Decoder,
    /// Whether the decoder may hold a whole message.
    undecoded: bool,
    /// Whether the client will send no more. It may still be reading: it is served until it has got all replies.
    ended: bool,
    output: Vec<u8>,
    written: usize,
    /// Whether the socket may have octets for us; known to have none once a read has said so, or has given less than
    /// there was room for: more that comes is told.
    readable: bool,
    /// Whether the end of what the client sends has been told, and is to be read as well.
    closing: bool,
    /// Whether the socket may have room; known to have none once a write has said so.
    writable: bool,
    /// Whether it is told when there is room. Not otherwise: each reply that a client reads makes some.
    awaits_room: bool,
}

enum Turn {
    /// Nothing more to do until the socket or the server says so.
    Wait,
    /// There is more, after the others' turns.
    More,
    Gone,
}

impl Client {
    /// `share` is room for what is read.
    fn turn(&mut self, embedded: &Embedded, share: &mut [u8]) -> Turn {
        self.receive(embedded, share)
            .and_then(|()| self.handle(embedded))
            .and_then(|()| self.send(embedded))
            .unwrap_or_else(|error| {
                tracing::debug!(connection = ?self.connection, %error, "client gone");
                Turn::Gone
            })
    }

    /// Has the socket say when there is room, if that is waited for.
    fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        if self.awaits_room != self.writable {
            return Ok(());
        }
        self.awaits_room = !self.writable;
        let room = self.awaits_room.then_some(Interest::WRITABLE);
        let interest = room.map_or(Interest::READABLE, |room| Interest::READABLE | room);
        registry.reregister(&mut self.stream, token, interest)
    }

    /// Reads a share, unless something is left from the last one.
    fn receive(&mut self, embedded: &Embedded, share: &mut [u8]) -> io::Result<()> {
        if self.undecoded || !self.readable || !embedded.lock().server.has_room(self.connection) {
            return Ok(());
        }
        match self.stream.read(share) {
            Ok(0) => {
                self.ended = true;
                self.readable = false;
                Ok(())
            }
            Ok(len) => {
                self.decoder.push(&share[..len]);
                self.undecoded = true;
                self.readable = len == share.len() || self.closing;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn handle(&mut self, embedded: &Embedded) -> io::Result<()> {
        while self.undecoded {
            // One message a lock: others in this process get their turns.
            let mut shared = embedded.lock();
            if !shared.server.has_room(self.connection) {
                break;
            }
            match self.decoder.decode() {
                Ok(Decoded::Message(message)) => shared.server.handle(self.connection, &message),
                Ok(Decoded::Need(_)) => self.undecoded = false,
                Err(broken) => return Err(io::Error::new(io::ErrorKind::InvalidData, broken)),
            }
            // What this client has got is sent at the end of its turn.
            shared.wake_others(self.connection);
        }
        Ok(())
    }

    fn send(&mut self, embedded: &Embedded) -> io::Result<Turn> {
        while self.writable {
            let rest = &self.output[self.written..];
            if rest.is_empty() {
                self.output.clear();
                self.written = 0;
                let mut shared = embedded.lock();
                shared.server.take_output(self.connection, &mut self.output, WRITE_OCTETS);
                if self.output.is_empty() {
                    // Nothing is read before all there was is handled, so this is all.
                    if self.ended || !shared.server.is_open(self.connection) {
                        return Ok(Turn::Gone);
                    }
                    break;
                }
                continue;
            }
            match self.stream.write(rest) {
                Ok(len) => self.written += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let shared = embedded.lock();
        if !shared.server.is_open(self.connection) {
            return Ok(Turn::Gone);
        }
        let can_read = (self.readable || self.undecoded) && shared.server.has_room(self.connection);
        Ok(if can_read { Turn::More } else { Turn::Wait })
    }
}
