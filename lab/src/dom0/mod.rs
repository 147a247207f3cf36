//! On the Xen host: what a scenario does there.
//!
//! A scenario is `fn(&mut Host) -> Result<(), Failure>`. `?` works on every error; what has to hold is said with
//! [`Host::check`] and its kin, whose texts are in the report.

mod console;
pub mod daemons;
mod guest;
mod host;
mod json;
mod program;

pub use console::Console;
pub use guest::{Guest, GuestConfig};
pub use host::Host;
pub use json::differences;
pub use program::{Ran, Running, run, start};

/// The share's file with the name of the Xenstore daemon that the host starts.
pub const XENSTORED: &str = "xenstored";

/// Why a scenario ended early.
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure {
    /// Something does not hold, or could not be done.
    Failed(String),
    /// It cannot run here.
    Skipped(String),
}

impl Failure {
    /// Something does not hold.
    pub fn because(reason: impl Into<String>) -> Failure {
        Failure::Failed(reason.into())
    }

    /// The same failure, and more of what was seen.
    #[must_use]
    pub fn and(self, seen: &str) -> Failure {
        match self {
            Failure::Failed(reason) => Failure::Failed(format!("{reason} ({seen})")),
            skipped @ Failure::Skipped(_) => skipped,
        }
    }
}

/// Any error ends a scenario. A failure is no error itself: it is not for programs to handle.
impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Failed(xsclient::on_one_line(&error))
    }
}
