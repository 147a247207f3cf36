//! The Xenstore state of a domain, out of one store and into another.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, in what it is built of as well"
)]

mod apply;
mod carried;
mod changes;
mod connections;
mod extract;
mod faults;
mod hosts;
mod properties;
mod round_trips;
mod servers;
mod stock;
