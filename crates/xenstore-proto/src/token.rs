//! Tokens of watches.

use std::fmt;

/// What a client gives a watch to tell its events from others': any octets but NUL, at most what fits a message.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(Box<[u8]>);

impl Token {
    /// Checks that there is no NUL.
    pub fn from_octets(octets: impl Into<Box<[u8]>>) -> Result<Self, TokenError> {
        let octets = octets.into();
        match octets.iter().position(|&c| c == 0) {
            Some(at) => Err(TokenError { at }),
            None => Ok(Self(octets)),
        }
    }

    /// The octets.
    pub fn as_octets(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.escape_ascii().fmt(f)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token(\"{self}\")")
    }
}

/// A NUL inside a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("token with a NUL at offset {at}")]
pub struct TokenError {
    /// Where it stands.
    pub at: usize,
}
