//! The public behaviour of the asynchronous client: the suite that it shares with the blocking one, and what only it has.

#![expect(clippy::unwrap_used, clippy::panic, reason = "what cannot go on fails its test")]

mod cancelling;
mod resets;
mod sharing;
mod under_test;

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
