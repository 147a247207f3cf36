//! Transports that reach a server outside the process.

mod poll;
mod unix;
mod xenbus;

pub use unix::UnixSocket;
pub use xenbus::XenbusDevice;
