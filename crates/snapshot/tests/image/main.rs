//! Memory images: the stream of a saved domain into every format and back, and whatever is none refused.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, in what it is built of as well"
)]

mod captured;
mod damage;
mod formats;
mod golden;
mod inspect;
mod layouts;
mod mapped;
mod memory;
mod packed;
mod properties;
mod stream;
mod synthetic;
mod verify_stream;
