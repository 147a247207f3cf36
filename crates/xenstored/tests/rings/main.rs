//! Domains' rings on a simulated host: the stream on a page, and a domain that does not behave.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, in what it is built of as well"
)]

mod clients;
mod host;
mod hostile;
mod live_update;
mod misbehaviour;
mod served;
mod stream;
