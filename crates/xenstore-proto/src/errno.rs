//! Names of errors, as ERROR replies carry them.

use std::borrow::Cow;
use std::fmt;

use crate::limits::ERRNO_NAME_MAX;

/// The name of an error: one of the table in Xen's `xs_wire.h`, or a name that a server sends besides (`EQUOTA`).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Errno(Cow<'static, str>);

macro_rules! errno_table {
    ($($name:ident $doc:literal,)*) => {
        impl Errno {
            $(#[doc = $doc] pub const $name: Self = Self(Cow::Borrowed(stringify!($name)));)*

            /// The table of `xs_wire.h`, in its order.
            pub const TABLE: &'static [&'static str] = &[$(stringify!($name),)*];
        }
    };
}

errno_table! {
    EINVAL "The request is malformed, or its path is.",
    EACCES "The permissions do not allow it, or the operation needs a privileged domain.",
    EEXIST "A watch with this path and token exists.",
    EISDIR "Listed in the header; no known server sends it.",
    ENOENT "No such node, transaction, domain or watch.",
    ENOMEM "The server is out of memory.",
    ENOSPC "A quota is used up.",
    EIO "The server failed.",
    ENOTEMPTY "Listed in the header; no known server sends it.",
    ENOSYS "The server does not know the operation.",
    EROFS "The connection may not write.",
    EBUSY "Not now: a transaction inside a transaction, or a domain that is already introduced.",
    EAGAIN "The transaction conflicts with another change: start again.",
    EISCONN "The domain is connected already.",
    E2BIG "The reply would be larger than a message.",
    EPERM "Only a privileged domain may do that.",
}

impl Errno {
    /// oxenstored's word for a used-up quota; not in the table of `xs_wire.h`.
    pub const EQUOTA: Self = Self(Cow::Borrowed("EQUOTA"));

    /// Checks the octets of a name, without the NUL: capital letters and digits, at most [`ERRNO_NAME_MAX`].
    pub fn from_octets(octets: &[u8]) -> Option<Self> {
        let known = Self::TABLE.iter().find(|name| name.as_bytes() == octets);
        if let Some(name) = known {
            return Some(Self(Cow::Borrowed(name)));
        }
        let fits = !octets.is_empty() && octets.len() <= ERRNO_NAME_MAX;
        let plain = octets.iter().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit());
        (fits && plain).then(|| Self(String::from_utf8_lossy(octets).into_owned().into()))
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// The position in the table of `xs_wire.h`; `None` for a name that is not in it.
    pub fn index(&self) -> Option<usize> {
        Self::TABLE.iter().position(|name| *name == self.0)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_the_headers_order() {
        assert_eq!(Errno::TABLE.len(), 16);
        assert_eq!((Errno::EINVAL.index(), Errno::EPERM.index()), (Some(0), Some(15)));
        assert_eq!(Errno::EAGAIN.index(), Some(12));
    }

    #[test]
    fn unknown_names_are_kept_and_garbage_is_not() {
        assert_eq!(Errno::from_octets(b"EQUOTA"), Some(Errno::EQUOTA));
        assert_eq!(Errno::EQUOTA.index(), None);
        assert_eq!(Errno::from_octets(b"EWHATEVER7").unwrap().name(), "EWHATEVER7");
        for garbage in [&b""[..], b"enoent", b"E\0", b"E NOENT", &[b'E'; ERRNO_NAME_MAX + 1]] {
            assert_eq!(Errno::from_octets(garbage), None, "{garbage:?}");
        }
    }
}
