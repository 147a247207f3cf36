//! An embeddable Xenstore server.
#![forbid(unsafe_code)]

pub mod limits;

mod access;
mod change;
mod domains;
mod embedded;
mod events;
mod in_process;
mod interner;
mod output;
mod requests;
mod server;
mod store;
mod text;
mod transaction;
mod tree;
mod unix;
mod walk;
mod watches;

pub use embedded::Embedded;
pub use in_process::InProcess;
pub use server::{ConnectionId, Interceptor, Server};
pub use store::{Store, StoreError};
#[doc(hidden)]
pub use text::fuzz_text;
pub use text::{LineError, LoadError};
pub use unix::{ServeError, UnixServer};
pub use walk::{NodeRef, Nodes};
