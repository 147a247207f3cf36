//! Every size the protocol limits, with where the number comes from.

/// Octets of a message header: four 32-bit words.
pub const HEADER_LEN: usize = 16;

/// Most octets of payload in one message, in either direction (`XENSTORE_PAYLOAD_MAX`).
pub const PAYLOAD_MAX: usize = 4096;

/// Most octets of payload that a client accepts in a reply.
///
/// The protocol says [`PAYLOAD_MAX`], but oxenstored 4.17 answers DIRECTORY of a big directory in one longer message. A
/// receiver allocates as octets arrive, so the number only bounds what a broken server can make it keep.
pub const REPLY_PAYLOAD_TOLERATED: usize = 1 << 20;

/// Most octets of an absolute path (`XENSTORE_ABS_PATH_MAX`), the closing NUL not counted.
pub const ABSOLUTE_PATH_MAX: usize = 3072;

/// Most octets of a relative path (`XENSTORE_REL_PATH_MAX`), the closing NUL not counted.
pub const RELATIVE_PATH_MAX: usize = 2048;

/// Most octets of an errno name that is kept. The longest name in use has ten; a server that sends more is broken.
pub const ERRNO_NAME_MAX: usize = 64;
