//! `replace_image` against the embedded Xenstore, where a test can interfere with any request, and against the stock
//! daemons.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod captured;
mod faults;
mod hosts;
mod locks;
mod refusals;
mod replacing;
mod spelling;
