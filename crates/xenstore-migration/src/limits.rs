//! Sizes that are limited, with where the number comes from.

/// Most octets of one record that a reader accepts unless told otherwise, and that a writer writes.
///
/// The longest record of nodes, watches or quotas has 1.1 MiB by the width of its length fields. Only what a connection
/// has not read yet (`out-data-len` is 32 bits wide) can be longer; this is 15,000 of its largest messages.
pub const RECORD_MAX: usize = 64 << 20;

/// Octets by which a reader's buffer grows ahead of what has arrived, so that a length field alone makes it hold no more.
pub const READ_AHEAD: usize = 64 << 10;

/// Most octets of a JSON document of a stream. The longest record has 384 MiB there if it is text of which every octet has to be
/// written as `\u0000`.
#[cfg(feature = "json")]
pub const DOCUMENT_MAX: usize = 512 << 20;
