//! What C is given: memory of `malloc`, which the caller frees with `free`.

use std::ffi::{CString, c_char, c_void};
use std::ptr;

use serde::Serialize;

use crate::problem::Problem;
use crate::status::Status;

/// Gives a text away.
pub(crate) fn give_text(place: &mut *mut c_char, text: &str) -> Result<(), Problem> {
    let octets = text.as_bytes();
    if octets.contains(&0) {
        return Err(Problem::new(Status::InvalidData, "the answer has a NUL in it"));
    }
    let memory = allocate(octets.len() + 1)?;
    // SAFETY: the memory is new and has room for the text and its end.
    unsafe {
        ptr::copy_nonoverlapping(octets.as_ptr(), memory.cast(), octets.len());
        memory.cast::<u8>().add(octets.len()).write(0);
    }
    *place = memory.cast();
    Ok(())
}

/// Gives a document away, as JSON.
pub(crate) fn give_json(place: &mut *mut c_char, document: &impl Serialize) -> Result<(), Problem> {
    let text =
        serde_json::to_string(document).map_err(|error| Problem::of(Status::Internal, &error))?;
    give_text(place, &text)
}

/// Gives values away; NULL if there are none.
pub(crate) fn give_values<T: Copy>(
    place: &mut *mut T,
    count: &mut usize,
    values: &[T],
) -> Result<(), Problem> {
    if !values.is_empty() {
        let memory = allocate(size_of_val(values))?.cast::<T>();
        // SAFETY: the memory is new, as `malloc` aligns it for anything, and has room for the values.
        unsafe { ptr::copy_nonoverlapping(values.as_ptr(), memory, values.len()) };
        *place = memory;
    }
    *count = values.len();
    Ok(())
}

fn allocate(octets: usize) -> Result<*mut c_void, Problem> {
    // SAFETY: any size is allowed; what comes back is looked at.
    let memory = unsafe { libc::malloc(octets) };
    if memory.is_null() {
        return Err(Problem::new(Status::Failed, format!("no memory for {octets} octets")));
    }
    Ok(memory)
}

/// A text for C; what follows a NUL in it is not lost.
pub(crate) fn text_of(text: &str) -> CString {
    CString::new(text.replace('\0', "\\0")).unwrap_or_default()
}
