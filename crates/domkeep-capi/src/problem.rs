//! Errors: what a library says, as C reads it.

use std::error::Error as StdError;
use std::ffi::{CString, c_char};
use std::io;

use serde::Serialize;
use snapshot::control::QueryError;
use xsclient::{DomId, Failure, OpenError, OperationError, on_one_line};

use crate::control_calls::{of_control, of_query};
use crate::outcome::text_of;
use crate::snapshot::of_journal;
use crate::status::Status;

/// Why a call failed. It belongs to the caller, who frees it with dk_error_free(). It may be read by any thread.
pub struct Error {
    status: Status,
    operation: CString,
    message: CString,
    cause: Option<CString>,
    path: Option<CString>,
    domid: Option<u32>,
    details: Option<CString>,
}

/// The way in which the call failed, which is also what the call returned. DK_STATUS_OK if the error is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn dk_error_status(error: Option<&Error>) -> Status {
    error.map_or(Status::Ok, |error| error.status)
}

/// The function that failed, such as "dk_retrieve_domain_configuration". Valid as long as the error; NULL if that is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn dk_error_operation(error: Option<&Error>) -> *const c_char {
    pointer(error.map(|error| &error.operation))
}

/// What failed, in words, without the cause. Valid as long as the error; NULL if that is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn dk_error_message(error: Option<&Error>) -> *const c_char {
    pointer(error.map(|error| &error.message))
}

/// Why it failed: all causes on one line, the last one last. Valid as long as the error; NULL if the message says all.
#[unsafe(no_mangle)]
pub extern "C" fn dk_error_cause(error: Option<&Error>) -> *const c_char {
    pointer(error.and_then(|error| error.cause.as_ref()))
}

/// The Xenstore path, file or JSON path that it was about. Valid as long as the error; NULL if it was about none.
#[unsafe(no_mangle)]
pub extern "C" fn dk_error_path(error: Option<&Error>) -> *const c_char {
    pointer(error.and_then(|error| error.path.as_ref()))
}

/// The domain that it was about; -1 if it was about none.
#[unsafe(no_mangle)]
pub extern "C" fn dk_error_domid(error: Option<&Error>) -> i32 {
    error.and_then(|error| error.domid).and_then(|domid| i32::try_from(domid).ok()).unwrap_or(-1)
}

/// What there is to know besides, as JSON: the reasons of a refusal, the differences that were found, what a failed save or
/// restore has left. Valid as long as the error; NULL if there is no more.
#[unsafe(no_mangle)]
pub extern "C" fn dk_error_details(error: Option<&Error>) -> *const c_char {
    pointer(error.and_then(|error| error.details.as_ref()))
}

/// Frees an error. NULL is nothing to free.
#[unsafe(no_mangle)]
pub extern "C" fn dk_error_free(error: Option<Box<Error>>) {
    drop(error);
}

fn pointer(text: Option<&CString>) -> *const c_char {
    text.map_or(std::ptr::null(), |text| text.as_ptr())
}

/// Why a call fails, before it is known which.
#[derive(Debug)]
pub(crate) struct Problem {
    status: Status,
    message: String,
    cause: Option<String>,
    path: Option<String>,
    domid: Option<u32>,
    details: Option<String>,
}

impl Problem {
    pub(crate) fn new(status: Status, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { status, message, cause: None, path: None, domid: None, details: None }
    }

    /// An error of a library, its causes, and the path that the first of them to have one was about.
    pub(crate) fn of(status: Status, error: &(dyn StdError + 'static)) -> Self {
        let mut problem = Self::new(status, error.to_string());
        problem.cause = error.source().map(on_one_line);
        problem.path = chain(error).find_map(path_of);
        problem
    }

    /// An error of a library whose status its causes tell.
    pub(crate) fn by_cause(error: &(dyn StdError + 'static)) -> Self {
        Self::of(status_of(error).unwrap_or(Status::Failed), error)
    }

    pub(crate) fn about(mut self, domid: DomId) -> Self {
        self.domid = Some(domid.get().into());
        self
    }

    pub(crate) fn at(mut self, path: impl Into<String>) -> Self {
        self.path.get_or_insert(path.into());
        self
    }

    pub(crate) fn details(mut self, details: &impl Serialize) -> Self {
        self.details = serde_json::to_string(details).ok();
        self
    }

    /// On one line.
    pub(crate) fn in_words(&self) -> String {
        match &self.cause {
            Some(cause) => format!("{}: {cause}", self.message),
            None => self.message.clone(),
        }
    }

    pub(crate) fn into_error(self, operation: &'static str) -> (Status, Box<Error>) {
        let status = self.status;
        let error = Error {
            status,
            operation: text_of(operation),
            message: text_of(&self.message),
            cause: self.cause.as_deref().map(text_of),
            path: self.path.as_deref().map(text_of),
            domid: self.domid,
            details: self.details.as_deref().map(text_of),
        };
        (status, Box::new(error))
    }
}

fn chain<'e>(
    error: &'e (dyn StdError + 'static),
) -> impl Iterator<Item = &'e (dyn StdError + 'static)> {
    fn source<'e>(error: &&'e (dyn StdError + 'static)) -> Option<&'e (dyn StdError + 'static)> {
        (*error).source()
    }
    std::iter::successors(Some(error), source)
}

fn path_of(error: &(dyn StdError + 'static)) -> Option<String> {
    let subject = error.downcast_ref::<OperationError>()?.subject()?;
    subject.starts_with(['/', '@']).then(|| subject.to_owned())
}

/// What the causes tell of the way in which something failed: the innermost that tells something, unless it is what the hypervisor
/// was asked in vain.
pub(crate) fn status_of(error: &(dyn StdError + 'static)) -> Option<Status> {
    let query = chain(error).find_map(as_one::<QueryError>).map(of_query);
    query.or_else(|| chain(error).filter_map(status_of_one).last())
}

/// An error of this type, also where it is a source in a box.
pub(crate) fn as_one<'e, E: StdError + 'static>(
    error: &'e (dyn StdError + 'static),
) -> Option<&'e E> {
    error.downcast_ref::<E>().or_else(|| error.downcast_ref::<Box<E>>().map(AsRef::as_ref))
}

fn status_of_one(error: &(dyn StdError + 'static)) -> Option<Status> {
    if let Some(error) = as_one::<OperationError>(error) {
        return match error.failure() {
            Failure::Timeout { .. } => Some(Status::TimedOut),
            Failure::Lost(_) => Some(Status::Unreachable),
            _ if error.is_not_found() => Some(Status::NotFound),
            _ if error.is_conflict() => Some(Status::Busy),
            _ => None,
        };
    }
    if as_one::<OpenError>(error).is_some() {
        return Some(Status::Unreachable);
    }
    if let Some(status) = of_control(error).or_else(|| of_journal(error)) {
        return Some(status);
    }
    error.downcast_ref::<io::Error>().map(|error| match error.kind() {
        io::ErrorKind::TimedOut => Status::TimedOut,
        io::ErrorKind::AlreadyExists => Status::Exists,
        _ => Status::Io,
    })
}

impl From<OperationError> for Problem {
    fn from(error: OperationError) -> Self {
        Self::by_cause(&error)
    }
}

impl From<OpenError> for Problem {
    fn from(error: OpenError) -> Self {
        Self::of(Status::Unreachable, &error)
    }
}
