//! QMP, QEMU's control socket: as much of it as snapshots of disks need.
//!
//! A client of our own and not the crate `qapi`: its blocking stream has no deadlines and reads lines without a limit, and its
//! commands are generated from the schema of one QEMU. Here are six commands, and answers of older and newer QEMUs are taken.

mod client;
mod error;
mod lines;
mod message;

pub(super) use message::{Greeting, Message};

pub use client::QmpClient;
pub(in crate::disk) use client::{Asked, Held};
pub use error::QmpError;
pub use lines::{LINE_MAX, LineDecoder, LineTooLong};
pub use message::{
    BlockJob, CacheMode, NodeImage, NodeSnapshot, QmpEvent, QmpNode, QmpVersion, TransactionAction,
};
