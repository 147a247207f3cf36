//! What a control can do, one call at a time: for callers that put something of their own around it, or drive domains with it.

use std::error::Error as StdError;
use std::ffi::{c_char, c_int};
use std::mem::MaybeUninit;
use std::time::Instant;

use libxl_config::{DomainConfig, Mode};
use serde_json::json;
use snapshot::control::{
    BuildError, BuildFailure, CancelToken, ChangeFailure, Failed, QueryError, Refusal,
    RenameFailure, ResumeFailure, SuspendFailure, Until,
};

use crate::arguments::{descriptor, domid, empty, milliseconds, required, text};
use crate::boundary::call;
use crate::control::{Control, Domain};
use crate::observer::Cancel;
use crate::outcome::give_values;
use crate::problem::{Error, Problem, as_one};
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
/// This and the calls below that take a `domain` act on it only if it is the domain with that id *and* uuid. dk_error_details() of
/// their failures is a JSON object with "state": what the domain was found to be afterwards, null if that could not be found out.
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

fn of_refusal(refusal: &Refusal) -> Status {
    match refusal {
        Refusal::NoSuchDomain => Status::NotFound,
        Refusal::ControlDomain => Status::InvalidArgument,
        _ => Status::Refused,
    }
}

/// What a failure of a control tells of the way in which it failed; `None` if that is for its cause to tell.
trait Way {
    fn status(&self) -> Option<Status>;
}

impl Way for SuspendFailure {
    fn status(&self) -> Option<Status> {
        match self {
            Self::Refused(refusal) => Some(of_refusal(refusal)),
            Self::LiveUnsupported => Some(Status::Unsupported),
            Self::NotAcknowledged => Some(Status::Refused),
            Self::Stream { .. } => Some(Status::Io),
            Self::Cancelled => Some(Status::Cancelled),
            Self::DeadlinePassed => Some(Status::TimedOut),
            _ => None,
        }
    }
}

impl Way for ResumeFailure {
    fn status(&self) -> Option<Status> {
        match self {
            Self::Refused(refusal) => Some(of_refusal(refusal)),
            Self::StillStreaming => Some(Status::Busy),
            Self::DeadlinePassed => Some(Status::TimedOut),
            _ => None,
        }
    }
}

impl Way for ChangeFailure {
    fn status(&self) -> Option<Status> {
        match self {
            Self::Refused(refusal) => Some(of_refusal(refusal)),
            Self::DeadlinePassed => Some(Status::TimedOut),
            _ => None,
        }
    }
}

impl Way for RenameFailure {
    fn status(&self) -> Option<Status> {
        match self {
            Self::Refused(refusal) => Some(of_refusal(refusal)),
            Self::NameTaken { .. } => Some(Status::Exists),
            Self::DeadlinePassed => Some(Status::TimedOut),
            _ => None,
        }
    }
}

impl Way for BuildFailure {
    fn status(&self) -> Option<Status> {
        match self {
            Self::Configuration { .. } => Some(Status::InvalidArgument),
            Self::NameTaken { .. } => Some(Status::Exists),
            Self::InvalidStream { .. } => Some(Status::InvalidData),
            Self::Stream { .. } => Some(Status::Io),
            Self::Cancelled => Some(Status::Cancelled),
            Self::DeadlinePassed => Some(Status::TimedOut),
            _ => None,
        }
    }
}

/// The way in which a query failed, whatever the cause: nobody answered.
pub(crate) fn of_query(error: &QueryError) -> Status {
    match error {
        QueryError::DeadlinePassed { .. } => Status::TimedOut,
        _ => Status::Unreachable,
    }
}

/// The way in which a call of a control failed, if that is what failed.
pub(crate) fn of_control(error: &(dyn StdError + 'static)) -> Option<Status> {
    fn of<R: Way + StdError + 'static>(error: &(dyn StdError + 'static)) -> Option<Status> {
        as_one::<Failed<R>>(error)?.reason.status()
    }
    of::<SuspendFailure>(error)
        .or_else(|| of::<ResumeFailure>(error))
        .or_else(|| of::<ChangeFailure>(error))
        .or_else(|| of::<RenameFailure>(error))
        .or_else(|| as_one::<BuildError>(error)?.reason.status())
}

impl<R: Way + StdError + 'static> From<Failed<R>> for Problem {
    fn from(error: Failed<R>) -> Self {
        let status = error.reason.status().unwrap_or(Status::Failed);
        Self::of(status, &error).about(error.domid).details(&json!({ "state": error.state }))
    }
}

impl From<BuildError> for Problem {
    fn from(error: BuildError) -> Self {
        let status = error.reason.status().unwrap_or(Status::Failed);
        Self::of(status, &error).details(&json!({ "left": error.left }))
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        Self::by_cause(&error)
    }
}
