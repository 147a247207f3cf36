//! The public behaviour of the client, against servers that are well and servers that are not.

#![expect(clippy::unwrap_used, clippy::panic, reason = "what cannot go on fails its test")]

mod bursts;
mod connection;
mod directories;
mod hostile;
mod operations;
mod stock;
mod support;
mod transactions;
mod unix_sockets;
mod watches;
mod xenbus;
