//! Other images in the text of a template, and not an octet else.

use std::ops::Range;

use super::Image;
use crate::json::{self, Layout, Member, Object, Value};
use crate::{DomainConfig, Mode};

/// Why the text of a template cannot be changed in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EditError {
    /// libxl's two JSON readers would take different ones.
    #[error("its text has {count} members \"disks\", of which libxl's readers take different ones")]
    SeveralLists {
        /// How many there are.
        count: usize,
    },
    /// The text deviates from JSON so far that the place to change cannot be told for certain.
    #[error("the entry of disk {index} is written in a way that cannot be changed in place")]
    Spelling {
        /// The disk's place in the list, from 0.
        index: usize,
    },
}

/// The text with other images for the disks at these places of the list. What names them is changed, and nothing else.
///
/// A path is spelled as the text spells the old one; a format that is not there is added where libxl writes it.
pub(super) fn with_images(
    octets: &[u8],
    before: &DomainConfig,
    images: &[(usize, &Image)],
) -> Result<Vec<u8>, EditError> {
    let Some((first, _)) = images.first() else { return Ok(octets.to_vec()) };
    let document =
        json::parse(octets, Mode::Lenient).map_err(|_| EditError::Spelling { index: *first })?;
    let lists: Vec<&Member> = document
        .value
        .as_object()
        .into_iter()
        .flat_map(Object::members)
        .filter(|member| &*member.key == "disks")
        .collect();
    let [list] = lists[..] else { return Err(EditError::SeveralLists { count: lists.len() }) };
    let mut cuts: Vec<(Range<usize>, Vec<u8>)> = Vec::new();
    let mut expected = before.clone();
    for (index, image) in images {
        let spelling = EditError::Spelling { index: *index };
        let entry = list.value.as_array().and_then(|disks| disks.get(*index));
        let entry = entry.and_then(Value::as_object).ok_or(spelling)?;
        let disk = expected.disks.get_mut(*index).ok_or(spelling)?;
        if disk.pdev_path.as_deref() != Some(&*image.path) {
            disk.pdev_path = Some(image.path.clone());
            let layout = layout_of(octets, entry, &document.value);
            cuts.extend(set(octets, entry, "pdev_path", &image.path, layout).ok_or(spelling)?);
        }
        if disk.format != image.format {
            disk.format = image.format.clone();
            let name = image.format.name();
            cuts.extend(set(octets, entry, "format", name, Layout::Yajl).ok_or(spelling)?);
        }
    }
    cuts.sort_by_key(|(range, _)| range.start);
    let mut edited = octets.to_vec();
    for (range, new) in cuts.into_iter().rev() {
        edited.splice(range, new);
    }
    // Whatever the text looked like: it must read as before, with the images changed.
    let read = DomainConfig::read(&edited, Mode::Lenient);
    let as_meant = read.is_ok_and(|read| {
        let fields = |config: &DomainConfig| {
            let mut config = config.clone();
            config.forget_source();
            config
        };
        fields(&read.config) == fields(&expected)
    });
    if as_meant { Ok(edited) } else { Err(EditError::Spelling { index: *first }) }
}

/// The cuts that give every member of that name another text, or add one.
fn set(
    octets: &[u8],
    entry: &Object,
    key: &str,
    text: &str,
    layout: Layout,
) -> Option<Vec<(Range<usize>, Vec<u8>)>> {
    let new = quoted(text, layout);
    let places: Vec<Place> = entry
        .members()
        .iter()
        .filter(|member| &*member.key == key)
        .map(|member| Place::of(octets, member))
        .collect::<Option<_>>()?;
    if !places.is_empty() {
        return Some(places.into_iter().map(|place| (place.value, new.clone())).collect());
    }
    // libxl's order: pdev_path, vdev, backend, format.
    let before = |name: &str| entry.members().iter().rfind(|member| &*member.key == name);
    let anchor = before("backend").or_else(|| before("vdev"))?;
    let anchor = Place::of(octets, anchor)?;
    let lead = octets[..anchor.key.start].trim_ascii_end().len();
    let mut added = vec![b','];
    added.extend(&octets[lead..anchor.key.start]);
    added.extend(quoted(key, layout));
    let colon = &octets[anchor.key.end..anchor.value.start];
    added.extend(if colon.contains(&b'/') { b": " } else { colon });
    added.extend(new);
    Some(vec![(anchor.value.end..anchor.value.end, added)])
}

/// How strings are spelled in this text: as json-c does if the old path is, else if all of it is.
fn layout_of(octets: &[u8], entry: &Object, document: &Value) -> Layout {
    let path = entry.members().iter().find(|member| &*member.key == "pdev_path");
    let raw = path.and_then(|path| Place::of(octets, path)).map(|place| &octets[place.value]);
    match raw.and_then(first_slash) {
        Some(layout) => layout,
        None if document.to_octets(Layout::JsonC) == octets => Layout::JsonC,
        None => Layout::Yajl,
    }
}

/// How the first slash of a string is spelled.
fn first_slash(raw: &[u8]) -> Option<Layout> {
    let mut octets = raw.iter();
    loop {
        match octets.next()? {
            b'/' => return Some(Layout::Yajl),
            b'\\' if octets.next()? == &b'/' => return Some(Layout::JsonC),
            _ => {}
        }
    }
}

fn quoted(text: &str, layout: Layout) -> Vec<u8> {
    let mut octets = Value::from(text).to_octets(layout);
    // The end of a document.
    if octets.last() == Some(&b'\n') {
        octets.pop();
    }
    octets
}

/// Where a member stands in its text.
struct Place {
    key: Range<usize>,
    value: Range<usize>,
}

impl Place {
    /// `None` if the value is no scalar.
    fn of(octets: &[u8], member: &Member) -> Option<Self> {
        let start = usize::try_from(member.at).ok()?;
        let key = start..end_of_string(octets, start)?;
        let colon = end_of_blank(octets, key.end)?;
        if octets.get(colon) != Some(&b':') {
            return None;
        }
        let start = end_of_blank(octets, colon + 1)?;
        let end = match octets.get(start)? {
            b'"' | b'\'' => end_of_string(octets, start)?,
            b'{' | b'[' => return None,
            _ => {
                let rest = &octets[start..];
                let is_end =
                    |octet: &u8| matches!(octet, b',' | b'}' | b'/') || octet.is_ascii_whitespace();
                start + rest.iter().position(is_end)?
            }
        };
        Some(Self { key, value: start..end })
    }
}

/// Behind the string that starts here, with either quote.
fn end_of_string(octets: &[u8], start: usize) -> Option<usize> {
    let quote = *octets.get(start)?;
    let mut at = start + 1;
    loop {
        match *octets.get(at)? {
            b'\\' => at += 2,
            octet if octet == quote => return Some(at + 1),
            _ => at += 1,
        }
    }
}

/// Behind white space and comments.
fn end_of_blank(octets: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    loop {
        let rest = octets.get(at..)?;
        if rest.first()?.is_ascii_whitespace() {
            at += 1;
        } else if rest.starts_with(b"//") {
            at += rest.iter().position(|octet| *octet == b'\n')?;
        } else if rest.starts_with(b"/*") {
            at += 4 + rest[2..].windows(2).position(|pair| pair == b"*/")?;
        } else {
            return Some(at);
        }
    }
}
