//! Enumerations of the schema: names in JSON, numbers in C, and room for names of later releases.

use std::fmt;

use super::field::string;
use super::schema::EnumInfo;
use crate::finding::FindingKind;
use crate::json::{Place, Value, shorten};
use crate::sink::Sink;

/// A name that this release's enumeration does not have, kept as it was read.
///
/// Made only by the enumerations' `from_name`, so it is never one of the known names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OtherName(String);

impl OtherName {
    pub(crate) fn new(name: &str) -> OtherName {
        OtherName(name.to_owned())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OtherName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An enumeration of the schema. Implemented by the [`enumerations!`] tables.
pub(crate) trait Enumeration: Sized {
    const INFO: EnumInfo;
    fn from_name(name: &str) -> Self;
}

/// The known name that this is, whatever the size of its letters.
pub(crate) fn known_name(info: &EnumInfo, name: &str) -> Option<&'static str> {
    info.values.iter().map(|(known, _)| *known).find(|known| known.eq_ignore_ascii_case(name))
}

/// The enumerator of that name, known or not; what is odd about it is noted.
pub(crate) fn parse<E: Enumeration>(raw: &Value, place: &Place<'_>, sink: &mut Sink) -> Option<E> {
    let name = string(raw, place, sink)?;
    match known_name(&E::INFO, name) {
        Some(canonical) if canonical != name => {
            sink.note(place, FindingKind::NameCase { name: name.to_owned(), canonical });
        }
        Some(_) => {}
        None => {
            sink.note(
                place,
                FindingKind::UnknownName { enumeration: E::INFO.name, name: shorten(name) },
            );
        }
    }
    Some(E::from_name(name))
}

/// Turns tables of names into enums. One row a name: `Variant = "name" number`.
macro_rules! enumerations {
    ($(
        $(#[$meta:meta])*
        $name:ident = $schema:literal $(, default $default:ident)? {
            $( $(#[$doc:meta])* $variant:ident = $text:literal $number:literal, )*
        }
    )*) => { $(
        $(#[$meta])*
        #[doc = concat!("\n\n`", $schema, "` in libxl's schema.")]
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $( $(#[$doc])* #[doc = concat!("`", $text, "`")] $variant, )*
            /// A name of a later release, kept as it was read.
            Other($crate::model::OtherName),
        }

        impl $name {
            /// All names this release knows.
            pub const KNOWN: &'static [$name] = &[ $( $name::$variant ),* ];

            /// The name in JSON.
            pub fn name(&self) -> &str {
                match self {
                    $( $name::$variant => $text, )*
                    $name::Other(name) => name.as_str(),
                }
            }

            /// From a name in JSON, whatever the size of its letters; what is not known is kept as it is.
            pub fn from_name(name: &str) -> $name {
                let known = $crate::model::enumeration::known_name(&<$name as $crate::model::enumeration::Enumeration>::INFO, name);
                match known {
                    $( Some($text) => $name::$variant, )*
                    _ => $name::Other($crate::model::OtherName::new(name)),
                }
            }
        }

        $(
            impl Default for $name {
                fn default() -> $name {
                    $name::$default
                }
            }
        )?

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl $crate::model::enumeration::Enumeration for $name {
            const INFO: $crate::model::EnumInfo =
                $crate::model::EnumInfo { name: $schema, values: &[ $( ($text, $number) ),* ] };

            fn from_name(name: &str) -> $name {
                $name::from_name(name)
            }
        }

        impl $crate::model::field::Field for $name {
            fn schema_type() -> String {
                $schema.to_owned()
            }

            fn parse(
                raw: &$crate::json::Value,
                place: &$crate::json::Place<'_>,
                sink: &mut $crate::sink::Sink,
            ) -> Option<$name> {
                $crate::model::enumeration::parse(raw, place, sink)
            }

            fn emit(
                &self,
                _raw: Option<&$crate::json::Value>,
                _style: $crate::model::field::Style,
            ) -> $crate::json::Value {
                self.name().into()
            }
        }
    )* };
}
pub(crate) use enumerations;
