//! What a call returns.

/// What a call returns: 0, or a negative number that says in which way it failed.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// A pointer that must not be NULL is, or a value has no meaning. Nothing was done.
    InvalidArgument = -1,
    /// A text, stream or file is not what it should be. Nothing was done.
    InvalidData = -2,
    /// There is no such domain, template, device or node.
    NotFound = -3,
    /// There is one already.
    Exists = -4,
    /// It was looked at and is not possible. Where there can be several reasons dk_error_details() has all. Nothing was done.
    Refused = -5,
    /// Somebody else holds it, or has changed it meanwhile.
    Busy = -6,
    /// It took too long.
    TimedOut = -7,
    /// It was cancelled.
    Cancelled = -8,
    /// Xenstore, the template store, the hypervisor or a library cannot be reached.
    Unreachable = -9,
    /// A file or descriptor could not be read or written.
    Io = -10,
    /// What is there is not what was saved; dk_error_details() has every difference.
    Different = -11,
    /// Anything else. What may be left of it is in dk_error_details().
    Failed = -12,
    /// For callbacks: this cannot be done here, as streaming the memory of a running domain.
    Unsupported = -13,
    /// A fault of this library. What the call worked with must not be used again, but for freeing it.
    Internal = -99,
}
