//! For whom a stream is written: deployed servers deviate from the specification.

use std::fmt;

use crate::preamble::Version;

/// Whose form of the stream a writer writes.
///
/// | | length of a record | WATCH_DATA_EXTENDED |
/// |---|---|---|
/// | [`Peer::Specification`] | without the padding behind it | as specified, in version 2 |
/// | [`Peer::C417`] | with it, a multiple of 8 | none: refused, as is version 2 |
/// | [`Peer::C2026`] | with it, a multiple of 8 | in version 2, the path at octet 10 |
/// | [`Peer::C2026Written`] | with it, a multiple of 8 | without depth, the path at octet 8, in either version |
///
/// C xenstored loses its way after a record whose length is not a multiple of 8, and starts with what it had read up to there.
/// Its extended watches cannot be read by itself, so that there are two forms for it: the one it reads, and the one it
/// writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// Whoever follows the specification.
    #[default]
    Specification,
    /// C xenstored of Xen 4.17 and its neighbours, which know version 1 only.
    C417,
    /// C xenstored as of 2026 (Xen 4.22), as it reads.
    C2026,
    /// C xenstored as of 2026, as it writes. For streams to be the same, octet for octet; what is to be read by it is
    /// better written for [`Peer::C2026`].
    C2026Written,
}

impl Peer {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Specification, Self::C417, Self::C2026, Self::C2026Written];

    /// The name on command lines and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Specification => "specification",
            Self::C417 => "c-4.17",
            Self::C2026 => "c-2026",
            Self::C2026Written => "c-2026-written",
        }
    }

    /// Whether the length of a record counts the padding behind its fields.
    pub(crate) const fn counts_padding(self) -> bool {
        !matches!(self, Self::Specification)
    }

    /// Where the path of an extended watch begins, if the peer has extended watches.
    pub(crate) const fn extended_watch(self) -> Option<ExtendedForm> {
        match self {
            Self::Specification => Some(ExtendedForm::Specified),
            Self::C417 => None,
            Self::C2026 => Some(ExtendedForm::WithoutPad),
            Self::C2026Written => Some(ExtendedForm::WithoutDepth),
        }
    }

    /// Whether the peer knows this version.
    pub const fn knows(self, version: Version) -> bool {
        !matches!((self, version), (Self::C417, Version::V2))
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The forms of WATCH_DATA_EXTENDED there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExtendedForm {
    /// depth, two octets of zero, path at octet 12.
    Specified,
    /// depth, path at octet 10.
    WithoutPad,
    /// Path at octet 8, and the record's length as if it were at octet 12.
    WithoutDepth,
}
