//! The server's step: requests, transactions, watches, and the properties that hold for any history of them.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, in what it is built of as well"
)]

mod as_stock;
mod backends;
mod control;
mod domain_state;
mod domain_state_pages;
mod driver;
mod histories;
mod model;
mod nesting;
mod policies;
mod quotas;
mod requests;
mod transactions;
mod watches;
mod xsa;
