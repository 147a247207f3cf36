//! What stands for the hypervisor: libxl, a simulated host, or the caller's own callbacks.

use std::ffi::{c_char, c_int, c_void};
use std::mem::MaybeUninit;

use libxl_control::{LibraryAt, Libxl, LibxlOptions};
use snapshot::control::DomainControl;
use snapshot::simulated::SimulatedDomain;
use xsclient::Endpoint;

use crate::arguments::{HasSize, empty, optional_text, required, sized, text};
use crate::boundary::{call, guarded};
use crate::callbacks::Callbacks;
use crate::observer::Cancel;
use crate::problem::{Error, Problem};
use crate::status::Status;

/// What is asked to suspend, build, pause and destroy domains. It may be used by several threads at the same time.
pub struct Control(pub(crate) Box<dyn DomainControl>);

impl Control {
    /// As Rust calls it.
    pub fn as_dyn(&self) -> &dyn DomainControl {
        self.0.as_ref()
    }
}

/// Kind of guest.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainKind {
    /// Paravirtual.
    Pv = 0,
    /// Paravirtual in hardware assisted containers.
    Pvh = 1,
    /// Fully virtual.
    Hvm = 2,
}

/// What a domain does.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainState {
    /// It runs, or waits for something to do.
    Running = 0,
    /// The toolstack has stopped it between two instructions.
    Paused = 1,
    /// It has shut down for the reason "suspend", and can be resumed.
    Suspended = 2,
    /// It has shut down for another reason.
    ShutDown = 3,
    /// It is being destroyed.
    Dying = 4,
}

/// A domain as it is when it is asked for.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Domain {
    /// Its id.
    pub domid: u32,
    /// Its uuid, in the order in which it is printed.
    pub uuid: [u8; 16],
    /// Its name, which ends with a NUL; empty if it has none.
    pub name: [c_char; 256],
    /// A dk_domain_kind.
    pub kind: c_int,
    /// A dk_domain_state.
    pub state: c_int,
    /// Why it has shut down, if it has: a SHUTDOWN_ number of Xen's public header sched.h.
    pub shutdown_reason: c_int,
    /// Whether it has been paused, which a suspended domain can be at the same time.
    pub paused: bool,
}

/// What a callback is told besides, and how it says why it failed.
#[repr(C)]
pub struct Call {
    /// How long it may take, in milliseconds. What is not done by then is to be stopped: DK_STATUS_TIMED_OUT.
    pub left_ms: u64,
    /// A descriptor that is readable once the call is cancelled: DK_STATUS_CANCELLED. -1 if it cannot be.
    pub cancel_fd: c_int,
    /// The same for calls of this library, as dk_control_suspend(). NULL if it cannot be cancelled.
    pub cancel: *const Cancel,
    /// For a callback that returns DK_STATUS_IO: the errno; 0 if there is none.
    pub errnum: c_int,
    /// Where a callback that fails says why, as a text that ends with a NUL.
    pub message: *mut c_char,
    /// How many octets there are for that.
    pub message_size: usize,
}

/// A caller's own hypervisor, as libxl with the caller's context. Each callback returns DK_STATUS_OK or another dk_status; `user` is
/// what dk_control_new() was given.
///
/// They may be called by several threads at the same time. They must return, without a longjmp or an exception. They need not check
/// what they have done: it is looked at afterwards, with `find`. Nor need they check whether it is still the same domain: it is
/// looked at before, and the control domain is never passed.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ControlOps {
    /// sizeof(dk_control_ops), so that later versions can have more.
    pub size: usize,
    /// Describes a domain. DK_STATUS_NOT_FOUND: there is none.
    pub find: Option<
        unsafe extern "C" fn(
            user: *mut c_void,
            domid: u32,
            domain: *mut Domain,
            call: *mut Call,
        ) -> c_int,
    >,
    /// Describes all domains, by calling `tell` with `teller` and each of them.
    pub list: Option<
        unsafe extern "C" fn(
            user: *mut c_void,
            tell: Option<unsafe extern "C" fn(teller: *mut c_void, domain: *const Domain)>,
            teller: *mut c_void,
            call: *mut Call,
        ) -> c_int,
    >,
    /// Suspends a running domain, writes its memory to `fd` as a libxl stream, and leaves it suspended. With `fd` -1 only suspends it.
    /// `live`: streams its memory while it runs; DK_STATUS_UNSUPPORTED if that cannot be done. DK_STATUS_REFUSED: the guest did not
    /// acknowledge, and the request was withdrawn. DK_STATUS_IO: the stream could not be written.
    pub suspend: Option<
        unsafe extern "C" fn(
            user: *mut c_void,
            domid: u32,
            fd: c_int,
            live: bool,
            call: *mut Call,
        ) -> c_int,
    >,
    /// Lets a suspended domain go on where it was. DK_STATUS_BUSY: its memory is still being streamed.
    pub resume:
        Option<unsafe extern "C" fn(user: *mut c_void, domid: u32, call: *mut Call) -> c_int>,
    /// Builds a domain from a configuration, as JSON, and the stream that `fd` is read from; leaves it paused, and says which it is.
    /// DK_STATUS_EXISTS: its name is taken. DK_STATUS_INVALID_DATA: the stream is none. DK_STATUS_INVALID_ARGUMENT: the configuration
    /// cannot be built. DK_STATUS_IO: the stream could not be read.
    pub build: Option<
        unsafe extern "C" fn(
            user: *mut c_void,
            configuration: *const c_char,
            fd: c_int,
            domid: *mut u32,
            call: *mut Call,
        ) -> c_int,
    >,
    /// Stops a domain between two instructions.
    pub pause:
        Option<unsafe extern "C" fn(user: *mut c_void, domid: u32, call: *mut Call) -> c_int>,
    /// Lets a paused domain run.
    pub unpause:
        Option<unsafe extern "C" fn(user: *mut c_void, domid: u32, call: *mut Call) -> c_int>,
    /// Destroys a domain, in whatever state it is.
    pub destroy:
        Option<unsafe extern "C" fn(user: *mut c_void, domid: u32, call: *mut Call) -> c_int>,
    /// Gives a domain another name. DK_STATUS_EXISTS: it is taken.
    pub rename: Option<
        unsafe extern "C" fn(
            user: *mut c_void,
            domid: u32,
            name: *const c_char,
            call: *mut Call,
        ) -> c_int,
    >,
    /// Waits until nothing is under way any more that a saver, perhaps a dead one, has begun with the domain. NULL if nothing of a
    /// call outlives its process.
    pub settle:
        Option<unsafe extern "C" fn(user: *mut c_void, domid: u32, call: *mut Call) -> c_int>,
    /// By which of its own ways `domkeep guard` reaches the same domains: "libxl" or "simulated". NULL if it cannot.
    pub guardian_control: *const c_char,
    /// What it needs for that: the socket of a simulated host. NULL if nothing.
    pub guardian_address: *const c_char,
    /// Called with `user` when the control is freed. May be NULL.
    pub free: Option<unsafe extern "C" fn(user: *mut c_void)>,
}

// SAFETY: `size` is its first.
unsafe impl HasSize for ControlOps {}

/// A control made of callbacks. All but `settle`, `free` and the guardian's must be there. `*control` is freed with
/// dk_control_free(), which calls `free`; if this call fails, `free` is not called.
///
/// # Safety
///
/// `ops` is a dk_control_ops, whose texts end with a NUL; it is copied. `control` can be written; `error` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dk_control_new(
    control: Option<&mut MaybeUninit<*mut Control>>,
    ops: *const ControlOps,
    user: *mut c_void,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_control_new", error, || {
        let place = empty(control, "control")?;
        // SAFETY: as this function's own contract.
        let ops = required(unsafe { sized(ops, "ops") }?, "ops")?;
        // SAFETY: as this function's own contract.
        let guardian = unsafe {
            let control = optional_text(ops.guardian_control, "ops->guardian_control")?;
            let address = optional_text(ops.guardian_address, "ops->guardian_address")?;
            control.map(|control| (control.to_owned(), address.map(str::to_owned)))
        };
        let callbacks = Callbacks::new(*ops, user, guardian)?;
        *place = Box::into_raw(Box::new(Control(Box::new(callbacks))));
        Ok(())
    })
}

/// The domains of this host, through its libxl, which is loaded now: `library` is a path, or NULL for that of the Xen
/// that runs, 4.16 to 4.21.
///
/// The process ignores SIGPIPE from then on, unless it handles it. `*control` is freed with dk_control_free().
///
/// # Safety
///
/// `library` is NULL or ends with a NUL. `control` can be written; `error` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dk_control_libxl(
    control: Option<&mut MaybeUninit<*mut Control>>,
    library: *const c_char,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_control_libxl", error, || {
        let place = empty(control, "control")?;
        // SAFETY: as this function's own contract.
        let library = unsafe { optional_text(library, "library") }?;
        let mut options = LibxlOptions::default();
        options.library = library.map_or(LibraryAt::Host, |path| LibraryAt::File(path.into()));
        options.xenstore = Endpoint::Search;
        let libxl =
            Libxl::open(options).map_err(|error| Problem::of(Status::Unreachable, &error))?;
        *place = Box::into_raw(Box::new(Control(Box::new(libxl))));
        Ok(())
    })
}

/// The domains of a simulated host (`domkeep simulate serve`), which listens on `socket`. It is connected to when it is used.
/// `*control` is freed with dk_control_free().
///
/// # Safety
///
/// `socket` ends with a NUL. `control` can be written; `error` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dk_control_simulated(
    control: Option<&mut MaybeUninit<*mut Control>>,
    socket: *const c_char,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_control_simulated", error, || {
        let place = empty(control, "control")?;
        // SAFETY: as this function's own contract.
        let socket = unsafe { text(socket, "socket") }?;
        *place = Box::into_raw(Box::new(Control(Box::new(SimulatedDomain::new(socket)))));
        Ok(())
    })
}

/// Frees a control that no call uses any more. NULL is nothing to free.
#[unsafe(no_mangle)]
pub extern "C" fn dk_control_free(control: Option<Box<Control>>) {
    guarded(|| drop(control));
}
