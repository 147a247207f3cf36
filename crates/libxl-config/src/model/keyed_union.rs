//! Keyed unions: one member whose key ends in the name of the variant, as in `type.hvm`.

use super::field::{How, Style};
use super::schema::EnumInfo;
use crate::finding::FindingKind;
use crate::json::{Object, Place, Value};
use crate::sink::Sink;

/// A keyed union of the schema. Implemented by the [`keyed_union!`] table.
pub(crate) trait KeyedUnion: Clone + PartialEq + Default {
    const INFO: EnumInfo;
    fn variant_name(&self) -> &'static str;
    fn parse_variant(
        name: &str,
        object: &Value,
        place: &Place<'_>,
        sink: &mut Sink,
    ) -> Option<Self>;
    /// `None` for a variant that holds nothing.
    fn emit_payload(&self, style: Style) -> Option<Value>;
    fn forget_payload(&mut self);
}

pub(crate) fn claims<U: KeyedUnion>(name: &str, key: &str) -> bool {
    variant_of(name, key)
        .is_some_and(|variant| U::INFO.values.iter().any(|(known, _)| *known == variant))
}

pub(crate) fn parse_member<U: KeyedUnion>(
    key: &str,
    raw: &Value,
    place: &Place<'_>,
    sink: &mut Sink,
) -> Option<U> {
    if raw.as_object().is_none() {
        sink.note(place, FindingKind::WrongType { expected: "an object", found: raw.type_name() });
        return None;
    }
    let (_, variant) = key.split_once('.')?;
    U::parse_variant(variant, raw, place, sink)
}

pub(crate) fn key<U: KeyedUnion>(
    union: &U,
    name: &'static str,
    raw: Option<(&str, &Value)>,
) -> String {
    match raw {
        // What was read chose no variant, and none has been chosen since.
        Some((key, raw)) if raw.as_object().is_none() && *union == U::default() => key.to_owned(),
        _ => format!("{name}.{}", union.variant_name()),
    }
}

pub(crate) fn write<U: KeyedUnion>(
    union: &U,
    default: &U,
    raw: Option<(&str, &Value)>,
    how: How,
) -> Option<Value> {
    if let (Some((key, raw)), Style::Keep) = (raw, how.style) {
        let chosen = raw.as_object().is_some();
        let same = key.split_once('.').is_some_and(|(_, variant)| variant == union.variant_name());
        return match union.emit_payload(how.style) {
            _ if !chosen && union == default => Some(raw.clone()),
            None if chosen && same => Some(raw.clone()),
            payload => Some(payload.unwrap_or_else(|| Object::new().into())),
        };
    }
    if !how.fresh && union == default { None } else { Some(emit(union, how.style)) }
}

pub(crate) fn emit<U: KeyedUnion>(union: &U, style: Style) -> Value {
    union.emit_payload(style).unwrap_or_else(|| Object::new().into())
}

fn variant_of<'k>(name: &str, key: &'k str) -> Option<&'k str> {
    key.strip_prefix(name)?.strip_prefix('.')
}

/// A variant without payload is written `{}`; libxl ignores what else is in there.
pub(crate) fn note_unknown(object: &Value, place: &Place<'_>, sink: &mut Sink) {
    for member in object.as_object().map(Object::members).unwrap_or_default() {
        sink.note(&place.key(&member.key, member.at), FindingKind::UnknownKey);
    }
}

/// Turns a table of variants into an enum. One row a variant: `Variant = "name" number: Payload`.
macro_rules! keyed_union {
    (
        $(#[$meta:meta])*
        $name:ident = $field:literal of $schema:literal, default ($default:expr) {
            $( $(#[$doc:meta])* $variant:ident = $text:literal $number:literal $(: $payload:ty)?, )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $name {
            $( $(#[$doc])* $variant $(($payload))?, )*
        }

        impl $name {
            /// The name behind the dot of the key.
            pub fn name(&self) -> &'static str {
                match self {
                    $( $name::$variant { .. } => $text, )*
                }
            }
        }

        impl Default for $name {
            fn default() -> $name {
                $default
            }
        }

        impl $crate::model::keyed_union::KeyedUnion for $name {
            const INFO: $crate::model::EnumInfo =
                $crate::model::EnumInfo { name: $schema, values: &[ $( ($text, $number) ),* ] };

            fn variant_name(&self) -> &'static str {
                self.name()
            }

            fn parse_variant(
                name: &str,
                object: &$crate::json::Value,
                place: &$crate::json::Place<'_>,
                sink: &mut $crate::sink::Sink,
            ) -> Option<$name> {
                match name {
                    $( $text => keyed_union!(@parse $name $variant $($payload)?, object, place, sink), )*
                    _ => None,
                }
            }

            fn emit_payload(&self, style: $crate::model::field::Style) -> Option<$crate::json::Value> {
                match self {
                    $( keyed_union!(@pattern $name $variant payload $($payload)?) =>
                        keyed_union!(@emit payload style $($payload)?), )*
                }
            }

            fn forget_payload(&mut self) {
                match self {
                    $( keyed_union!(@pattern $name $variant payload $($payload)?) =>
                        keyed_union!(@forget payload $($payload)?), )*
                }
            }
        }

        keyed_union!(@field $name $schema);
    };
    (@field $name:ident $schema:literal) => {
        impl $crate::model::field::Field for $name {
            fn schema_type() -> String {
                concat!("keyed-union of ", $schema).to_owned()
            }

            /// A union has no value without its key.
            fn parse(_: &$crate::json::Value, _: &$crate::json::Place<'_>, _: &mut $crate::sink::Sink) -> Option<$name> {
                None
            }

            fn emit(&self, _raw: Option<&$crate::json::Value>, style: $crate::model::field::Style) -> $crate::json::Value {
                $crate::model::keyed_union::emit(self, style)
            }

            fn claims(name: &str, key: &str) -> bool {
                $crate::model::keyed_union::claims::<$name>(name, key)
            }

            fn parse_member(
                key: &str,
                raw: &$crate::json::Value,
                place: &$crate::json::Place<'_>,
                sink: &mut $crate::sink::Sink,
            ) -> Option<$name> {
                $crate::model::keyed_union::parse_member(key, raw, place, sink)
            }

            fn key(&self, name: &'static str, raw: Option<(&str, &$crate::json::Value)>) -> String {
                $crate::model::keyed_union::key(self, name, raw)
            }

            fn write(
                &self,
                default: &$name,
                raw: Option<(&str, &$crate::json::Value)>,
                how: $crate::model::field::How,
            ) -> Option<$crate::json::Value> {
                $crate::model::keyed_union::write(self, default, raw, how)
            }

            fn forget(&mut self) {
                $crate::model::keyed_union::KeyedUnion::forget_payload(self);
            }
        }
    };
    (@parse $name:ident $variant:ident, $object:ident, $place:ident, $sink:ident) => {{
        $crate::model::keyed_union::note_unknown($object, $place, $sink);
        Some($name::$variant)
    }};
    (@parse $name:ident $variant:ident $payload:ty, $object:ident, $place:ident, $sink:ident) => {
        <$payload as $crate::model::field::Field>::parse($object, $place, $sink).map($name::$variant)
    };
    (@pattern $name:ident $variant:ident $bind:ident) => { $name::$variant };
    (@pattern $name:ident $variant:ident $bind:ident $payload:ty) => { $name::$variant($bind) };
    (@emit $bind:ident $style:ident) => { None };
    (@emit $bind:ident $style:ident $payload:ty) => {
        Some($crate::model::field::Field::emit($bind, None, $style))
    };
    (@forget $bind:ident) => { () };
    (@forget $bind:ident $payload:ty) => { $crate::model::field::Field::forget($bind) };
}
pub(crate) use keyed_union;
