//! Revisions: what a template's content is called.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Length of a revision in octets: that of a BLAKE3 digest.
const LEN: usize = 32;

/// Identifies the content of a template, the same in every store and on every host.
///
/// It is a digest of the template's octets, without the NUL that libxl puts after them. Equal revisions mean equal
/// octets. A template that is changed and changed back has its first revision again: a compare-and-swap based on that
/// revision is then still right, because it replaces exactly the octets it was computed from.
///
/// Treat the value as opaque. As text, and in serde, it is 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Revision([u8; LEN]);

impl Revision {
    /// The revision of a template with these octets (no trailing NUL).
    #[must_use]
    pub fn of(octets: &[u8]) -> Self {
        Revision(*blake3::hash(octets).as_bytes())
    }

    /// The digest, for stores that keep it beside the template.
    pub(super) fn as_octets(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Revision({self})")
    }
}

/// A text that is not a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a revision: expected 64 lower-case hexadecimal digits")]
pub struct RevisionError;

impl FromStr for Revision {
    type Err = RevisionError;

    fn from_str(text: &str) -> Result<Self, RevisionError> {
        let digits = text.as_bytes();
        if digits.len() != 2 * LEN {
            return Err(RevisionError);
        }
        let mut octets = [0; LEN];
        for (octet, pair) in octets.iter_mut().zip(digits.chunks_exact(2)) {
            *octet = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Revision(octets))
    }
}

impl TryFrom<String> for Revision {
    type Error = RevisionError;

    fn try_from(text: String) -> Result<Self, RevisionError> {
        text.parse()
    }
}

impl From<Revision> for String {
    fn from(revision: Revision) -> String {
        revision.to_string()
    }
}

fn digit(character: u8) -> Result<u8, RevisionError> {
    match character {
        b'0'..=b'9' => Ok(character - b'0'),
        b'a'..=b'f' => Ok(character - b'a' + 10),
        _ => Err(RevisionError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_the_blake3_digest_so_that_it_never_changes_between_builds() {
        // Published digest of the empty input.
        let empty = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        assert_eq!(Revision::of(b"").to_string(), empty);
    }

    #[test]
    fn a_revision_survives_text_and_serde() {
        let revision = Revision::of(b"{}");
        assert_eq!(revision.to_string().parse(), Ok(revision));
        let json = serde_json::to_string(&revision).unwrap();
        assert_eq!(json, format!("\"{revision}\""));
        assert_eq!(serde_json::from_str::<Revision>(&json).unwrap(), revision);
    }

    #[test]
    fn other_texts_are_not_revisions() {
        let good = Revision::of(b"{}").to_string();
        for bad in
            ["", "00", &good.to_uppercase(), &good[1..], &format!("{good}0"), &"é".repeat(32)]
        {
            assert_eq!(bad.parse::<Revision>(), Err(RevisionError), "{bad}");
        }
    }
}
