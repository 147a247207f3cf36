//! Why a call of libxl failed, in the words of the trait.

use snapshot::control::{
    BuildFailure, Cause, ChangeFailure, Queried, QueryError, RenameFailure, ResumeFailure,
    SuspendFailure,
};

use crate::ffi::{ContextError, Rc};
use crate::pool::{End, Ran, Stop};
use crate::rc;

/// What libxl, or what is between it and us, did not do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LibxlFailure {
    /// It said so.
    #[error("libxl answers {rc} ({}){}", rc::name(*rc), logged(log))]
    Rc { rc: Rc, log: String },
    #[error(transparent)]
    Context(#[from] ContextError),
    #[error("no thread can be started to call libxl in")]
    Thread(#[source] std::io::Error),
    #[error("the thread that called libxl has panicked")]
    Broken,
    #[error("libxl does not come back from the call")]
    Hung,
}

fn logged(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!(": {log}") }
}

impl LibxlFailure {
    pub(crate) fn is_guest_timed_out(&self) -> bool {
        matches!(self, Self::Rc { rc: rc::GUEST_TIMED_OUT, .. })
    }

    pub(crate) fn of_end<T>(end: End<T>) -> Self {
        match end {
            End::NoContext(error) => error.into(),
            End::NoThread(error) => Self::Thread(error),
            End::Hung => Self::Hung,
            End::Done { .. } | End::Broken => Self::Broken,
        }
    }
}

/// Why something was not done.
#[derive(Debug)]
pub(crate) enum Failing {
    Cancelled,
    DeadlinePassed,
    Libxl(LibxlFailure),
    /// Something else than libxl.
    Other(Cause),
}

impl Failing {
    pub(crate) fn of(cause: impl Into<Cause>) -> Self {
        Self::Other(cause.into())
    }

    pub(crate) fn about(self, about: Queried) -> QueryError {
        match self {
            Self::DeadlinePassed | Self::Cancelled => QueryError::DeadlinePassed { about },
            Self::Libxl(failure) => QueryError::Hypervisor { about, source: Box::new(failure) },
            Self::Other(source) => QueryError::Hypervisor { about, source },
        }
    }
}

impl std::fmt::Display for Failing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cancelled => f.write_str("the call was cancelled"),
            Self::DeadlinePassed => f.write_str("the deadline has passed"),
            Self::Libxl(failure) => failure.fmt(f),
            Self::Other(cause) => cause.fmt(f),
        }
    }
}

impl From<Stop> for Failing {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Cancelled => Self::Cancelled,
            Stop::DeadlinePassed => Self::DeadlinePassed,
        }
    }
}

/// A call's value and log, if it came to its end by itself. A number that is no success after the call was stopped is that it was
/// stopped: the numbers for it differ from call to call.
pub(crate) fn outcome<T>(ran: Ran<Result<T, Rc>>) -> Result<(T, String), Failing> {
    match (ran.end, ran.stopped) {
        (End::Done { value: Ok(value), log }, _) => Ok((value, log)),
        (_, Some(stopped)) => Err(stopped.into()),
        (End::Done { value: Err(rc), log }, None) => {
            Err(Failing::Libxl(LibxlFailure::Rc { rc, log }))
        }
        (other, None) => Err(Failing::Libxl(LibxlFailure::of_end(other))),
    }
}

macro_rules! from_failing {
    ($( $failure:ident: $cancelled:ident; )*) => { $(
        impl From<Failing> for $failure {
            fn from(failing: Failing) -> Self {
                match failing {
                    Failing::Cancelled => Self::$cancelled,
                    Failing::DeadlinePassed => Self::DeadlinePassed,
                    Failing::Libxl(failure) => Self::Hypervisor { source: Box::new(failure) },
                    Failing::Other(source) => Self::Hypervisor { source },
                }
            }
        }
    )* };
}

// Where nothing can be cancelled, nothing is.
from_failing! {
    SuspendFailure: Cancelled;
    BuildFailure: Cancelled;
    ResumeFailure: DeadlinePassed;
    ChangeFailure: DeadlinePassed;
    RenameFailure: DeadlinePassed;
}
