//! The 16 octets a stream begins with.

use std::fmt;

/// `xenstore` in ASCII: the first eight octets.
pub(crate) const IDENT: [u8; 8] = *b"xenstore";

/// Octets of the preamble.
pub(crate) const PREAMBLE_LEN: usize = 16;

/// The flag that says the records are big-endian; all others are reserved.
const BIG_ENDIAN: u32 = 1;

/// Which text of the specification a stream follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// Version 1.
    V1,
    /// Version 2: extended watches, and the features of a domain.
    V2,
}

impl Version {
    /// The number in the preamble.
    pub const fn number(self) -> u32 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}

/// The byte order of the records. That of the preamble is always big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ByteOrder {
    /// Least significant octet first.
    Little,
    /// Most significant octet first.
    Big,
}

impl ByteOrder {
    /// The order of the machine this is compiled for. C xenstored reads no other.
    pub const NATIVE: Self = if cfg!(target_endian = "big") { Self::Big } else { Self::Little };

    /// The name on command lines and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Little => "little",
            Self::Big => "big",
        }
    }
}

impl fmt::Display for ByteOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Little => "little-endian",
            Self::Big => "big-endian",
        })
    }
}

/// What the first 16 octets of a stream say.
///
/// ```text
/// octet  0                8            12
///        "xenstore"       version u32  flags u32 (bit 0: the records are big-endian)
/// ```
///
/// Always big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Preamble {
    /// Which version of the specification.
    pub version: Version,
    /// How the numbers in the records are written.
    pub byte_order: ByteOrder,
}

impl Preamble {
    /// A preamble.
    pub const fn new(version: Version, byte_order: ByteOrder) -> Self {
        Self { version, byte_order }
    }

    /// The octets of the preamble.
    pub fn to_octets(self) -> [u8; PREAMBLE_LEN] {
        let mut octets = [0; PREAMBLE_LEN];
        let (ident, rest) = octets.split_at_mut(8);
        let (version, flags) = rest.split_at_mut(4);
        ident.copy_from_slice(&IDENT);
        version.copy_from_slice(&self.version.number().to_be_bytes());
        let big = self.byte_order == ByteOrder::Big;
        flags.copy_from_slice(&(if big { BIG_ENDIAN } else { 0 }).to_be_bytes());
        octets
    }

    /// Reads the octets of a preamble.
    ///
    /// # Errors
    ///
    /// If they are not those of a stream of version 1 or 2.
    pub fn from_octets(octets: &[u8; PREAMBLE_LEN]) -> Result<Self, PreambleError> {
        let [a, b, c, d, e, f, g, h, v0, v1, v2, v3, f0, f1, f2, f3] = *octets;
        if [a, b, c, d, e, f, g, h] != IDENT {
            return Err(PreambleError::Ident);
        }
        let version = match u32::from_be_bytes([v0, v1, v2, v3]) {
            1 => Version::V1,
            2 => Version::V2,
            version => return Err(PreambleError::Version { version }),
        };
        let byte_order = match u32::from_be_bytes([f0, f1, f2, f3]) {
            0 => ByteOrder::Little,
            BIG_ENDIAN => ByteOrder::Big,
            flags => return Err(PreambleError::Flags { flags }),
        };
        Ok(Self { version, byte_order })
    }
}

/// Why 16 octets are no preamble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PreambleError {
    /// Something else than a stream.
    #[error("no xenstore-migration stream: the octets from 0 to 7 are not `xenstore`")]
    Ident,
    /// A version not known here.
    #[error("version {version} at octet 8 is neither 1 nor 2")]
    Version {
        /// What the stream says.
        version: u32,
    },
    /// Reserved flags.
    #[error("flags {flags:#010x} at octet 12 have reserved bits set")]
    Flags {
        /// What the stream says.
        flags: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preamble_reads_as_it_was_written() {
        for version in [Version::V1, Version::V2] {
            for byte_order in [ByteOrder::Little, ByteOrder::Big] {
                let preamble = Preamble { version, byte_order };
                assert_eq!(Preamble::from_octets(&preamble.to_octets()), Ok(preamble));
            }
        }
    }

    #[test]
    fn every_flipped_bit_makes_another_preamble_or_none() {
        let preamble = Preamble::new(Version::V2, ByteOrder::Little);
        for bit in 0..PREAMBLE_LEN * 8 {
            let mut octets = preamble.to_octets();
            octets[bit / 8] ^= 1 << (bit % 8);
            match Preamble::from_octets(&octets) {
                Ok(other) => assert_eq!(other.byte_order, ByteOrder::Big, "bit {bit}"),
                Err(PreambleError::Ident) => assert!(bit < 64),
                Err(PreambleError::Version { .. }) => assert!((64..96).contains(&bit)),
                Err(PreambleError::Flags { .. }) => assert!(bit >= 96),
            }
        }
    }
}
