//! What a field of the schema can do: be read from a JSON value, be written as one, be left out.

use crate::finding::FindingKind;
use crate::json::{Place, Value};
use crate::sink::Sink;

/// A type that fields of the schema have.
pub(crate) trait Field: Clone + PartialEq + Sized {
    /// Whether this is a record or a list of records, which remember by themselves what was read.
    const NESTED: bool = false;

    /// The type's name in libxl's schema; of a list, that of its elements in brackets.
    fn schema_type() -> String;

    /// The value, or `None` with a finding if libxl would not see one here either.
    fn parse(raw: &Value, place: &Place<'_>, sink: &mut Sink) -> Option<Self>;

    /// The JSON value, written anew; `raw` is what was read, for types with more than one form.
    fn emit(&self, raw: Option<&Value>, style: Style) -> Value;

    /// Whether a member of that name belongs to the field of that name.
    fn claims(name: &str, key: &str) -> bool {
        name == key
    }

    /// [`Field::parse`] for a type that needs the key as well.
    fn parse_member(key: &str, raw: &Value, place: &Place<'_>, sink: &mut Sink) -> Option<Self> {
        let _ = key;
        Self::parse(raw, place, sink)
    }

    /// The key it is written under.
    fn key(&self, name: &'static str, raw: Option<(&str, &Value)>) -> String {
        let _ = raw;
        name.to_owned()
    }

    /// What has to be remembered of the value read, to write it back unchanged.
    fn keep(raw: &Value) -> Value {
        raw.clone()
    }

    /// The value to write, or `None` to leave it out.
    fn write(&self, default: &Self, raw: Option<(&str, &Value)>, how: How) -> Option<Value> {
        if let (Some((key, raw)), Style::Keep) = (raw, how.style) {
            let read = Self::parse_member(key, raw, &Place::root(), &mut Sink::quiet());
            if read.as_ref().unwrap_or(default) == self {
                return Some(raw.clone());
            }
        }
        if self == default { None } else { Some(self.emit(raw.map(|(_, raw)| raw), how.style)) }
    }

    /// Forgets what was read, here and below.
    fn forget(&mut self) {}
}

/// How much of what was read goes into what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// All that still holds.
    Keep,
    /// Unknown keys only: equal fields are written alike.
    Canonical,
}

/// The circumstances of writing one field.
#[derive(Clone, Copy, Debug)]
pub(crate) struct How {
    pub(crate) style: Style,
    /// The record was not read from JSON, so aggregates are written even if empty, as libxl does.
    pub(crate) fresh: bool,
    /// Xen 4.17 does not have the field, so it is written only if set.
    pub(crate) new: bool,
}

/// A list: each element by its own rules. Of a list of plain values that has not changed, the text read is kept.
impl<T: Field> Field for Vec<T> {
    const NESTED: bool = T::NESTED;

    fn schema_type() -> String {
        format!("[{}]", T::schema_type())
    }

    fn parse(raw: &Value, place: &Place<'_>, sink: &mut Sink) -> Option<Vec<T>> {
        let elements = array(raw, place, sink)?;
        let mut list = Vec::new();
        for (index, element) in elements.iter().enumerate() {
            if T::NESTED && !sink.admit_struct() {
                break;
            }
            let place = place.index(index, element.offset().unwrap_or(place.offset));
            list.extend(T::parse(element, &place, sink));
        }
        Some(list)
    }

    fn emit(&self, _raw: Option<&Value>, style: Style) -> Value {
        self.iter().map(|element| element.emit(None, style)).collect()
    }

    fn keep(raw: &Value) -> Value {
        match raw {
            // Its records remember themselves; left to know is whether the list was empty.
            Value::Array(elements) if T::NESTED => {
                elements.iter().take(1).map(|_| Value::Null).collect()
            }
            _ => raw.clone(),
        }
    }

    fn write(&self, default: &Self, raw: Option<(&str, &Value)>, how: How) -> Option<Value> {
        match raw {
            Some((_, raw)) if how.style == Style::Keep => {
                let unchanged = match raw {
                    Value::Array(elements) if T::NESTED => self.is_empty() && elements.is_empty(),
                    _ => {
                        Self::parse(raw, &Place::root(), &mut Sink::quiet()).unwrap_or_default()
                            == *self
                    }
                };
                if unchanged {
                    return Some(raw.clone());
                }
            }
            _ => {}
        }
        if self == default { None } else { Some(self.emit(None, how.style)) }
    }

    fn forget(&mut self) {
        self.iter_mut().for_each(T::forget);
    }
}

/// An optional value has no default of its own: it is there or not.
impl<T: Field> Field for Option<T> {
    fn schema_type() -> String {
        T::schema_type()
    }

    fn parse(raw: &Value, place: &Place<'_>, sink: &mut Sink) -> Option<Option<T>> {
        T::parse(raw, place, sink).map(Some)
    }

    fn emit(&self, raw: Option<&Value>, style: Style) -> Value {
        self.as_ref().map_or(Value::Null, |value| value.emit(raw, style))
    }
}

impl Field for String {
    fn schema_type() -> String {
        "string".to_owned()
    }

    fn parse(raw: &Value, place: &Place<'_>, sink: &mut Sink) -> Option<String> {
        string(raw, place, sink).map(str::to_owned)
    }

    fn emit(&self, _raw: Option<&Value>, _style: Style) -> Value {
        self.as_str().into()
    }
}

impl Field for bool {
    fn schema_type() -> String {
        "bool".to_owned()
    }

    fn parse(raw: &Value, place: &Place<'_>, sink: &mut Sink) -> Option<bool> {
        match raw {
            Value::Bool(value) => Some(*value),
            _ => wrong_type(raw, "a boolean", place, sink),
        }
    }

    fn emit(&self, _raw: Option<&Value>, _style: Style) -> Value {
        (*self).into()
    }
}

macro_rules! integers {
    ($($type:ident $name:literal $wide:ident;)*) => { $(
        impl Field for $type {
            fn schema_type() -> String {
                $name.to_owned()
            }

            fn parse(raw: &Value, place: &Place<'_>, sink: &mut Sink) -> Option<$type> {
                let value = integer(raw, place, sink)?;
                in_range($type::try_from(value).ok(), $name, raw, place, sink)
            }

            fn emit(&self, _raw: Option<&Value>, _style: Style) -> Value {
                $wide::from(*self).into()
            }
        }
    )* };
}

integers! {
    u8 "u8" u64;
    i32 "i32" i64;
}

impl Field for u64 {
    fn schema_type() -> String {
        "u64".to_owned()
    }

    fn parse(raw: &Value, place: &Place<'_>, sink: &mut Sink) -> Option<u64> {
        let value = integer(raw, place, sink)?;
        let value = in_range(u64::try_from(value).ok(), "u64", raw, place, sink)?;
        if value > i64::MAX.cast_unsigned() {
            sink.note(place, FindingKind::BeyondI64 { lexeme: lexeme(raw) });
        }
        Some(value)
    }

    fn emit(&self, _raw: Option<&Value>, _style: Style) -> Value {
        (*self).into()
    }
}

impl Field for u32 {
    fn schema_type() -> String {
        "u32".to_owned()
    }

    fn parse(raw: &Value, place: &Place<'_>, sink: &mut Sink) -> Option<u32> {
        unsigned32(raw, "u32", place, sink)
    }

    fn emit(&self, _raw: Option<&Value>, _style: Style) -> Value {
        u64::from(*self).into()
    }
}

/// A `u32`, negative as json-c builds of libxl write one from 2^31 included.
pub(crate) fn unsigned32(
    raw: &Value,
    expected: &'static str,
    place: &Place<'_>,
    sink: &mut Sink,
) -> Option<u32> {
    let value = integer(raw, place, sink)?;
    if let Some(value) = i32::try_from(value).ok().filter(|value| *value < 0) {
        let value = value.cast_unsigned();
        sink.note(place, FindingKind::NegativeUnsigned { lexeme: lexeme(raw), value });
        return Some(value);
    }
    in_range(u32::try_from(value).ok(), expected, raw, place, sink)
}

/// An integer, with what libxl would not see as one noted.
pub(crate) fn integer(raw: &Value, place: &Place<'_>, sink: &mut Sink) -> Option<i128> {
    let Value::Number(number) = raw else {
        return wrong_type(raw, "an integer", place, sink);
    };
    if let Some(value) = number.exponent_integer() {
        sink.note(place, FindingKind::Exponent { lexeme: lexeme(raw), value });
        return Some(value);
    }
    if !number.is_integer() {
        sink.note(place, FindingKind::WrongType { expected: "an integer", found: "a fraction" });
        return None;
    }
    let value = number.integer();
    in_range(value, "any integer", raw, place, sink)
}

pub(crate) fn in_range<T>(
    value: Option<T>,
    expected: &'static str,
    raw: &Value,
    place: &Place<'_>,
    sink: &mut Sink,
) -> Option<T> {
    if value.is_none() {
        sink.note(place, FindingKind::OutOfRange { expected, lexeme: lexeme(raw) });
    }
    value
}

/// The spelling of a number, shortened for a message.
pub(crate) fn lexeme(raw: &Value) -> String {
    match raw {
        Value::Number(number) => crate::json::shorten(&number.lexeme()),
        _ => String::new(),
    }
}

pub(crate) fn string<'v>(raw: &'v Value, place: &Place<'_>, sink: &mut Sink) -> Option<&'v str> {
    match raw {
        Value::String(text) => Some(text),
        _ => wrong_type(raw, "a string", place, sink),
    }
}

pub(crate) fn array<'v>(raw: &'v Value, place: &Place<'_>, sink: &mut Sink) -> Option<&'v [Value]> {
    match raw {
        Value::Array(elements) => Some(elements),
        _ => wrong_type(raw, "an array", place, sink),
    }
}

pub(crate) fn wrong_type<T>(
    raw: &Value,
    expected: &'static str,
    place: &Place<'_>,
    sink: &mut Sink,
) -> Option<T> {
    let found = raw.type_name();
    let kind = if place.is_element() {
        FindingKind::WrongElement { expected, found }
    } else {
        FindingKind::WrongType { expected, found }
    };
    sink.note(place, kind);
    None
}
