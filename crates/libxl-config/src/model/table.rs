//! The macro behind the tables of fields.

/// Turns tables of fields into structs that know how to read and write themselves.
///
/// One row a field: `name: Type = default`, with `as "name"` where JSON has a name Rust cannot have, and `@new` before
/// it where Xen 4.17 does not know it.
macro_rules! records {
    ($(
        $(#[$meta:meta])*
        $name:ident = $schema:literal {
            $( $(#[$doc:meta])* $(@ $new:ident)? $field:ident $(as $json:literal)? : $type:ty $(= $default:expr)? ),* $(,)?
        }
    )*) => { $(
        $(#[$meta])*
        #[doc = concat!("\n\n`", $schema, "` in libxl's schema.")]
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            $( $(#[$doc])* pub $field: $type, )*
            /// What was read, to be kept on writing.
            pub keys: $crate::model::Keys,
        }

        impl Default for $name {
            fn default() -> $name {
                $name {
                    $( $field: records!(@default $($default)?), )*
                    keys: $crate::model::Keys::default(),
                }
            }
        }

        impl $crate::model::record::Record for $name {
            const SCHEMA_NAME: &'static str = $schema;

            fn keys(&self) -> &$crate::model::Keys {
                &self.keys
            }

            fn keys_mut(&mut self) -> &mut $crate::model::Keys {
                &mut self.keys
            }

            fn read_fields(&mut self, reader: &mut $crate::model::record::RecordReader<'_, '_>) {
                $( reader.field(records!(@json $field $($json)?), &mut self.$field); )*
            }

            fn write_fields(&self, writer: &mut $crate::model::record::RecordWriter<'_>) {
                let default = $name::default();
                $(
                    let new = records!(@new $($new)?);
                    writer.field(records!(@json $field $($json)?), &self.$field, &default.$field, new);
                )*
            }

            fn forget_fields(&mut self) {
                $( $crate::model::field::Field::forget(&mut self.$field); )*
            }

            fn fields() -> Vec<$crate::model::FieldInfo> {
                let default = $name::default();
                vec![ $( $crate::model::FieldInfo::of(
                    records!(@json $field $($json)?),
                    &default.$field,
                    records!(@new $($new)?),
                ) ),* ]
            }
        }

        /// As libxl writes it.
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.to_value().serialize(serializer)
            }
        }

        /// As leniently as libxl reads; findings are dropped.
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                $crate::model::record::deserialize(deserializer)
            }
        }

        impl $name {
            /// From a JSON value, leniently, and what there is to say about it.
            ///
            /// # Errors
            /// [`ReadError::TooManyStructs`](crate::ReadError::TooManyStructs), and no other.
            pub fn from_value(
                value: &$crate::json::Value,
            ) -> Result<($name, Vec<$crate::Finding>), $crate::ReadError> {
                $crate::model::record::from_value(value)
            }

            /// As a JSON value: what was read and has not changed is as it was.
            pub fn to_value(&self) -> $crate::json::Value {
                $crate::model::field::Field::emit(self, None, $crate::model::field::Style::Keep)
            }

            /// Forgets what was read, here and below: writing gives what libxl 4.17 would write for a new
            /// configuration, without unknown keys.
            pub fn forget_source(&mut self) {
                $crate::model::field::Field::forget(self);
            }
        }
    )* };
    (@default) => { Default::default() };
    (@default $default:expr) => { $default };
    (@json $field:ident) => { stringify!($field) };
    (@json $field:ident $json:literal) => { $json };
    (@new) => { false };
    (@new new) => { true };
}
pub(crate) use records;
