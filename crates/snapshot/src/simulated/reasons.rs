//! What a host's answers mean in the terms of [`DomainControl`](crate::control::DomainControl).

use std::error::Error;
use std::fmt;
use std::io;

use super::connection::{CallError, Stopped};
use super::protocol::Failure;
use crate::control::{
    BuildFailure, Cause, ChangeFailure, Refusal, RenameFailure, ResumeFailure, ShutdownReason,
    SuspendFailure,
};

/// Why a call on a domain did not succeed, before it is known which call's enum says so.
pub(super) enum Reason {
    Refused(Refusal),
    LiveUnsupported,
    NotAcknowledged,
    GuestStopped(ShutdownReason),
    Stream(io::Error),
    HelperDied,
    StillStreaming,
    NameTaken(String),
    /// The host reported success, and it is not so.
    FalseReport,
    Cancelled,
    DeadlinePassed,
    Hypervisor(Cause),
}

/// A failure in the host's own words.
#[derive(Debug)]
pub(super) struct HostFailure(pub(super) Failure);

impl fmt::Display for HostFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Failure::Configuration { problem }
            | Failure::InvalidStream { problem }
            | Failure::Stream { problem, .. }
            | Failure::Other { problem } => f.write_str(problem),
            failure => write!(f, "{failure:?}"),
        }
    }
}

impl Error for HostFailure {}

impl Reason {
    pub(super) fn from_host(failure: Failure) -> Self {
        match failure {
            Failure::ControlDomain => Refusal::ControlDomain.into(),
            Failure::NoSuchDomain => Refusal::NoSuchDomain.into(),
            Failure::AnotherDomain { found } => Refusal::AnotherDomain { found }.into(),
            Failure::WrongState { state } => Refusal::WrongState { state }.into(),
            Failure::LiveUnsupported => Self::LiveUnsupported,
            Failure::NotAcknowledged => Self::NotAcknowledged,
            Failure::GuestStopped { reason } => Self::GuestStopped(reason),
            Failure::Stream { errno, problem } => Self::Stream(io_error(errno, problem)),
            Failure::HelperDied => Self::HelperDied,
            Failure::StillStreaming => Self::StillStreaming,
            Failure::NameTaken { name } => Self::NameTaken(name),
            Failure::Cancelled => Self::Cancelled,
            failure => Self::Hypervisor(Box::new(HostFailure(failure))),
        }
    }
}

fn io_error(errno: Option<i32>, problem: String) -> io::Error {
    errno.map_or_else(|| io::Error::other(problem), io::Error::from_raw_os_error)
}

impl From<Refusal> for Reason {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Stopped> for Reason {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Cancelled => Self::Cancelled,
            Stopped::DeadlinePassed => Self::DeadlinePassed,
        }
    }
}

impl From<CallError> for Reason {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Cancelled => Self::Cancelled,
            CallError::DeadlinePassed => Self::DeadlinePassed,
            error => Self::Hypervisor(Box::new(error)),
        }
    }
}

/// What a call cannot fail with is the host's own confusion.
fn unexpected(what: &str) -> Cause {
    Box::new(HostFailure(Failure::Other { problem: format!("the host answered: {what}") }))
}

impl From<Reason> for SuspendFailure {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Refused(refusal) => Self::Refused(refusal),
            Reason::LiveUnsupported => Self::LiveUnsupported,
            Reason::NotAcknowledged => Self::NotAcknowledged,
            Reason::GuestStopped(reason) => Self::GuestStopped { reason },
            Reason::Stream(source) => Self::Stream { source },
            Reason::HelperDied => Self::HelperDied,
            Reason::FalseReport => Self::NotSuspended,
            Reason::Cancelled => Self::Cancelled,
            Reason::DeadlinePassed => Self::DeadlinePassed,
            Reason::Hypervisor(source) => Self::Hypervisor { source },
            Reason::StillStreaming => Self::Hypervisor { source: unexpected("still streaming") },
            Reason::NameTaken(_) => Self::Hypervisor { source: unexpected("name taken") },
        }
    }
}

impl From<Reason> for ResumeFailure {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Refused(refusal) => Self::Refused(refusal),
            Reason::StillStreaming => Self::StillStreaming,
            Reason::FalseReport => Self::NotResumed,
            // A resume has no token: it is the deadline that cancels it.
            Reason::Cancelled | Reason::DeadlinePassed => Self::DeadlinePassed,
            Reason::Hypervisor(source) => Self::Hypervisor { source },
            _ => Self::Hypervisor { source: unexpected("no answer to a resume") },
        }
    }
}

impl From<Reason> for ChangeFailure {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Refused(refusal) => Self::Refused(refusal),
            Reason::FalseReport => Self::NotDone,
            Reason::Cancelled | Reason::DeadlinePassed => Self::DeadlinePassed,
            Reason::Hypervisor(source) => Self::Hypervisor { source },
            _ => Self::Hypervisor { source: unexpected("no answer to a change") },
        }
    }
}

impl From<Reason> for RenameFailure {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Refused(refusal) => Self::Refused(refusal),
            Reason::NameTaken(name) => Self::NameTaken { name },
            Reason::FalseReport => Self::NotDone,
            Reason::Cancelled | Reason::DeadlinePassed => Self::DeadlinePassed,
            Reason::Hypervisor(source) => Self::Hypervisor { source },
            _ => Self::Hypervisor { source: unexpected("no answer to a rename") },
        }
    }
}

impl From<CallError> for BuildFailure {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Cancelled => Self::Cancelled,
            CallError::DeadlinePassed => Self::DeadlinePassed,
            error => Self::Hypervisor { source: Box::new(error) },
        }
    }
}

impl From<Stopped> for BuildFailure {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Cancelled => Self::Cancelled,
            Stopped::DeadlinePassed => Self::DeadlinePassed,
        }
    }
}

pub(super) fn build_failure(failure: Failure) -> BuildFailure {
    match failure {
        Failure::NameTaken { name } => BuildFailure::NameTaken { name },
        Failure::Configuration { .. } => {
            BuildFailure::Configuration { source: Box::new(HostFailure(failure)) }
        }
        Failure::InvalidStream { .. } => {
            BuildFailure::InvalidStream { source: Box::new(HostFailure(failure)) }
        }
        Failure::Stream { errno, problem } => {
            BuildFailure::Stream { source: io_error(errno, problem) }
        }
        Failure::HelperDied => BuildFailure::HelperDied,
        Failure::Cancelled => BuildFailure::Cancelled,
        failure => BuildFailure::Hypervisor { source: Box::new(HostFailure(failure)) },
    }
}
