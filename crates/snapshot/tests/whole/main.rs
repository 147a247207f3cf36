//! Whole domains: saved from simulated hosts and brought back to them.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod hosts;
mod kills;
mod restore;
mod reviewed;
mod save;
mod save_failures;
