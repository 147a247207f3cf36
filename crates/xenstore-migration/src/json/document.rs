//! Documents and lines, and the records in them, one at a time.

use std::fmt;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_path_to_error::Track;

use super::failure::DocumentError;
use super::given::Fields;
use super::words;
use crate::peer::Peer;
use crate::preamble::Preamble;

/// How the records are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// In the array `records` of one object.
    Document,
    /// An object a line, from the second line to that which begins at this octet of the text.
    Lines { end: usize },
}

/// What a document says but for its records, which may come first: so it is read twice, rather than all records held at once.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    byte_order: String,
    #[serde(default, deserialize_with = "told")]
    peer: Told,
    #[serde(rename = "records")]
    _records: IgnoredAny,
    #[serde(default, rename = "deviations")]
    _deviations: IgnoredAny,
}

/// The first line.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct FirstLine {
    version: u32,
    byte_order: String,
}

/// The last line.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct LastLine {
    #[serde(rename = "records")]
    _records: u64,
    #[serde(default, deserialize_with = "told")]
    peer: Told,
    #[serde(default, rename = "deviations")]
    _deviations: IgnoredAny,
    #[serde(default, rename = "octets")]
    _octets: IgnoredAny,
    #[serde(default, rename = "goes_on")]
    _goes_on: IgnoredAny,
    error: Option<IgnoredAny>,
}

/// Enough to see what an object is.
#[derive(serde::Deserialize)]
struct Glance {
    records: Option<IgnoredAny>,
}

/// A peer's name, if anything is said about one.
#[derive(Default)]
enum Told {
    #[default]
    Nothing,
    Null,
    Name(String),
}

fn told<'de, D: Deserializer<'de>>(from: D) -> Result<Told, D::Error> {
    Ok(Option::<String>::deserialize(from)?.map_or(Told::Null, Told::Name))
}

impl Told {
    /// For whom the stream is to be: whoever follows the specification, if nothing is said.
    fn peer(&self) -> Result<Peer, DocumentError> {
        match self {
            Self::Nothing => Ok(Peer::Specification),
            Self::Null => Err(DocumentError::NoPeer),
            Self::Name(name) => words::peer_of(name).ok_or(DocumentError::Choice {
                field: "peer",
                choice: "`specification`, `c-4.17`, `c-2026`, `c-2026-written`",
            }),
        }
    }
}

/// What a text says before any record of it is read.
pub(super) fn head(text: &[u8]) -> Result<(Preamble, Peer, Form), DocumentError> {
    let Some((first, end)) = lines(text) else {
        let Document { version, byte_order, peer, .. } = whole(text)?;
        return Ok((preamble(version, &byte_order)?, peer.peer()?, Form::Document));
    };
    let FirstLine { version, byte_order } = whole(first)?;
    let preamble = preamble(version, &byte_order)?;
    let last = &text[end..];
    if glance(last).is_none_or(|glance| glance.records.is_none()) {
        return Err(DocumentError::NoEnd);
    }
    let last: LastLine = whole(last).map_err(|error| match error {
        DocumentError::Json { at, reason } => {
            DocumentError::Json { at: format!("the last line: {at}"), reason }
        }
        other => other,
    })?;
    if last.error.is_some() {
        return Err(DocumentError::BrokenOff);
    }
    Ok((preamble, last.peer.peer()?, Form::Lines { end }))
}

/// The first of several lines, and where the last one begins, if that is what the text is. A document that ends within its
/// first line has records in it.
fn lines(text: &[u8]) -> Option<(&[u8], usize)> {
    let text = text.trim_ascii_end();
    let second = text.iter().position(|octet| *octet == b'\n')? + 1;
    let last = text.iter().rposition(|octet| *octet == b'\n')? + 1;
    let first = &text[..second];
    glance(first)?.records.is_none().then_some((first, last))
}

fn glance(text: &[u8]) -> Option<Glance> {
    serde_json::from_slice(text).ok()
}

fn preamble(version: u32, byte_order: &str) -> Result<Preamble, DocumentError> {
    let version = words::version_of(version)
        .ok_or(DocumentError::Choice { field: "version", choice: "1, 2" })?;
    let byte_order = words::byte_order_of(byte_order)
        .ok_or(DocumentError::Choice { field: "byte_order", choice: "`little`, `big`" })?;
    Ok(Preamble::new(version, byte_order))
}

fn whole<'de, T: Deserialize<'de>>(text: &'de [u8]) -> Result<T, DocumentError> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let mut track = Track::new();
    let value = T::deserialize(serde_path_to_error::Deserializer::new(&mut json, &mut track))
        .map_err(|reason| DocumentError::Json { at: track.path().to_string(), reason })?;
    json.end().map_err(|reason| DocumentError::Json { at: ".".to_owned(), reason })?;
    Ok(value)
}

/// Gives each record in its order, until one is refused.
pub(super) fn records(
    text: &[u8],
    form: Form,
    mut each: impl FnMut(Fields) -> Result<(), DocumentError>,
) -> Result<(), DocumentError> {
    let Form::Lines { end } = form else { return records_of_document(text, &mut each) };
    let text = &text[..end];
    let mut at = after_value(text).map_err(|reason| wrong_at(".".to_owned(), reason))?;
    let mut index = 0_u64;
    while !text[at..].trim_ascii_start().is_empty() {
        let mut json = serde_json::Deserializer::from_slice(&text[at..]);
        let Ok(fields) = Fields::deserialize(&mut json) else {
            return Err(wrong_record(text, index));
        };
        // Asked for an end, serde_json would count the lines from the beginning, after every record.
        at += json.into_iter::<IgnoredAny>().byte_offset();
        each(fields)?;
        index += 1;
    }
    Ok(())
}

/// Where the first value ends.
fn after_value(text: &[u8]) -> Result<usize, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_slice(text);
    IgnoredAny::deserialize(&mut json)?;
    Ok(json.into_iter::<IgnoredAny>().byte_offset())
}

/// What is wrong with a record, read once more from the first line on, so that the error names the line and the field.
fn wrong_record(text: &[u8], index: u64) -> DocumentError {
    let mut json = serde_json::Deserializer::from_slice(text);
    for _ in 0..=index {
        if let Err(reason) = IgnoredAny::deserialize(&mut json) {
            return wrong_at(".".to_owned(), reason);
        }
    }
    let mut track = Track::new();
    let wrapped = serde_path_to_error::Deserializer::new(&mut json, &mut track);
    match Fields::deserialize(wrapped) {
        Err(reason) => {
            let path = track.path().to_string();
            let field = if path == "." { String::new() } else { format!(".{path}") };
            wrong_at(format!("records[{index}]{field}"), reason)
        }
        // The same octets were refused a moment ago.
        Ok(_) => wrong_at(".".to_owned(), Error::custom("a record is refused")),
    }
}

fn wrong_at(at: String, reason: serde_json::Error) -> DocumentError {
    DocumentError::Json { at, reason }
}

fn records_of_document(
    text: &[u8],
    each: &mut dyn FnMut(Fields) -> Result<(), DocumentError>,
) -> Result<(), DocumentError> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let mut track = Track::new();
    let mut refused = None;
    let wrapped = serde_path_to_error::Deserializer::new(&mut json, &mut track);
    let read = TheRecords { each, refused: &mut refused }.deserialize(wrapped);
    if let Some(refused) = refused {
        return Err(refused);
    }
    read.map_err(|reason| DocumentError::Json { at: track.path().to_string(), reason })
}

/// Reads an object and goes through its `records`, then through the array itself. What it says beside has been read before.
struct TheRecords<'e> {
    each: &'e mut dyn FnMut(Fields) -> Result<(), DocumentError>,
    /// Why a record was refused: the errors of serde hold only text.
    refused: &'e mut Option<DocumentError>,
}

impl<'de> DeserializeSeed<'de> for TheRecords<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for TheRecords<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a document of a stream")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<(), A::Error> {
        let Self { each, refused } = self;
        while let Some(key) = from.next_key::<String>()? {
            if key == "records" {
                from.next_value_seed(Each { each: &mut *each, refused: &mut *refused })?;
            } else {
                from.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// The array.
struct Each<'e> {
    each: &'e mut dyn FnMut(Fields) -> Result<(), DocumentError>,
    refused: &'e mut Option<DocumentError>,
}

impl<'de> DeserializeSeed<'de> for Each<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Each<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of records")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<(), A::Error> {
        while let Some(fields) = from.next_element()? {
            if let Err(error) = (self.each)(fields) {
                *self.refused = Some(error);
                return Err(A::Error::custom("a record is refused"));
            }
        }
        Ok(())
    }
}
