//! Domains saved as a whole, on simulated hosts.

mod hosts;
mod save;
mod save_failures;
