//! Which version of the library is loaded.

use std::ffi::{CStr, c_char};

const VERSION: &CStr =
    match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => c"unknown",
    };

/// The version of the library, such as "0.1.0". It is valid for ever and must not be freed.
#[unsafe(no_mangle)]
pub extern "C" fn dk_version() -> *const c_char {
    VERSION.as_ptr()
}
