//! Names of quotas and bits of features.

use std::fmt;
use std::str::FromStr;

use crate::payload::PayloadError;

/// The name of a quota (`nodes`, `watches`, `path-max`): letters, digits, `-` and `_`. Which names exist is the server's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuotaName(Box<str>);

impl QuotaName {
    /// Checks the octets of a name, without the NUL.
    pub fn from_octets(octets: &[u8]) -> Result<Self, PayloadError> {
        const WRONG: PayloadError = PayloadError::Word {
            what: "name of the quota",
            allowed: "words of letters, digits, - and _",
        };
        let plain = |c: &u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_');
        if octets.is_empty() || !octets.iter().all(plain) {
            return Err(WRONG);
        }
        str::from_utf8(octets).map(|name| Self(name.into())).map_err(|_| WRONG)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for QuotaName {
    type Err = PayloadError;

    fn from_str(text: &str) -> Result<Self, PayloadError> {
        Self::from_octets(text.as_bytes())
    }
}

impl fmt::Display for QuotaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a server offers, as a set of bits. Bits without a name here are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features(pub u32);

impl Features {
    /// A guest can ask for its connection to be reset.
    pub const RECONNECT: Self = Self(1);
    /// The ring page tells the guest about errors.
    pub const ERROR: Self = Self(2);
    /// WATCH takes a depth.
    pub const WATCH_DEPTH: Self = Self(4);
    /// Permissions may name [`crate::DomId::ANY`].
    pub const ANY_DOMAIN: Self = Self(8);

    /// Whether all bits of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}
