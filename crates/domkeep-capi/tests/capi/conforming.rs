//! Callbacks that each do one thing, carelessly, make a hypervisor that keeps the promises any implementation must keep.

use std::ffi::{c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;

use domkeep::control::{Call, Control, ControlOps, Domain, dk_control_new, dk_control_simulated};
use domkeep::control_calls::{
    dk_control_build, dk_control_destroy, dk_control_find, dk_control_list, dk_control_pause,
    dk_control_rename, dk_control_resume, dk_control_suspend, dk_control_unpause,
};
use domkeep::status::Status;
use snapshot::control::conformance;

use crate::hosts::start;
use crate::world::Simulated;

const TIMEOUT_MS: u32 = 60_000;

/// The control behind the callbacks, which is their `user`.
fn inner<'a>(user: *mut c_void) -> Option<&'a Control> {
    // SAFETY: it is what `dk_control_new` was given below, and outlives the callbacks.
    unsafe { user.cast::<Control>().as_ref() }
}

/// What is told of a call by its caller, who waits for it.
fn left(call: *mut Call) -> u32 {
    // SAFETY: it lives until the callback returns.
    u32::try_from(unsafe { &*call }.left_ms).unwrap_or(u32::MAX)
}

unsafe extern "C" fn find(
    user: *mut c_void,
    domid: u32,
    domain: *mut Domain,
    call: *mut Call,
) -> c_int {
    // SAFETY: it lives until the callback returns.
    let place = unsafe { domain.cast::<MaybeUninit<Domain>>().as_mut() };
    dk_control_find(inner(user), domid, left(call), place, None) as c_int
}

unsafe extern "C" fn list(
    user: *mut c_void,
    tell: Option<unsafe extern "C" fn(*mut c_void, *const Domain)>,
    teller: *mut c_void,
    call: *mut Call,
) -> c_int {
    let (mut domains, mut count) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    let status =
        dk_control_list(inner(user), left(call), Some(&mut domains), Some(&mut count), None);
    // SAFETY: both are written in any case, and the array has so many.
    let (domains, count) = unsafe { (domains.assume_init(), count.assume_init()) };
    for index in 0..count {
        // SAFETY: as above; `tell` takes a domain.
        unsafe { tell.unwrap()(teller, domains.add(index)) };
    }
    // SAFETY: it was given to be freed so.
    unsafe { libc::free(domains.cast()) };
    status as c_int
}

/// The domain with that number now.
fn domain(user: *mut c_void, domid: u32) -> Option<Domain> {
    let mut domain = MaybeUninit::uninit();
    let found = dk_control_find(inner(user), domid, TIMEOUT_MS, Some(&mut domain), None);
    // SAFETY: it is written in any case.
    (found == Status::Ok).then(|| unsafe { domain.assume_init() })
}

unsafe extern "C" fn suspend(
    user: *mut c_void,
    domid: u32,
    fd: c_int,
    live: bool,
    call: *mut Call,
) -> c_int {
    // SAFETY: it lives until the callback returns.
    let cancel = unsafe { (*call).cancel.as_ref() };
    let domain = domain(user, domid);
    dk_control_suspend(inner(user), domain.as_ref(), fd, live, left(call), cancel, None) as c_int
}

unsafe extern "C" fn resume(user: *mut c_void, domid: u32, call: *mut Call) -> c_int {
    dk_control_resume(inner(user), domain(user, domid).as_ref(), left(call), None) as c_int
}

unsafe extern "C" fn build(
    user: *mut c_void,
    configuration: *const c_char,
    fd: c_int,
    domid: *mut u32,
    call: *mut Call,
) -> c_int {
    let mut built = MaybeUninit::uninit();
    // SAFETY: what the callback was passed lives until it returns.
    let status = unsafe {
        let cancel = (*call).cancel.as_ref();
        let place = Some(&mut built);
        dk_control_build(inner(user), configuration, fd, left(call), cancel, place, None)
    };
    // SAFETY: both are written in any case.
    unsafe { *domid = built.assume_init().domid };
    status as c_int
}

unsafe extern "C" fn pause(user: *mut c_void, domid: u32, call: *mut Call) -> c_int {
    dk_control_pause(inner(user), domain(user, domid).as_ref(), left(call), None) as c_int
}

unsafe extern "C" fn unpause(user: *mut c_void, domid: u32, call: *mut Call) -> c_int {
    dk_control_unpause(inner(user), domain(user, domid).as_ref(), left(call), None) as c_int
}

unsafe extern "C" fn destroy(user: *mut c_void, domid: u32, call: *mut Call) -> c_int {
    dk_control_destroy(inner(user), domain(user, domid).as_ref(), left(call), None) as c_int
}

unsafe extern "C" fn rename(
    user: *mut c_void,
    domid: u32,
    name: *const c_char,
    call: *mut Call,
) -> c_int {
    let domain = domain(user, domid);
    // SAFETY: the name lives until the callback returns.
    unsafe { dk_control_rename(inner(user), domain.as_ref(), name, left(call), None) as c_int }
}

#[test]
fn careless_callbacks_make_a_control_that_conforms() {
    let host = start();
    let socket = std::ffi::CString::new(host.path("host").to_str().unwrap()).unwrap();
    let mut simulated = MaybeUninit::uninit();
    let mut control = MaybeUninit::uninit();
    let ops = ControlOps {
        size: size_of::<ControlOps>(),
        find: Some(find),
        list: Some(list),
        suspend: Some(suspend),
        resume: Some(resume),
        build: Some(build),
        pause: Some(pause),
        unpause: Some(unpause),
        destroy: Some(destroy),
        rename: Some(rename),
        settle: None,
        guardian_control: c"simulated".as_ptr(),
        guardian_address: socket.as_ptr(),
        free: None,
    };
    // SAFETY: texts, places and table live until the calls return; the simulated control until the end of the test.
    let (simulated, control) = unsafe {
        assert_eq!(dk_control_simulated(Some(&mut simulated), socket.as_ptr(), None), Status::Ok);
        let user = simulated.assume_init();
        assert_eq!(
            dk_control_new(Some(&mut control), ptr::from_ref(&ops), user.cast(), None),
            Status::Ok
        );
        (Box::from_raw(user), Box::from_raw(control.assume_init()))
    };
    let mut world = Simulated::new(host, control.as_dyn());
    if let Err(deviation) = conformance::check(&mut world) {
        panic!("{deviation}");
    }
    drop(control);
    drop(simulated);
}
