//! What C passes, as values.

use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;
use xsclient::{DomId, Path};

use crate::problem::Problem;
use crate::status::Status;

/// A value of an enum of the header, which C passes as a number.
macro_rules! chosen {
    ($value:expr, $name:literal, { $($variant:path => $meant:expr),* $(,)? }) => {
        match $value {
            $(value if value == $variant as i32 => Ok($meant),)*
            other => Err($crate::arguments::invalid(format!(concat!("{} is no ", $name), other))),
        }
    };
}

/// A pointer that must be there.
pub(crate) fn required<T>(pointer: Option<T>, name: &str) -> Result<T, Problem> {
    pointer.ok_or_else(|| missing(name))
}

/// Where an answer goes: NULL until there is one, so that nothing is freed that was never given.
pub(crate) fn empty<'o, T>(
    place: Option<&'o mut MaybeUninit<*mut T>>,
    name: &str,
) -> Result<&'o mut *mut T, Problem> {
    Ok(required(place, name)?.write(std::ptr::null_mut()))
}

/// A text that must be there.
///
/// # Safety
///
/// NULL, or a text that ends with a NUL and does not change for `'a`.
pub(crate) unsafe fn text<'a>(pointer: *const c_char, name: &str) -> Result<&'a str, Problem> {
    // SAFETY: as this function's own contract.
    let text = unsafe { optional_text(pointer, name) }?;
    required(text, name)
}

/// A text that may be left out.
///
/// # Safety
///
/// As [`text`].
pub(crate) unsafe fn optional_text<'a>(
    pointer: *const c_char,
    name: &str,
) -> Result<Option<&'a str>, Problem> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: it is not NULL, and the contract says the rest.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str().map(Some).map_err(|error| invalid(format!("`{name}` is not UTF-8: {error}")))
}

/// Values one after the other. NULL is allowed where there are none.
///
/// # Safety
///
/// NULL, or `count` values that do not change for `'a`.
pub(crate) unsafe fn values<'a, T>(
    pointer: *const T,
    count: usize,
    name: &str,
) -> Result<&'a [T], Problem> {
    if count == 0 {
        return Ok(&[]);
    }
    if pointer.is_null() {
        return Err(missing(name));
    }
    if count.checked_mul(size_of::<T>()).is_none_or(|octets| octets > isize::MAX as usize) {
        return Err(invalid(format!("`{name}` cannot have {count} values")));
    }
    // SAFETY: it is not NULL, no longer than there can be, and the contract says the rest.
    Ok(unsafe { slice::from_raw_parts(pointer, count) })
}

/// A struct whose callers say how long the one is that they know.
///
/// # Safety
///
/// Its first member, as C lays it out, is its size as a `usize`.
pub(crate) unsafe trait HasSize {}

/// A struct of this version of the library, or none.
///
/// # Safety
///
/// NULL, or as many octets as its size says, which do not change for `'a`.
pub(crate) unsafe fn sized<'a, T: HasSize>(
    pointer: *const T,
    name: &str,
) -> Result<Option<&'a T>, Problem> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: it is not NULL, and begins with its size. There is no reference to the whole before it is known to be there.
    let size = unsafe { pointer.cast::<usize>().read() };
    let known = size_of::<T>();
    if size != known {
        return Err(invalid(format!("`{name}->size` is {size}, and this library knows {known}")));
    }
    // SAFETY: it has all its octets, and the contract says the rest.
    Ok(unsafe { pointer.as_ref() })
}

/// Copies of descriptors: the caller's stay the caller's.
///
/// # Safety
///
/// As [`values`].
pub(crate) unsafe fn descriptors(
    pointer: *const RawFd,
    count: usize,
    name: &str,
) -> Result<Vec<Arc<OwnedFd>>, Problem> {
    // SAFETY: as this function's own contract.
    let numbers = unsafe { values(pointer, count, name) }?;
    let copy = |(index, number): (usize, &RawFd)| {
        descriptor(*number, &format!("{name}[{index}]")).map(Arc::new)
    };
    numbers.iter().enumerate().map(copy).collect()
}

/// A copy of a descriptor.
pub(crate) fn descriptor(number: RawFd, name: &str) -> Result<OwnedFd, Problem> {
    if number < 0 {
        return Err(invalid(format!("`{name}` is {number}, which is no descriptor")));
    }
    // SAFETY: it is not -1; a number that is not open is an error of the copying, and nothing else is done with it.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    borrowed.try_clone_to_owned().map_err(|error| {
        Problem::of(Status::InvalidArgument, &error).at(format!("{name} = {number}"))
    })
}

/// A domain's id.
pub(crate) fn domid(number: u32) -> Result<DomId, Problem> {
    let id = u16::try_from(number)
        .map_err(|_| invalid(format!("{number} is no domain's id: they have 16 bits")))?;
    Ok(DomId::new(id))
}

pub(crate) fn uuid(text: &str) -> Result<Uuid, Problem> {
    text.parse().map_err(|error| invalid(format!("\"{text}\" is no uuid: {error}")))
}

/// An absolute Xenstore path.
pub(crate) fn absolute(text: &str) -> Result<Path, Problem> {
    text.parse::<Path>().map_err(|error| Problem::of(Status::InvalidArgument, &error).at(text))
}

pub(crate) fn milliseconds(number: u32) -> Duration {
    Duration::from_millis(number.into())
}

pub(crate) fn invalid(message: impl Into<String>) -> Problem {
    Problem::new(Status::InvalidArgument, message)
}

fn missing(name: &str) -> Problem {
    invalid(format!("`{name}` must not be NULL"))
}
