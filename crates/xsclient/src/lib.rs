//! Xenstore client: pipelined, typed, with deadlines, on any transport.
//!
//! It holds no copy of the store and no policy: what a path means, and what to do about a conflict or a lost connection, is
//! the caller's. It reconnects only when told to, and starts no threads (but for a WATCH on [`XenbusDevice`]). With feature
//! `tokio` there is an asynchronous client too, in the module `asynchronous`, which does the same by the same code.
//!
//! ```no_run
//! use std::time::Duration;
//! use xsclient::{Batch, Client, Endpoint, Nodes, Options, Path, RetryPolicy};
//!
//! let mut client = Client::open(Endpoint::Search, Options::default())?;
//!
//! // One operation, one round trip.
//! let base: Path = "/local/domain/7".parse()?;
//! let name = client.read_text(&base.join("name")?)?;
//!
//! // Any number of requests in one round trip.
//! let mut batch = Batch::new();
//! let devices = batch.directory(base.join("device")?);
//! let memory = batch.read(base.join("memory/target")?);
//! let mut replies = client.run(batch)?;
//! println!("{name}: {:?}, {:?}", replies.take_optional(devices)?, replies.take(memory)?);
//!
//! // All or nothing, again if another change got in between.
//! client.transact(&RetryPolicy::default(), |transaction| {
//!     transaction.write(&base.join("data/a")?, b"1")?;
//!     transaction.write(&base.join("data/b")?, b"2")?;
//!     Ok::<(), Box<dyn std::error::Error>>(())
//! })?;
//!
//! // What changes from now on.
//! let watch = client.watch(base.join("device")?, None)?;
//! for event in client.events(&watch, Duration::from_secs(60)) {
//!     println!("{}", event?.path);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | what | where |
//! |---|---|
//! | the blocking client | [`Client`], [`Options`], [`Endpoint`], [`Statistics`] |
//! | nodes, in a transaction or outside | [`Nodes`], [`Transaction`], [`RetryPolicy`] |
//! | many requests in one round trip | [`Batch`], [`Slot`], [`Replies`] |
//! | one state over many reads | [`Batch::fence`], [`Fence`] |
//! | what a domain has on its connection | [`Client::domain_state`], [`Client::set_domain_state`] |
//! | events | [`Watch`], [`Event`], [`Events`] |
//! | the asynchronous client, with feature `tokio` | the module `asynchronous`: `Client`, `Nodes`, `Transaction`, `Watch` |
//! | errors | [`OperationError`], [`Failure`], [`ConnectionLost`], [`OpenError`] |
//! | the protocol without I/O, for other event loops | [`Connection`] |
//! | transports | [`UnixSocket`], [`XenbusDevice`], the trait [`Transport`] |
//! | the vocabulary of the protocol | everything of [`xenstore_proto`], from here too |
//!
//! Specified in Xen's `docs/misc/xenstore.txt` and its public header `io/xs_wire.h`.

#![forbid(unsafe_code)]

#[doc(hidden)]
pub mod fuzzing;

#[cfg(feature = "tokio")]
pub mod asynchronous;

mod batch;
mod carrier;
mod client;
mod connection;
mod directory;
mod domain_state;
mod endpoint;
mod error;
mod fence;
mod from_reply;
mod link;
mod nodes;
mod operations;
mod run;
mod session;
mod statistics;
mod subscriptions;
mod transaction;
mod transport;
mod waiting;
mod watch;

pub use xenstore_proto::*;

pub use batch::{Batch, FenceSlot, Replies, Slot};
pub use client::{Client, Deadlined, Options, Reconnected, TIMEOUT_DEFAULT};
pub use connection::{Abandoned, Connection, Incoming, ProtocolError, SubmitError};
pub use directory::{DIRECTORY_ATTEMPTS_MAX, DIRECTORY_OCTETS_MAX};
pub use domain_state::{DomainStatePage, STATE_ATTEMPTS_MAX, STATE_OCTETS_MAX};
pub use endpoint::{Endpoint, OpenError, ReconnectError, Unreachable};
pub use error::{ConnectionLost, Failure, OperationError};
pub use fence::Fence;
pub use from_reply::FromReply;
pub use nodes::Nodes;
pub use session::IN_FLIGHT_MAX;
pub use statistics::Statistics;
pub use transaction::{Commit, DetachedTransaction, RetryPolicy, Transaction};
pub use transport::{UnixSocket, XenbusDevice};
pub use watch::{EVENTS_PER_WATCH_MAX, Event, Events, LostWatch, Watch};
