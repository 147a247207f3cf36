//! Simulated domains: the promises of `DomainControl`, failures on command, and that a wrong snapshot is found out.
#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in what it is built of as well"
)]

mod conforming;
mod crashes;
mod failures;
mod hosts;
mod moments;
mod qcow2;
mod toolstack;
mod world;
mod xenstore;
