//! `retrieve` against the embedded Xenstore, where a test can change the store between any two requests.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod changes;
mod hosts;
mod round_trips;
mod stock;
mod templates;
mod trust;
