//! Places where a test can kill the process, to show what a crash there leaves behind. Nothing outside tests.

/// Names a step of a durable write that has just been done.
#[cfg(not(test))]
#[inline]
pub(super) fn reached(_step: &str) {}

/// The environment variable that holds the step to die after.
#[cfg(test)]
pub(super) const DIE_AFTER: &str = "DOMKEEP_TEST_DIE_AFTER";

/// Kills this process, as `kill -9` does, if the test chose this step.
#[cfg(test)]
pub(super) fn reached(step: &str) {
    use rustix::process::{Signal, getpid, kill_process};

    if std::env::var_os(DIE_AFTER).is_some_and(|chosen| chosen == step) {
        kill_process(getpid(), Signal::KILL).expect("a process may kill itself");
    }
}
