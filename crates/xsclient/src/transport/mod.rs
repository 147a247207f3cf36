//! Transports that reach a server outside the process.

mod poll;
mod unix;
mod xenbus;

pub use unix::UnixSocket;
#[cfg(feature = "tokio")]
pub(crate) use unix::{MANNER, send_quietly};
pub use xenbus::XenbusDevice;
