//! Clients that others have written work against our socket: the stock tools, upstream's test, a Python library.
#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in what it is built of as well"
)]

mod pyxs;
mod served;
mod tools;
mod upstream;
