//! Whole domains: saved from simulated hosts and brought back to them.

mod kills;
mod restore;
