//! Devices plugged into simulated guests, on every Xenstore there is.

mod attaching;
mod captured;
mod crashes;
mod host;
mod racing;
mod repairing;
