//! What a control can do, one call at a time: for callers that put something of their own around it, or drive domains with it.

use std::ffi::{c_char, c_int};
use std::mem::MaybeUninit;
use std::time::Instant;

use libxl_config::{DomainConfig, Mode};
use serde_json::json;
use snapshot::control::{
    BuildError, BuildFailure, CancelToken, ChangeError, ChangeFailure, DomainState as Found,
    Failed, QueryError, Refusal, RenameError, RenameFailure, ResumeError, ResumeFailure,
    SuspendError, SuspendFailure, Until,
};

use crate::arguments::{descriptor, domid, empty, milliseconds, required, text};
use crate::boundary::call;
use crate::control::{Control, Domain};
use crate::observer::Cancel;
use crate::outcome::give_values;
use crate::problem::{Error, Problem};
use crate::status::Status;

/// Describes the domain that has this id now. DK_STATUS_NOT_FOUND if none has.
#[unsafe(no_mangle)]
pub extern "C" fn dk_control_find(
    control: Option<&Control>,
    domid: u32,
    timeout_ms: u32,
    domain: Option<&mut MaybeUninit<Domain>>,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_control_find", error, || {
        let place = required(domain, "domain")?.write(Domain::empty());
        let control = required(control, "control")?;
        let id = self::domid(domid)?;
        let found = control.0.find(id, deadline(timeout_ms));
        match found.map_err(|error| Problem::from(error).about(id))? {
            Some(view) => {
                *place = Domain::of(&view)?;
                Ok(())
            }
            None => {
                let message = format!("there is no domain {id}");
                Err(Problem::new(Status::NotFound, message).about(id))
            }
        }
    })
}

/// Describes all domains but the control domain, ascending by id: `*count` of them, freed with free(); NULL if there are none.
#[unsafe(no_mangle)]
pub extern "C" fn dk_control_list(
    control: Option<&Control>,
    timeout_ms: u32,
    domains: Option<&mut MaybeUninit<*mut Domain>>,
    count: Option<&mut MaybeUninit<usize>>,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_control_list", error, || {
        let place = empty(domains, "domains")?;
        let count = required(count, "count")?.write(0);
        let control = required(control, "control")?;
        let views = control.0.list(deadline(timeout_ms))?;
        let domains = views.iter().map(Domain::of).collect::<Result<Vec<_>, _>>()?;
        give_values(place, count, &domains)
    })
}

/// Suspends a running domain, writes its memory to `fd` as a libxl stream, and leaves it suspended. With `fd` -1 only suspends it.
/// `cancel` may be NULL.
///
/// This and the calls below act on `domain` only if it is the domain with that id *and* uuid. dk_error_details() of a failure is a
/// JSON object with "state": what the domain was found to be afterwards, null if that could not be found out.
#[unsafe(no_mangle)]
pub extern "C" fn dk_control_suspend(
    control: Option<&Control>,
    domain: Option<&Domain>,
    fd: c_int,
    live: bool,
    timeout_ms: u32,
    cancel: Option<&Cancel>,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_control_suspend", error, || {
        let control = required(control, "control")?;
        let domain = required(domain, "domain")?.identity()?;
        let until = until(timeout_ms, cancel);
        if fd == -1 {
            control.0.suspend_only(&domain, until)?;
        } else {
            let stream = descriptor(fd, "fd")?;
            control.0.suspend_to(&domain, std::os::fd::AsFd::as_fd(&stream), live, until)?;
        }
        Ok(())
    })
}

/// Lets a suspended domain go on where it was.
#[unsafe(no_mangle)]
pub extern "C" fn dk_control_resume(
    control: Option<&Control>,
    domain: Option<&Domain>,
    timeout_ms: u32,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_control_resume", error, || {
        let control = required(control, "control")?;
        let domain = required(domain, "domain")?.identity()?;
        Ok(control.0.resume(&domain, deadline(timeout_ms))?)
    })
}

/// Builds a domain from a configuration, as JSON, and the libxl stream that `fd` is read from, and leaves it paused. `cancel` may be
/// NULL.
///
/// # Safety
///
/// `configuration` ends with a NUL. `domain` can be written; `error` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dk_control_build(
    control: Option<&Control>,
    configuration: *const c_char,
    fd: c_int,
    timeout_ms: u32,
    cancel: Option<&Cancel>,
    domain: Option<&mut MaybeUninit<Domain>>,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_control_build", error, || {
        let place = required(domain, "domain")?.write(Domain::empty());
        let control = required(control, "control")?;
        // SAFETY: as this function's own contract.
        let configuration = unsafe { text(configuration, "configuration") }?;
        let configuration = DomainConfig::read(configuration.as_bytes(), Mode::Lenient)
            .map_err(|error| Problem::of(Status::InvalidArgument, &error))?;
        let stream = descriptor(fd, "fd")?;
        let stream = std::os::fd::AsFd::as_fd(&stream);
        let until = until(timeout_ms, cancel);
        *place = Domain::of(&control.0.build_from(&configuration.config, stream, until)?)?;
        Ok(())
    })
}

/// Stops a domain between two instructions. One that is paused already stays so.
#[unsafe(no_mangle)]
pub extern "C" fn dk_control_pause(
    control: Option<&Control>,
    domain: Option<&Domain>,
    timeout_ms: u32,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_control_pause", error, || {
        let control = required(control, "control")?;
        let domain = required(domain, "domain")?.identity()?;
        Ok(control.0.pause(&domain, deadline(timeout_ms))?)
    })
}

/// Lets a paused domain run. One that runs already goes on.
#[unsafe(no_mangle)]
pub extern "C" fn dk_control_unpause(
    control: Option<&Control>,
    domain: Option<&Domain>,
    timeout_ms: u32,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_control_unpause", error, || {
        let control = required(control, "control")?;
        let domain = required(domain, "domain")?.identity()?;
        Ok(control.0.unpause(&domain, deadline(timeout_ms))?)
    })
}

/// Destroys a domain, in whatever state it is.
#[unsafe(no_mangle)]
pub extern "C" fn dk_control_destroy(
    control: Option<&Control>,
    domain: Option<&Domain>,
    timeout_ms: u32,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_control_destroy", error, || {
        let control = required(control, "control")?;
        let domain = required(domain, "domain")?.identity()?;
        Ok(control.0.destroy(&domain, deadline(timeout_ms))?)
    })
}

/// Gives a domain another name. DK_STATUS_EXISTS if another has it.
///
/// # Safety
///
/// `name` ends with a NUL. `domain` is a dk_domain; `error` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dk_control_rename(
    control: Option<&Control>,
    domain: Option<&Domain>,
    name: *const c_char,
    timeout_ms: u32,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_control_rename", error, || {
        let control = required(control, "control")?;
        let domain = required(domain, "domain")?.identity()?;
        // SAFETY: as this function's own contract.
        let name = unsafe { text(name, "name") }?;
        Ok(control.0.rename(&domain, name, deadline(timeout_ms))?)
    })
}

fn deadline(timeout_ms: u32) -> Instant {
    Instant::now() + milliseconds(timeout_ms)
}

fn until(timeout_ms: u32, cancel: Option<&Cancel>) -> Until<'_> {
    let token: Option<&CancelToken> = cancel.map(|cancel| &cancel.0);
    Until { deadline: deadline(timeout_ms), cancel: token }
}

fn of_failed<R: std::error::Error + 'static>(status: Status, failed: &Failed<R>) -> Problem {
    let state: Option<Found> = failed.state;
    Problem::of(status, failed).about(failed.domid).details(&json!({ "state": state }))
}

fn of_refusal(refusal: &Refusal) -> Status {
    match refusal {
        Refusal::NoSuchDomain => Status::NotFound,
        Refusal::ControlDomain => Status::InvalidArgument,
        _ => Status::Refused,
    }
}

impl From<SuspendError> for Problem {
    fn from(error: SuspendError) -> Self {
        let status = match &error.reason {
            SuspendFailure::Refused(refusal) => of_refusal(refusal),
            SuspendFailure::LiveUnsupported => Status::Unsupported,
            SuspendFailure::NotAcknowledged => Status::Refused,
            SuspendFailure::Stream { .. } => Status::Io,
            SuspendFailure::Cancelled => Status::Cancelled,
            SuspendFailure::DeadlinePassed => Status::TimedOut,
            _ => Status::Failed,
        };
        of_failed(status, &error)
    }
}

impl From<ResumeError> for Problem {
    fn from(error: ResumeError) -> Self {
        let status = match &error.reason {
            ResumeFailure::Refused(refusal) => of_refusal(refusal),
            ResumeFailure::StillStreaming => Status::Busy,
            ResumeFailure::DeadlinePassed => Status::TimedOut,
            _ => Status::Failed,
        };
        of_failed(status, &error)
    }
}

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        let status = match &error.reason {
            ChangeFailure::Refused(refusal) => of_refusal(refusal),
            ChangeFailure::DeadlinePassed => Status::TimedOut,
            _ => Status::Failed,
        };
        of_failed(status, &error)
    }
}

impl From<RenameError> for Problem {
    fn from(error: RenameError) -> Self {
        let status = match &error.reason {
            RenameFailure::Refused(refusal) => of_refusal(refusal),
            RenameFailure::NameTaken { .. } => Status::Exists,
            RenameFailure::DeadlinePassed => Status::TimedOut,
            _ => Status::Failed,
        };
        of_failed(status, &error)
    }
}

impl From<BuildError> for Problem {
    fn from(error: BuildError) -> Self {
        let status = match &error.reason {
            BuildFailure::Configuration { .. } => Status::InvalidArgument,
            BuildFailure::NameTaken { .. } => Status::Exists,
            BuildFailure::InvalidStream { .. } => Status::InvalidData,
            BuildFailure::Stream { .. } => Status::Io,
            BuildFailure::Cancelled => Status::Cancelled,
            BuildFailure::DeadlinePassed => Status::TimedOut,
            _ => Status::Failed,
        };
        Self::of(status, &error).details(&json!({ "left": error.left }))
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        let status = match &error {
            QueryError::DeadlinePassed { .. } => Status::TimedOut,
            _ => Status::Unreachable,
        };
        Self::of(status, &error)
    }
}
