//! Named steps inside an operation, at which a test can kill the process or interfere. Nothing outside tests.

#[cfg(test)]
pub(crate) use self::in_tests::{DIE_AFTER, at, reached};

/// Names a step that has just been done.
#[cfg(not(test))]
#[inline]
pub(crate) fn reached(_step: &str) {}

#[cfg(test)]
mod in_tests {
    use std::cell::RefCell;

    use rustix::process::{Signal, getpid, kill_process};

    /// What a test wants done when a step is reached.
    type Interference = (&'static str, Box<dyn FnOnce()>);

    thread_local! {
        static INTERFERENCES: RefCell<Vec<Interference>> = const { RefCell::new(Vec::new()) };
    }

    /// The environment variable that holds the step to die after.
    pub(crate) const DIE_AFTER: &str = "DOMKEEP_TEST_DIE_AFTER";

    /// Has something done the next time that this thread reaches a step.
    pub(crate) fn at(step: &'static str, what: impl FnOnce() + 'static) {
        INTERFERENCES.with_borrow_mut(|all| all.push((step, Box::new(what))));
    }

    /// Kills this process, as `kill -9` does, or interferes, if a test chose this step.
    pub(crate) fn reached(step: &str) {
        if std::env::var_os(DIE_AFTER).is_some_and(|chosen| chosen == step) {
            kill_process(getpid(), Signal::KILL).expect("a process may kill itself");
        }
        let chosen = INTERFERENCES.with_borrow_mut(|all| {
            all.iter().position(|(chosen, _)| *chosen == step).map(|place| all.remove(place))
        });
        if let Some((_, interfere)) = chosen {
            interfere();
        }
    }
}
