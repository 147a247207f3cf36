//! The stream: octets to records and back.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod any_record;
mod broken;
mod captured;
mod cut;
mod flipped;
mod forms;
mod rich;
mod round_trips;
