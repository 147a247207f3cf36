//! The rings that a server serves.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use xenstore_proto::{DomId, Features};

use super::hypervisor::{
    EventChannel, Hypervisor, LocalPort, PortState, RemotePort, XenError, store_port,
};
use super::in_flight::InFlight;
use super::ring::{Fault, Ring};
use super::slot::{Left, Slot};
use crate::server::ConnectionId;
use crate::unix::LoopWaker;

/// A hypervisor, and the rings of its domains that are open.
pub(crate) struct Rings {
    pub(crate) hypervisor: Box<dyn Hypervisor>,
    open: BTreeMap<DomId, Open>,
    by_port: HashMap<LocalPort, DomId>,
    /// Where it is kept what is in flight, if it is.
    in_flight: Option<InFlight>,
    /// Those that nobody carries yet, and what a dead server has left of them.
    fresh: Vec<(ConnectionId, SharedRing, Left)>,
    domain_events: Option<Box<dyn EventChannel>>,
    /// Who carries them.
    waker: Option<Arc<LoopWaker>>,
}

struct Open {
    connection: ConnectionId,
    /// Unknown if it was bound by a predecessor.
    port: Option<RemotePort>,
    local: LocalPort,
    ring: SharedRing,
}

/// A ring that the server may take from the one who carries it: when its domain dies, nothing may come before unmapping it.
#[derive(Clone, Debug)]
pub(crate) struct SharedRing(Arc<Mutex<Option<Ring>>>);

impl SharedRing {
    fn new(ring: Ring) -> Self {
        Self(Arc::new(Mutex::new(Some(ring))))
    }

    /// Does something with the ring.
    ///
    /// # Errors
    ///
    /// What `act` says, or [`io::ErrorKind::NotConnected`] if the ring was taken away.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut Ring) -> io::Result<R>) -> io::Result<R> {
        match self.lock().as_mut() {
            Some(ring) => act(ring),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn take(&self) -> Option<Ring> {
        self.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Ring>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the event channels have told.
pub(crate) struct Told {
    /// Whose rings may have got something.
    pub(crate) connections: Vec<ConnectionId>,
    /// Whether some domain was shut down or has died.
    pub(crate) domains: bool,
}

impl Rings {
    /// No rings yet. From now on it is told what becomes of domains.
    ///
    /// # Errors
    ///
    /// If somebody else is told.
    pub(crate) fn new(mut hypervisor: Box<dyn Hypervisor>) -> Result<Self, XenError> {
        let domain_events = Some(hypervisor.bind_domain_events()?);
        let (open, by_port) = (BTreeMap::new(), HashMap::new());
        let (fresh, waker, in_flight) = (Vec::new(), None, None);
        Ok(Self { hypervisor, open, by_port, in_flight, fresh, domain_events, waker })
    }

    /// Keeps what is in flight from now on, of rings that are opened after this.
    pub(crate) fn keep_in(&mut self, in_flight: InFlight) {
        self.in_flight = Some(in_flight);
    }

    /// Says who carries the rings: it is woken when there is another.
    pub(crate) fn carried_by(&mut self, waker: Arc<LoopWaker>) {
        self.waker = Some(waker);
    }

    /// Maps and binds a domain's ring. Nothing is left of that if it fails.
    pub(crate) fn connect(
        &mut self,
        domid: DomId,
        port: RemotePort,
        offered: Features,
    ) -> Result<Ring, XenError> {
        let page = self.hypervisor.map_ring(domid)?;
        let channel = self.hypervisor.bind(domid, port)?;
        Ok(Ring::open(page, channel, domid, offered))
    }

    /// Maps and binds this domain's own ring.
    pub(crate) fn connect_own(
        &mut self,
        offered: Features,
    ) -> Result<(Ring, RemotePort), XenError> {
        let (page, port) = self.hypervisor.own_ring()?;
        let channel = self.hypervisor.bind(DomId::DOM0, port)?;
        Ok((Ring::open(page, channel, DomId::DOM0, offered), port))
    }

    /// The domain's port, if nobody has bound it: whoever had has died. `hint` is what a toolstack wrote down.
    pub(crate) fn waits_for_server(
        &mut self,
        domid: DomId,
        hint: Option<RemotePort>,
    ) -> Result<Option<RemotePort>, XenError> {
        let port = if domid == DomId::DOM0 { Some(self.hypervisor.own_ring()?.1) } else { hint };
        let Some(port) = port else {
            return store_port(self.hypervisor.as_mut(), domid, None);
        };
        match self.hypervisor.port_state(domid, port)? {
            PortState::Unbound(_) => Ok(Some(port)),
            PortState::Bound(_) => Ok(None),
            _ if domid == DomId::DOM0 => Ok(None),
            _ => store_port(self.hypervisor.as_mut(), domid, None),
        }
    }

    /// Maps a ring whose port a predecessor has bound: only with the predecessor's event channels, see
    /// [`Hypervisor::has_inherited`].
    pub(crate) fn adopt(
        &mut self,
        domid: DomId,
        port: LocalPort,
        offered: Features,
    ) -> Result<Ring, XenError> {
        let channel = self.hypervisor.adopt(port);
        let page = match domid {
            DomId::DOM0 => self.hypervisor.own_ring()?.0,
            _ => self.hypervisor.map_ring(domid)?,
        };
        Ok(Ring::open(page, channel, domid, offered))
    }

    /// Has what is in flight on a ring kept from now on, if it can be.
    pub(crate) fn keep(&mut self, ring: &mut Ring) {
        if let Some(slot) = self.slot_for(ring) {
            ring.keep_in(slot);
        }
    }

    /// As [`Rings::keep`]. Gives what a dead server has left.
    pub(crate) fn resume(&mut self, ring: &mut Ring) -> Left {
        self.slot_for(ring).map(|slot| ring.resume_in(slot)).unwrap_or_default()
    }

    /// Who has not been found is gone, with what was in flight.
    pub(crate) fn settle_kept(&mut self) {
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.release_unclaimed();
        }
    }

    fn slot_for(&mut self, ring: &Ring) -> Option<Slot> {
        let in_flight = self.in_flight.as_mut().filter(|_| !ring.is_kept())?;
        let domid = ring.domid();
        let handle = self.hypervisor.domain_handle(domid).map_err(|error| error.on_one_line());
        let slot = handle
            .and_then(|handle| in_flight.claim(domid, handle).map_err(|error| error.to_string()));
        slot.inspect_err(|error| {
            tracing::warn!(%domid, error, "messages in flight are not kept");
        })
        .ok()
    }

    /// Serves a ring as a connection, in place of the one that the domain had.
    pub(crate) fn serve(
        &mut self,
        connection: ConnectionId,
        ring: Ring,
        port: Option<RemotePort>,
    ) -> SharedRing {
        let (domid, local) = (ring.domid(), ring.port());
        let ring = SharedRing::new(ring);
        self.by_port.insert(local, domid);
        self.open.insert(domid, Open { connection, port, local, ring: ring.clone() });
        ring
    }

    /// Has the loop carry a ring.
    pub(crate) fn hand_over(&mut self, connection: ConnectionId, ring: SharedRing, left: Left) {
        self.fresh.push((connection, ring, left));
        if let Some(waker) = &self.waker {
            waker.wake_for_rings();
        }
    }

    /// Rings to be carried from now on.
    pub(crate) fn take_fresh(&mut self) -> Vec<(ConnectionId, SharedRing, Left)> {
        std::mem::take(&mut self.fresh)
    }

    /// Whether a domain's ring is open.
    pub(crate) fn is_open(&self, domid: DomId) -> bool {
        self.open.contains_key(&domid)
    }

    /// The connections of the open rings.
    pub(crate) fn connections(&self) -> Vec<(DomId, ConnectionId)> {
        self.open.iter().map(|(domid, open)| (*domid, open.connection)).collect()
    }

    /// Whose ring a connection is.
    pub(crate) fn domain_of(&self, connection: ConnectionId) -> Option<DomId> {
        self.open.iter().find_map(|(domid, open)| (open.connection == connection).then_some(*domid))
    }

    /// Takes an open ring from the one who carries it, to be served anew through a port. The old port is kept if it is that
    /// one. Nothing happens if that fails.
    pub(crate) fn retake(
        &mut self,
        domid: DomId,
        port: RemotePort,
    ) -> Result<Option<(ConnectionId, Ring)>, XenError> {
        let Some(open) = self.open.get(&domid) else { return Ok(None) };
        let keeps = match open.port {
            Some(old) => old == port,
            None => self.hypervisor.port_state(domid, port)? == PortState::Bound(DomId::DOM0),
        };
        let channel = if keeps { None } else { Some(self.hypervisor.bind(domid, port)?) };
        let taken = self.take_open(domid);
        Ok(taken.map(|(connection, _, mut ring)| {
            if let Some(channel) = channel {
                ring.rebind(channel);
            }
            (connection, ring)
        }))
    }

    /// Takes an open ring from the one who carries it.
    pub(crate) fn take_open(
        &mut self,
        domid: DomId,
    ) -> Option<(ConnectionId, Option<RemotePort>, Ring)> {
        let open = self.open.remove(&domid)?;
        self.by_port.remove(&open.local);
        Some((open.connection, open.port, open.ring.take()?))
    }

    /// Unmaps a domain's ring and gives its port up. The domain is not told.
    pub(crate) fn close(&mut self, domid: DomId) {
        drop(self.take_open(domid));
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.release(domid);
        }
    }

    /// Gives up the ring of a connection that the server has closed, and tells the domain.
    pub(crate) fn closed(&mut self, connection: ConnectionId) {
        if let Some(domid) = self.domain_of(connection)
            && let Some((_, _, mut ring)) = self.take_open(domid)
        {
            ring.fail(Fault::Communication);
            let fault = ring.fault();
            drop(ring);
            if let Some(in_flight) = &mut self.in_flight {
                in_flight.release(domid);
            }
            tracing::warn!(%domid, ?fault, "ring closed, until the domain is introduced again");
        }
    }

    /// Takes what the event channels have told, and has them tell more.
    pub(crate) fn take_told(&mut self) -> Told {
        let pending = self.hypervisor.take_pending();
        let ports = pending.unwrap_or_else(|error| {
            tracing::error!(%error, "events may be lost: every ring is looked at");
            let rings = self.by_port.keys().copied();
            rings.chain(self.domain_events.iter().map(|channel| channel.port())).collect()
        });
        if let Err(error) = self.hypervisor.unmask(&ports) {
            tracing::error!(%error, "event channels are silent from now on");
        }
        let of_port = |port| self.open.get(self.by_port.get(port)?);
        let connections = ports.iter().filter_map(of_port).map(|open| open.connection).collect();
        let events = self.domain_events.as_ref();
        let domains = events.is_some_and(|channel| ports.contains(&channel.port()));
        Told { connections, domains }
    }

    /// Before a successor is executed: it is the one to be told of domains.
    pub(crate) fn stop_domain_events(&mut self) {
        self.domain_events = None;
    }

    /// There is no successor, if one was meant to be. Says whether nothing was told for a while.
    pub(crate) fn resume_domain_events(&mut self) -> Result<bool, XenError> {
        let stopped = self.domain_events.is_none();
        if stopped {
            self.domain_events = Some(self.hypervisor.bind_domain_events()?);
        }
        Ok(stopped)
    }
}

impl AsFd for Rings {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.hypervisor.as_fd()
    }
}

impl fmt::Debug for Rings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rings").field("open", &self.open.len()).finish_non_exhaustive()
    }
}
