//! A Xen host for tests: domains are pages and numbers of this process.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use xenstore_proto::DomId;

use super::guest::SimulatedGuest;
use super::hypervisor::{
    DomainHandle, DomainState, EventChannel, Hypervisor, LocalPort, PortState, RemotePort,
    ShutdownReason, XenError,
};
use super::page::RingPage;

/// The port that each domain has made for its console, which somebody has bound.
const CONSOLE_PORT: RemotePort = RemotePort(1);

/// The port that each domain has made for Xenstore.
const STORE_PORT: RemotePort = RemotePort(2);

/// A host that is simulated, with its domains; cheap to clone, each clone being the same host.
///
/// It has a domain 0, whose ring is as any other. What is bound and mapped by a [`SimulatedHypervisor`] is given up when
/// what it has handed out is dropped, as happens to what a dead process had.
///
/// # Panics
///
/// Its methods panic where a test makes no sense (a domain that is not there), and where this system has no more file
/// descriptors.
#[derive(Clone)]
pub struct SimulatedXen {
    host: Arc<Mutex<Host>>,
}

/// The host as the server sees it.
pub struct SimulatedHypervisor {
    host: Arc<Mutex<Host>>,
    /// The host's own, so that it can be given out without the lock.
    events: Arc<OwnedFd>,
    inherited: bool,
}

struct Host {
    domains: BTreeMap<DomId, Domain>,
    /// What each local port is bound to.
    ports: BTreeMap<LocalPort, End>,
    next_port: u32,
    next_handle: u128,
    pending: BTreeSet<LocalPort>,
    masked: BTreeSet<LocalPort>,
    /// Readable while something is pending that nobody has been told.
    events: Arc<OwnedFd>,
}

struct Domain {
    /// No other domain has this one, be its number the same.
    handle: DomainHandle,
    page: Arc<OwnedFd>,
    /// Readable while the guest has an event.
    events: Arc<OwnedFd>,
    state: DomainState,
    mapped: usize,
    mappable: bool,
    /// Ports for something else, which nobody has bound.
    offered: BTreeSet<RemotePort>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Domain(DomId),
    DomainEvents,
}

impl SimulatedXen {
    /// A host with domain 0 alone.
    pub fn new() -> Self {
        let host = Host {
            domains: BTreeMap::from([(DomId::DOM0, Domain::new(0))]),
            ports: BTreeMap::new(),
            next_port: 10,
            next_handle: 1,
            pending: BTreeSet::new(),
            masked: BTreeSet::new(),
            events: new_events(),
        };
        Self { host: Arc::new(Mutex::new(host)) }
    }

    /// The host as a server sees it.
    pub fn hypervisor(&self) -> SimulatedHypervisor {
        let events = Arc::clone(&lock(&self.host).events);
        SimulatedHypervisor { host: Arc::clone(&self.host), events, inherited: false }
    }

    /// The host as a successor sees it that has inherited the event channels of its predecessor.
    pub fn inherited_hypervisor(&self) -> SimulatedHypervisor {
        SimulatedHypervisor { inherited: true, ..self.hypervisor() }
    }

    /// Creates a domain, with an empty ring, and gives its kernel.
    pub fn create(&self, domid: DomId) -> SimulatedGuest {
        let mut host = lock(&self.host);
        let handle = host.next_handle;
        host.next_handle += 1;
        let old = host.domains.insert(domid, Domain::new(handle));
        drop(host);
        assert!(old.is_none(), "domain {domid} exists");
        self.guest(domid)
    }

    /// The kernel of a domain, be it 0.
    pub fn guest(&self, domid: DomId) -> SimulatedGuest {
        let host = lock(&self.host);
        let domain = host.domain(domid);
        let page = RingPage::map(&domain.page, 0).expect("a page can be mapped twice");
        SimulatedGuest::new(self.clone(), domid, page, Arc::clone(&domain.events))
    }

    /// Which of a domain's ports is for Xenstore.
    pub fn store_port(&self) -> RemotePort {
        STORE_PORT
    }

    /// Stops a domain. It stays until it is destroyed.
    pub fn shut_down(&self, domid: DomId, reason: ShutdownReason) {
        let mut host = lock(&self.host);
        host.domain_mut(domid).state = DomainState::Shutdown(reason);
        host.raise(End::DomainEvents);
    }

    /// Has a domain that was shut down run again, as when it was suspended. Nobody is told.
    pub fn resume(&self, domid: DomId) {
        lock(&self.host).domain_mut(domid).state = DomainState::Running;
    }

    /// Kills a domain. It is there, dying, until its page is no longer mapped.
    pub fn destroy(&self, domid: DomId) {
        let mut host = lock(&self.host);
        host.domain_mut(domid).state = DomainState::Dying;
        host.raise(End::DomainEvents);
        host.bury(domid);
    }

    /// Whether a domain is there, be it dying.
    pub fn exists(&self, domid: DomId) -> bool {
        lock(&self.host).domains.contains_key(&domid)
    }

    /// The domain makes one more port for domain 0, which is for something else than Xenstore.
    pub fn offer_port(&self, domid: DomId, port: RemotePort) {
        lock(&self.host).domain_mut(domid).offered.insert(port);
    }

    /// Whether the server has mapped the page of a domain.
    pub fn is_mapped(&self, domid: DomId) -> bool {
        lock(&self.host).domains.get(&domid).is_some_and(|domain| domain.mapped > 0)
    }

    /// Whether the server has bound the port of a domain.
    pub fn is_bound(&self, domid: DomId) -> bool {
        lock(&self.host).ports.values().any(|end| *end == End::Domain(domid))
    }

    /// Says whether the page of a domain can be mapped: it can at first.
    pub fn set_mappable(&self, domid: DomId, mappable: bool) {
        lock(&self.host).domain_mut(domid).mappable = mappable;
    }

    /// The domain sends its event.
    pub(super) fn notify_server(&self, domid: DomId) {
        lock(&self.host).raise(End::Domain(domid));
    }
}

impl Default for SimulatedXen {
    fn default() -> Self {
        Self::new()
    }
}

impl Host {
    fn domain(&self, domid: DomId) -> &Domain {
        self.domains.get(&domid).expect("the domain exists")
    }

    fn domain_mut(&mut self, domid: DomId) -> &mut Domain {
        self.domains.get_mut(&domid).expect("the domain exists")
    }

    /// An event for whoever has bound the other end, if anybody has.
    fn raise(&mut self, from: End) {
        let port = self.ports.iter().find(|(_, end)| **end == from).map(|(port, _)| *port);
        if let Some(port) = port
            && self.pending.insert(port)
            && !self.masked.contains(&port)
        {
            signal(&self.events);
        }
    }

    fn bind(&mut self, end: End) -> Option<LocalPort> {
        if self.ports.values().any(|bound| *bound == end) {
            return None;
        }
        let port = LocalPort(self.next_port);
        self.next_port += 1;
        self.ports.insert(port, end);
        Some(port)
    }

    fn unbind(&mut self, port: LocalPort) {
        self.ports.remove(&port);
        self.pending.remove(&port);
        self.masked.remove(&port);
    }

    /// Removes a domain that is dying if nobody holds it.
    fn bury(&mut self, domid: DomId) {
        let gone = |domain: &Domain| domain.state == DomainState::Dying && domain.mapped == 0;
        if self.domains.get(&domid).is_some_and(gone) {
            self.domains.remove(&domid);
            self.raise(End::DomainEvents);
        }
    }
}

impl Domain {
    fn new(handle: u128) -> Self {
        let page = memfd_create(c"ring page", MemfdFlags::CLOEXEC)
            .and_then(|page| ftruncate(&page, 4096).map(|()| page))
            .expect("there is memory, and a file descriptor for it");
        Self {
            handle: DomainHandle(handle.to_ne_bytes()),
            page: Arc::new(page),
            events: new_events(),
            state: DomainState::Running,
            mapped: 0,
            mappable: true,
            offered: BTreeSet::new(),
        }
    }
}

impl SimulatedHypervisor {
    fn channel(&self, port: LocalPort) -> Box<dyn EventChannel> {
        Box::new(Channel { host: Arc::clone(&self.host), port })
    }

    fn map(&self, domid: DomId) -> io::Result<RingPage> {
        let mut host = lock(&self.host);
        let domain = host.domains.get_mut(&domid).filter(|domain| domain.mappable);
        let domain = domain.ok_or(io::ErrorKind::InvalidInput)?;
        let page = RingPage::map(&domain.page, 0)?;
        domain.mapped += 1;
        Ok(page.owned_by(Box::new(Mapped { host: Arc::clone(&self.host), domid })))
    }
}

impl AsFd for SimulatedHypervisor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

impl Hypervisor for SimulatedHypervisor {
    fn take_pending(&mut self) -> Result<Vec<LocalPort>, XenError> {
        let mut host = lock(&self.host);
        drain(&self.events);
        let taken: Vec<_> = host.pending.difference(&host.masked).copied().collect();
        for port in &taken {
            host.pending.remove(port);
            host.masked.insert(*port);
        }
        Ok(taken)
    }

    fn unmask(&mut self, ports: &[LocalPort]) -> Result<(), XenError> {
        let mut host = lock(&self.host);
        for port in ports {
            if host.masked.remove(port) && host.pending.contains(port) {
                signal(&self.events);
            }
        }
        Ok(())
    }

    fn bind(&mut self, domid: DomId, port: RemotePort) -> Result<Box<dyn EventChannel>, XenError> {
        let mut host = lock(&self.host);
        let there = host.domains.contains_key(&domid) && port == STORE_PORT;
        let local = if there { host.bind(End::Domain(domid)) } else { None };
        let source = || io::ErrorKind::InvalidInput.into();
        let local = local.ok_or_else(|| XenError::Bind { domid, port, source: source() })?;
        Ok(self.channel(local))
    }

    fn has_inherited(&self) -> bool {
        self.inherited
    }

    fn adopt(&mut self, port: LocalPort) -> Box<dyn EventChannel> {
        self.channel(port)
    }

    fn bind_domain_events(&mut self) -> Result<Box<dyn EventChannel>, XenError> {
        let port = lock(&self.host).bind(End::DomainEvents);
        let taken = || XenError::BindDomainEvents(io::ErrorKind::AlreadyExists.into());
        Ok(self.channel(port.ok_or_else(taken)?))
    }

    fn map_ring(&mut self, domid: DomId) -> Result<RingPage, XenError> {
        self.map(domid).map_err(|source| XenError::Map { domid, source })
    }

    fn own_ring(&mut self) -> Result<(RingPage, RemotePort), XenError> {
        Ok((self.map_ring(DomId::DOM0)?, STORE_PORT))
    }

    fn domain_state(&mut self, domid: DomId) -> Result<DomainState, XenError> {
        let host = lock(&self.host);
        Ok(host.domains.get(&domid).map_or(DomainState::Gone, |domain| domain.state))
    }

    fn domain_handle(&mut self, domid: DomId) -> Result<DomainHandle, XenError> {
        let source = || io::ErrorKind::NotFound.into();
        (lock(&self.host).domains.get(&domid))
            .map(|domain| domain.handle)
            .ok_or_else(|| XenError::DomainState { domid, source: source() })
    }

    fn domains(&mut self) -> Result<Vec<DomId>, XenError> {
        let host = lock(&self.host);
        Ok(host.domains.keys().copied().filter(|domid| *domid != DomId::DOM0).collect())
    }

    fn port_state(&mut self, domid: DomId, port: RemotePort) -> Result<PortState, XenError> {
        let host = lock(&self.host);
        let bound = || host.ports.values().any(|end| *end == End::Domain(domid));
        let offered =
            || host.domains.get(&domid).is_some_and(|domain| domain.offered.contains(&port));
        Ok(match port {
            _ if !host.domains.contains_key(&domid) => PortState::Closed,
            CONSOLE_PORT => PortState::Bound(DomId::DOM0),
            STORE_PORT if bound() => PortState::Bound(DomId::DOM0),
            STORE_PORT => PortState::Unbound(DomId::DOM0),
            _ if offered() => PortState::Unbound(DomId::DOM0),
            _ => PortState::Closed,
        })
    }
}

/// The server's end of an event channel.
struct Channel {
    host: Arc<Mutex<Host>>,
    port: LocalPort,
}

impl EventChannel for Channel {
    fn port(&self) -> LocalPort {
        self.port
    }

    fn notify(&self) -> io::Result<()> {
        let host = lock(&self.host);
        if let Some(End::Domain(domid)) = host.ports.get(&self.port)
            && let Some(domain) = host.domains.get(domid)
        {
            signal(&domain.events);
        }
        Ok(())
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        lock(&self.host).unbind(self.port);
    }
}

/// That the server has a page mapped.
struct Mapped {
    host: Arc<Mutex<Host>>,
    domid: DomId,
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let mut host = lock(&self.host);
        if let Some(domain) = host.domains.get_mut(&self.domid) {
            domain.mapped -= 1;
            host.bury(self.domid);
        }
    }
}

fn lock(host: &Mutex<Host>) -> MutexGuard<'_, Host> {
    host.lock().unwrap_or_else(PoisonError::into_inner)
}

fn new_events() -> Arc<OwnedFd> {
    let events = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
    Arc::new(events.expect("there is a file descriptor left"))
}

pub(super) fn signal(events: &OwnedFd) {
    // Fails only if it was signalled 2^64 times.
    let _ = rustix::io::write(events, &1_u64.to_ne_bytes());
}

/// Takes what was signalled: whether anything was.
pub(super) fn drain(events: &OwnedFd) -> bool {
    rustix::io::read(events, &mut [0; 8]).is_ok()
}

impl fmt::Debug for SimulatedXen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedXen").finish_non_exhaustive()
    }
}

impl fmt::Debug for SimulatedHypervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedHypervisor").finish_non_exhaustive()
    }
}
