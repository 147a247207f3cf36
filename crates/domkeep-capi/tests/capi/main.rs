//! libdomkeep as C sees it: programs in C, built with every warning an error and run under valgrind.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(unsafe_code, reason = "it is C that is played")]
mod conforming;
#[expect(dead_code, reason = "other tests use the rest of it")]
#[path = "../../../snapshot/tests/simulated/hosts.rs"]
mod hosts;
mod programs;
mod tools;
#[path = "../../../snapshot/tests/simulated/world.rs"]
mod world;
