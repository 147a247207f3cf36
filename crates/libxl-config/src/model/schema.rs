//! The schema as data: every struct and enum this crate knows, for tools and tests.

use super::field::{Field, How, Style};
use super::record::Record;
use crate::json::Value;

/// One struct of the schema.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StructInfo {
    /// Its name in libxl's schema; of what has none there, the struct's and the field's, as in
    /// `domain_build_info.arch_x86`.
    pub name: &'static str,
    /// Its fields, in the schema's order.
    pub fields: Vec<FieldInfo>,
}

impl StructInfo {
    pub(crate) fn of<R: Record>() -> StructInfo {
        StructInfo { name: R::SCHEMA_NAME, fields: R::fields() }
    }
}

/// One field of a struct.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FieldInfo {
    /// Its JSON key; of a keyed union, the part before the dot.
    pub name: &'static str,
    /// Its type's name in libxl's schema; of a list, that of the elements in brackets; of a keyed union, `keyed-union of` its
    /// enumeration.
    pub schema_type: String,
    /// The value that is left out, spelled out; `null` where that is a string or a struct that is not there.
    pub default: Value,
    /// Xen 4.17 does not have it.
    pub absent_in_4_17: bool,
}

impl FieldInfo {
    pub(crate) fn of<T: Field>(name: &'static str, default: &T, new: bool) -> FieldInfo {
        let how = How { style: Style::Canonical, fresh: false, new };
        debug_assert!(
            default.write(default, None, how).is_none()
                || T::schema_type().starts_with("keyed-union")
        );
        let default = if T::NESTED { Value::Null } else { default.emit(None, Style::Canonical) };
        FieldInfo { name, schema_type: T::schema_type(), default, absent_in_4_17: new }
    }
}

/// One enumeration of the schema.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EnumInfo {
    /// Its name in libxl's schema.
    pub name: &'static str,
    /// Its names with the numbers libxl's C headers give them, in the schema's order.
    pub values: &'static [(&'static str, i32)],
}
