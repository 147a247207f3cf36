//! The document: values with key order, duplicate keys, number lexemes and the octets of broken strings.

use std::fmt;
use std::ops::Deref;

use super::Number;

/// One JSON value.
///
/// Two values are equal if they are written alike, member order and number lexemes included; where they stood in the
/// text takes no part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, as spelled.
    Number(Number),
    /// A string.
    String(Text),
    /// An array.
    Array(Vec<Value>),
    /// An object, its members in order, duplicates included.
    Object(Object),
}

impl Value {
    /// What this is, in a word fit for a message: `object`, `array`, `string`, `number`, `boolean` or `null`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        }
    }

    /// The first member of that name, if this is an object that has one.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.as_object()?.get(key)
    }

    /// The object, if this is one.
    pub fn as_object(&self) -> Option<&Object> {
        match self {
            Value::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The elements, if this is an array.
    pub fn as_array(&self) -> Option<&[Value]> {
        match self {
            Value::Array(elements) => Some(elements),
            _ => None,
        }
    }

    /// The text, if this is a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// Where the value starts in its text, as far as the document knows: objects do.
    pub(crate) fn offset(&self) -> Option<u32> {
        match self {
            Value::Object(object) => Some(object.at),
            _ => None,
        }
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Value {
        Value::Bool(value)
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Value {
        Value::Number(value.into())
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Value {
        Value::Number(value.into())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::String(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::String(text.into())
    }
}

impl From<Object> for Value {
    fn from(object: Object) -> Value {
        Value::Object(object)
    }
}

impl FromIterator<Value> for Value {
    fn from_iter<I: IntoIterator<Item = Value>>(elements: I) -> Value {
        Value::Array(elements.into_iter().collect())
    }
}

/// The members of an object, in order.
#[derive(Clone, Debug, Default)]
pub struct Object {
    members: Vec<Member>,
    at: u32,
}

impl Object {
    /// An object without members.
    pub fn new() -> Object {
        Object::default()
    }

    pub(crate) fn starting_at(at: u32) -> Object {
        Object { members: Vec::new(), at }
    }

    /// Adds a member at the end; an earlier one of the same name stays.
    pub fn push(&mut self, key: impl Into<Text>, value: impl Into<Value>) {
        self.members.push(Member { key: key.into(), value: value.into(), at: 0 });
    }

    pub(crate) fn push_member(&mut self, member: Member) {
        self.members.push(member);
    }

    /// The value of the first member of that name.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.members.iter().find(|member| &*member.key == key).map(|member| &member.value)
    }

    /// All members in order, duplicates included.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// How many members there are, duplicates included.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

/// Members in order; not where they stood.
impl PartialEq for Object {
    fn eq(&self, other: &Object) -> bool {
        self.members == other.members
    }
}

impl Eq for Object {}

impl<K: Into<Text>, V: Into<Value>> FromIterator<(K, V)> for Object {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(members: I) -> Object {
        let mut object = Object::new();
        for (key, value) in members {
            object.push(key, value);
        }
        object
    }
}

/// One member of an object.
#[derive(Clone, Debug)]
pub struct Member {
    /// The name.
    pub key: Text,
    /// The value.
    pub value: Value,
    pub(crate) at: u32,
}

/// Name and value; not where it stood.
impl PartialEq for Member {
    fn eq(&self, other: &Member) -> bool {
        self.key == other.key && self.value == other.value
    }
}

impl Eq for Member {}

/// A string: text, and the octets it was decoded from where those were no valid UTF-8.
///
/// Dereferences to `str`. Of broken octets the text shows U+FFFD, and writing a document as octets gives them back.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Text {
    text: Box<str>,
    octets: Option<Box<[u8]>>,
}

impl Text {
    /// From decoded octets; lone surrogates as the three octets their code point would have.
    pub(crate) fn from_octets(octets: Vec<u8>) -> Text {
        match String::from_utf8(octets) {
            Ok(text) => text.into(),
            Err(broken) => Text {
                text: String::from_utf8_lossy(broken.as_bytes()).into(),
                octets: Some(broken.into_bytes().into()),
            },
        }
    }

    /// Whether the text stands for octets that are no valid UTF-8.
    pub fn is_lossy(&self) -> bool {
        self.octets.is_some()
    }

    /// The octets as they were, which for a lossy text are no valid UTF-8.
    pub fn octets(&self) -> &[u8] {
        self.octets.as_deref().unwrap_or(self.text.as_bytes())
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Text {
        Text { text: text.into(), octets: None }
    }
}

impl From<String> for Text {
    fn from(text: String) -> Text {
        Text { text: text.into(), octets: None }
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.octets {
            None => self.text.fmt(f),
            Some(octets) => octets.escape_ascii().fmt(f),
        }
    }
}
