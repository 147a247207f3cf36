//! The built command, as people and programs run it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::panic, reason = "a test fails by panicking")]

mod arguments;
mod captures;
mod config;
mod demo;
mod device;
mod differences;
mod host;
mod list;
mod retrieve;
mod simulate;
mod snapshot;
mod stock;
mod stream;
mod template;
mod watch;
mod xenstore;
