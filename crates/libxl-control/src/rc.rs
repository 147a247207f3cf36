//! What libxl's answers mean (`libxl_error` in its public header).

use crate::ffi::Rc;

pub(crate) const FAIL: Rc = -3;
pub(crate) const GUEST_TIMED_OUT: Rc = -8;
pub(crate) const DOMAIN_NOT_FOUND: Rc = -21;
pub(crate) const NOT_FOUND: Rc = -23;

/// Its name in libxl's header, if it is one that has been seen.
pub(crate) fn name(rc: Rc) -> &'static str {
    match rc {
        -1 => "NONSPECIFIC",
        -2 => "VERSION",
        FAIL => "FAIL",
        -4 => "NI",
        -5 => "NOMEM",
        -6 => "INVAL",
        -7 => "BADFAIL",
        GUEST_TIMED_OUT => "GUEST_TIMEDOUT",
        -9 => "TIMEDOUT",
        -16 => "JSON_CONFIG_EMPTY",
        -17 => "DEVICE_EXISTS",
        -19 => "LOCK_FAIL",
        DOMAIN_NOT_FOUND => "DOMAIN_NOTFOUND",
        -22 => "ABORTED",
        NOT_FOUND => "NOTFOUND",
        _ => "unnamed",
    }
}
