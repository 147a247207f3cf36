//! Why QEMU gave no answer.

use std::io;
use std::path::PathBuf;

/// Why a command gave no result. In all but [`QmpError::Refused`] it may have been executed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QmpError {
    /// No connection.
    #[error("cannot connect to the QMP socket {}", socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// QEMU refused. The command changed nothing.
    #[error("QEMU refused {command}: {desc} ({class})")]
    Refused {
        /// The command.
        command: &'static str,
        /// QEMU's class of the error.
        class: String,
        /// QEMU's words.
        desc: String,
    },
    /// No answer before the deadline.
    #[error("QEMU did not answer {command} before the deadline")]
    TooSlow {
        /// The command.
        command: &'static str,
    },
    /// QEMU closed the connection, or it was of no use already.
    #[error("the QMP connection is closed, with {command} unanswered")]
    Closed {
        /// The command.
        command: &'static str,
    },
    /// The socket failed.
    #[error("the QMP socket failed, with {command} unanswered")]
    Socket {
        /// The command.
        command: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A line without end.
    #[error("QEMU answered {command} with a line of more than {} octets", super::LINE_MAX)]
    LineTooLong {
        /// The command.
        command: &'static str,
    },
    /// Not what is expected.
    #[error("QEMU answered {command} with something else than expected")]
    Malformed {
        /// The command.
        command: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// The answer to another command.
    #[error("QEMU answered something else than {command}")]
    OtherAnswer {
        /// The command.
        command: &'static str,
    },
}

impl QmpError {
    /// Whether it is known that the command changed nothing.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Connect { .. })
    }

    /// Whether nobody listens on the socket: the QEMU that it was of has ended, or somebody has removed its name.
    pub fn is_nobody_there(&self) -> bool {
        use io::ErrorKind::{ConnectionRefused, NotFound};
        let Self::Connect { source, .. } = self else { return false };
        matches!(source.kind(), ConnectionRefused | NotFound)
    }
}
