//! The shapes that payloads are made of: strings that end with a NUL, numbers in decimal, raw octets at the end.

use crate::domid::{DomId, decimal};
use crate::path::{Path, PathOrSpecial};
use crate::perms::{Perm, Perms};
use crate::token::Token;

/// Takes a payload apart from the front.
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn new(payload: &'a [u8]) -> Self {
        Self(payload)
    }

    /// The octets up to the next NUL, which is taken too.
    pub(crate) fn string(&mut self) -> Result<&'a [u8], PayloadError> {
        let nul = self.0.iter().position(|&c| c == 0).ok_or(PayloadError::Unterminated)?;
        let (string, rest) = self.0.split_at(nul);
        self.0 = &rest[1..];
        Ok(string)
    }

    /// The rest, whatever it holds.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// Drops octets without a NUL at the end: the protocol reserves them, and servers ignore them.
    pub(crate) fn reserved(&mut self) {
        if !self.0.contains(&0) {
            self.0 = &[];
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Refuses what is left over.
    pub(crate) fn end(self) -> Result<(), PayloadError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(PayloadError::LeftOver { octets: self.0.len() })
        }
    }

    pub(crate) fn path(&mut self) -> Result<Path, PayloadError> {
        Ok(Path::from_octets(self.string()?)?)
    }

    pub(crate) fn path_or_special(&mut self) -> Result<PathOrSpecial, PayloadError> {
        Ok(PathOrSpecial::from_octets(self.string()?)?)
    }

    pub(crate) fn token(&mut self) -> Result<Token, PayloadError> {
        Ok(Token::from_octets(self.string()?).expect("a string up to its first NUL holds none"))
    }

    pub(crate) fn number(&mut self, what: &'static str) -> Result<u64, PayloadError> {
        decimal(self.string()?).ok_or(PayloadError::Number { what })
    }

    pub(crate) fn number32(&mut self, what: &'static str) -> Result<u32, PayloadError> {
        self.number(what)?.try_into().map_err(|_| PayloadError::Number { what })
    }

    pub(crate) fn domid(&mut self) -> Result<DomId, PayloadError> {
        let number = self.number("domain id")?;
        number.try_into().map(DomId::new).map_err(|_| PayloadError::Number { what: "domain id" })
    }

    /// All strings to the end, at least one.
    pub(crate) fn perms(&mut self) -> Result<Perms, PayloadError> {
        let mut entries = Vec::new();
        while self.0.contains(&0) {
            let text = str::from_utf8(self.string()?)
                .map_err(|_| PayloadError::Perms(crate::PermsError::Access))?;
            entries.push(text.parse::<Perm>()?);
        }
        Ok(Perms::new(entries)?)
    }
}

/// Appends a string and its NUL.
pub(crate) fn put(out: &mut Vec<u8>, string: impl AsRef<[u8]>) {
    out.extend_from_slice(string.as_ref());
    out.push(0);
}

/// Why a payload does not have the shape that its operation needs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// A string without its NUL, or too few strings.
    #[error("a string of the payload does not end with a NUL, or is missing")]
    Unterminated,
    /// More than the operation takes.
    #[error("{octets} octets left over after the last argument")]
    LeftOver {
        /// How many.
        octets: usize,
    },
    /// A number that is none, or too large.
    #[error("{what} is not a decimal number in range")]
    Number {
        /// What the number means.
        what: &'static str,
    },
    /// A word that is not one of the allowed.
    #[error("{what} is not one of {allowed}")]
    Word {
        /// What the word means.
        what: &'static str,
        /// The words allowed.
        allowed: &'static str,
    },
    /// A path that is none.
    #[error(transparent)]
    Path(#[from] crate::PathError),
    /// Permissions that are none.
    #[error(transparent)]
    Perms(#[from] crate::PermsError),
}
