//! An embeddable Xenstore server.
#![forbid(unsafe_code)]

pub mod limits;

mod access;
mod store;
mod text;
mod tree;
mod walk;

pub use store::{Store, StoreError};
#[doc(hidden)]
pub use text::fuzz_text;
pub use text::{LineError, LoadError};
pub use walk::{NodeRef, Nodes};
