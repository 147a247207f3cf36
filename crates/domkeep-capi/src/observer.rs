//! How far a call is, and ending it early.

use std::ffi::{CString, c_char, c_void};
use std::io;
use std::mem::MaybeUninit;

use snapshot::Progress as Told;
use snapshot::control::CancelToken;

use crate::arguments::{HasSize, empty, sized};
use crate::boundary::{call, guarded};
use crate::problem::{Error, Problem};
use crate::status::Status;

/// Ends calls early: those that it is given to, from whatever thread. Once cancelled it stays so.
pub struct Cancel(pub(crate) CancelToken);

/// How far a call is.
#[repr(C)]
pub struct Progress {
    /// What it does: "plan", "verify", "prepare", "freeze", "suspend", "memory", "capture", "sync", "name", "pivot", "configure",
    /// "after", "digest", "build", "apply", "replace", "start", "roll back". Valid during the callback.
    pub phase: *const c_char,
    /// Octets of this phase that are done.
    pub done: u64,
    /// Octets that this phase will have, as far as it is known; -1 if it is not.
    pub total: i64,
    /// How long this phase will still take, in milliseconds; -1 if it is not known.
    pub left_ms: i64,
}

/// Who watches a call, and may end it. Zeroes are nobody, and so is NULL in place of all of it.
#[repr(C)]
pub struct Observer {
    /// sizeof(dk_observer), so that later versions can have more.
    pub size: usize,
    /// Told of progress, in the thread that made the call, between two pieces of work: while the guest is suspended it waits for
    /// this as well. Returns false to cancel this call, and no other that has the same `cancel`. May be NULL.
    pub progress:
        Option<unsafe extern "C" fn(user: *mut c_void, progress: *const Progress) -> bool>,
    /// What `progress` is given.
    pub user: *mut c_void,
    /// Cancels the call from another thread. May be NULL. It must not be freed before the call has returned.
    pub cancel: *const Cancel,
}

// SAFETY: `size` is its first.
unsafe impl HasSize for Observer {}

/// Makes a cancel. It is freed with dk_cancel_free().
#[unsafe(no_mangle)]
pub extern "C" fn dk_cancel_new(
    cancel: Option<&mut MaybeUninit<*mut Cancel>>,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_cancel_new", error, || {
        let place = empty(cancel, "cancel")?;
        *place = Box::into_raw(Box::new(Cancel(made(CancelToken::new())?)));
        Ok(())
    })
}

/// Cancels, now and for good. May be called by any thread, and in a signal's handler.
#[unsafe(no_mangle)]
pub extern "C" fn dk_cancel_now(cancel: Option<&Cancel>) {
    if let Some(cancel) = cancel {
        cancel.0.cancel();
    }
}

/// Frees a cancel that no call uses any more. NULL is nothing to free.
#[unsafe(no_mangle)]
pub extern "C" fn dk_cancel_free(cancel: Option<Box<Cancel>>) {
    guarded(|| drop(cancel));
}

fn made(token: io::Result<CancelToken>) -> Result<CancelToken, Problem> {
    token.map_err(|error| Problem::of(Status::Io, &error))
}

/// Runs something under the eyes of an observer.
///
/// # Safety
///
/// NULL, or an observer whose callback and cancel can be used until this returns.
pub(crate) unsafe fn observed<T>(
    observer: *const Observer,
    act: impl FnOnce(&mut snapshot::Observer<'_>) -> Result<T, Problem>,
) -> Result<T, Problem> {
    // SAFETY: as this function's own contract.
    let Some(asked) = unsafe { sized(observer, "observer") }? else {
        return act(&mut snapshot::Observer::none());
    };
    // SAFETY: as this function's own contract.
    let token = match unsafe { asked.cancel.as_ref() } {
        Some(cancel) => made(cancel.0.child())?,
        None => made(CancelToken::new())?,
    };
    let mut tell = |told: &Told| {
        let Some(progress) = asked.progress else { return };
        let phase = CString::new(told.phase.to_string()).unwrap_or_default();
        let known = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let passed = Progress {
            phase: phase.as_ptr(),
            done: told.done,
            total: told.total.map_or(-1, known),
            left_ms: told
                .estimate
                .map_or(-1, |left| i64::try_from(left.as_millis()).unwrap_or(i64::MAX)),
        };
        // SAFETY: as this function's own contract; what is passed lives until the callback returns.
        if !unsafe { progress(asked.user, &passed) } {
            token.cancel();
        }
    };
    act(&mut snapshot::Observer::none().progress(&mut tell).cancel(&token))
}
