//! The loop that serves clients: one thread, whoever is slow.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use mio::net::{UnixListener, UnixStream};
use mio::{Events, Interest, Poll, Token};
use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;
use xenstore_migration::GlobalData;
use xenstore_proto::{DomId, on_one_line};

use crate::client::{Client, TURN_OCTETS, Turn};
use crate::embedded::{Embedded, Waker};
use crate::link::Link;
use crate::live_update::{Capture, Due, LinkState, LiveUpdate, Succession, Successor};
use crate::server::{ConnectionId, Server};
use crate::serving::Serving;
use crate::unix::LoopWaker;
use crate::watchful::Watchful;

/// Most clients at a time; later ones wait to be accepted. Well below what one process may have open on the hosts
/// we know.
const CLIENTS_MAX: usize = 4096;

/// How long to wait for a free file descriptor before accepting is tried again: nothing tells when one gets free.
const ACCEPT_AGAIN: Duration = Duration::from_millis(500);

/// How often transactions are looked at that may have been open for too long: no more and no less often than this.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);
const RINGS: Token = Token(2);
const FIRST_CLIENT: usize = 3;

mod rings;

pub(crate) struct EventLoop {
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
    live_update: Option<LiveUpdate>,
    /// Whether this very domain's ring is served.
    own_ring: bool,
    /// Whether a predecessor has left what it had.
    has_inherited: bool,
    /// What the update that is asked for will be.
    planned: Option<Succession>,
    /// The event channels that a predecessor has left, where nobody can use them.
    event_channels: Option<OwnedFd>,
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
    /// A loop for clients that come to `listener`, and how to wake it.
    pub(crate) fn new(
        embedded: Embedded,
        listener: std::os::unix::net::UnixListener,
        serving: Serving,
    ) -> io::Result<(Self, Arc<LoopWaker>)> {
        let poll = Poll::new()?;
        let waker = Arc::new(LoopWaker::new(mio::Waker::new(poll.registry(), WAKER)?));
        let mut listener = UnixListener::from_std(listener);
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let Serving { live_update, inherited, own_ring, .. } = serving;
        let has_inherited = inherited.is_some();
        if live_update.is_some() {
            embedded.lock().server.offer_live_update();
        }
        let (links, event_channels) =
            inherited.map_or((Vec::new(), None), |left| (left.links, left.event_channels));
        let mut event_loop = Self {
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
            live_update,
            own_ring,
            has_inherited,
            planned: None,
            event_channels,
        };
        for (link, state) in links {
            event_loop.add_restored(link, state)?;
        }
        Ok((event_loop, waker))
    }

    /// Serves until it is stopped; `false` if something else has ended it.
    pub(crate) fn run(&mut self) -> bool {
        let mut events = Events::with_capacity(256);
        let stopped = loop {
            let look = [self.look_at_transactions(), self.look_at_update()];
            let look = look.into_iter().flatten().min();
            let (timeout, fresh) = {
                let mut state = self.waker.lock();
                if state.stop {
                    break true;
                }
                let ready = std::mem::take(&mut state.ready);
                self.work.extend(
                    ready.iter().filter_map(|connection| self.by_connection.get(connection)),
                );
                let fresh = std::mem::take(&mut state.rings);
                let idle = self.work.is_empty() && !self.may_accept() && !fresh;
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
                (timeout, fresh)
            };
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "socket no longer served");
                break false;
            }
            self.waker.lock().asleep = false;
            if self.accept == Accept::Starved && events.is_empty() {
                self.accept = Accept::Pending;
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept = Accept::Pending,
                    WAKER => {}
                    RINGS => self.hear_rings(),
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
            if fresh {
                self.carry_rings();
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
        };
        // Domains are not told: the next server goes on with them.
        self.embedded.lock().server.rings = None;
        for (_, client) in self.clients.drain() {
            self.embedded.lock().disconnect(client.connection);
        }
        stopped
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

    /// Makes the live update that was asked for, if its time has come. Says in how long to look again.
    fn look_at_update(&mut self) -> Option<Duration> {
        if !self.embedded.lock().server.has_update() {
            return None;
        }
        // What nobody carries would not be handed over.
        self.carry_rings();
        let embedded = self.embedded.clone();
        let mut shared = embedded.lock();
        let server = &mut shared.server;
        let outcome = self.update(server);
        let why = match outcome {
            Ok(again) => return Some(again),
            Err(why) => why,
        };
        server.refuse_update(why);
        Self::keep_rings(server);
        self.planned = None;
        // Transactions may start again.
        self.work.extend(self.clients.keys());
        shared.wake();
        None
    }

    /// Comes back if it is too early, or with why it is not made.
    fn update(&mut self, server: &mut Server) -> Result<Duration, String> {
        let offered = self.live_update.as_ref().ok_or("not offered")?;
        let update = server.update.as_ref().ok_or("not offered")?;
        let started = update.started.clone().ok_or("not asked for")?;
        let succession = match &self.planned {
            Some(planned) => planned,
            None => {
                let plan = offered.plan(update, &started).map_err(|error| on_one_line(&error))?;
                self.planned.insert(plan)
            }
        };
        let own = succession.successor == Successor::Own;
        match server.update_due(Instant::now(), own) {
            Due::Now => {}
            Due::In(again) => return Ok(again),
            Due::TooLate => {
                let open = server.open_transactions;
                return Err(format!(
                    "{open} transactions are open: try again, or force it with -F"
                ));
            }
            Due::None => return Err("not asked for".to_owned()),
        }
        if let Some(rings) = &mut server.rings {
            self.clients.values_mut().for_each(Client::settle_all);
            rings.stop_domain_events();
        }
        let server = &*server;
        // Who was disconnected and has not had a turn since is not to be left open for nobody.
        let is_open = |client: &&Client| server.is_open(client.connection);
        let served = self.clients.values().filter(is_open);
        let states: Vec<_> = served.clone().filter_map(Client::state).collect();
        let rings = server.rings.as_ref().map(AsFd::as_fd);
        let event_channels = rings.or(self.event_channels.as_ref().map(AsFd::as_fd));
        let socket_fd = Some(self.listener.as_raw_fd());
        let event_channel_fd = event_channels.map(|channels| channels.as_raw_fd());
        let farewell = started.farewell();
        let capture = Capture {
            server,
            links: &states,
            global: GlobalData { socket_fd, event_channel_fd },
            successor: succession.successor,
            forced: started.forced,
            farewell: Some((started.caller, &farewell)),
        };
        let state = capture.write(Vec::new()).map_err(|error| on_one_line(&error))?;
        let mut descriptors: Vec<_> = served.clone().filter_map(Client::descriptor).collect();
        descriptors.push(self.listener.as_fd());
        descriptors.extend(event_channels);
        Err(on_one_line(&succession.execute(&state, &descriptors)))
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
        let client = Client::new(Link::Socket(stream), connection);
        self.clients.insert(number, client);
        self.by_connection.insert(connection, number);
        self.work.insert(number);
    }

    fn add_restored(&mut self, link: Link, state: LinkState) -> io::Result<()> {
        let connection = state.connection;
        let mut client = Client::restored(link, state);
        let number = self.next_client;
        self.next_client += 1;
        client.watch(self.poll.registry(), Token(number))?;
        self.embedded.lock().carry(connection, Waker::Loop(Arc::clone(&self.waker)));
        self.clients.insert(number, client);
        self.by_connection.insert(connection, number);
        self.work.insert(number);
        Ok(())
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
            Turn::Renewed => {
                let connection = client.connection;
                self.clients.remove(&number);
                self.by_connection.remove(&connection);
                self.renew_ring(connection);
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
