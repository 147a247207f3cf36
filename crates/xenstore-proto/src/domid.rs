//! Domain ids.

use std::fmt;
use std::str::FromStr;

/// The id of a domain: 16 bits, of which the numbers from [`DomId::FIRST_RESERVED`] on have meanings of their own.
///
/// Specified in Xen's public header `xen.h` (`domid_t`, `DOMID_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomId(u16);

impl DomId {
    /// The control domain on hosts without a separate one.
    pub const DOM0: Self = Self(0);
    /// The first number that never names a real domain.
    pub const FIRST_RESERVED: Self = Self(0x7FF0);
    /// `DOMID_SELF`: the caller's own domain.
    pub const SELF: Self = Self(0x7FF0);
    /// `DOMID_INVALID`: no domain.
    pub const INVALID: Self = Self(0x7FF4);
    /// `DOMID_ANY`: every domain, in permissions on servers that offer it.
    pub const ANY: Self = Self(0x7FF5);

    /// Any 16-bit number, reserved ones included.
    pub const fn new(number: u16) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// Whether the number can name a domain that exists.
    pub const fn is_real(self) -> bool {
        self.0 < Self::FIRST_RESERVED.0
    }
}

impl fmt::Display for DomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<u16> for DomId {
    fn from(number: u16) -> Self {
        Self(number)
    }
}

impl From<DomId> for u16 {
    fn from(domid: DomId) -> Self {
        domid.0
    }
}

/// A text that is not a domain id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a domain id: want a decimal number from 0 to 65535, digits only")]
pub struct DomIdError;

impl FromStr for DomId {
    type Err = DomIdError;

    fn from_str(text: &str) -> Result<Self, DomIdError> {
        decimal(text.as_bytes()).and_then(|n| u16::try_from(n).ok()).map(Self).ok_or(DomIdError)
    }
}

/// A number written with digits only: no sign, no blank, nothing after it.
pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |n, &c| {
        c.is_ascii_digit().then_some(())?;
        n.checked_mul(10)?.checked_add(u64::from(c - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_decimal_numbers_of_16_bits_are_domids() {
        assert_eq!("65535".parse(), Ok(DomId::new(65535)));
        assert_eq!("007".parse(), Ok(DomId::new(7)));
        for bad in ["", "-1", "+1", " 1", "1 ", "65536", "0x10", "18446744073709551616"] {
            assert_eq!(bad.parse::<DomId>(), Err(DomIdError), "{bad:?}");
        }
    }

    #[test]
    fn reserved_numbers_are_not_real_domains() {
        assert!(DomId::DOM0.is_real() && DomId::new(0x7FEF).is_real());
        assert!(!DomId::SELF.is_real() && !DomId::ANY.is_real() && !DomId::new(65535).is_real());
    }
}
