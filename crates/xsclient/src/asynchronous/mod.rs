//! The asynchronous client, on Tokio: the same operations, options and errors as the blocking one.
//!
//! ```no_run
//! use std::time::Duration;
//! use xsclient::asynchronous::{Client, Nodes};
//! use xsclient::{Endpoint, Options, Path, RetryPolicy};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::open(Endpoint::Search, Options::default()).await?;
//!
//! // Any number of tasks, each with its own handle; what they ask shares round trips.
//! let base: Path = "/local/domain/7".parse()?;
//! let other = client.clone();
//! let name = base.join("name")?;
//! let name = tokio::spawn(async move { other.read_text(&name).await });
//! let devices = client.directory(&base.join("device")?).await?;
//! println!("{} with {} device classes", name.await??, devices.len());
//!
//! // All or nothing, again if another change got in between.
//! client.transact(&RetryPolicy::default(), async |transaction| {
//!     transaction.write(&base.join("data/a")?, b"1").await?;
//!     transaction.write(&base.join("data/b")?, b"2").await?;
//!     Ok::<_, Box<dyn std::error::Error>>((transaction, ()))
//! }).await?;
//!
//! // What changes from now on, until the watch is dropped.
//! let watch = client.watch(base.join("device")?, None).await?;
//! while let Some(event) = watch.next_event(Duration::from_secs(60)).await? {
//!     println!("{}", event.path);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Runtime and threads
//!
//! [`Client::open`] and [`Client::over`] start one task on the Tokio runtime that they are called in, of either flavour, with
//! I/O and time enabled. It owns the socket and ends with the last handle. Handles, watches and transactions are [`Send`] and
//! [`Sync`], and may be used on any thread, where a Tokio runtime with time is entered. When the runtime of the task ends, every call
//! says [`ConnectionLost::RuntimeEnded`](crate::ConnectionLost::RuntimeEnded).
//!
//! # Cancelling
//!
//! Every future here may be dropped at any point, as `select!` and timeouts do. The connection stays in step and no other
//! task loses a reply. What was asked and not sent is never sent; the reply to what was is discarded, and its place among
//! the [`IN_FLIGHT_MAX`](crate::IN_FLIGHT_MAX) requests in flight is free once it has come. What a future would have given is closed on the
//! server: its transaction is aborted, its watches are ended. So are transactions, watches and fences whose handles are dropped.
//!
//! # What there is not
//!
//! - **No xenbus device.** Its writes of WATCH and UNWATCH wait inside the kernel, in a thread of their own, so that one
//!   descriptor's readiness does not say when to go on. Nor is there a transport inside the process, which has no descriptor.
//! - **No reconnect.** Tasks share a client, and one of them cannot know what the others' watches and transactions meant.
//!   Open another client.
//! - **No detached transactions**: a transaction borrows nothing that it would have to let go of.

mod client;
mod driver;
mod nodes;
mod replies;
mod shared;
mod transaction;
mod watch;

pub use client::Client;
pub use nodes::Nodes;
pub use replies::Replies;
pub use transaction::Transaction;
pub use watch::{Fence, Watch};
