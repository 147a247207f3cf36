//! The public behaviour of the blocking client, against servers that are well and servers that are not: the suite that it
//! shares with the asynchronous one, and what only it has.

#![expect(clippy::unwrap_used, clippy::panic, reason = "what cannot go on fails its test")]

mod bursts;
mod connection;
mod handles;
mod under_test;
mod xenbus;

#[path = "../suite/directories.rs"]
mod directories;
#[path = "../suite/hostile.rs"]
mod hostile;
#[path = "../suite/operations.rs"]
mod operations;
#[path = "../suite/stock.rs"]
mod stock;
#[path = "../suite/support.rs"]
mod support;
#[path = "../suite/transactions.rs"]
mod transactions;
#[path = "../suite/unix_sockets.rs"]
mod unix_sockets;
#[path = "../suite/watches.rs"]
mod watches;
