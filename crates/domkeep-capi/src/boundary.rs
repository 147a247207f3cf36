//! Between C and the libraries: no panic gets out, and no signal that the caller has not asked for gets in.

use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use crate::problem::{Error, Problem};
use crate::status::Status;

/// Does what an exported function is to do, and tells the caller how it ended.
///
/// `error` is written in any case: NULL, or an error that the caller frees.
pub(crate) fn call(
    operation: &'static str,
    mut error: Option<&mut MaybeUninit<*mut Error>>,
    act: impl FnOnce() -> Result<(), Problem>,
) -> Status {
    if let Some(error) = &mut error {
        error.write(ptr::null_mut());
    }
    let pipe = WithoutSigpipe::begin();
    // What the call worked with is not to be used again after DK_ERROR_INTERNAL, which says so.
    let outcome = catch_unwind(AssertUnwindSafe(act));
    drop(pipe);
    let problem = match outcome {
        Ok(Ok(())) => return Status::Ok,
        Ok(Err(problem)) => problem,
        Err(panic) => Problem::new(Status::Internal, words(panic.as_ref())),
    };
    tracing::debug!(operation, problem = problem.in_words(), "failed");
    let (status, boxed) = problem.into_error(operation);
    if let Some(error) = error {
        error.write(Box::into_raw(boxed));
    }
    status
}

/// For functions that cannot fail but by a fault of this library.
pub(crate) fn guarded(act: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(act)).is_err() {
        tracing::error!("a fault of this library while something was freed");
    }
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let said = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("a fault of this library: {}", said.unwrap_or("it did not say which"))
}

/// A reader that has gone is an error of the write to it, and must not end the caller's program. Rust's own programs ignore SIGPIPE;
/// a C program need not, and its disposition is not ours to change. So it is blocked in this thread, and taken back if it came.
struct WithoutSigpipe {
    before: libc::sigset_t,
    was_pending: bool,
}

impl WithoutSigpipe {
    fn begin() -> Option<Self> {
        let only = only_sigpipe();
        let mut before = MaybeUninit::uninit();
        // SAFETY: both sets are valid for the call, which fills the second.
        let blocked = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &only, before.as_mut_ptr()) };
        if blocked != 0 {
            return None;
        }
        // SAFETY: it was filled, since the call succeeded.
        let before = unsafe { before.assume_init() };
        Some(Self { before, was_pending: is_pending() })
    }
}

impl Drop for WithoutSigpipe {
    fn drop(&mut self) {
        if !self.was_pending && is_pending() {
            let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: set and time are valid for the call; what is known of the signal is not asked for.
            unsafe { libc::sigtimedwait(&only_sigpipe(), ptr::null_mut(), &now) };
        }
        // SAFETY: the set is what `begin` was given.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, ptr::null_mut()) };
    }
}

fn only_sigpipe() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `sigemptyset` fills the set before anything reads it.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGPIPE);
        set.assume_init()
    }
}

fn is_pending() -> bool {
    let mut pending = MaybeUninit::uninit();
    // SAFETY: `sigpending` fills the set, or the answer is not looked at.
    unsafe {
        libc::sigpending(pending.as_mut_ptr()) == 0
            && libc::sigismember(pending.as_ptr(), libc::SIGPIPE) == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_and_does_not_get_out() {
        let mut error = MaybeUninit::uninit();
        let status = call("dk_test", Some(&mut error), || panic!("on purpose"));
        assert_eq!(status, Status::Internal);
        // SAFETY: `call` writes it in any case.
        let error = unsafe { Box::from_raw(error.assume_init()) };
        assert_eq!(crate::problem::dk_error_status(Some(&error)), Status::Internal);
    }

    #[test]
    fn a_write_to_a_closed_pipe_is_an_error_and_no_signal() {
        // Under the disposition of a C program the signal would end the test.
        // SAFETY: no handler is installed but the system's own.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let status = call("dk_test", None, || {
            let error = std::io::Write::write(&mut { writer }, b"x").unwrap_err();
            Err(Problem::of(Status::Io, &error))
        });
        assert_eq!(status, Status::Io);
        assert!(!is_pending());
    }
}
