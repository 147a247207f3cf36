//! libxl.
//!
//! No layout of a libxl structure is relied on. A structure lives in a buffer that is larger than any version's, is filled by
//! libxl's own `_init` and `_from_json`, and read by its `_to_json`. How large it really is, which the list of domains needs, is
//! measured: `_init` clears all of it. Prototypes are from `libxl.h`, `libxl_event.h` and `xentoollog.h`.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;
use std::ptr::{self, NonNull};

use super::{OpenFailure, Pair, functions};
use crate::log::{Log, Logger};

/// Room for any structure of any version: the largest of 4.17 has 1288 octets.
const STRUCT_OCTETS: usize = 32 << 10;
/// What a buffer is filled with to see how much of it is used. No default of libxl's has this octet.
const PATTERN: u8 = 0xa5;
/// `LIBXL_VERSION`.
const API_VERSION: c_int = 0;
/// `LIBXL_SUSPEND_LIVE`.
const SUSPEND_LIVE: c_int = 2;
/// A cooperative resume: the guest sees that its suspend was cancelled.
const SUSPEND_CANCEL: c_int = 1;
/// `libxl_sigchld_owner_libxl_always_selective_reap`.
const SELECTIVE_REAP: c_int = 3;
/// The only stream version that there is.
const RESTORE_PARAMS: &CStr = c"{\"stream_version\": 2}";

type Ctx = *mut c_void;
type Struct = *mut c_void;
type Init = unsafe extern "C" fn(Struct);
type ToJson = unsafe extern "C" fn(Ctx, Struct) -> *mut c_char;
type FromJson = unsafe extern "C" fn(Ctx, Struct, *const c_char) -> c_int;
/// Domain, and how to be told of the end: null is to wait for it.
type OnDomain = unsafe extern "C" fn(Ctx, u32, *const c_void) -> c_int;

/// `libxl_childproc_hooks`.
#[repr(C)]
struct ChildprocHooks {
    owner: c_int,
    fork: Option<unsafe extern "C" fn()>,
    reaped: Option<unsafe extern "C" fn()>,
}

/// By default libxl reaps every child of the process. A context keeps the pointer.
static HOOKS: ChildprocHooks = ChildprocHooks { owner: SELECTIVE_REAP, fork: None, reaped: None };

/// A number that libxl answers with.
pub(crate) type Rc = c_int;

functions! {
    create_logger: "xtl_createlogger_stdiostream"
        as unsafe extern "C" fn(*mut libc::FILE, c_int, c_uint) -> *mut c_void;
    destroy_logger: "xtl_logger_destroy" as unsafe extern "C" fn(*mut c_void);
    ctx_alloc: "libxl_ctx_alloc" as unsafe extern "C" fn(*mut Ctx, c_int, c_uint, *mut c_void) -> c_int;
    ctx_free: "libxl_ctx_free" as unsafe extern "C" fn(Ctx) -> c_int;
    childproc_setmode: "libxl_childproc_setmode"
        as unsafe extern "C" fn(Ctx, *const ChildprocHooks, *mut c_void);
    ao_abort: "libxl_ao_abort" as unsafe extern "C" fn(Ctx, *const c_void) -> c_int;
    dominfo_init: "libxl_dominfo_init" as Init;
    dominfo_dispose: "libxl_dominfo_dispose" as Init;
    dominfo_to_json: "libxl_dominfo_to_json" as ToJson;
    dominfo_list_free: "libxl_dominfo_list_free" as unsafe extern "C" fn(Struct, c_int);
    list_domain: "libxl_list_domain" as unsafe extern "C" fn(Ctx, *mut c_int) -> Struct;
    domain_info: "libxl_domain_info" as unsafe extern "C" fn(Ctx, Struct, u32) -> c_int;
    config_init: "libxl_domain_config_init" as Init;
    config_dispose: "libxl_domain_config_dispose" as Init;
    config_from_json: "libxl_domain_config_from_json" as FromJson;
    params_init: "libxl_domain_restore_params_init" as Init;
    params_dispose: "libxl_domain_restore_params_dispose" as Init;
    params_from_json: "libxl_domain_restore_params_from_json" as FromJson;
    domain_suspend: "libxl_domain_suspend"
        as unsafe extern "C" fn(Ctx, u32, c_int, c_int, *const c_void) -> c_int;
    domain_suspend_only: "libxl_domain_suspend_only" as OnDomain;
    domain_resume: "libxl_domain_resume"
        as unsafe extern "C" fn(Ctx, u32, c_int, *const c_void) -> c_int;
    domain_pause: "libxl_domain_pause" as OnDomain;
    domain_unpause: "libxl_domain_unpause" as OnDomain;
    domain_destroy: "libxl_domain_destroy" as OnDomain;
    domain_rename: "libxl_domain_rename"
        as unsafe extern "C" fn(Ctx, u32, *const c_char, *const c_char) -> c_int;
    create_restore: "libxl_domain_create_restore"
        as unsafe extern "C" fn(Ctx, Struct, *mut u32, c_int, c_int, Struct, *const c_void, *const c_void) -> c_int;
}

/// A libxl that is loaded, and stays so: it may have a signal handler, and threads that never came back from it.
#[derive(Clone, Copy)]
pub(crate) struct Library {
    functions: &'static Functions,
    /// Octets of a `libxl_dominfo`.
    dominfo_octets: usize,
}

impl Library {
    /// Loads both libraries.
    pub(crate) fn open(libxl: &Path, xentoollog: &Path) -> Result<Self, OpenFailure> {
        let pair = Pair::open(libxl, xentoollog)?;
        let functions = Functions::find(&pair)?;
        pair.stay();
        let functions: &'static Functions = Box::leak(Box::new(functions));
        let dominfo_octets = octets_of("libxl_dominfo", functions.dominfo_init)?;
        octets_of("libxl_domain_config", functions.config_init)?;
        octets_of("libxl_domain_restore_params", functions.params_init)?;
        ignore_sigpipe();
        Ok(Self { functions, dominfo_octets })
    }
}

/// A reader that goes away must end a call, and not the process. Whoever has another way to see SIGPIPE keeps it.
fn ignore_sigpipe() {
    // SAFETY: the structure is plain data, for which all zeros is valid, and is only written by the call.
    let mut now: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: with no new action the call only writes `now`.
    let told = unsafe { libc::sigaction(libc::SIGPIPE, ptr::null(), &mut now) };
    if told == 0 && now.sa_sigaction == libc::SIG_DFL {
        // SAFETY: ignoring a signal runs no code of ours.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    }
}

/// How many octets `init` clears.
fn octets_of(name: &'static str, init: Init) -> Result<usize, OpenFailure> {
    let mut buffer = Buffer::filled(PATTERN);
    // SAFETY: the buffer is aligned for anything and larger than the structure, which is checked below before it is used.
    unsafe { init(buffer.pointer()) };
    let octets = buffer.used();
    if octets == 0 || octets > STRUCT_OCTETS / 2 {
        return Err(OpenFailure::Struct { name });
    }
    Ok(octets)
}

/// Room for one structure.
struct Buffer(Box<[u128]>);

impl Buffer {
    fn filled(octet: u8) -> Self {
        Self(vec![u128::from_ne_bytes([octet; 16]); STRUCT_OCTETS / 16].into())
    }

    fn pointer(&mut self) -> Struct {
        self.0.as_mut_ptr().cast()
    }

    /// Up to which octet it is not as it was filled.
    fn used(&self) -> usize {
        let octets = || self.0.iter().flat_map(|word| word.to_ne_bytes());
        octets()
            .enumerate()
            .filter(|(_, octet)| *octet != PATTERN)
            .last()
            .map_or(0, |(at, _)| at + 1)
    }
}

/// A structure that libxl has initialised, and disposes of at the end.
struct Record {
    buffer: Buffer,
    dispose: Init,
}

impl Record {
    fn new(init: Init, dispose: Init) -> Self {
        let mut buffer = Buffer::filled(0);
        // SAFETY: there is room for the structure: it was measured when the library was opened.
        unsafe { init(buffer.pointer()) };
        Self { buffer, dispose }
    }

    fn pointer(&mut self) -> Struct {
        self.buffer.pointer()
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // SAFETY: it was initialised, and is disposed of once.
        unsafe { (self.dispose)(self.buffer.pointer()) };
    }
}

/// A libxl context: a connection to the hypervisor and to Xenstore.
pub(crate) struct Context {
    library: Library,
    ctx: NonNull<c_void>,
    logger: NonNull<c_void>,
    log: Log,
}

// SAFETY: libxl's header says that a context may be used from several threads at once: it locks itself. The logger is only used
// by libxl under that lock.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

/// Why there is no context.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContextError {
    #[error("no place for what libxl logs")]
    Log(#[source] std::io::Error),
    #[error("libxl's logger cannot be made")]
    Logger,
    #[error("libxl cannot reach the hypervisor or Xenstore (rc {rc}): {log}")]
    Alloc { rc: Rc, log: String },
}

impl Context {
    pub(crate) fn new(library: Library) -> Result<Self, ContextError> {
        let functions = library.functions;
        let log = Log::new().map_err(ContextError::Log)?;
        let Logger { file, level, flags } = log.logger();
        // SAFETY: `file` is an open stream, which `log` keeps for longer than the logger lives.
        let logger = unsafe { (functions.create_logger)(file, level, flags) };
        let logger = NonNull::new(logger).ok_or(ContextError::Logger)?;
        let mut ctx = ptr::null_mut();
        // SAFETY: `ctx` is written, and the logger is destroyed after the context.
        let rc = unsafe { (functions.ctx_alloc)(&raw mut ctx, API_VERSION, 0, logger.as_ptr()) };
        let Some(ctx) = NonNull::new(ctx).filter(|_| rc == 0) else {
            // SAFETY: no context uses the logger.
            unsafe { (functions.destroy_logger)(logger.as_ptr()) };
            return Err(ContextError::Alloc { rc, log: log.take() });
        };
        // SAFETY: the context is new, so that no operation is under way in it, and the hooks are there for ever.
        unsafe { (functions.childproc_setmode)(ctx.as_ptr(), &raw const HOOKS, ptr::null_mut()) };
        Ok(Self { library, ctx, logger, log })
    }

    /// What libxl has logged since this was called last.
    pub(crate) fn take_log(&self) -> String {
        self.log.take()
    }

    /// A domain's `libxl_dominfo` as JSON.
    pub(crate) fn info(&self, domid: u32) -> Result<String, Rc> {
        let functions = self.library.functions;
        let mut info = Record::new(functions.dominfo_init, functions.dominfo_dispose);
        // SAFETY: an initialised structure of that type.
        let rc = unsafe { (functions.domain_info)(self.ctx.as_ptr(), info.pointer(), domid) };
        if rc != 0 {
            return Err(rc);
        }
        self.json(functions.dominfo_to_json, info.pointer())
    }

    /// Those of all domains.
    pub(crate) fn list(&self) -> Result<Vec<String>, Rc> {
        let functions = self.library.functions;
        let mut count = 0;
        // SAFETY: `count` is written.
        let first = unsafe { (functions.list_domain)(self.ctx.as_ptr(), &raw mut count) };
        let (Some(first), Ok(domains)) = (NonNull::new(first), usize::try_from(count)) else {
            return Err(crate::rc::FAIL);
        };
        let all = (0..domains).map(|number| {
            // SAFETY: the array has `domains` structures of the measured size, one behind the other.
            let info = unsafe { first.as_ptr().byte_add(number * self.library.dominfo_octets) };
            self.json(functions.dominfo_to_json, info)
        });
        let all = all.collect();
        // SAFETY: it is the array that libxl has handed out, with its length, and is not used any more.
        unsafe { (functions.dominfo_list_free)(first.as_ptr(), count) };
        all
    }

    fn json(&self, to_json: ToJson, of: Struct) -> Result<String, Rc> {
        // SAFETY: callers hand over the structure that this function is for.
        let text = unsafe { to_json(self.ctx.as_ptr(), of) };
        let text = NonNull::new(text).ok_or(crate::rc::FAIL)?;
        // SAFETY: libxl hands out a C string.
        let owned = unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().into_owned();
        // SAFETY: which is the caller's to free.
        unsafe { libc::free(text.as_ptr().cast()) };
        Ok(owned)
    }

    /// Suspends, streams, and leaves the domain suspended.
    pub(crate) fn suspend(&self, domid: u32, stream: BorrowedFd<'_>, live: bool) -> Rc {
        let flags = if live { SUSPEND_LIVE } else { 0 };
        let (suspend, fd) = (self.library.functions.domain_suspend, stream.as_raw_fd());
        // SAFETY: the descriptor is open for as long as the call takes; a null `how` waits for the end.
        unsafe { suspend(self.ctx.as_ptr(), domid, fd, flags, ptr::null()) }
    }

    pub(crate) fn suspend_only(&self, domid: u32) -> Rc {
        self.on_domain(self.library.functions.domain_suspend_only, domid)
    }

    pub(crate) fn resume(&self, domid: u32) -> Rc {
        let resume = self.library.functions.domain_resume;
        // SAFETY: plain numbers; a null `how` waits for the end.
        unsafe { resume(self.ctx.as_ptr(), domid, SUSPEND_CANCEL, ptr::null()) }
    }

    pub(crate) fn pause(&self, domid: u32) -> Rc {
        self.on_domain(self.library.functions.domain_pause, domid)
    }

    pub(crate) fn unpause(&self, domid: u32) -> Rc {
        self.on_domain(self.library.functions.domain_unpause, domid)
    }

    pub(crate) fn destroy(&self, domid: u32) -> Rc {
        self.on_domain(self.library.functions.domain_destroy, domid)
    }

    fn on_domain(&self, function: OnDomain, domid: u32) -> Rc {
        // SAFETY: plain numbers; a null `how` waits for the end.
        unsafe { function(self.ctx.as_ptr(), domid, ptr::null()) }
    }

    /// Gives a domain another name, whatever its old one is.
    pub(crate) fn rename(&self, domid: u32, name: &CStr) -> Rc {
        let rename = self.library.functions.domain_rename;
        // SAFETY: both strings are only read; a null old name is not compared.
        unsafe { rename(self.ctx.as_ptr(), domid, ptr::null(), name.as_ptr()) }
    }

    /// Builds a domain from a configuration and a stream. The number is only one of a domain if the answer is 0.
    pub(crate) fn restore(&self, configuration: &CString, stream: BorrowedFd<'_>) -> Restored {
        let functions = self.library.functions;
        let mut config = Record::new(functions.config_init, functions.config_dispose);
        let ctx = self.ctx.as_ptr();
        // SAFETY: an initialised structure of that type, and a C string that is only read.
        let rc =
            unsafe { (functions.config_from_json)(ctx, config.pointer(), configuration.as_ptr()) };
        if rc != 0 {
            return Restored::NotAConfiguration { rc };
        }
        let mut params = Record::new(functions.params_init, functions.params_dispose);
        // SAFETY: as above.
        let rc =
            unsafe { (functions.params_from_json)(ctx, params.pointer(), RESTORE_PARAMS.as_ptr()) };
        if rc != 0 {
            return Restored::Failed { rc };
        }
        let mut domid = u32::MAX;
        // SAFETY: both structures are initialised and outlive the call, as does the descriptor; `domid` is written; there is no
        // descriptor to send back to; null for both `how` waits for the end and asks for no console.
        let rc = unsafe {
            (functions.create_restore)(
                ctx,
                config.pointer(),
                &raw mut domid,
                stream.as_raw_fd(),
                -1,
                params.pointer(),
                ptr::null(),
                ptr::null(),
            )
        };
        if rc == 0 { Restored::Domain { domid } } else { Restored::Failed { rc } }
    }

    /// Aborts what another thread waits for in this context: there must be no more than one.
    pub(crate) fn abort(&self) -> Rc {
        // SAFETY: a null `how` means the operation that somebody waits for.
        unsafe { (self.library.functions.ao_abort)(self.ctx.as_ptr(), ptr::null()) }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        let functions = self.library.functions;
        // SAFETY: nobody has a reference any more, so that no operation is under way.
        unsafe { (functions.ctx_free)(self.ctx.as_ptr()) };
        // SAFETY: the context that used it is gone; the log is dropped later.
        unsafe { (functions.destroy_logger)(self.logger.as_ptr()) };
    }
}

/// What became of a restore.
#[derive(Debug)]
pub(crate) enum Restored {
    /// libxl cannot read the configuration.
    NotAConfiguration { rc: Rc },
    /// No domain. What libxl gives as its number is that of one that is gone.
    Failed { rc: Rc },
    /// A paused domain, as libxl says.
    Domain { domid: u32 },
}
