//! What the server asks of the hypervisor.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

use xenstore_proto::{DomId, Errno, on_one_line};

use super::page::RingPage;

/// All that the server asks of a Xen host.
///
/// The descriptor is readable while [`Hypervisor::take_pending`] has something to give.
pub trait Hypervisor: AsFd + Send {
    /// Takes the local ports that have got events. Each of them gives no more until it is unmasked.
    fn take_pending(&mut self) -> Result<Vec<LocalPort>, XenError>;

    /// Lets ports give events again: one that has come meanwhile is pending at once.
    fn unmask(&mut self, ports: &[LocalPort]) -> Result<(), XenError>;

    /// Binds a port that a domain has made for this one. A port has one other end: it cannot be bound twice.
    fn bind(&mut self, domid: DomId, port: RemotePort) -> Result<Box<dyn EventChannel>, XenError>;

    /// Whether the descriptor was inherited: ports that a predecessor has bound are bound still, under their numbers. With
    /// another descriptor such a number means nothing, or somebody else's port.
    fn has_inherited(&self) -> bool;

    /// Takes over a port that is bound already, where [`Hypervisor::has_inherited`].
    fn adopt(&mut self, port: LocalPort) -> Box<dyn EventChannel>;

    /// Binds what tells that some domain was shut down or has died. One process of a host can: it is to be dropped
    /// before another takes over.
    fn bind_domain_events(&mut self) -> Result<Box<dyn EventChannel>, XenError>;

    /// Maps the ring page of a domain. As long as it is mapped, a dead domain does not go away entirely.
    fn map_ring(&mut self, domid: DomId) -> Result<RingPage, XenError>;

    /// Maps the ring page of this very domain. Also says which of its ports goes with it.
    fn own_ring(&mut self) -> Result<(RingPage, RemotePort), XenError>;

    /// What has become of a domain.
    fn domain_state(&mut self, domid: DomId) -> Result<DomainState, XenError>;

    /// Tells the domain from another one that had its number.
    fn domain_handle(&mut self, domid: DomId) -> Result<DomainHandle, XenError>;

    /// All domains but this one, in order.
    fn domains(&mut self) -> Result<Vec<DomId>, XenError>;

    /// What a port of a domain is used for.
    fn port_state(&mut self, domid: DomId, port: RemotePort) -> Result<PortState, XenError>;
}

/// A bound port. Dropping it gives the port up.
pub trait EventChannel: Send {
    /// This end.
    fn port(&self) -> LocalPort;

    /// Sends the other end an event.
    fn notify(&self) -> io::Result<()>;
}

/// An event channel as this domain numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalPort(pub u32);

/// An event channel as the domain at the other end numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RemotePort(pub u32);

/// What a toolstack has given a domain when it was made: its UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DomainHandle(pub [u8; 16]);

/// What has become of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainState {
    /// There is none of this number.
    Gone,
    /// It runs, or is paused.
    Running,
    /// It no longer runs, but still exists: it was suspended, or has halted or crashed.
    Shutdown(ShutdownReason),
    /// It is dead, and goes away when nobody has its memory mapped any more.
    Dying,
}

/// Why a domain no longer runs: a `SHUTDOWN_*` number of Xen's public header `sched.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShutdownReason(pub u8);

impl ShutdownReason {
    /// It has halted.
    pub const POWEROFF: Self = Self(0);
    /// It wants to be started again.
    pub const REBOOT: Self = Self(1);
    /// It is suspended.
    pub const SUSPEND: Self = Self(2);
    /// It has crashed.
    pub const CRASH: Self = Self(3);
}

/// What a port of a domain is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortState {
    /// There is no such port, or it is free.
    Closed,
    /// It waits for this domain to bind it.
    Unbound(DomId),
    /// This domain has bound it.
    Bound(DomId),
    /// Something else.
    Other,
}

/// What the hypervisor, or the kernel before it, refuses.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum XenError {
    /// This host is not Xen's, or this process may not use it.
    #[error("cannot open {} (modprobe -a xen-evtchn xen-gntdev xen-privcmd)", path.display())]
    Open {
        /// A device or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// None of the known versions of a hypercall is the hypervisor's, or this domain may not use it.
    #[error("the hypervisor takes no version of {hypercall} that is known here (EACCES)")]
    Version {
        /// Which hypercall.
        hypercall: &'static str,
    },
    /// A page is not to be had.
    #[error("cannot map the ring page of domain {domid}")]
    Map {
        /// Whose.
        domid: DomId,
        /// Why.
        source: io::Error,
    },
    /// A port is not to be had.
    #[error("cannot bind event channel {} of domain {domid}", port.0)]
    Bind {
        /// Whose.
        domid: DomId,
        /// Which.
        port: RemotePort,
        /// Why.
        source: io::Error,
    },
    /// Somebody else hears of shutdowns and deaths: another Xenstore daemon runs.
    #[error("cannot bind the virtual interrupt that tells of domains")]
    BindDomainEvents(#[source] io::Error),
    /// Events cannot be received.
    #[error("cannot {action} event channels")]
    Events {
        /// What was being done.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The state of a domain is not told.
    #[error("cannot ask for the state of domain {domid}")]
    DomainState {
        /// Which.
        domid: DomId,
        /// Why.
        source: io::Error,
    },
    /// The domains are not listed.
    #[error("cannot list the domains")]
    Domains(#[source] io::Error),
    /// What a port is used for is not told.
    #[error("cannot ask for the state of event channel {} of domain {domid}", port.0)]
    PortState {
        /// Whose.
        domid: DomId,
        /// Which.
        port: RemotePort,
        /// Why.
        source: io::Error,
    },
}

impl XenError {
    /// This with its causes, for a log.
    pub(crate) fn on_one_line(&self) -> String {
        on_one_line(self)
    }

    /// What a client is told whose request failed for this.
    pub fn errno(&self) -> Errno {
        let (Self::Open { source, .. }
        | Self::Map { source, .. }
        | Self::Bind { source, .. }
        | Self::BindDomainEvents(source)
        | Self::Events { source, .. }
        | Self::DomainState { source, .. }
        | Self::Domains(source)
        | Self::PortState { source, .. }) = self
        else {
            return Errno::EACCES;
        };
        match source.kind() {
            io::ErrorKind::PermissionDenied => Errno::EACCES,
            io::ErrorKind::NotFound => Errno::ENOENT,
            io::ErrorKind::AlreadyExists => Errno::EEXIST,
            io::ErrorKind::OutOfMemory => Errno::ENOMEM,
            io::ErrorKind::StorageFull => Errno::ENOSPC,
            io::ErrorKind::ResourceBusy => Errno::EBUSY,
            io::ErrorKind::WouldBlock => Errno::EAGAIN,
            _ => Errno::EINVAL,
        }
    }
}

/// Most ports of a domain that are looked at by [`store_port`]: a toolstack makes the one for Xenstore before all others.
const PORTS_LOOKED_AT: u32 = 64;

/// Which port of a domain waits for a Xenstore server, after the one that had it bound has died. `hint` is looked at
/// first: the number that a toolstack wrote down.
pub(crate) fn store_port(
    hypervisor: &mut dyn Hypervisor,
    domid: DomId,
    hint: Option<RemotePort>,
) -> Result<Option<RemotePort>, XenError> {
    for port in hint.into_iter().chain((1..=PORTS_LOOKED_AT).map(RemotePort)) {
        if hypervisor.port_state(domid, port)? == PortState::Unbound(DomId::DOM0) {
            return Ok(Some(port));
        }
    }
    Ok(None)
}

impl fmt::Debug for dyn Hypervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hypervisor")
    }
}

impl fmt::Debug for dyn EventChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.port(), f)
    }
}
