//! libxenctrl, of which only questions are asked that the hypervisor answers at once.
//!
//! Two structures are read that have no functions of their own. Of `xen_domctl_getdomaininfo` that is the beginning, up to the CPU
//! pool, which is the same in Xen 4.14 to 4.22. Its size, which differs, is not needed for one domain. Of `xc_cpupoolinfo` it is
//! the first two members. What a scheduler tells is two or three plain numbers. Prototypes are from `xenctrl.h`.

use std::ffi::{c_int, c_uint, c_void};
use std::io;
use std::mem::offset_of;
use std::path::Path;
use std::ptr::{self, NonNull};

use super::{OpenFailure, Pair, functions};
use crate::log::{Log, Logger};

/// Octets of what follows the beginning of a `xen_domctl_getdomaininfo`: 16 in 4.17.
const REST_OCTETS: usize = 4096;

/// Its beginning, and room for the rest in any version.
#[repr(C)]
struct GetDomainInfo {
    domid: u16,
    _pad: u16,
    _flags: u32,
    /// Five numbers of pages, a frame, a time.
    _counts: [u64; 7],
    /// How many virtual CPUs are online, the last one's number, a label.
    _numbers: [u32; 3],
    handle: [u8; 16],
    cpupool: u32,
    _rest: [u64; REST_OCTETS / size_of::<u64>()],
}

const _: () = assert!(
    offset_of!(GetDomainInfo, handle) == 76 && offset_of!(GetDomainInfo, cpupool) == 92,
    "as C lays the structure out"
);

type Xch = *mut c_void;
/// A domain, and where its parameters are put.
type SchedGet<T> = unsafe extern "C" fn(Xch, u32, *mut T) -> c_int;

functions! {
    create_logger: "xtl_createlogger_stdiostream"
        as unsafe extern "C" fn(*mut libc::FILE, c_int, c_uint) -> *mut c_void;
    destroy_logger: "xtl_logger_destroy" as unsafe extern "C" fn(*mut c_void);
    open: "xc_interface_open" as unsafe extern "C" fn(*mut c_void, *mut c_void, c_uint) -> Xch;
    close: "xc_interface_close" as unsafe extern "C" fn(Xch) -> c_int;
    getinfolist: "xc_domain_getinfolist"
        as unsafe extern "C" fn(Xch, u32, c_uint, *mut c_void) -> c_int;
    cpupool_getinfo: "xc_cpupool_getinfo" as unsafe extern "C" fn(Xch, u32) -> *mut Pool;
    cpupool_infofree: "xc_cpupool_infofree" as unsafe extern "C" fn(Xch, *mut Pool);
    credit_get: "xc_sched_credit_domain_get" as SchedGet<Credit>;
    credit2_get: "xc_sched_credit2_domain_get" as SchedGet<Credit>;
    rtds_get: "xc_sched_rtds_domain_get" as SchedGet<Rtds>;
}

/// Of what the hypervisor says of a domain, what is needed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DomainInfo {
    pub(crate) domid: u16,
    /// The handle.
    pub(crate) uuid: [u8; 16],
    /// The number of its CPU pool.
    pub(crate) pool: u32,
}

/// The beginning of an `xc_cpupoolinfo`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pool {
    pub(crate) id: u32,
    /// `XEN_SCHEDULER_*`.
    pub(crate) sched: u32,
}

/// `xen_domctl_sched_credit`, and `xen_domctl_sched_credit2`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Credit {
    pub(crate) weight: u16,
    pub(crate) cap: u16,
}

/// `xen_domctl_sched_rtds`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rtds {
    /// In microseconds, as the next.
    pub(crate) period: u32,
    pub(crate) budget: u32,
    _flags: u32,
}

/// An interface to the hypervisor.
pub(crate) struct Handle {
    functions: Functions,
    xch: NonNull<c_void>,
    logger: NonNull<c_void>,
    log: Log,
}

// SAFETY: nothing of the interface belongs to the thread that opened it, and every call takes `&mut self`.
unsafe impl Send for Handle {}

/// Why there is no interface.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InterfaceError {
    #[error("no place for what libxenctrl logs")]
    Log(#[source] io::Error),
    #[error("libxenctrl's logger cannot be made")]
    Logger,
    #[error("libxenctrl cannot reach the hypervisor: {log}")]
    Open { log: String, source: io::Error },
}

/// A loaded libxenctrl, which stays so.
pub(crate) struct Libxenctrl(Functions);

impl Libxenctrl {
    /// Loads both libraries.
    pub(crate) fn open(libxenctrl: &Path, xentoollog: &Path) -> Result<Self, OpenFailure> {
        let pair = Pair::open(libxenctrl, xentoollog)?;
        let functions = Functions::find(&pair)?;
        pair.stay();
        Ok(Self(functions))
    }

    /// Opens an interface. What it would write to stderr by itself is logged.
    pub(crate) fn interface(self) -> Result<Handle, InterfaceError> {
        let functions = self.0;
        let log = Log::new().map_err(InterfaceError::Log)?;
        let Logger { file, level, flags } = log.logger();
        // SAFETY: `file` is an open stream, which `log` keeps for longer than the logger lives.
        let logger = unsafe { (functions.create_logger)(file, level, flags) };
        let logger = NonNull::new(logger).ok_or(InterfaceError::Logger)?;
        // SAFETY: the logger outlives the interface; the second is for building domains, which nobody does.
        let xch = unsafe { (functions.open)(logger.as_ptr(), ptr::null_mut(), 0) };
        let source = io::Error::last_os_error();
        let Some(xch) = NonNull::new(xch) else {
            // SAFETY: no interface uses the logger.
            unsafe { (functions.destroy_logger)(logger.as_ptr()) };
            return Err(InterfaceError::Open { log: log.take(), source });
        };
        Ok(Handle { functions, xch, logger, log })
    }
}

impl Handle {
    /// What was logged since this was called last.
    pub(crate) fn take_log(&mut self) -> String {
        self.log.take()
    }

    /// The domain with the lowest number that is not below `first`.
    pub(crate) fn domain_from(&mut self, first: u32) -> io::Result<Option<DomainInfo>> {
        let mut info = GetDomainInfo {
            domid: 0,
            _pad: 0,
            _flags: 0,
            _counts: [0; _],
            _numbers: [0; _],
            handle: [0; _],
            cpupool: 0,
            _rest: [0; _],
        };
        // SAFETY: there is room for the one structure that may be written.
        let found = unsafe {
            (self.functions.getinfolist)(self.xch.as_ptr(), first, 1, (&raw mut info).cast())
        };
        match found {
            1.. => {
                Ok(Some(DomainInfo { domid: info.domid, uuid: info.handle, pool: info.cpupool }))
            }
            0 => Ok(None),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The CPU pool with the lowest number that is not below `first`.
    pub(crate) fn pool_from(&mut self, first: u32) -> io::Result<Pool> {
        // SAFETY: a plain number.
        let info = unsafe { (self.functions.cpupool_getinfo)(self.xch.as_ptr(), first) };
        if info.is_null() {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: libxenctrl hands out a structure that begins so.
        let pool = unsafe { info.read() };
        // SAFETY: which is the caller's to free in this way, once.
        unsafe { (self.functions.cpupool_infofree)(self.xch.as_ptr(), info) };
        Ok(pool)
    }

    pub(crate) fn credit(&mut self, domid: u32) -> io::Result<Credit> {
        self.params(self.functions.credit_get, domid)
    }

    pub(crate) fn credit2(&mut self, domid: u32) -> io::Result<Credit> {
        self.params(self.functions.credit2_get, domid)
    }

    pub(crate) fn rtds(&mut self, domid: u32) -> io::Result<Rtds> {
        self.params(self.functions.rtds_get, domid)
    }

    fn params<T: Default>(&mut self, get: SchedGet<T>, domid: u32) -> io::Result<T> {
        let mut params = T::default();
        // SAFETY: the structure is the one that this function writes.
        let rc = unsafe { get(self.xch.as_ptr(), domid, &raw mut params) };
        if rc == 0 { Ok(params) } else { Err(io::Error::last_os_error()) }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: nobody has a reference any more.
        unsafe { (self.functions.close)(self.xch.as_ptr()) };
        // SAFETY: the interface that used it is closed; the log is dropped later.
        unsafe { (self.functions.destroy_logger)(self.logger.as_ptr()) };
    }
}
