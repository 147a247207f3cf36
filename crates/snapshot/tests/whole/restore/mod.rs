//! Restoring what was saved, beside the original and in its place, and what is left when something fails.

mod beside;
mod broken;
mod disks;
mod early;
mod failing;
mod killed;
mod refused;
mod replacing;
mod saved;
