//! Why a text could not be read.

use crate::finding::{Finding, Position};

/// Why a text could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// There is nothing to read. libxl leaves such a file behind when the host crashes during a write.
    #[error(
        "the text is empty; a host that crashed during a write leaves such a file, restore it from elsewhere"
    )]
    Empty,
    /// Larger than [`MAX_SIZE`](crate::json::MAX_SIZE).
    #[error("the text has {size} octets, more than the {limit} this reader takes")]
    TooLarge {
        /// Octets there are.
        size: usize,
        /// Octets allowed.
        limit: usize,
    },
    /// Nested deeper than [`MAX_DEPTH`](crate::json::MAX_DEPTH).
    #[error("{position}: nested more than {limit} levels deep")]
    TooDeep {
        /// Where.
        position: Position,
        /// Levels allowed.
        limit: usize,
    },
    /// More structs than [`MAX_STRUCTS`](crate::MAX_STRUCTS).
    #[error("the configuration has more than the {limit} structs this reader takes")]
    TooManyStructs {
        /// Structs allowed.
        limit: usize,
    },
    /// No JSON, by either of libxl's readers.
    #[error("{position}: {problem}")]
    Syntax {
        /// Where.
        position: Position,
        /// What is wrong.
        problem: SyntaxProblem,
    },
    /// Strict mode: it can be read, but deviates.
    #[error("{}", deviations(findings))]
    Deviations {
        /// All findings, notes included, in the order of the text.
        findings: Vec<Finding>,
    },
}

impl ReadError {
    /// All findings of a text that strict mode refused, notes included; none for another error.
    pub fn findings(&self) -> &[Finding] {
        match self {
            ReadError::Deviations { findings } => findings,
            _ => &[],
        }
    }
}

/// What is wrong with a text that is no JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SyntaxProblem {
    /// The text ends too early.
    #[error("the text ends where {expected} should be")]
    End {
        /// What should be there.
        expected: &'static str,
    },
    /// Something else stands there.
    #[error("'{}' where {expected} should be", octet.escape_ascii())]
    Unexpected {
        /// What stands there.
        octet: u8,
        /// What should be there.
        expected: &'static str,
    },
    /// A backslash that starts no escape.
    #[error("a backslash that starts no escape")]
    BadEscape,
}

fn deviations(findings: &[Finding]) -> String {
    let mut deviations = findings.iter().filter(|finding| finding.is_deviation());
    let rest = deviations.clone().count().saturating_sub(1);
    match (deviations.next(), rest) {
        (None, _) => "no deviation".to_owned(),
        (Some(first), 0) => first.to_string(),
        (Some(first), rest) => format!("{first} (and {rest} more)"),
    }
}
