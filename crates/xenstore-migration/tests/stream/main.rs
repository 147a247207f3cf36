//! The stream: octets to records and back.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod any_record;
mod captured;
mod round_trips;
