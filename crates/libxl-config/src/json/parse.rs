//! The parser: plain JSON, and what json-c reads beyond it.

use super::{MAX_DEPTH, MAX_SIZE, Member, Number, Object, Place, Value};
use crate::finding::{Finding, FindingKind, Position};
use crate::read::Mode;
use crate::read_error::{ReadError, SyntaxProblem};
use crate::sink::{Sink, advance};

/// Reads a JSON document from text.
///
/// The text may end in one NUL, as libxl's stored files do; what stands after it, or after the document, is a
/// [`FindingKind::TrailingGarbage`]. In [`Mode::Strict`] any deviation from plain JSON is an error.
///
/// ```
/// use libxl_config::{Mode, json};
///
/// let parsed = json::parse(b"{'a': [1, 2,]} // b\n", Mode::Lenient)?;
/// assert_eq!(parsed.findings.len(), 3);
/// assert!(json::parse(b"{'a': [1, 2,]}", Mode::Strict).is_err());
/// # Ok::<(), libxl_config::ReadError>(())
/// ```
///
/// # Errors
/// [`ReadError`] if the text is empty, too large, too deep, no JSON, or, in strict mode, deviates.
pub fn parse(text: &[u8], mode: Mode) -> Result<Parsed, ReadError> {
    let mut sink = Sink::collecting();
    let value = parse_into(text, &mut sink)?;
    let findings = sink.finish(Some(text));
    if mode == Mode::Strict && findings.iter().any(Finding::is_deviation) {
        return Err(ReadError::Deviations { findings });
    }
    Ok(Parsed { value, findings })
}

/// What [`parse`] has read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Parsed {
    /// The document.
    pub value: Value,
    /// How the text deviates from plain JSON, in its order.
    pub findings: Vec<Finding>,
}

pub(crate) fn parse_into(text: &[u8], sink: &mut Sink) -> Result<Value, ReadError> {
    if text.len() > MAX_SIZE {
        return Err(ReadError::TooLarge { size: text.len(), limit: MAX_SIZE });
    }
    let mut parser = Parser { text, at: 0, depth: 0, sink };
    let root = Place::root();
    parser.blank(&root)?;
    if parser.rest().is_empty() || parser.rest() == b"\0" {
        return Err(ReadError::Empty);
    }
    let value = parser.value(&root)?;
    parser.end(&root)?;
    Ok(value)
}

pub(super) struct Parser<'t> {
    text: &'t [u8],
    at: usize,
    depth: usize,
    sink: &'t mut Sink,
}

impl<'t> Parser<'t> {
    fn value(&mut self, place: &Place<'_>) -> Result<Value, ReadError> {
        match self.peek() {
            Some(b'{') => self.object(place),
            Some(b'[') => self.array(place),
            Some(b'"' | b'\'') => Ok(Value::String(self.string(place)?)),
            Some(b'-' | b'0'..=b'9') => self.number(place),
            Some(b'a'..=b'z' | b'A'..=b'Z') => self.literal(place),
            _ => Err(self.unexpected("a value")),
        }
    }

    fn object(&mut self, place: &Place<'_>) -> Result<Value, ReadError> {
        let mut object = Object::starting_at(self.offset());
        self.enter()?;
        loop {
            self.blank(place)?;
            let at = self.offset();
            match self.peek() {
                Some(b'}') => {
                    if !object.is_empty() {
                        self.note(&place.at(at), FindingKind::TrailingComma);
                    }
                    break;
                }
                Some(b'"' | b'\'') => {}
                _ => return Err(self.unexpected("a key")),
            }
            let key = self.string(&place.at(at))?;
            self.blank(place)?;
            self.expect(b':', "':'")?;
            self.blank(place)?;
            let value = self.value(&place.key(&key, at))?;
            object.push_member(Member { key, value, at });
            self.blank(place)?;
            if !self.take(b',') {
                break;
            }
        }
        self.expect(b'}', "',' or '}'")?;
        self.depth -= 1;
        Ok(object.into())
    }

    fn array(&mut self, place: &Place<'_>) -> Result<Value, ReadError> {
        let mut elements = Vec::new();
        self.enter()?;
        loop {
            self.blank(place)?;
            let at = self.offset();
            if self.peek() == Some(b']') {
                if !elements.is_empty() {
                    self.note(&place.at(at), FindingKind::TrailingComma);
                }
                break;
            }
            elements.push(self.value(&place.index(elements.len(), at))?);
            self.blank(place)?;
            if !self.take(b',') {
                break;
            }
        }
        self.expect(b']', "',' or ']'")?;
        self.depth -= 1;
        Ok(Value::Array(elements))
    }

    fn number(&mut self, place: &Place<'_>) -> Result<Value, ReadError> {
        let start = self.at;
        let here = place.at(self.offset());
        self.take(b'-');
        if self.peek().is_some_and(|octet| octet.eq_ignore_ascii_case(&b'i')) {
            self.word(b"infinity")?;
            self.note(&here, FindingKind::NotFinite);
            return Ok(self.lexeme(start));
        }
        let digits = self.digits();
        if digits == 0 {
            return Err(self.unexpected("a digit"));
        }
        let leading_zero = digits > 1 && self.text.get(self.at - digits) == Some(&b'0');
        let mut unfinished = false;
        if self.take(b'.') {
            unfinished |= self.digits() == 0;
        }
        if self.take(b'e') || self.take(b'E') {
            let _sign = self.take(b'+') || self.take(b'-');
            unfinished |= self.digits() == 0;
        }
        if leading_zero {
            self.note(&here, FindingKind::LeadingZeros);
        }
        if unfinished {
            self.note(&here, FindingKind::UnfinishedNumber);
        }
        Ok(self.lexeme(start))
    }

    fn literal(&mut self, place: &Place<'_>) -> Result<Value, ReadError> {
        let start = self.at;
        let here = place.at(self.offset());
        let second = self.rest().get(1).map(u8::to_ascii_lowercase);
        let (word, value) = match (self.peek().map(|octet| octet.to_ascii_lowercase()), second) {
            (Some(b't'), _) => ("true", Some(Value::Bool(true))),
            (Some(b'f'), _) => ("false", Some(Value::Bool(false))),
            (Some(b'n'), Some(b'u')) => ("null", Some(Value::Null)),
            (Some(b'n'), _) => ("nan", None),
            (Some(b'i'), _) => ("infinity", None),
            _ => return Err(self.unexpected("a value")),
        };
        self.word(word.as_bytes())?;
        match value {
            Some(value) => {
                if self.text.get(start..self.at) != Some(word.as_bytes()) {
                    self.note(&here, FindingKind::LiteralCase);
                }
                Ok(value)
            }
            None => {
                self.note(&here, FindingKind::NotFinite);
                Ok(self.lexeme(start))
            }
        }
    }

    /// White space, and comments.
    fn blank(&mut self, place: &Place<'_>) -> Result<(), ReadError> {
        loop {
            match self.peek() {
                Some(b' ' | b'\t' | b'\n' | b'\r') => self.at += 1,
                Some(b'/') => {
                    let at = self.offset();
                    self.comment()?;
                    self.note(&place.at(at), FindingKind::Comment);
                }
                _ => return Ok(()),
            }
        }
    }

    fn comment(&mut self) -> Result<(), ReadError> {
        let length = if self.rest().starts_with(b"//") {
            self.rest()
                .iter()
                .position(|octet| matches!(octet, b'\n' | 0))
                .unwrap_or(self.rest().len())
        } else if self.rest().starts_with(b"/*") {
            let end = self.rest().windows(2).skip(2).position(|pair| pair == b"*/");
            end.map(|end| end + 4).ok_or_else(|| self.ends_without("the end of a comment"))?
        } else {
            return Err(self.unexpected("a comment"));
        };
        self.at += length;
        Ok(())
    }

    /// After the document: white space, one NUL, the end.
    fn end(&mut self, place: &Place<'_>) -> Result<(), ReadError> {
        // A comment that does not end is garbage, not an error: libxl stops reading before it.
        let value_end = self.at;
        if self.blank(place).is_err() {
            self.at = value_end;
        }
        let garbage = self.rest();
        let garbage = garbage.strip_suffix(b"\0").unwrap_or(garbage);
        if !garbage.is_empty() {
            let octets = garbage.len();
            let here = place.at(self.offset());
            self.note(&here, FindingKind::TrailingGarbage { octets });
        }
        Ok(())
    }

    fn enter(&mut self) -> Result<(), ReadError> {
        if self.depth == MAX_DEPTH {
            return Err(ReadError::TooDeep { position: self.position(), limit: MAX_DEPTH });
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    fn word(&mut self, word: &[u8]) -> Result<(), ReadError> {
        for letter in word {
            match self.peek() {
                Some(octet) if octet.eq_ignore_ascii_case(letter) => self.at += 1,
                _ => return Err(self.unexpected("a value")),
            }
        }
        Ok(())
    }

    fn digits(&mut self) -> usize {
        let count = self.rest().iter().take_while(|octet| octet.is_ascii_digit()).count();
        self.at += count;
        count
    }

    fn lexeme(&self, start: usize) -> Value {
        let lexeme = self.text.get(start..self.at).unwrap_or_default();
        Value::Number(Number::from_lexeme(&String::from_utf8_lossy(lexeme)))
    }

    fn expect(&mut self, octet: u8, expected: &'static str) -> Result<(), ReadError> {
        if self.take(octet) { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    fn take(&mut self, octet: u8) -> bool {
        let there = self.peek() == Some(octet);
        self.at += usize::from(there);
        there
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    pub(super) fn bump(&mut self) -> Option<u8> {
        let octet = self.peek();
        self.at += usize::from(octet.is_some());
        octet
    }

    pub(super) fn rest(&self) -> &'t [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    pub(super) fn skip(&mut self, octets: usize) {
        self.at += octets;
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn return_to(&mut self, at: usize) {
        self.at = at;
    }

    /// The size limit keeps offsets within 32 bits.
    fn offset(&self) -> u32 {
        u32::try_from(self.at).unwrap_or(u32::MAX)
    }

    pub(super) fn note(&mut self, place: &Place<'_>, kind: FindingKind) {
        self.sink.note(place, kind);
    }

    fn position(&self) -> Position {
        advance(Position { offset: 0, line: 1, column: 1 }, self.text, self.at)
    }

    pub(super) fn syntax(&self, problem: SyntaxProblem) -> ReadError {
        ReadError::Syntax { position: self.position(), problem }
    }

    pub(super) fn ends_without(&self, expected: &'static str) -> ReadError {
        self.syntax(SyntaxProblem::End { expected })
    }

    fn unexpected(&self, expected: &'static str) -> ReadError {
        match self.peek() {
            None | Some(0) => self.ends_without(expected),
            Some(octet) => self.syntax(SyntaxProblem::Unexpected { octet, expected }),
        }
    }
}
