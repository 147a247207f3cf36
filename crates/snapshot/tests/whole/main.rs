//! Whole domains: saved from simulated hosts and brought back to them.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod files;
mod groups;
mod hosts;
mod hypervisor_effects;
mod kills;
mod opened;
mod paths;
#[path = "../disk/proxy.rs"]
mod proxy;
mod qmp_lost;
mod restore;
mod reviewed;
mod save;
mod save_failures;
