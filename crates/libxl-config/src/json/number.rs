//! Numbers, kept as they were spelled.

use std::borrow::Cow;

/// A JSON number as its lexeme, so that `007`, `1e3` and 2^64 survive being read and written.
///
/// Two numbers are equal if they are spelled alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Number(Spelling);

/// The usual spelling takes no memory of its own: a list of bits would need eight times the size of its text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Spelling {
    /// As decimal digits without leading zeros.
    Plain(u64),
    /// Any other way.
    Lexeme(Box<str>),
}

impl Number {
    /// A lexeme the parser or another bridge has checked.
    pub(crate) fn from_lexeme(lexeme: &str) -> Number {
        let plain = lexeme.bytes().all(|octet| octet.is_ascii_digit())
            && (lexeme == "0" || !lexeme.starts_with('0'));
        match lexeme.parse() {
            Ok(value) if plain => Number(Spelling::Plain(value)),
            _ => Number(Spelling::Lexeme(lexeme.into())),
        }
    }

    /// The spelling.
    pub fn lexeme(&self) -> Cow<'_, str> {
        match &self.0 {
            Spelling::Plain(value) => Cow::Owned(value.to_string()),
            Spelling::Lexeme(lexeme) => Cow::Borrowed(lexeme),
        }
    }

    /// The value if it is spelled as an integer (digits with an optional minus sign) and fits.
    pub fn integer(&self) -> Option<i128> {
        match &self.0 {
            Spelling::Plain(value) => Some(i128::from(*value)),
            Spelling::Lexeme(lexeme) if is_integer(lexeme) => lexeme.parse().ok(),
            Spelling::Lexeme(_) => None,
        }
    }

    /// Whether the spelling is that of an integer, however large.
    pub fn is_integer(&self) -> bool {
        match &self.0 {
            Spelling::Plain(_) => true,
            Spelling::Lexeme(lexeme) => is_integer(lexeme),
        }
    }

    /// The value of an integer with an exponent and no dot, such as `1e3`, if it is a whole number that fits.
    pub fn exponent_integer(&self) -> Option<i128> {
        let Spelling::Lexeme(lexeme) = &self.0 else { return None };
        let (mantissa, exponent) = lexeme.split_once(['e', 'E'])?;
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
        let lower = self.lexeme().to_ascii_lowercase();
        let text = lower.strip_suffix('e').unwrap_or(&lower);
        text.parse().unwrap_or(f64::NAN)
    }
}

impl From<i64> for Number {
    fn from(value: i64) -> Number {
        Number::from_lexeme(&value.to_string())
    }
}

impl From<u64> for Number {
    fn from(value: u64) -> Number {
        Number(Spelling::Plain(value))
    }
}

fn is_integer(lexeme: &str) -> bool {
    let digits = lexeme.strip_prefix('-').unwrap_or(lexeme);
    !digits.is_empty() && digits.bytes().all(|octet| octet.is_ascii_digit())
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
