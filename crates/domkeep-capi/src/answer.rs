//! What a callback answered that did not do what it was to do, as the failures of the calls have it.

use std::ffi::{CStr, c_char, c_int};
use std::io;

use libxl_config::DomainConfig;
use snapshot::control::{
    BuildFailure, Cause, ChangeFailure, Queried, QueryError, RenameFailure, ResumeFailure,
    SuspendFailure,
};

use crate::status::Status;

/// Why a callback failed, in its own words.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Said {
    #[error("the callback `{callback}` returned {code}")]
    Code { callback: &'static str, code: c_int },
    #[error("{message} (the callback `{callback}` returned {code})")]
    Words { callback: &'static str, code: c_int, message: String },
    #[error("the callback `{callback}` told of a domain whose {what}")]
    Domain { callback: &'static str, what: String },
}

/// What a callback answered that did not do it.
pub(crate) struct Answer {
    code: c_int,
    errnum: c_int,
    said: Said,
}

/// Nobody says how a domain is.
pub(crate) struct Unanswered(pub(crate) QueryError);

macro_rules! unanswered {
    ($($failure:ident),*) => { $(
        impl From<Unanswered> for $failure {
            fn from(Unanswered(error): Unanswered) -> Self {
                match error {
                    QueryError::DeadlinePassed { .. } => Self::DeadlinePassed,
                    error => Self::Hypervisor { source: error.into() },
                }
            }
        }
    )* };
}

unanswered!(SuspendFailure, ResumeFailure, ChangeFailure, RenameFailure, BuildFailure);

impl Answer {
    /// What `callback` returned, with what it wrote where it says why.
    pub(crate) fn of(
        callback: &'static str,
        code: c_int,
        errnum: c_int,
        message: &[c_char],
    ) -> Self {
        let message = text_in(message);
        let said = if message.is_empty() {
            Said::Code { callback, code }
        } else {
            Said::Words { callback, code, message }
        };
        Self { code, errnum, said }
    }

    pub(crate) fn is(&self, status: Status) -> bool {
        self.code == status as c_int
    }

    pub(crate) fn said(self) -> Cause {
        self.said.into()
    }

    fn io(self) -> io::Error {
        let system = || io::Error::from_raw_os_error(self.errnum);
        match self.said {
            Said::Words { message, .. } if self.errnum != 0 => {
                let system = system();
                io::Error::new(system.kind(), format!("{message}: {system}"))
            }
            _ if self.errnum != 0 => system(),
            said => io::Error::other(said),
        }
    }

    /// Keeps in the log what has no place in the failure that is told by its status alone.
    fn logged(&self) {
        tracing::info!(said = %self.said, "a callback has not done it");
    }

    pub(crate) fn of_query(self, about: Queried) -> QueryError {
        if self.is(Status::TimedOut) {
            QueryError::DeadlinePassed { about }
        } else {
            QueryError::Hypervisor { about, source: self.said() }
        }
    }

    pub(crate) fn of_suspend(self) -> SuspendFailure {
        self.logged();
        match () {
            () if self.is(Status::Unsupported) => SuspendFailure::LiveUnsupported,
            () if self.is(Status::Refused) => SuspendFailure::NotAcknowledged,
            () if self.is(Status::TimedOut) => SuspendFailure::DeadlinePassed,
            () if self.is(Status::Cancelled) => SuspendFailure::Cancelled,
            () if self.is(Status::Io) => SuspendFailure::Stream { source: self.io() },
            () => SuspendFailure::Hypervisor { source: self.said() },
        }
    }

    pub(crate) fn of_build(self, configuration: &DomainConfig) -> BuildFailure {
        self.logged();
        match () {
            () if self.is(Status::InvalidArgument) => {
                BuildFailure::Configuration { source: self.said() }
            }
            () if self.is(Status::Exists) => {
                let name = configuration.c_info.name.clone().unwrap_or_default();
                BuildFailure::NameTaken { name }
            }
            () if self.is(Status::InvalidData) => {
                BuildFailure::InvalidStream { source: self.said() }
            }
            () if self.is(Status::TimedOut) => BuildFailure::DeadlinePassed,
            () if self.is(Status::Cancelled) => BuildFailure::Cancelled,
            () if self.is(Status::Io) => BuildFailure::Stream { source: self.io() },
            () => BuildFailure::Hypervisor { source: self.said() },
        }
    }
}

fn text_in(octets: &[c_char]) -> String {
    let octets: Vec<u8> = octets.iter().map(|octet| octet.to_ne_bytes()[0]).collect();
    let text = CStr::from_bytes_until_nul(&octets).map(CStr::to_bytes).unwrap_or(&octets);
    String::from_utf8_lossy(text).into_owned()
}
