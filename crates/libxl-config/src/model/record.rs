//! Records of the schema: the reading and writing that all of them share.

use std::collections::HashSet;
use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::field::{Field, How, Style};
use super::schema::FieldInfo;
use crate::finding::{Finding, FindingKind};
use crate::json::{Member, Object, Place, Value};
use crate::read_error::ReadError;
use crate::sink::Sink;

/// What was read into a record: its keys in order with their values as spelled, unknown ones included.
///
/// It is opaque and takes no part in comparing records. Writing uses it to keep what has not changed as it was. A
/// record made by hand has an empty one (`Keys::default()`).
#[derive(Clone, Default)]
pub struct Keys(Option<Box<Source>>);

#[derive(Clone)]
enum Source {
    Object(Object),
    /// Something else stood where the record should; libxl takes that for a record of defaults.
    Other(Value),
}

impl Keys {
    /// Whether the record was read from JSON.
    pub fn was_read(&self) -> bool {
        self.0.is_some()
    }

    fn object(&self) -> Option<&Object> {
        match self.0.as_deref() {
            Some(Source::Object(object)) => Some(object),
            _ => None,
        }
    }
}

/// Always equal.
impl PartialEq for Keys {
    fn eq(&self, _other: &Keys) -> bool {
        true
    }
}

impl Eq for Keys {}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.was_read() { "Keys(read)" } else { "Keys(new)" })
    }
}

/// A struct of the schema. Implemented by the [`records!`](super::table::records) tables.
pub(crate) trait Record: Clone + Default + PartialEq {
    /// Its name in libxl's schema.
    const SCHEMA_NAME: &'static str;
    fn keys(&self) -> &Keys;
    fn keys_mut(&mut self) -> &mut Keys;
    fn read_fields(&mut self, reader: &mut RecordReader<'_, '_>);
    fn write_fields(&self, writer: &mut RecordWriter<'_>);
    fn forget_fields(&mut self);
    fn fields() -> Vec<FieldInfo>;
}

impl<R: Record> Field for R {
    const NESTED: bool = true;

    fn schema_type() -> String {
        R::SCHEMA_NAME.to_owned()
    }

    /// Never `None`: what is no object is a record of defaults that remembers what it was.
    fn parse(raw: &Value, place: &Place<'_>, sink: &mut Sink) -> Option<R> {
        let mut record = R::default();
        let source = match raw {
            Value::Object(object) => {
                let mut reader = RecordReader {
                    object,
                    claimed: vec![None; object.len()],
                    next: 0,
                    place,
                    sink,
                };
                record.read_fields(&mut reader);
                reader.finish()
            }
            _ => {
                let found = raw.type_name();
                if place.is_root() {
                    sink.note(place, FindingKind::NotAnObject { found });
                } else {
                    sink.note(place, FindingKind::WrongType { expected: "an object", found });
                }
                Source::Other(raw.clone())
            }
        };
        if !sink.is_quiet() {
            *record.keys_mut() = Keys(Some(Box::new(source)));
        }
        Some(record)
    }

    fn emit(&self, _raw: Option<&Value>, style: Style) -> Value {
        if let (Some(Source::Other(raw)), Style::Keep) = (self.keys().0.as_deref(), style)
            && *self == R::default()
        {
            return raw.clone();
        }
        let source = self.keys().object();
        let mut writer = RecordWriter { source, style, fields: Vec::new() };
        self.write_fields(&mut writer);
        writer.finish().into()
    }

    fn keep(raw: &Value) -> Value {
        match raw {
            Value::Object(_) => Object::new().into(),
            _ => raw.clone(),
        }
    }

    fn write(&self, default: &R, raw: Option<(&str, &Value)>, how: How) -> Option<Value> {
        let there = raw.is_some() && how.style == Style::Keep;
        let always = how.fresh && !how.new;
        if !there && !always && self == default && self.keys().object().is_none_or(Object::is_empty)
        {
            return None;
        }
        Some(self.emit(None, how.style))
    }

    fn forget(&mut self) {
        *self.keys_mut() = Keys::default();
        self.forget_fields();
    }
}

/// As what is in the box.
impl<R: Record> Record for Box<R> {
    const SCHEMA_NAME: &'static str = R::SCHEMA_NAME;

    fn keys(&self) -> &Keys {
        (**self).keys()
    }

    fn keys_mut(&mut self) -> &mut Keys {
        (**self).keys_mut()
    }

    fn read_fields(&mut self, reader: &mut RecordReader<'_, '_>) {
        (**self).read_fields(reader);
    }

    fn write_fields(&self, writer: &mut RecordWriter<'_>) {
        (**self).write_fields(writer);
    }

    fn forget_fields(&mut self) {
        (**self).forget_fields();
    }

    fn fields() -> Vec<FieldInfo> {
        R::fields()
    }
}

/// Reads the fields of one object.
pub(crate) struct RecordReader<'v, 's> {
    object: &'v Object,
    /// For each member, the field it belongs to.
    claimed: Vec<Option<Claim>>,
    next: usize,
    place: &'s Place<'s>,
    sink: &'s mut Sink,
}

#[derive(Clone, Copy)]
struct Claim {
    field: usize,
    first: bool,
    keep: fn(&Value) -> Value,
}

impl RecordReader<'_, '_> {
    pub(crate) fn field<T: Field>(&mut self, name: &'static str, slot: &mut T) {
        let field = self.next;
        self.next += 1;
        let mut first: Option<&Member> = None;
        for (member, claimed) in self.object.members().iter().zip(&mut self.claimed) {
            if claimed.is_some() || !T::claims(name, &member.key) {
                continue;
            }
            *claimed = Some(Claim { field, first: first.is_none(), keep: T::keep });
            match first {
                None => first = Some(member),
                Some(first) if first.key != member.key => {
                    let kind = FindingKind::TwoVariants { first: first.key.to_string() };
                    self.sink.note(&self.place.key(&member.key, member.at), kind);
                }
                Some(_) => {}
            }
        }
        if let Some(member) = first {
            let place = self.place.key(&member.key, member.at);
            if let Some(value) = T::parse_member(&member.key, &member.value, &place, self.sink) {
                *slot = value;
            }
        }
    }

    /// Notes unknown and duplicate keys, and gives what has to be remembered.
    fn finish(self) -> Source {
        let mut kept = Object::new();
        if self.sink.is_quiet() {
            return Source::Object(kept);
        }
        let mut seen: HashSet<&str> = HashSet::with_capacity(self.object.len());
        let mut doubled: HashSet<usize> = HashSet::new();
        for (member, claim) in self.object.members().iter().zip(&self.claimed) {
            let place = self.place.key(&member.key, member.at);
            if !seen.insert(&member.key) {
                self.sink.note(&place, FindingKind::DuplicateKey);
            } else if claim.is_none() {
                self.sink.note(&place, FindingKind::UnknownKey);
            }
            if let Some(claim) = claim.filter(|claim| !claim.first) {
                doubled.insert(claim.field);
            }
        }
        for (member, claim) in self.object.members().iter().zip(&self.claimed) {
            let value = match claim {
                // With a second member to weigh it against, all of it is needed.
                Some(claim) if claim.first && !doubled.contains(&claim.field) => {
                    (claim.keep)(&member.value)
                }
                _ => member.value.clone(),
            };
            kept.push(member.key.clone(), value);
        }
        Source::Object(kept)
    }
}

/// Collects the fields of one record, then puts them where they belong.
pub(crate) struct RecordWriter<'a> {
    source: Option<&'a Object>,
    style: Style,
    fields: Vec<Written>,
}

struct Written {
    name: &'static str,
    claims: fn(&str, &str) -> bool,
    key: String,
    value: Option<Value>,
    /// Which member of the source it was read from.
    origin: Option<usize>,
}

impl RecordWriter<'_> {
    pub(crate) fn field<T: Field>(
        &mut self,
        name: &'static str,
        value: &T,
        default: &T,
        new: bool,
    ) {
        let members = self.source.map(Object::members).unwrap_or_default();
        let origin = members.iter().position(|member| T::claims(name, &member.key));
        let raw =
            origin.and_then(|index| members.get(index)).map(|member| (&*member.key, &member.value));
        let fresh = self.source.is_none() || self.style == Style::Canonical;
        let how = How { style: self.style, fresh, new };
        let (key, written) = (value.key(name, raw), value.write(default, raw, how));
        self.fields.push(Written { name, claims: T::claims, key, value: written, origin });
    }

    fn finish(self) -> Object {
        let mut out: Vec<(Option<usize>, Member)> = Vec::new();
        let mut placed = vec![false; self.fields.len()];
        let members = self.source.map(Object::members).unwrap_or_default();
        if self.style == Style::Keep {
            for (index, member) in members.iter().enumerate() {
                self.place_member(index, member, members, &mut out, &mut placed);
            }
        }
        for (index, written) in self.fields.iter().enumerate() {
            if placed.get(index) == Some(&true) {
                continue;
            }
            if let Some(value) = &written.value {
                let member =
                    Member { key: written.key.as_str().into(), value: value.clone(), at: 0 };
                out.insert(insertion_point(&out, index), (Some(index), member));
            }
        }
        let mut object = Object::new();
        for (_, member) in out {
            object.push_member(member);
        }
        if self.style == Style::Canonical {
            for member in members.iter().filter(|member| self.field_of(&member.key).is_none()) {
                object.push_member(member.clone());
            }
        }
        object
    }

    /// One member of the source: an unknown one as it was, a field as it is now, a second member of a field only while
    /// the first has not changed (a reader that takes the last would see the old value).
    fn place_member(
        &self,
        index: usize,
        member: &Member,
        members: &[Member],
        out: &mut Vec<(Option<usize>, Member)>,
        placed: &mut [bool],
    ) {
        let Some(field) = self.field_of(&member.key) else {
            out.push((None, member.clone()));
            return;
        };
        let Some(written) = self.fields.get(field) else { return };
        let Some(first) = written.origin.and_then(|origin| members.get(origin)) else { return };
        if written.origin == Some(index) {
            if let Some(slot) = placed.get_mut(field) {
                *slot = true;
            }
            if let Some(value) = &written.value {
                let key = if *written.key == *member.key {
                    member.key.clone()
                } else {
                    written.key.as_str().into()
                };
                out.push((Some(field), Member { key, value: value.clone(), at: 0 }));
            }
        } else if written.key == *first.key
            && (member.key != first.key || written.value.as_ref() == Some(&first.value))
        {
            out.push((Some(field), member.clone()));
        }
    }

    fn field_of(&self, key: &str) -> Option<usize> {
        self.fields.iter().position(|written| (written.claims)(written.name, key))
    }
}

/// After the nearest field before it in the schema; without one, before the nearest after it.
fn insertion_point(out: &[(Option<usize>, Member)], field: usize) -> usize {
    let before = out
        .iter()
        .enumerate()
        .filter_map(|(at, (index, _))| {
            index.filter(|index| *index < field).map(|index| (index, at))
        })
        .max();
    match before {
        Some((_, at)) => at + 1,
        None => out
            .iter()
            .position(|(index, _)| index.is_some_and(|index| index > field))
            .unwrap_or(out.len()),
    }
}

pub(crate) fn from_value<R: Record>(value: &Value) -> Result<(R, Vec<Finding>), ReadError> {
    let mut sink = Sink::collecting();
    let record = R::parse(value, &Place::root(), &mut sink).unwrap_or_default();
    Ok((record, sink.finish_records(None)?))
}

/// Through a document, leniently.
pub(crate) fn deserialize<'de, R: Record, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<R, D::Error> {
    let value = Value::deserialize(deserializer)?;
    from_value(&value).map(|(record, _)| record).map_err(D::Error::custom)
}
