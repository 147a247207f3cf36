//! Domains saved as a whole, on simulated hosts, and brought back to them.

mod hosts;
mod kills;
mod restore;
mod save;
mod save_failures;
