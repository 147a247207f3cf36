//! The libxl stream: its header and the types of its records.

use std::fmt;

use super::fields::array;

/// The eight octets that a libxl stream begins with.
pub const LIBXL_IDENT: [u8; 8] = *b"LibxlFmt";

/// Octets of the header.
pub const LIBXL_HEADER_LEN: usize = 16;

const VERSION: u32 = 2;
const BIG_ENDIAN: u32 = 1;
const FROM_LEGACY: u32 = 2;

/// The header of a libxl stream of version 2; always big-endian itself.
///
/// ```text
/// octet  0           8             12
///        "LibxlFmt"  version u32   options u32 (bit 0: the records are big-endian, bit 1: made of a legacy stream)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LibxlHeader {
    /// The stream was converted from one of Xen 4.5 or before.
    pub from_legacy: bool,
}

impl LibxlHeader {
    /// The octets of the header.
    pub fn to_octets(self) -> [u8; LIBXL_HEADER_LEN] {
        let mut octets = [0; LIBXL_HEADER_LEN];
        let (ident, numbers) = octets.split_at_mut(8);
        let (version, options) = numbers.split_at_mut(4);
        ident.copy_from_slice(&LIBXL_IDENT);
        version.copy_from_slice(&VERSION.to_be_bytes());
        options.copy_from_slice(&(if self.from_legacy { FROM_LEGACY } else { 0 }).to_be_bytes());
        octets
    }

    /// Reads the octets of a header.
    ///
    /// # Errors
    ///
    /// If they are not those of a little-endian stream of version 2.
    pub fn from_octets(octets: &[u8; LIBXL_HEADER_LEN]) -> Result<Self, LibxlHeaderError> {
        if array::<8>(octets, 0) != LIBXL_IDENT {
            return Err(LibxlHeaderError::Ident);
        }
        match u32::from_be_bytes(array(octets, 8)) {
            VERSION => {}
            version => return Err(LibxlHeaderError::Version { version }),
        }
        let options = u32::from_be_bytes(array(octets, 12));
        if options & !(BIG_ENDIAN | FROM_LEGACY) != 0 {
            return Err(LibxlHeaderError::Options { options });
        }
        if options & BIG_ENDIAN != 0 {
            return Err(LibxlHeaderError::BigEndian);
        }
        Ok(Self { from_legacy: options & FROM_LEGACY != 0 })
    }
}

/// What a record of a libxl stream is.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LibxlType(pub u32);

impl LibxlType {
    /// Ends the stream.
    pub const END: Self = Self(0);
    /// A libxc image follows.
    pub const LIBXC_CONTEXT: Self = Self(1);
    /// What the emulator has in Xenstore.
    pub const EMULATOR_XENSTORE_DATA: Self = Self(2);
    /// The emulator's state.
    pub const EMULATOR_CONTEXT: Self = Self(3);
    /// Ends a checkpoint.
    pub const CHECKPOINT_END: Self = Self(4);
    /// How far the receiver of checkpoints is.
    pub const CHECKPOINT_STATE: Self = Self(5);

    const OPTIONAL: u32 = 1 << 31;

    /// Its name in the specification; `None` if it is not in there.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::END => "END",
            Self::LIBXC_CONTEXT => "LIBXC_CONTEXT",
            Self::EMULATOR_XENSTORE_DATA => "EMULATOR_XENSTORE_DATA",
            Self::EMULATOR_CONTEXT => "EMULATOR_CONTEXT",
            Self::CHECKPOINT_END => "CHECKPOINT_END",
            Self::CHECKPOINT_STATE => "CHECKPOINT_STATE",
            _ => return None,
        })
    }

    /// Whether a reader that does not know it may go on.
    pub const fn is_optional(self) -> bool {
        self.0 & Self::OPTIONAL != 0
    }
}

impl fmt::Display for LibxlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "type {:#x}", self.0),
        }
    }
}

impl fmt::Debug for LibxlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why octets are no header of a libxl stream that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LibxlHeaderError {
    /// The first octets are others.
    #[error("the first 8 octets are not `LibxlFmt`")]
    Ident,
    /// Another version.
    #[error("the libxl stream has version {version}, not {VERSION}")]
    Version {
        /// Which.
        version: u32,
    },
    /// Options that are not known.
    #[error("the libxl stream's options {options:#x} have bits set that are not known")]
    Options {
        /// All of them.
        options: u32,
    },
    /// The records are big-endian.
    #[error("the libxl stream is big-endian")]
    BigEndian,
}
