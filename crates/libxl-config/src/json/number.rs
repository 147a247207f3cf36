//! Numbers, kept as they were spelled.

/// A JSON number as its lexeme, so that `007`, `1e3` and 2^64 survive being read and written.
///
/// Two numbers are equal if they are spelled alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Number(Box<str>);

impl Number {
    /// A lexeme the parser or another bridge has checked.
    pub(crate) fn from_lexeme(lexeme: &str) -> Number {
        Number(lexeme.into())
    }

    /// The spelling.
    pub fn lexeme(&self) -> &str {
        &self.0
    }

    /// The value if it is spelled as an integer (digits with an optional minus sign) and fits.
    pub fn integer(&self) -> Option<i128> {
        let digits = self.0.strip_prefix('-').unwrap_or(&self.0);
        let plain = !digits.is_empty() && digits.bytes().all(|octet| octet.is_ascii_digit());
        if plain { self.0.parse().ok() } else { None }
    }

    /// Whether the spelling is that of an integer, however large.
    pub fn is_integer(&self) -> bool {
        let digits = self.0.strip_prefix('-').unwrap_or(&self.0);
        !digits.is_empty() && digits.bytes().all(|octet| octet.is_ascii_digit())
    }

    /// The value of an integer with an exponent and no dot, such as `1e3`, if it is a whole number that fits.
    pub fn exponent_integer(&self) -> Option<i128> {
        let (mantissa, exponent) = self.0.split_once(['e', 'E'])?;
        let mantissa: i128 = Number::from_lexeme(mantissa).integer()?;
        let exponent: i32 = exponent.parse().ok()?;
        if mantissa == 0 {
            return Some(0);
        }
        let scale = 10i128.checked_pow(exponent.unsigned_abs())?;
        if exponent >= 0 {
            mantissa.checked_mul(scale)
        } else if mantissa % scale == 0 {
            Some(mantissa / scale)
        } else {
            None
        }
    }

    /// The nearest double; `NaN` and the infinities of json-c included.
    pub fn as_f64(&self) -> f64 {
        let lower = self.0.to_ascii_lowercase();
        let text = lower.strip_suffix('e').unwrap_or(&lower);
        text.parse().unwrap_or(f64::NAN)
    }
}

impl From<i64> for Number {
    fn from(value: i64) -> Number {
        Number(value.to_string().into())
    }
}

impl From<u64> for Number {
    fn from(value: u64) -> Number {
        Number(value.to_string().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponents_are_read_exactly_or_not_at_all() {
        let value = |text| Number::from_lexeme(text).exponent_integer();
        assert_eq!(value("1e3"), Some(1000));
        assert_eq!(value("-2E+2"), Some(-200));
        assert_eq!(value("1000e-3"), Some(1));
        assert_eq!(value("0e999999"), Some(0));
        assert_eq!(value("1e-3"), None);
        assert_eq!(value("1e999999999"), None);
        assert_eq!(value("1e"), None);
        assert_eq!(value("1.5e3"), None);
        assert_eq!(value("1000"), None);
    }
}
