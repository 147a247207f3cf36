//! Key and field: what libxl writes for a field, and what a value is taken for.

use super::Live;
use crate::retrieve::report::BadValue;

/// How one key and one field belong together.
pub(in crate::retrieve) struct Rule<D: 'static> {
    pub(in crate::retrieve) key: &'static str,
    /// The field's name in JSON.
    pub(in crate::retrieve) field: &'static str,
    /// What libxl would have written under the key for this entry.
    pub(in crate::retrieve) expected: fn(&D, &Live<'_>) -> Expected,
    /// Takes the value of the key into the entry.
    pub(in crate::retrieve) take: fn(&mut D, &str, &Live<'_>) -> Result<(), BadValue>,
    /// What it means that the key is not there although it was expected.
    pub(in crate::retrieve) absent: Absence<D>,
}

impl<D> Rule<D> {
    /// Whether the value is a password.
    pub(in crate::retrieve) fn is_secret(&self) -> bool {
        self.field == "vnc.passwd"
    }
}

/// What libxl would have written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::retrieve) enum Expected {
    /// Whatever stands there: the entry leaves it to libxl.
    Anything,
    /// Whatever stands there: it is not libxl's.
    Foreign,
    /// No such key.
    Nothing,
    Text(String),
    /// A name that libxl completes to a path in its directory of scripts, which is the host's own.
    Script(String),
}

impl Expected {
    #[expect(clippy::needless_pass_by_value, reason = "most callers have a number or a constant")]
    pub(in crate::retrieve) fn text(text: impl ToString) -> Self {
        Self::Text(text.to_string())
    }

    /// A key that is written only if the field is set.
    pub(in crate::retrieve) fn optional(field: Option<&str>) -> Self {
        field.map_or(Self::Nothing, Self::text)
    }

    pub(in crate::retrieve) fn flag(set: bool) -> Self {
        Self::text(u8::from(set))
    }

    pub(in crate::retrieve) fn is_met_by(&self, live: Option<&str>) -> bool {
        match (self, live) {
            (Self::Anything | Self::Foreign, _) | (Self::Nothing, None) => true,
            (Self::Text(text), Some(live)) => text == live,
            (Self::Script(name), Some(live)) => {
                live == name || live.rsplit('/').next() == Some(name)
            }
            _ => false,
        }
    }

    /// As text for a report.
    pub(in crate::retrieve) fn shown(&self) -> Option<String> {
        match self {
            Self::Anything | Self::Foreign | Self::Nothing => None,
            Self::Text(text) | Self::Script(text) => Some(text.clone()),
        }
    }
}

/// A key that holds the text of a field, and is there only if the field is set.
macro_rules! text_rule {
    ($device:ty, $key:literal, $field:ident) => {
        text_rule!($device, $key, $field, $key)
    };
    ($device:ty, $key:literal, $($field:ident).+, $name:literal) => {
        $crate::retrieve::class::Rule {
            key: $key,
            field: $name,
            expected: |device: &$device, _| $crate::retrieve::class::Expected::optional(device.$($field).+.as_deref()),
            take: |device, live, _| {
                device.$($field).+ = Some(live.to_owned());
                Ok(())
            },
            absent: $crate::retrieve::class::Absence::Clear(|device| device.$($field).+ = None),
        }
    };
}
pub(super) use text_rule;

/// A key that holds a number; 0 in the field leaves it to libxl.
macro_rules! number_rule {
    ($device:ty, $key:literal, $field:ident, $name:literal) => {
        $crate::retrieve::class::Rule {
            key: $key,
            field: $name,
            expected: |device: &$device, _| match device.$field {
                0 => $crate::retrieve::class::Expected::Anything,
                number => $crate::retrieve::class::Expected::text(number),
            },
            take: |device, live, _| {
                device.$field = $crate::retrieve::class::rule::number(live)?;
                Ok(())
            },
            absent: $crate::retrieve::class::Absence::Keep,
        }
    };
}
pub(super) use number_rule;

/// A key that holds a number, and is there only if the field is not 0.
macro_rules! nonzero_rule {
    ($device:ty, $key:literal, $field:ident, $name:literal) => {
        $crate::retrieve::class::Rule {
            key: $key,
            field: $name,
            expected: |device: &$device, _| match device.$field {
                0 => $crate::retrieve::class::Expected::Nothing,
                number => $crate::retrieve::class::Expected::text(number),
            },
            take: |device, live, _| {
                device.$field = $crate::retrieve::class::rule::number(live)?;
                Ok(())
            },
            absent: $crate::retrieve::class::Absence::Clear(|device| device.$field = 0),
        }
    };
}
pub(super) use nonzero_rule;

/// A key that holds `1`, and is there only if the field is set.
macro_rules! set_flag_rule {
    ($device:ty, $key:literal, $field:ident, $name:literal) => {
        $crate::retrieve::class::Rule {
            key: $key,
            field: $name,
            expected: |device: &$device, _| match device.$field {
                true => $crate::retrieve::class::Expected::flag(true),
                false => $crate::retrieve::class::Expected::Nothing,
            },
            take: |device, live, _| {
                device.$field = $crate::retrieve::class::rule::flag(live)?;
                Ok(())
            },
            absent: $crate::retrieve::class::Absence::Clear(|device| device.$field = false),
        }
    };
}
pub(super) use set_flag_rule;

/// A key that holds `0` or `1`, with what libxl writes where the field leaves it open: a function of the entry.
macro_rules! defbool_rule {
    ($device:ty, $key:literal, $($field:ident).+, $name:literal, $default:expr) => {
        $crate::retrieve::class::Rule {
            key: $key,
            field: $name,
            expected: |device: &$device, _| match device.$($field).+ {
                $crate::model::DefBool::True => $crate::retrieve::class::Expected::flag(true),
                $crate::model::DefBool::False => $crate::retrieve::class::Expected::flag(false),
                $crate::model::DefBool::Default => $default(device),
            },
            take: |device, live, _| {
                device.$($field).+ = if $crate::retrieve::class::rule::flag(live)? { $crate::model::DefBool::True } else { $crate::model::DefBool::False };
                Ok(())
            },
            absent: $crate::retrieve::class::Absence::Keep,
        }
    };
}
pub(super) use defbool_rule;

/// A key that holds one of two words, for a field that is 0 or 1.
macro_rules! word_rule {
    ($device:ty, $key:literal, $field:ident, $name:literal, $zero:literal or $one:literal) => {
        $crate::retrieve::class::Rule {
            key: $key,
            field: $name,
            expected: |device: &$device, _| {
                $crate::retrieve::class::Expected::text(if device.$field == 0 {
                    $zero
                } else {
                    $one
                })
            },
            take: |device, live, _| {
                device.$field = match live {
                    $zero => 0,
                    $one => 1,
                    _ => {
                        let wanted = concat!($zero, " or ", $one);
                        return Err($crate::retrieve::report::BadValue::not_a(live, wanted));
                    }
                };
                Ok(())
            },
            absent: $crate::retrieve::class::Absence::Keep,
        }
    };
}
pub(super) use word_rule;

/// A key that holds one of some names; any other value of the field leaves it to libxl.
macro_rules! enum_rule {
    ($device:ty, $key:literal, $field:ident, $name:literal,
     $type:ident { $($variant:ident = $text:literal),+ }, $wanted:literal) => {
        $crate::retrieve::class::Rule {
            key: $key,
            field: $name,
            expected: |device: &$device, _| match device.$field {
                $( $type::$variant => $crate::retrieve::class::Expected::text($text), )+
                _ => $crate::retrieve::class::Expected::Anything,
            },
            take: |device, live, _| {
                device.$field = match live {
                    $( $text => $type::$variant, )+
                    _ => return Err($crate::retrieve::report::BadValue::not_a(live, $wanted)),
                };
                Ok(())
            },
            absent: $crate::retrieve::class::Absence::Keep,
        }
    };
}
pub(super) use enum_rule;

/// What it means that an expected key is not there.
pub(in crate::retrieve) enum Absence<D> {
    /// Nothing: not every version writes it.
    Keep,
    /// The field has this value.
    Clear(fn(&mut D)),
}

/// A path to a hotplug script as the template would have it: the bare name, if libxl's directory completes it.
pub(in crate::retrieve) fn script_name(live: &str) -> String {
    live.strip_prefix(SCRIPT_DIRECTORY)
        .filter(|name| !name.contains('/'))
        .unwrap_or(live)
        .to_owned()
}

/// Where libxl looks for scripts that are given without a path, unless built otherwise.
const SCRIPT_DIRECTORY: &str = "/etc/xen/scripts/";

/// A script: given by path or by name, or the class's default.
pub(in crate::retrieve) fn expected_script(field: Option<&str>, default: &'static str) -> Expected {
    match field {
        Some(path) if path.starts_with('/') => Expected::text(path),
        Some(name) => Expected::Script(name.to_owned()),
        None => Expected::Script(default.to_owned()),
    }
}

/// Reads a number of Xenstore.
pub(in crate::retrieve) fn number<N: std::str::FromStr>(text: &str) -> Result<N, BadValue> {
    text.parse().map_err(|_| BadValue::not_a(text, "a number that fits"))
}

/// Reads `0` or `1`.
pub(in crate::retrieve) fn flag(text: &str) -> Result<bool, BadValue> {
    match text {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err(BadValue::not_a(text, "0 or 1")),
    }
}

/// Reads hexadecimal digits, with nothing before them.
pub(in crate::retrieve) fn hexadecimal(digits: &str) -> Option<u64> {
    // A sign would do for the parser.
    let all_digits = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    if all_digits { u64::from_str_radix(digits, 16).ok() } else { None }
}
