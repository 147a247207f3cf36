//! Strings of JSON text: quotes, escapes, and what is broken about them.

use super::parse::Parser;
use super::{Place, Text};
use crate::finding::FindingKind;
use crate::read_error::{ReadError, SyntaxProblem};

impl Parser<'_> {
    /// A string, its opening quote included. What is odd about it is noted at `place`, or by the caller for a key.
    pub(super) fn string(&mut self, place: &Place<'_>) -> Result<Text, ReadError> {
        let quote = self.bump();
        let mut flaws = Flaws { single_quotes: quote == Some(b'\''), ..Flaws::default() };
        let mut octets = Vec::new();
        loop {
            let Some(octet) = self.bump() else {
                return Err(self.ends_without("the end of a string"));
            };
            match octet {
                b'\\' => self.escape(&mut octets, &mut flaws)?,
                _ if Some(octet) == quote => break,
                _ => {
                    flaws.control |= octet < 0x20;
                    octets.push(octet);
                }
            }
        }
        flaws.nul = octets.contains(&0);
        let text = Text::from_octets(octets);
        flaws.invalid = text.is_lossy() && !flaws.surrogate;
        self.note_flaws(place, &flaws);
        Ok(text)
    }

    fn escape(&mut self, octets: &mut Vec<u8>, flaws: &mut Flaws) -> Result<(), ReadError> {
        let plain = match self.bump() {
            Some(octet @ (b'"' | b'\\' | b'/')) => octet,
            Some(b'b') => 0x08,
            Some(b'f') => 0x0c,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => return self.unicode_escape(octets, flaws),
            _ => return Err(self.syntax(SyntaxProblem::BadEscape)),
        };
        octets.push(plain);
        Ok(())
    }

    /// The digits of `\u`, and a second escape if it completes a surrogate pair.
    fn unicode_escape(&mut self, octets: &mut Vec<u8>, flaws: &mut Flaws) -> Result<(), ReadError> {
        let unit = self.four_digits()?;
        let mut code = u32::from(unit);
        if (0xd800..0xdc00).contains(&unit) && self.rest().starts_with(b"\\u") {
            let before = self.at();
            self.skip(2);
            let low = self.four_digits()?;
            if (0xdc00..0xe000).contains(&low) {
                code = 0x10000 + ((u32::from(unit) & 0x3ff) << 10 | u32::from(low) & 0x3ff);
            } else {
                self.return_to(before);
            }
        }
        match char::from_u32(code) {
            Some(character) => octets.extend(character.encode_utf8(&mut [0; 4]).as_bytes()),
            None => {
                flaws.surrogate = true;
                let [high, low] = unit.to_be_bytes();
                octets.extend([0xed, 0x80 | (high & 0x0f) << 2 | low >> 6, 0x80 | low & 0x3f]);
            }
        }
        Ok(())
    }

    fn four_digits(&mut self) -> Result<u16, ReadError> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = match self.bump() {
                Some(octet @ b'0'..=b'9') => octet - b'0',
                Some(octet @ b'a'..=b'f') => octet - b'a' + 10,
                Some(octet @ b'A'..=b'F') => octet - b'A' + 10,
                _ => return Err(self.syntax(SyntaxProblem::BadEscape)),
            };
            unit = unit << 4 | u16::from(digit);
        }
        Ok(unit)
    }

    fn note_flaws(&mut self, place: &Place<'_>, flaws: &Flaws) {
        let found = [
            (flaws.single_quotes, FindingKind::SingleQuotes),
            (flaws.control, FindingKind::ControlCharacter),
            (flaws.surrogate, FindingKind::LoneSurrogate),
            (flaws.invalid, FindingKind::InvalidUtf8),
            (flaws.nul, FindingKind::NulInString),
        ];
        for (_, kind) in found.into_iter().filter(|(there, _)| *there) {
            self.note(place, kind);
        }
    }
}

#[derive(Default)]
struct Flaws {
    single_quotes: bool,
    control: bool,
    surrogate: bool,
    invalid: bool,
    nul: bool,
}
