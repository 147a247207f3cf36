//! Why a call failed, and what the domain was found to be then.

use std::error::Error;
use std::fmt;
use std::io;

use uuid::Uuid;
use xsclient::DomId;

use super::view::{DomainIdentity, DomainState, ShutdownReason};

/// An implementation's own account of a failure.
pub type Cause = Box<dyn Error + Send + Sync>;

/// A call that did not do what it was to do, and the state that the domain was found in afterwards.
#[derive(Debug)]
#[non_exhaustive]
pub struct Failed<R> {
    /// Of which domain.
    pub domid: DomId,
    /// Which call.
    pub operation: Operation,
    /// What a query has shown afterwards; `None` if it could not be found out.
    pub state: Option<DomainState>,
    /// Why.
    pub reason: R,
}

/// Why a domain was not suspended, or not streamed.
pub type SuspendError = Failed<SuspendFailure>;
/// Why a domain was not resumed.
pub type ResumeError = Failed<ResumeFailure>;
/// Why a domain was not paused, unpaused or destroyed.
pub type ChangeError = Failed<ChangeFailure>;
/// Why a domain was not renamed.
pub type RenameError = Failed<RenameFailure>;

impl<R> Failed<R> {
    /// For implementations.
    pub fn new(
        domid: DomId,
        operation: Operation,
        state: Option<DomainState>,
        reason: impl Into<R>,
    ) -> Self {
        Self { domid, operation, state, reason: reason.into() }
    }
}

impl<R: fmt::Display> fmt::Display for Failed<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { domid, operation, state, reason } = self;
        write!(f, "domain {domid} could not be {operation}: {reason}; ")?;
        match state {
            Some(state) => write!(f, "it is {state}"),
            None => f.write_str("what it is now is not known"),
        }
    }
}

/// The reason is in the message, so that the next cause is the reason's.
impl<R: Error> Error for Failed<R> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.reason.source()
    }
}

/// What was to be done with a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// [`suspend_to`](super::DomainControl::suspend_to), [`suspend_only`](super::DomainControl::suspend_only).
    Suspend,
    /// [`resume`](super::DomainControl::resume).
    Resume,
    /// [`pause`](super::DomainControl::pause).
    Pause,
    /// [`unpause`](super::DomainControl::unpause).
    Unpause,
    /// [`destroy`](super::DomainControl::destroy).
    Destroy,
    /// [`rename`](super::DomainControl::rename).
    Rename,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Suspend => "suspended",
            Self::Resume => "resumed",
            Self::Pause => "paused",
            Self::Unpause => "unpaused",
            Self::Destroy => "destroyed",
            Self::Rename => "renamed",
        })
    }
}

/// Why a call was not even begun.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Domain 0, or an id that never names a domain.
    #[error("the control domain and reserved ids are not touched")]
    ControlDomain,
    /// There is none.
    #[error("there is no such domain")]
    NoSuchDomain,
    /// The domid is another domain's by now.
    #[error("it is another domain by now, with uuid {found}")]
    AnotherDomain {
        /// That one's uuid.
        found: Uuid,
    },
    /// It is in a state in which this cannot be done.
    #[error("it is {state}")]
    WrongState {
        /// Which.
        state: DomainState,
    },
}

/// Why a domain was not suspended, or not streamed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SuspendFailure {
    /// Not begun.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The hypervisor cannot track this domain's writes while it runs.
    #[error("its memory cannot be streamed while it runs")]
    LiveUnsupported,
    /// The guest did not answer the request, which has been withdrawn.
    #[error("the guest did not acknowledge the request")]
    NotAcknowledged,
    /// The hypervisor reported success, but the domain has not suspended.
    #[error("it was reported as suspended, and is not")]
    NotSuspended,
    /// The guest shut down for another reason.
    #[error("the guest stopped instead ({reason})")]
    GuestStopped {
        /// Which.
        reason: ShutdownReason,
    },
    /// The stream could not be written.
    #[error("its stream could not be written")]
    Stream {
        /// Why.
        source: io::Error,
    },
    /// What wrote the stream ended before it was complete.
    #[error("what wrote its stream died")]
    HelperDied,
    /// The caller's token was cancelled.
    #[error("the call was cancelled")]
    Cancelled,
    /// It took too long.
    #[error("the deadline has passed")]
    DeadlinePassed,
    /// The hypervisor failed, or cannot be reached.
    #[error("the hypervisor did not do it")]
    Hypervisor {
        /// Why.
        source: Cause,
    },
}

/// Why a domain was not resumed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResumeFailure {
    /// Not begun.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Its memory was still being streamed when the deadline passed.
    #[error("its memory was still being streamed at the deadline")]
    StillStreaming,
    /// The hypervisor reported success, but the domain does not run.
    #[error("it was reported as resumed, and is not")]
    NotResumed,
    /// It took too long.
    #[error("the deadline has passed")]
    DeadlinePassed,
    /// The hypervisor failed, or cannot be reached.
    #[error("the hypervisor did not do it")]
    Hypervisor {
        /// Why.
        source: Cause,
    },
}

/// Why a domain was not paused, unpaused or destroyed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeFailure {
    /// Not begun.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The hypervisor reported success, but nothing has changed.
    #[error("it was reported as done, and is not")]
    NotDone,
    /// It took too long.
    #[error("the deadline has passed")]
    DeadlinePassed,
    /// The hypervisor failed, or cannot be reached.
    #[error("the hypervisor did not do it")]
    Hypervisor {
        /// Why.
        source: Cause,
    },
}

/// Why a domain was not renamed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RenameFailure {
    /// Not begun.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Another domain has that name.
    #[error("the name {name:?} is taken")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// The hypervisor reported success, but the name is the old one.
    #[error("it was reported as done, and is not")]
    NotDone,
    /// It took too long.
    #[error("the deadline has passed")]
    DeadlinePassed,
    /// The hypervisor failed, or cannot be reached.
    #[error("the hypervisor did not do it")]
    Hypervisor {
        /// Why.
        source: Cause,
    },
}

/// Why no domain was built.
#[derive(Debug)]
#[non_exhaustive]
pub struct BuildError {
    /// A new domain that exists all the same: it could not be removed, or nobody could find out whether it was.
    pub left: Option<DomainIdentity>,
    /// Why.
    pub reason: BuildFailure,
}

impl BuildError {
    /// For implementations.
    pub fn new(left: Option<DomainIdentity>, reason: BuildFailure) -> Self {
        Self { left, reason }
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no domain was built: {}", self.reason)?;
        match self.left {
            Some(left) => write!(f, "; domain {left} is left of it"),
            None => Ok(()),
        }
    }
}

/// The reason is in the message, so that the next cause is the reason's.
impl Error for BuildError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.reason.source()
    }
}

/// Why no domain was built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildFailure {
    /// The configuration lacks something, or has something that cannot be built.
    #[error("the configuration cannot be built")]
    Configuration {
        /// What.
        source: Cause,
    },
    /// Another domain has the configuration's name.
    #[error("the name {name:?} is taken")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// The stream is not one, ends early, or is of another domain than the configuration's.
    #[error("the stream cannot be restored")]
    InvalidStream {
        /// What is wrong with it.
        source: Cause,
    },
    /// The stream could not be read.
    #[error("the stream could not be read")]
    Stream {
        /// Why.
        source: io::Error,
    },
    /// What read the stream ended before it was done.
    #[error("what read the stream died")]
    HelperDied,
    /// The hypervisor reported success, but there is no such paused domain.
    #[error("it was reported as built, and is not there, paused")]
    NotBuilt,
    /// The caller's token was cancelled.
    #[error("the call was cancelled")]
    Cancelled,
    /// It took too long.
    #[error("the deadline has passed")]
    DeadlinePassed,
    /// The hypervisor failed, or cannot be reached.
    #[error("the hypervisor did not do it")]
    Hypervisor {
        /// Why.
        source: Cause,
    },
}

/// What a query was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queried {
    /// One domain.
    Domain(DomId),
    /// Which domains there are.
    Domains,
}

impl fmt::Display for Queried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(domid) => write!(f, "domain {domid}"),
            Self::Domains => f.write_str("domains of the host"),
        }
    }
}

/// Why nobody could say how a domain is, or which domains there are.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// It took too long.
    #[error("{about}: the hypervisor did not answer before the deadline")]
    DeadlinePassed {
        /// What was asked about.
        about: Queried,
    },
    /// The hypervisor failed, or cannot be reached.
    #[error("{about}: the hypervisor does not answer")]
    Hypervisor {
        /// What was asked about.
        about: Queried,
        /// Why.
        source: Cause,
    },
}
