//! Failures on command.

use serde::{Deserialize, Serialize};

/// A call of [`DomainControl`](crate::control::DomainControl), as the simulated host sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Call {
    /// `suspend_to`.
    SuspendTo,
    /// `suspend_only`.
    SuspendOnly,
    /// `resume`.
    Resume,
    /// `build_from`.
    BuildFrom,
    /// `pause`.
    Pause,
    /// `unpause`.
    Unpause,
    /// `destroy`.
    Destroy,
    /// `rename`.
    Rename,
    /// `find`, and the query with which every other call ends.
    Find,
}

/// What goes wrong. Each strikes once.
///
/// Effects of a stream strike in `suspend_to` and `build_from` only, and those of the guest in the suspends; elsewhere they
/// are refused when they are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Effect {
    /// The call fails, and has done nothing.
    FailBefore,
    /// The call has done all, and fails.
    FailAfter,
    /// The call says that it has done all, and has done nothing (libxl does so for a guest that never answers). A stream
    /// is written all the same, of a guest that runs.
    FalseSuccess,
    /// Nothing is done, and the call does not end until it is cancelled.
    HangBefore,
    /// All is done, and the call does not end until it is cancelled.
    HangAfter,
    /// The connection ends without an answer, and nothing was done.
    LoseBefore,
    /// The connection ends without an answer, and all was done.
    LoseAfter,
    /// The stream fails with EIO.
    StreamFails {
        /// After so many octets.
        at: u64,
    },
    /// The stream stops, and goes on no more until the call is cancelled, or nobody reads from its pipe any more.
    StreamHangs {
        /// After so many octets.
        at: u64,
    },
    /// What writes or reads the stream dies.
    HelperDies {
        /// After so many octets.
        at: u64,
    },
    /// The whole host dies, with all its domains, in the midst of the stream.
    HostDies {
        /// After so many octets.
        at: u64,
    },
    /// The guest does not acknowledge, and runs on.
    GuestIgnores,
    /// The guest crashes when it is asked.
    GuestCrashes,
}

impl Effect {
    /// Whether the effect can strike in a call.
    pub fn applies_to(self, call: Call) -> bool {
        match self {
            Self::FailBefore
            | Self::FailAfter
            | Self::HangBefore
            | Self::HangAfter
            | Self::LoseBefore
            | Self::LoseAfter => true,
            Self::FalseSuccess => call != Call::Find,
            Self::StreamFails { .. }
            | Self::StreamHangs { .. }
            | Self::HelperDies { .. }
            | Self::HostDies { .. } => matches!(call, Call::SuspendTo | Call::BuildFrom),
            Self::GuestIgnores | Self::GuestCrashes => {
                matches!(call, Call::SuspendTo | Call::SuspendOnly)
            }
        }
    }

    /// After how many octets of the stream it strikes.
    pub(crate) fn stream_octets(self) -> Option<u64> {
        match self {
            Self::StreamFails { at }
            | Self::StreamHangs { at }
            | Self::HelperDies { at }
            | Self::HostDies { at } => Some(at),
            _ => None,
        }
    }
}
