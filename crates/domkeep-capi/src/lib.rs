//! Domkeep for programs in C: `libdomkeep`. The header `include/domkeep.h` is made from this crate, and is where the
//! functions are described; what holds for all of them is in `docs/c-api.md`.
//!
//! ```text
//! C caller -> boundary: no panic, no signal -> arguments: pointers to values -> the libraries -> outcome: values to malloc
//!                                                        `-> problem: an error of whatever library to a status and a dk_error
//! ```
//!
//! Every exported function is a few lines between [`boundary::call`] and a library of the workspace. Unsafe code is what reads the
//! caller's pointers ([`arguments`]), gives memory away ([`outcome`]), calls callbacks, and keeps a lock beside what it locks
//! ([`hotplug`]).

#![expect(
    unsafe_code,
    reason = "C passes pointers: each function says what it relies on, in its documentation, which is the header's"
)]

mod answer;
#[macro_use]
mod arguments;
mod boundary;
mod callbacks;
pub mod config;
pub mod context;
pub mod control;
pub mod control_calls;
pub mod device;
mod domain;
pub mod hotplug;
pub mod images;
pub mod log;
pub mod observer;
mod outcome;
pub mod problem;
pub mod retrieve;
pub mod snapshot;
pub mod status;
pub mod stream;
pub mod template;
pub mod version;
pub mod xenstore;
