//! Moments at which a test can kill the process: before and after everything that outlives it. Nothing outside tests.

use std::cell::RefCell;

type Hook = Box<dyn FnMut(&str)>;

thread_local! {
    static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
}

/// Calls this at every step that this thread reaches from now on, with the step's name. A hook must not make calls that have
/// steps themselves.
pub fn at_every_step(hook: impl FnMut(&str) + 'static) {
    HOOK.with_borrow_mut(|current| *current = Some(Box::new(hook)));
}

/// Names a step that has just been done, or is about to be.
pub(crate) fn reached(step: &str) {
    HOOK.with_borrow_mut(|hook| {
        if let Some(hook) = hook {
            hook(step);
        }
    });
}
