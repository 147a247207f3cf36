//! A real Xen host, through the kernel's devices; no library is needed.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno as OsError;
use xenstore_proto::DomId;

use super::hypervisor::{
    DomainHandle, DomainState, EventChannel, Hypervisor, LocalPort, PortState, RemotePort,
    ShutdownReason, XenError,
};
use super::page::RingPage;
use super::raw::{self, DomainInfo, Hypercalls};

const EVTCHN: &str = "/dev/xen/evtchn";
const GNTDEV: &str = "/dev/xen/gntdev";
const PRIVCMD: &str = "/dev/xen/privcmd";
const HYPERCALL: &str = "/dev/xen/hypercall";
const XENBUS_BACKEND: &str = "/dev/xen/xenbus_backend";
const XSD_KVA: &str = "/proc/xen/xsd_kva";
const XSD_PORT: &str = "/proc/xen/xsd_port";

/// `VIRQ_DOM_EXC`: a domain was shut down or has died.
const VIRQ_DOM_EXC: u32 = 3;

/// The grant of a domain's ring page: `GNTTAB_RESERVED_XENSTORE`.
const XENSTORE_GRANT: u32 = 1;

/// Versions of domctl, newest first: Xen 4.22 to 4.14.
const DOMCTL_VERSIONS: [u32; 7] = [0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12];

/// Versions of sysctl, newest first: Xen 4.21 to 4.14, and one more.
const SYSCTL_VERSIONS: [u32; 5] = [0x17, 0x16, 0x15, 0x14, 0x13];

/// Flags of `xen_domctl_getdomaininfo`; the third octet is the reason for a shutdown.
const DYING: u32 = 1 << 0;
const SHUTDOWN: u32 = 1 << 2;

/// Ports taken by one call.
const PORTS_AT_ONCE: usize = 256;

/// A Xen host's control domain, seen from a process in it that may do everything.
///
/// Which version of the hypercalls that tell of domains is the hypervisor's is tried out once, when this is opened.
#[derive(Debug)]
pub struct XenDevices {
    evtchn: Arc<OwnedFd>,
    /// Whether a predecessor has left `evtchn`.
    inherited: bool,
    gntdev: Arc<OwnedFd>,
    hypercalls: Hypercalls,
    domctl: u32,
    sysctl: u32,
}

impl XenDevices {
    /// Whether this looks like a Xen host's control domain, also where the drivers of event channels are modules that nobody has loaded:
    /// then it cannot be opened, and must not be taken for a host without domains.
    pub fn are_here() -> bool {
        [EVTCHN, XENBUS_BACKEND].iter().any(|device| Path::new(device).exists())
    }

    /// Opens the devices.
    ///
    /// # Errors
    ///
    /// [`XenError::Open`] on what is no Xen host, [`XenError::Version`] on one that is too old or too new.
    pub fn open() -> Result<Self, XenError> {
        let evtchn = open(EVTCHN)?;
        Self::with_events(evtchn.into(), false)
    }

    /// Opens the devices, but for that of event channels, which was inherited: ports that it has bound are bound still.
    ///
    /// # Errors
    ///
    /// As for [`XenDevices::open`].
    pub fn adopt(evtchn: OwnedFd) -> Result<Self, XenError> {
        let prepared = rustix::io::fcntl_setfd(&evtchn, rustix::io::FdFlags::CLOEXEC)
            .and_then(|()| rustix::io::ioctl_fionbio(&evtchn, true));
        prepared.map_err(|error| failed_events("inherit")(error.into()))?;
        Self::with_events(evtchn, true)
    }

    fn with_events(evtchn: OwnedFd, inherited: bool) -> Result<Self, XenError> {
        let gntdev = open(GNTDEV)?;
        let hypercall = open(HYPERCALL)?;
        let mut hypercalls = Hypercalls::new(open(PRIVCMD)?, &hypercall)
            .map_err(|source| XenError::Open { path: HYPERCALL.into(), source })?;
        let domctl = version("domctl", &DOMCTL_VERSIONS, |version| {
            hypercalls.domain_info(version, DomId::DOM0.get()).map(drop)
        })?;
        let sysctl = version("sysctl", &SYSCTL_VERSIONS, |version| {
            hypercalls.next_domain(version, DomId::DOM0.get()).map(drop)
        })?;
        tracing::info!(domctl, sysctl, "Xen's interfaces found");
        let gntdev = Arc::new(gntdev.into());
        Ok(Self { evtchn: Arc::new(evtchn), inherited, gntdev, hypercalls, domctl, sysctl })
    }

    fn channel(&self, port: u32) -> Box<dyn EventChannel> {
        Box::new(Channel { evtchn: Arc::clone(&self.evtchn), port })
    }
}

impl AsFd for XenDevices {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.evtchn.as_fd()
    }
}

impl Hypervisor for XenDevices {
    fn take_pending(&mut self) -> Result<Vec<LocalPort>, XenError> {
        let mut ports = Vec::new();
        let mut octets = [0; 4 * PORTS_AT_ONCE];
        loop {
            match rustix::io::read(&self.evtchn, &mut octets) {
                Ok(0) | Err(OsError::WOULDBLOCK) => return Ok(ports),
                Ok(len) => {
                    let (numbers, _) = octets[..len].as_chunks::<4>();
                    ports.extend(numbers.iter().map(|port| LocalPort(u32::from_ne_bytes(*port))));
                }
                Err(OsError::INTR) => {}
                Err(error) => {
                    if error == OsError::FBIG {
                        // Otherwise it would say so for ever.
                        raw::reset(self.evtchn.as_fd()).map_err(failed_events("reset"))?;
                    }
                    return Err(failed_events("read")(error.into()));
                }
            }
        }
    }

    fn unmask(&mut self, ports: &[LocalPort]) -> Result<(), XenError> {
        for ports in ports.chunks(PORTS_AT_ONCE) {
            let octets: Vec<u8> = ports.iter().flat_map(|port| port.0.to_ne_bytes()).collect();
            rustix::io::retry_on_intr(|| rustix::io::write(&self.evtchn, &octets))
                .map_err(|error| failed_events("unmask")(error.into()))?;
        }
        Ok(())
    }

    fn bind(&mut self, domid: DomId, port: RemotePort) -> Result<Box<dyn EventChannel>, XenError> {
        let local = raw::bind_interdomain(self.evtchn.as_fd(), domid.get(), port.0)
            .map_err(|source| XenError::Bind { domid, port, source })?;
        Ok(self.channel(local))
    }

    fn has_inherited(&self) -> bool {
        self.inherited
    }

    fn adopt(&mut self, port: LocalPort) -> Box<dyn EventChannel> {
        self.channel(port.0)
    }

    fn bind_domain_events(&mut self) -> Result<Box<dyn EventChannel>, XenError> {
        let port = raw::bind_virq(self.evtchn.as_fd(), VIRQ_DOM_EXC)
            .map_err(XenError::BindDomainEvents)?;
        Ok(self.channel(port))
    }

    fn map_ring(&mut self, domid: DomId) -> Result<RingPage, XenError> {
        let failed = |source| XenError::Map { domid, source };
        let index =
            raw::map_grant(self.gntdev.as_fd(), domid.get(), XENSTORE_GRANT).map_err(failed)?;
        let grant = Grant { gntdev: Arc::clone(&self.gntdev), domid, index };
        let page = RingPage::map(&self.gntdev, index).map_err(failed)?;
        Ok(page.owned_by(Box::new(grant)))
    }

    fn own_ring(&mut self) -> Result<(RingPage, RemotePort), XenError> {
        let failed = |source| XenError::Map { domid: DomId::DOM0, source };
        match open(XENBUS_BACKEND) {
            Ok(backend) => {
                let port = raw::own_port(backend.as_fd()).map_err(failed)?;
                let page = RingPage::map(&backend, 0).map_err(failed)?;
                Ok((page, RemotePort(port)))
            }
            // Needs xenfs to be mounted, and no device.
            Err(_) => {
                let cannot_open = |path: &str| {
                    let path = path.into();
                    move |source| XenError::Open { path, source }
                };
                let port = std::fs::read_to_string(XSD_PORT).map_err(cannot_open(XSD_PORT))?;
                let port = port
                    .trim()
                    .parse()
                    .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidData, error)))?;
                let page = RingPage::map(&open(XSD_KVA)?, 0).map_err(failed)?;
                Ok((page, RemotePort(port)))
            }
        }
    }

    fn domain_state(&mut self, domid: DomId) -> Result<DomainState, XenError> {
        match self.hypercalls.domain_info(self.domctl, domid.get()) {
            // Older versions answer with the next domain if there is none of this number.
            Ok(info) if info.domid != domid.get() => Ok(DomainState::Gone),
            Ok(info) => Ok(state(info)),
            Err(error) if is(&error, OsError::SRCH) => Ok(DomainState::Gone),
            Err(source) => Err(XenError::DomainState { domid, source }),
        }
    }

    fn domain_handle(&mut self, domid: DomId) -> Result<DomainHandle, XenError> {
        match self.hypercalls.domain_info(self.domctl, domid.get()) {
            Ok(info) if info.domid == domid.get() => Ok(DomainHandle(info.handle)),
            Ok(_) => Err(XenError::DomainState { domid, source: OsError::SRCH.into() }),
            Err(source) => Err(XenError::DomainState { domid, source }),
        }
    }

    fn domains(&mut self) -> Result<Vec<DomId>, XenError> {
        let mut domains = Vec::new();
        let mut first = 1;
        while let Some(info) =
            self.hypercalls.next_domain(self.sysctl, first).map_err(XenError::Domains)?
        {
            let domid = DomId::new(info.domid);
            if info.domid < first || !domid.is_real() {
                break;
            }
            domains.push(domid);
            first = info.domid + 1;
        }
        Ok(domains)
    }

    fn port_state(&mut self, domid: DomId, port: RemotePort) -> Result<PortState, XenError> {
        const UNBOUND: u32 = 1;
        const INTERDOMAIN: u32 = 2;
        let info = match self.hypercalls.port_info(domid.get(), port.0) {
            Ok(info) => info,
            // A number beyond those that the domain has.
            Err(error) if is(&error, OsError::INVAL) => return Ok(PortState::Closed),
            Err(source) => return Err(XenError::PortState { domid, port, source }),
        };
        let remote = DomId::new(info.remote);
        Ok(match info.status {
            0 => PortState::Closed,
            UNBOUND => PortState::Unbound(remote),
            INTERDOMAIN => PortState::Bound(remote),
            _ => PortState::Other,
        })
    }
}

fn state(info: DomainInfo) -> DomainState {
    if info.flags & DYING != 0 {
        return DomainState::Dying;
    }
    if info.flags & SHUTDOWN == 0 {
        return DomainState::Running;
    }
    let [_, _, reason, _] = info.flags.to_le_bytes();
    DomainState::Shutdown(ShutdownReason(reason))
}

/// The version that is taken. EACCES means a wrong version, or that this domain may not ask at all.
fn version(
    hypercall: &'static str,
    versions: &[u32],
    mut ask: impl FnMut(u32) -> io::Result<()>,
) -> Result<u32, XenError> {
    for &version in versions {
        match ask(version) {
            Ok(()) => return Ok(version),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            Err(source) => return Err(XenError::Domains(source)),
        }
    }
    Err(XenError::Version { hypercall })
}

fn open(path: &'static str) -> Result<File, XenError> {
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(flags);
    options.open(path).map_err(|source| XenError::Open { path: path.into(), source })
}

fn failed_events(action: &'static str) -> impl Fn(io::Error) -> XenError {
    move |source| XenError::Events { action, source }
}

fn is(error: &io::Error, errno: OsError) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

/// A bound port of the device.
struct Channel {
    evtchn: Arc<OwnedFd>,
    port: u32,
}

impl EventChannel for Channel {
    fn port(&self) -> LocalPort {
        LocalPort(self.port)
    }

    fn notify(&self) -> io::Result<()> {
        raw::notify(self.evtchn.as_fd(), self.port)
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        if let Err(error) = raw::unbind(self.evtchn.as_fd(), self.port) {
            tracing::warn!(port = self.port, %error, "event channel not given up");
        }
    }
}

/// A page that a domain has granted, to be given back after it is unmapped.
struct Grant {
    gntdev: Arc<OwnedFd>,
    domid: DomId,
    index: u64,
}

impl Drop for Grant {
    fn drop(&mut self) {
        if let Err(error) = raw::unmap_grant(self.gntdev.as_fd(), self.index) {
            tracing::warn!(domid = %self.domid, %error, "ring page not given back");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn death_outweighs_shutdown_and_the_reason_is_the_third_octet() {
        let of = |flags| state(DomainInfo { domid: 7, flags, handle: [0; 16] });
        assert_eq!(of(1 << 4), DomainState::Running);
        assert_eq!(of(0x0002_0004), DomainState::Shutdown(ShutdownReason::SUSPEND));
        assert_eq!(of(0xFF03_0004), DomainState::Shutdown(ShutdownReason::CRASH));
        assert_eq!(of(0x0003_0005), DomainState::Dying);
    }

    #[test]
    fn the_version_that_is_not_refused_is_taken_and_other_errors_end_the_search() {
        let denied = || Err(io::ErrorKind::PermissionDenied.into());
        let found =
            version("domctl", &[3, 2, 1], |asked| if asked == 2 { Ok(()) } else { denied() });
        assert_eq!(found.unwrap(), 2);
        assert!(matches!(
            version("domctl", &[3, 2], |_| denied()),
            Err(XenError::Version { hypercall: "domctl" })
        ));
        let broken = version("domctl", &[3, 2], |_| Err(io::ErrorKind::NotFound.into()));
        assert!(matches!(broken, Err(XenError::Domains(_))));
    }
}
