//! Domains saved as a whole, on simulated hosts.

mod hosts;
mod kills;
mod restore;
mod save;
mod save_failures;
