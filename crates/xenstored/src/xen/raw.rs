//! Everything unsafe about a Xen host: pages shared with somebody else, and calls into the kernel's Xen devices.
//!
//! The interfaces are those of Linux's public headers `xen/evtchn.h`, `xen/gntdev.h` and `xen/privcmd.h`, and of Xen's
//! public headers `event_channel.h`, `domctl.h` and `sysctl.h`.
#![expect(
    unsafe_code,
    reason = "shared pages are mapped, and the kernel reads and writes what calls point to"
)]

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use rustix::ioctl::{Ioctl, IoctlOutput, Opcode};
use rustix::mm::{MapFlags, ProtFlags};

/// Octets of a page.
pub(super) const PAGE: usize = 4096;

/// Memory of whole pages that others read and write at any time, until it is dropped.
///
/// There is never a reference to what is in it, only atomic accesses.
#[derive(Debug)]
pub(super) struct Mapping {
    base: NonNull<u8>,
    len: usize,
    /// When the process that has mapped it dies, as far as a test is concerned.
    #[cfg(test)]
    fuse: Option<super::fuse::Fuse>,
}

// SAFETY: the memory is reached by atomic accesses only, and belongs to the process, not to a thread.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps one page of a file or device, shared.
    pub(super) fn shared(fd: impl AsFd, offset: u64) -> io::Result<Self> {
        Self::shared_pages(fd, offset, 1)
    }

    /// Maps some pages of a file or device, shared.
    pub(super) fn shared_pages(fd: impl AsFd, offset: u64, pages: usize) -> io::Result<Self> {
        let len = pages * PAGE;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses where, so nothing that exists is mapped over.
        let base = unsafe {
            rustix::mm::mmap(ptr::null_mut(), len, protection, MapFlags::SHARED, fd, offset)
        }?;
        NonNull::new(base.cast())
            .map(|base| Self {
                base,
                len,
                #[cfg(test)]
                fuse: super::fuse::Fuse::current(),
            })
            .ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }

    /// Whether the process that has mapped it is dead, as far as a test is concerned: nothing is stored any more.
    #[cfg(test)]
    fn is_dead(&self) -> bool {
        self.fuse.as_ref().is_some_and(super::fuse::Fuse::burns)
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "it is a test that has something to see")]
    const fn is_dead(&self) -> bool {
        false
    }

    pub(super) fn load(&self, at: usize) -> u32 {
        self.word(at).load(Ordering::Acquire)
    }

    pub(super) fn store(&self, at: usize, value: u32) {
        if !self.is_dead() {
            self.word(at).store(value, Ordering::Release);
        }
    }

    /// Stores `to` if `from` is there.
    pub(super) fn replace(&self, at: usize, from: u32, to: u32) -> bool {
        !self.is_dead()
            && self.word(at).compare_exchange(from, to, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    pub(super) fn copy_out(&self, at: usize, octets: &mut [u8]) {
        let (head, words) = octets.split_at_mut(until_aligned(at, octets.len()));
        let mut at = self.load_octets(at, head);
        let mut words = words.chunks_exact_mut(8);
        for word in &mut words {
            word.copy_from_slice(&self.long(at).load(Ordering::Relaxed).to_ne_bytes());
            at += 8;
        }
        self.load_octets(at, words.into_remainder());
    }

    pub(super) fn copy_in(&self, at: usize, octets: &[u8]) {
        if self.is_dead() {
            return;
        }
        let (head, words) = octets.split_at(until_aligned(at, octets.len()));
        let mut at = self.store_octets(at, head);
        let (words, tail) = words.as_chunks::<8>();
        if self.is_dead() {
            return;
        }
        for word in words {
            self.long(at).store(u64::from_ne_bytes(*word), Ordering::Relaxed);
            at += 8;
        }
        self.store_octets(at, tail);
    }

    fn load_octets(&self, at: usize, octets: &mut [u8]) -> usize {
        for (octet, at) in octets.iter_mut().zip(at..) {
            *octet = self.octet(at).load(Ordering::Relaxed);
        }
        at + octets.len()
    }

    fn store_octets(&self, at: usize, octets: &[u8]) -> usize {
        for (octet, at) in octets.iter().zip(at..) {
            self.octet(at).store(*octet, Ordering::Relaxed);
        }
        at + octets.len()
    }

    fn octet(&self, at: usize) -> &AtomicU8 {
        // SAFETY: inside the memory, which is mapped as long as `self` lives.
        unsafe { AtomicU8::from_ptr(self.inside(at, 1)) }
    }

    fn word(&self, at: usize) -> &AtomicU32 {
        // SAFETY: inside the memory and aligned, as a page is and `inside` has seen.
        unsafe { AtomicU32::from_ptr(self.inside(at, 4).cast()) }
    }

    fn long(&self, at: usize) -> &AtomicU64 {
        // SAFETY: as for `word`.
        unsafe { AtomicU64::from_ptr(self.inside(at, 8).cast()) }
    }

    /// Where `len` octets are, all inside the memory, and aligned to their number.
    fn inside(&self, at: usize, len: usize) -> *mut u8 {
        assert!(
            at.is_multiple_of(len) && at + len <= self.len,
            "{len} octets at {at} of {}",
            self.len
        );
        // SAFETY: inside the memory.
        unsafe { self.base.as_ptr().add(at) }
    }

    fn address(&self) -> u64 {
        // An address is no longer than 64 bits.
        self.base.as_ptr().expose_provenance() as u64
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `shared_pages`, and no reference into it outlives a method.
        let unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
        if let Err(error) = unmapped {
            tracing::error!(%error, "memory not unmapped");
        }
    }
}

/// How many of `len` octets come before those that can be reached in words.
fn until_aligned(at: usize, len: usize) -> usize {
    (at.next_multiple_of(8) - at).min(len)
}

/// A call whose argument the kernel may change. All fields are plain numbers.
struct Call<'a, T> {
    opcode: Opcode,
    argument: &'a mut T,
}

// SAFETY: only built by `call`, whose callers give an argument of the layout that the operation takes.
unsafe impl<T> Ioctl for Call<'_, T> {
    type Output = u32;
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.opcode
    }

    fn as_ptr(&mut self) -> *mut core::ffi::c_void {
        ptr::from_mut(self.argument).cast()
    }

    unsafe fn output_from_ptr(
        out: IoctlOutput,
        _: *mut core::ffi::c_void,
    ) -> rustix::io::Result<u32> {
        // Negative ones have become errors.
        Ok(u32::try_from(out).unwrap_or_default())
    }
}

/// # Safety
///
/// `argument` is what the operation `opcode` of the device takes, and what it points to is as well.
unsafe fn call<T>(device: BorrowedFd<'_>, opcode: Opcode, argument: &mut T) -> io::Result<u32> {
    // SAFETY: the caller's promise.
    Ok(unsafe { rustix::ioctl::ioctl(device, Call { opcode, argument }) }?)
}

const EVTCHN_BIND_VIRQ: Opcode = 0x0004_4500;
const EVTCHN_BIND_INTERDOMAIN: Opcode = 0x0008_4501;
const EVTCHN_UNBIND: Opcode = 0x0004_4503;
const EVTCHN_NOTIFY: Opcode = 0x0004_4504;
const EVTCHN_RESET: Opcode = 0x0000_4505;
const GNTDEV_MAP_GRANT_REF: Opcode = 0x0018_4700;
const GNTDEV_UNMAP_GRANT_REF: Opcode = 0x0010_4701;
const XENBUS_BACKEND_EVTCHN: Opcode = 0x0000_4200;
const PRIVCMD_HYPERCALL: Opcode = 0x0030_5000;

/// Binds a virtual interrupt. Gives the local port.
pub(super) fn bind_virq(evtchn: BorrowedFd<'_>, mut virq: u32) -> io::Result<u32> {
    // SAFETY: `struct ioctl_evtchn_bind_virq` is one number.
    unsafe { call(evtchn, EVTCHN_BIND_VIRQ, &mut virq) }
}

/// Binds another domain's port. Gives the local port.
pub(super) fn bind_interdomain(evtchn: BorrowedFd<'_>, domid: u16, port: u32) -> io::Result<u32> {
    let mut remote: [u32; 2] = [domid.into(), port];
    // SAFETY: `struct ioctl_evtchn_bind_interdomain` is two numbers.
    unsafe { call(evtchn, EVTCHN_BIND_INTERDOMAIN, &mut remote) }
}

/// Gives a local port up.
pub(super) fn unbind(evtchn: BorrowedFd<'_>, mut port: u32) -> io::Result<()> {
    // SAFETY: `struct ioctl_evtchn_unbind` is one number.
    unsafe { call(evtchn, EVTCHN_UNBIND, &mut port) }.map(drop)
}

/// Sends an event through a local port.
pub(super) fn notify(evtchn: BorrowedFd<'_>, mut port: u32) -> io::Result<()> {
    // SAFETY: `struct ioctl_evtchn_notify` is one number.
    unsafe { call(evtchn, EVTCHN_NOTIFY, &mut port) }.map(drop)
}

/// Forgets pending ports, of which there were more than the kernel keeps.
pub(super) fn reset(evtchn: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes nothing.
    unsafe { call(evtchn, EVTCHN_RESET, &mut ()) }.map(drop)
}

/// Has a page that a domain grants ready to be mapped. Gives where to map it.
pub(super) fn map_grant(gntdev: BorrowedFd<'_>, domid: u16, grant: u32) -> io::Result<u64> {
    #[repr(C)]
    struct MapGrantRef {
        count: u32,
        pad: u32,
        index: u64,
        domid: u32,
        grant: u32,
    }
    let mut map = MapGrantRef { count: 1, pad: 0, index: 0, domid: domid.into(), grant };
    // SAFETY: `struct ioctl_gntdev_map_grant_ref` with one grant.
    unsafe { call(gntdev, GNTDEV_MAP_GRANT_REF, &mut map) }?;
    Ok(map.index)
}

/// Gives a granted page back, after it was unmapped.
pub(super) fn unmap_grant(gntdev: BorrowedFd<'_>, index: u64) -> io::Result<()> {
    #[repr(C)]
    struct UnmapGrantRef {
        index: u64,
        count: u32,
        pad: u32,
    }
    let mut unmap = UnmapGrantRef { index, count: 1, pad: 0 };
    // SAFETY: `struct ioctl_gntdev_unmap_grant_ref`.
    unsafe { call(gntdev, GNTDEV_UNMAP_GRANT_REF, &mut unmap) }.map(drop)
}

/// The port of this domain's own ring.
pub(super) fn own_port(xenbus_backend: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: takes nothing.
    unsafe { call(xenbus_backend, XENBUS_BACKEND_EVTCHN, &mut ()) }
}

/// Calls of the hypervisor, which reads and writes a page that the kernel keeps in place.
#[derive(Debug)]
pub(super) struct Hypercalls {
    privcmd: std::fs::File,
    buffer: Mapping,
}

/// What the hypervisor says of a domain: from `xen_domctl_getdomaininfo`, where they stand in every version.
#[derive(Clone, Copy, Debug)]
pub(super) struct DomainInfo {
    pub(super) domid: u16,
    pub(super) flags: u32,
    pub(super) handle: [u8; 16],
}

/// What the hypervisor says of a port: `evtchn_status`.
#[derive(Clone, Copy, Debug)]
pub(super) struct PortInfo {
    pub(super) status: u32,
    /// Meant for status 1 (unbound) and 2 (interdomain).
    pub(super) remote: u16,
}

const HYPERVISOR_EVENT_CHANNEL_OP: u64 = 32;
const HYPERVISOR_SYSCTL: u64 = 35;
const HYPERVISOR_DOMCTL: u64 = 36;
const EVTCHNOP_STATUS: u64 = 5;
const DOMCTL_GETDOMAININFO: u32 = 5;
const SYSCTL_GETDOMAININFOLIST: u32 = 6;

/// More than any version's `xen_domctl`, `xen_sysctl` or `evtchn_status`.
const ARGUMENT: usize = 1024;

impl Hypercalls {
    /// `hypercall` is the device whose pages may be passed to the hypervisor.
    pub(super) fn new(privcmd: std::fs::File, hypercall: impl AsFd) -> io::Result<Self> {
        Ok(Self { privcmd, buffer: Mapping::shared(hypercall, 0)? })
    }

    /// Asks about a domain. Some versions answer with the next one if there is none of this number.
    pub(super) fn domain_info(&mut self, version: u32, domid: u16) -> io::Result<DomainInfo> {
        self.clear();
        self.buffer.store(0, DOMCTL_GETDOMAININFO);
        self.buffer.store(4, version);
        self.buffer.store(8, domid.into());
        // SAFETY: `xen_domctl` at the start of the page; getdomaininfo writes nowhere else.
        unsafe { self.hypercall(HYPERVISOR_DOMCTL, [self.buffer.address(), 0]) }?;
        Ok(self.info_at(16))
    }

    /// Asks about the first domain whose number is not below `first`. One at a time: so long as the page is long enough
    /// for one, the size of an entry, which depends on the version, does not matter.
    pub(super) fn next_domain(
        &mut self,
        version: u32,
        first: u16,
    ) -> io::Result<Option<DomainInfo>> {
        self.clear();
        self.buffer.store(0, SYSCTL_GETDOMAININFOLIST);
        self.buffer.store(4, version);
        self.buffer.store(8, first.into());
        self.buffer.store(12, 1);
        let entry = self.buffer.address() + ARGUMENT as u64;
        self.buffer.copy_in(16, &entry.to_ne_bytes());
        // SAFETY: `xen_sysctl` at the start of the page, and a buffer for one entry, which is far shorter than the rest
        // of the page.
        unsafe { self.hypercall(HYPERVISOR_SYSCTL, [self.buffer.address(), 0]) }?;
        Ok((self.buffer.load(24) > 0).then(|| self.info_at(ARGUMENT)))
    }

    /// Asks about a port of a domain.
    pub(super) fn port_info(&mut self, domid: u16, port: u32) -> io::Result<PortInfo> {
        self.clear();
        self.buffer.store(0, domid.into());
        self.buffer.store(4, port);
        let arguments = [EVTCHNOP_STATUS, self.buffer.address()];
        // SAFETY: `evtchn_status` at the start of the page.
        unsafe { self.hypercall(HYPERVISOR_EVENT_CHANNEL_OP, arguments) }?;
        Ok(PortInfo { status: self.buffer.load(8), remote: low_half(self.buffer.load(16)) })
    }

    fn clear(&self) {
        self.buffer.copy_in(0, &[0; PAGE]);
    }

    fn info_at(&self, at: usize) -> DomainInfo {
        let mut handle = [0; 16];
        self.buffer.copy_out(at + 76, &mut handle);
        DomainInfo {
            domid: low_half(self.buffer.load(at)),
            flags: self.buffer.load(at + 4),
            handle,
        }
    }

    /// # Safety
    ///
    /// The operation reads and writes nothing but the buffer.
    unsafe fn hypercall(&self, operation: u64, arguments: [u64; 2]) -> io::Result<u32> {
        let mut hypercall: [u64; 6] = [operation, arguments[0], arguments[1], 0, 0, 0];
        // SAFETY: `struct privcmd_hypercall` is the operation and five arguments, and the caller's promise.
        unsafe { call(self.privcmd.as_fd(), PRIVCMD_HYPERCALL, &mut hypercall) }
    }
}

fn low_half(word: u32) -> u16 {
    u16::try_from(word & 0xFFFF).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Mapping {
        let file = rustix::fs::memfd_create(c"page", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, PAGE as u64).unwrap();
        Mapping::shared(&file, 0).unwrap()
    }

    #[test]
    fn what_is_copied_in_at_any_place_comes_out_again_and_nothing_else_changes() {
        let page = page();
        for at in (0..40).chain([1000, PAGE - 33]) {
            for len in 0..33 {
                page.copy_in(0, &[0xEE; PAGE]);
                let octets: Vec<u8> = (1..=200).take(len).collect();
                page.copy_in(at, &octets);
                let mut all = [0; PAGE];
                page.copy_out(0, &mut all);
                assert_eq!(all[at..at + len], octets, "{len} at {at}");
                assert!(all[..at].iter().chain(&all[at + len..]).all(|octet| *octet == 0xEE));
                let mut out = vec![0; len];
                page.copy_out(at, &mut out);
                assert_eq!(out, octets, "{len} at {at}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "of 4096")]
    fn nothing_beyond_the_page_is_reached() {
        page().copy_out(PAGE - 4, &mut [0; 5]);
    }
}
