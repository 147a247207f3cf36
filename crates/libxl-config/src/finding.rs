//! What a read has to say about a text: findings, their severity and place.

use std::fmt;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::json::JsonPath;

/// One thing about a text that its writer should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where in the document.
    pub path: JsonPath,
    /// What it is.
    pub kind: FindingKind,
    /// Where in the text; `None` for a document that was never text.
    pub position: Option<Position>,
}

impl Finding {
    /// How bad it is.
    pub fn severity(&self) -> Severity {
        self.kind.severity()
    }

    /// Whether strict mode refuses a text for it: everything but a [`Severity::Note`].
    pub fn is_deviation(&self) -> bool {
        self.severity() > Severity::Note
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path)?;
        if let Some(position) = &self.position {
            write!(f, "{position}: ")?;
        }
        self.kind.fmt(f)
    }
}

/// An object of `path`, `severity`, `message` and, where there is one, `position`.
impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("path", &self.path)?;
        map.serialize_entry("severity", &self.severity())?;
        map.serialize_entry("message", &self.kind.to_string())?;
        if let Some(position) = &self.position {
            map.serialize_entry("position", position)?;
        }
        map.end()
    }
}

/// How bad a [`Finding`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// libxl writes it and reads it as it says; worth knowing all the same. No deviation.
    Note,
    /// libxl reads the text, but not all of it, or differently from what it seems to say.
    Warning,
    /// libxl refuses the text, or aborts on it.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        })
    }
}

/// A place in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Position {
    /// Octets before it.
    pub offset: usize,
    /// Line, from 1.
    pub line: usize,
    /// Column in octets, from 1.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} column {}", self.line, self.column)
    }
}

/// What a [`Finding`] is about. `docs/libxl-json.md` says for each what libxl does and why this crate does as it does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FindingKind {
    /// `/* */` or `//`.
    #[error("a comment, which only json-c builds of libxl read; it is dropped on writing")]
    Comment,
    /// `'text'`.
    #[error("a string in single quotes, which only json-c builds of libxl read")]
    SingleQuotes,
    /// `TRUE`, `Null`.
    #[error("a literal not in small letters, which only json-c builds of libxl read")]
    LiteralCase,
    /// `NaN`, `Infinity`.
    #[error("a number that is not finite, which only json-c builds of libxl read")]
    NotFinite,
    /// `007`.
    #[error("a number with leading zeros, which only json-c builds of libxl read")]
    LeadingZeros,
    /// `1.` or `1e`.
    #[error("a number that ends in its dot or exponent, which only json-c builds of libxl read")]
    UnfinishedNumber,
    /// `[1,]`.
    #[error("a comma after the last entry, which only json-c builds of libxl read")]
    TrailingComma,
    /// An octet below 0x20 in a string.
    #[error(
        "a control character in a string, which only json-c builds of libxl read; it is written as an escape"
    )]
    ControlCharacter,
    /// Octets that are no UTF-8.
    #[error(
        "a string that is no valid UTF-8, which libxl writes as it is and yajl builds of it refuse to read"
    )]
    InvalidUtf8,
    /// `\ud800` without its other half.
    #[error("half a surrogate pair, which stands for no character")]
    LoneSurrogate,
    /// `\u0000` in a string.
    #[error("a NUL in a string, where libxl's own strings end: it drops what follows")]
    NulInString,
    /// Something after the document.
    #[error("{octets} octets after the document, which libxl ignores; they are dropped on writing")]
    TrailingGarbage {
        /// How many.
        octets: usize,
    },
    /// A stored file that does not end in NUL.
    #[error("no NUL at the end, which libxl's userdata reader requires")]
    MissingNul,
    /// The document is no object.
    #[error("{found} instead of an object: libxl takes it for one with nothing but defaults")]
    NotAnObject {
        /// What it is.
        found: &'static str,
    },
    /// A key the schema does not have.
    #[error("unknown key, which libxl ignores and loses on its next write; it is kept")]
    UnknownKey,
    /// A second member of that name.
    #[error(
        "the key is there more than once: yajl builds of libxl and this reader take the first, json-c builds the last"
    )]
    DuplicateKey,
    /// The wrong kind of JSON value.
    #[error("{found} instead of {expected}: libxl silently takes the default")]
    WrongType {
        /// What the schema asks for.
        expected: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// An element of a list of the wrong kind.
    #[error("list element is {found} instead of {expected}, which libxl refuses; it is left out")]
    WrongElement {
        /// What the schema asks for.
        expected: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// An integer from 2^63.
    #[error("{lexeme} is 2^63 or more: libxl silently takes the default, this reader the number")]
    BeyondI64 {
        /// The number as spelled.
        lexeme: String,
    },
    /// `1e3`.
    #[error(
        "{lexeme} has an exponent: read as {value}; yajl builds of libxl drop the exponent, json-c builds the number"
    )]
    Exponent {
        /// The number as spelled.
        lexeme: String,
        /// What it was read as.
        value: i128,
    },
    /// An integer that does not fit its field.
    #[error("{lexeme} does not fit {expected}, which libxl refuses; the default is taken")]
    OutOfRange {
        /// The field's type in the schema.
        expected: &'static str,
        /// The number as spelled.
        lexeme: String,
    },
    /// A negative number where libxl's json-c writer lost the sign of a large one.
    #[error(
        "{lexeme} stands for {value}: json-c builds of libxl write large numbers as negative and cannot read them back"
    )]
    NegativeUnsigned {
        /// The number as spelled.
        lexeme: String,
        /// What it was read as.
        value: u32,
    },
    /// An enum name the schema does not have.
    #[error(
        "{name:?} is no {enumeration} this release knows, which libxl refuses; the name is kept"
    )]
    UnknownName {
        /// The enumeration in the schema.
        enumeration: &'static str,
        /// The name, shortened if huge.
        name: String,
    },
    /// An enum name in other letters.
    #[error("{name:?} is written {canonical:?} by libxl, which reads both")]
    NameCase {
        /// As it was read.
        name: String,
        /// As libxl writes it.
        canonical: &'static str,
    },
    /// A defbool that is none.
    #[error(
        "{text:?} is none of True, False, <default>, which libxl refuses; the default is taken"
    )]
    BadDefBool {
        /// The text, shortened if huge.
        text: String,
    },
    /// A defbool with something behind it.
    #[error("{text:?} only starts with True, False or <default>; libxl does not look further")]
    DefBoolPrefix {
        /// The text, shortened if huge.
        text: String,
    },
    /// Text that does not parse as the field's type.
    #[error("{text:?} is no {expected}, which libxl refuses; the default is taken")]
    BadText {
        /// `uuid` or `mac`.
        expected: &'static str,
        /// The text, shortened if huge.
        text: String,
    },
    /// A uuid or MAC address in other letters.
    #[error("libxl reads this, and writes it {canonical:?}")]
    TextCase {
        /// As libxl writes it.
        canonical: String,
    },
    /// Bit numbers out of order.
    #[error(
        "bit {bit} is not above the one before it; libxl sizes a bitmap by its last element and drops higher bits, this reader keeps them"
    )]
    BitmapOrder {
        /// The bit.
        bit: u32,
    },
    /// A bit number that is none.
    #[error("bit {lexeme} cannot be, and is left out; libxl does the same without a word")]
    BitmapBit {
        /// The number as spelled.
        lexeme: String,
    },
    /// Not sixteen octets.
    #[error("{count} elements instead of 16: libxl refuses fewer and ignores more")]
    GenIdLength {
        /// How many there are.
        count: usize,
    },
    /// An octet that is none.
    #[error("{lexeme} is no octet: libxl takes its low eight bits, and so does this reader")]
    GenIdRange {
        /// The number as spelled.
        lexeme: String,
    },
    /// More than one variant of a keyed union.
    #[error(
        "a second variant beside {first:?}: libxl aborts the calling process; this reader takes the first and keeps the others"
    )]
    TwoVariants {
        /// The key that was taken.
        first: String,
    },
    /// `c_info.type` against the variant in `b_info`.
    #[error("{c_info:?} here, but b_info has {b_info:?}: nothing in libxl checks that they agree")]
    TypeDisagrees {
        /// The name in `c_info.type`.
        c_info: String,
        /// The variant in `b_info`.
        b_info: &'static str,
    },
    /// A field libxl has moved elsewhere.
    #[error("deprecated: libxl uses {instead} and looks here only while that is unset")]
    Deprecated {
        /// The field that took its place.
        instead: &'static str,
    },
    /// A deprecated field and its successor that differ.
    #[error("deprecated, and {instead} has another value, which is the one libxl uses")]
    DeprecatedDisagrees {
        /// The field that took its place.
        instead: &'static str,
    },
    /// More findings than are kept.
    #[error("more than {limit} findings; the rest is not listed")]
    TooMany {
        /// [`MAX_FINDINGS`](crate::json::MAX_FINDINGS).
        limit: usize,
    },
}

impl FindingKind {
    /// How bad it is.
    pub fn severity(&self) -> Severity {
        use FindingKind::*;
        match self {
            Deprecated { .. } => Severity::Note,
            ControlCharacter
            | LoneSurrogate
            | NulInString
            | TrailingGarbage { .. }
            | NotAnObject { .. }
            | UnknownKey
            | DuplicateKey
            | WrongType { .. }
            | BeyondI64 { .. }
            | Exponent { .. }
            | NameCase { .. }
            | TextCase { .. }
            | DefBoolPrefix { .. }
            | BitmapOrder { .. }
            | BitmapBit { .. }
            | GenIdRange { .. }
            | TypeDisagrees { .. }
            | DeprecatedDisagrees { .. }
            | TooMany { .. } => Severity::Warning,
            GenIdLength { count } if *count > 16 => Severity::Warning,
            GenIdLength { .. }
            | Comment
            | SingleQuotes
            | LiteralCase
            | NotFinite
            | LeadingZeros
            | UnfinishedNumber
            | TrailingComma
            | InvalidUtf8
            | MissingNul
            | WrongElement { .. }
            | OutOfRange { .. }
            | NegativeUnsigned { .. }
            | UnknownName { .. }
            | BadDefBool { .. }
            | BadText { .. }
            | TwoVariants { .. } => Severity::Error,
        }
    }
}
