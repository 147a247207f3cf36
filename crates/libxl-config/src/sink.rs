//! Where findings are collected while a text is read.

use crate::finding::{Finding, FindingKind, Position};
use crate::json::{JsonPath, MAX_FINDINGS, Place};
use crate::read::MAX_STRUCTS;
use crate::read_error::ReadError;

/// Where findings go while reading, or nowhere.
pub(crate) struct Sink {
    list: Option<Vec<Finding>>,
    /// How many structs have been read.
    structs: usize,
}

impl Sink {
    pub(crate) fn collecting() -> Sink {
        Sink { list: Some(Vec::new()), structs: 0 }
    }

    /// For reading a value a second time.
    pub(crate) fn quiet() -> Sink {
        Sink { list: None, structs: 0 }
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.list.is_none()
    }

    /// Counts one more struct; `false` says to read no more of them, as the read will fail.
    pub(crate) fn admit_struct(&mut self) -> bool {
        self.structs += 1;
        self.structs <= MAX_STRUCTS
    }

    /// [`Sink::finish`], or the error if there were too many structs.
    pub(crate) fn finish_records(self, text: Option<&[u8]>) -> Result<Vec<Finding>, ReadError> {
        if self.structs > MAX_STRUCTS {
            return Err(ReadError::TooManyStructs { limit: MAX_STRUCTS });
        }
        Ok(self.finish(text))
    }

    /// `position` is filled in with the offset only; [`Sink::finish`] completes it.
    pub(crate) fn note(&mut self, place: &Place<'_>, kind: FindingKind) {
        let Some(list) = &mut self.list else { return };
        let position = Some(Position { offset: place.offset as usize, line: 0, column: 0 });
        match list.len() {
            0..MAX_FINDINGS => list.push(Finding { path: place.path(), kind, position }),
            MAX_FINDINGS => {
                let kind = FindingKind::TooMany { limit: MAX_FINDINGS };
                list.push(Finding { path: JsonPath::root(), kind, position });
            }
            _ => {}
        }
    }

    /// The findings in the order of the text, with lines and columns if there is one.
    pub(crate) fn finish(self, text: Option<&[u8]>) -> Vec<Finding> {
        let mut list = self.list.unwrap_or_default();
        let Some(text) = text else {
            for finding in &mut list {
                finding.position = None;
            }
            return list;
        };
        list.sort_by_key(|finding| finding.position.map(|position| position.offset));
        let mut here = Position { offset: 0, line: 1, column: 1 };
        for finding in &mut list {
            let Some(position) = &mut finding.position else { continue };
            here = advance(here, text, position.offset);
            *position = here;
        }
        list
    }
}

/// The position of an octet, counted on from an earlier one.
pub(crate) fn advance(from: Position, text: &[u8], offset: usize) -> Position {
    let mut here = from;
    for octet in text.iter().take(offset).skip(from.offset) {
        if *octet == b'\n' {
            here.line += 1;
            here.column = 1;
        } else {
            here.column += 1;
        }
    }
    here.offset = offset;
    here
}
