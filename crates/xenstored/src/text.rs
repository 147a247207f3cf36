//! A store as text: what `xenstore-ls -fp` prints.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

use xenstore_proto::{Path, PathError, Perms, PermsError};

use crate::limits::{PERMS_MAX, TEXT_LINE_MAX, VALUE_MAX};
use crate::store::Store;

/// Between path and value.
const OPEN: &str = " = \"";
/// Between value and permissions. A value may hold it too; permissions cannot, so that the last one on the line counts.
const CLOSE: &[u8] = b"\"   (";

impl Store {
    /// The store as text, a line a node:
    ///
    /// ```text
    /// /local/domain/7/name = "seven"   (n0,r7)
    /// ```
    ///
    /// Printable ASCII stands for itself, except the backslash; other octets are `\\ \t \n \r`, `\ooo` below 8 and
    /// `\xHH`, as the stock `xenstore-ls -fp` writes them. Every node stands before its children, and these in the
    /// order of their creation. The root has a line only if it is not as in an empty store (`xenstore-ls` prints
    /// none).
    pub fn to_text(&self) -> String {
        let empty = Self::new();
        let mut text = String::new();
        let mut nodes = self.nodes();
        while let Some((path, node)) = nodes.advance() {
            let is_root = path.is_empty();
            if is_root && node.value() == empty.root.value() && node.perms() == empty.root.perms() {
                continue;
            }
            text.push_str(if is_root { "/" } else { path });
            text.push_str(OPEN);
            escape_value(node.value(), &mut text);
            // Writing to a String cannot fail.
            let _ = writeln!(text, "\"   ({})", node.perms());
        }
        text
    }

    /// Reads what [`Store::to_text`] or `xenstore-ls -fp` wrote.
    ///
    /// Nodes missing above a line's are created, empty and with the permissions of the node above them; a later
    /// line may set them. Empty lines are skipped.
    ///
    /// ```
    /// use xenstored::Store;
    /// let store = Store::from_text("/tool = \"\"   (n0)\n/tool/say = \"a \"quote\"\\n\"   (n0,r7)\n")?;
    /// assert_eq!(store.read(&"/tool/say".parse()?), Some(&b"a \"quote\"\n"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_text(text: impl AsRef<[u8]>) -> Result<Self, LoadError> {
        let mut store = Self::new();
        let mut seen = HashSet::new();
        let mut interned: HashMap<Perms, Arc<Perms>> = HashMap::new();
        for (number, line) in (1..).zip(text.as_ref().split(|&c| c == b'\n')) {
            if line.is_empty() {
                continue;
            }
            let wrong = |source| LoadError { line: number, source };
            let (path, value, perms) = parse_line(line).map_err(wrong)?;
            if !seen.insert(path.clone()) {
                return Err(wrong(LineError::Twice { path }));
            }
            let shared = interned.entry(perms).or_insert_with_key(|perms| Arc::new(perms.clone()));
            match store.get_mut(&path) {
                Some(node) => {
                    node.set_value(&value);
                    node.set_perms(Arc::clone(shared));
                }
                None => {
                    if let Some(above) = path.parent().filter(|above| !store.exists(above)) {
                        let inherited = Arc::clone(store.nearest(&above).0.perms());
                        store.create(&above, b"", &inherited);
                    }
                    store.create(&path, &value, shared);
                }
            }
        }
        Ok(store)
    }
}

/// A line of a store's text that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}")]
pub struct LoadError {
    /// Which line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub source: LineError,
}

/// What is wrong with a line of a store's text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// Longer than any node can make it.
    #[error("{len} octets are more than the {TEXT_LINE_MAX} that a line may have")]
    TooLong {
        /// Octets of the line.
        len: usize,
    },
    /// Not `PATH = "VALUE"   (PERMS)`.
    #[error("not of the form: PATH = \"VALUE\"   (PERMS)")]
    Form,
    /// The path is none.
    #[error("malformed path")]
    Path(#[source] PathError),
    /// The path does not start at the root.
    #[error("path {path} does not start with /")]
    Relative {
        /// The path.
        path: Path,
    },
    /// A backslash that starts none of the escapes.
    #[error(
        "at octet {at} of the value, a backslash not followed by one of \\ t n r, three octal or x and two hexadecimal digits"
    )]
    Escape {
        /// Where in the value as written, from 0.
        at: usize,
    },
    /// A value longer than any client could read.
    #[error("value of {len} octets is longer than the {VALUE_MAX} allowed")]
    ValueTooLong {
        /// Octets given.
        len: usize,
    },
    /// The permissions are none.
    #[error("malformed permissions")]
    Perms(#[source] PermsError),
    /// More permissions than any client could read.
    #[error("{entries} permissions are more than the {PERMS_MAX} allowed")]
    TooManyPerms {
        /// Entries given.
        entries: usize,
    },
    /// The node has a line already.
    #[error("a second line for {path}")]
    Twice {
        /// The node.
        path: Path,
    },
}

fn parse_line(line: &[u8]) -> Result<(Path, Vec<u8>, Perms), LineError> {
    if line.len() > TEXT_LINE_MAX {
        return Err(LineError::TooLong { len: line.len() });
    }
    let (path, rest) = split(line, OPEN.as_bytes(), false).ok_or(LineError::Form)?;
    let path = Path::from_octets(path).map_err(LineError::Path)?;
    if !path.is_absolute() {
        return Err(LineError::Relative { path });
    }
    let (value, perms) = split(rest, CLOSE, true).ok_or(LineError::Form)?;
    let value = unescape(value)?;
    if value.len() > VALUE_MAX {
        return Err(LineError::ValueTooLong { len: value.len() });
    }
    let perms = perms.strip_suffix(b")").ok_or(LineError::Form)?;
    let perms = str::from_utf8(perms).map_err(|_| LineError::Perms(PermsError::Access))?;
    let perms: Perms = perms.parse().map_err(LineError::Perms)?;
    match perms.entries().len() {
        entries if entries > PERMS_MAX => Err(LineError::TooManyPerms { entries }),
        _ => Ok((path, value, perms)),
    }
}

fn split<'a>(line: &'a [u8], between: &[u8], at_last: bool) -> Option<(&'a [u8], &'a [u8])> {
    let mut places = line.windows(between.len());
    let at = if at_last {
        places.rposition(|window| window == between)?
    } else {
        places.position(|window| window == between)?
    };
    Some((&line[..at], &line[at + between.len()..]))
}

/// Appends a value as the stock `xenstore-ls` prints it and [`Store::from_text`] reads it: printable ASCII as it is but for
/// the backslash, which is doubled; `\t`, `\n`, `\r`; the first eight octets in octal, all others in hexadecimal digits.
pub fn escape_value(value: &[u8], text: &mut String) {
    for &octet in value {
        // Writing to a String cannot fail.
        let _ = match octet {
            b'\\' => text.write_str("\\\\"),
            b'\t' => text.write_str("\\t"),
            b'\n' => text.write_str("\\n"),
            b'\r' => text.write_str("\\r"),
            b' '..=b'~' => text.write_char(char::from(octet)),
            0..=7 => write!(text, "\\{octet:03o}"),
            _ => write!(text, "\\x{octet:02x}"),
        };
    }
}

fn unescape(written: &[u8]) -> Result<Vec<u8>, LineError> {
    let mut value = Vec::with_capacity(written.len());
    let mut at = 0;
    while let Some(&octet) = written.get(at) {
        if octet != b'\\' {
            value.push(octet);
            at += 1;
            continue;
        }
        let wrong = LineError::Escape { at };
        let number = |digits: std::ops::Range<usize>, radix| {
            let digits = str::from_utf8(written.get(digits)?).ok()?;
            let plain = digits.chars().all(|c| c.is_digit(radix));
            plain.then(|| u8::from_str_radix(digits, radix).ok())?
        };
        let (octet, len) = match written.get(at + 1) {
            Some(b'\\') => (Some(b'\\'), 2),
            Some(b't') => (Some(b'\t'), 2),
            Some(b'n') => (Some(b'\n'), 2),
            Some(b'r') => (Some(b'\r'), 2),
            Some(b'x') => (number(at + 2..at + 4, 16), 4),
            _ => (number(at + 1..at + 4, 8), 4),
        };
        value.push(octet.ok_or(wrong)?);
        at += len;
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzzing::text_form;
    use proptest::prelude::*;

    #[test]
    fn every_wrong_line_is_named_with_what_is_wrong() {
        let error = |line: &str| {
            let error = Store::from_text(format!("/ok = \"\"   (n0)\n{line}\n")).unwrap_err();
            assert_eq!(error.line, 2, "{line:?}");
            error.source
        };
        assert_eq!(error("nonsense"), LineError::Form);
        assert_eq!(error("/a = \"x\" (n0)"), LineError::Form);
        assert_eq!(error("/a = \"x\"   (n0"), LineError::Form);
        assert!(matches!(error("/a. = \"x\"   (n0)"), LineError::Path(_)));
        assert!(matches!(error("a = \"x\"   (n0)"), LineError::Relative { .. }));
        assert_eq!(error("/a = \"x\"   ()"), LineError::Perms(PermsError::Access));
        assert_eq!(error("/a = \"x\"   (n0,r)"), LineError::Perms(PermsError::DomId));
        for value in
            ["ab\\", "ab\\q", "ab\\x4", "ab\\xg0", "ab\\12", "ab\\777", "ab\\+12", "ab\\x+1"]
        {
            assert_eq!(error(&format!("/a = \"{value}\"   (n0)")), LineError::Escape { at: 2 });
        }
        assert!(matches!(error("/ok = \"\"   (n0)"), LineError::Twice { .. }));
        let long = format!("/a = \"{}\"   (n0)", "x".repeat(VALUE_MAX + 1));
        assert_eq!(error(&long), LineError::ValueTooLong { len: VALUE_MAX + 1 });
        let long = format!("/a = \"{}\"   (n0)", "x".repeat(TEXT_LINE_MAX));
        assert_eq!(error(&long), LineError::TooLong { len: long.len() });
        let many = format!("/a = \"\"   (n0{})", ",r1".repeat(PERMS_MAX));
        assert_eq!(error(&many), LineError::TooManyPerms { entries: PERMS_MAX + 1 });
    }

    #[test]
    fn the_longest_node_fits_a_line() {
        let mut store = Store::new();
        let path: Path = format!("/{}", "p".repeat(3071)).parse().unwrap();
        store.write(&path, &[0xff; VALUE_MAX]).unwrap();
        store.set_perms(&path, ["r65535"; PERMS_MAX].join(",").parse::<Perms>().unwrap()).unwrap();
        assert_eq!(Store::from_text(store.to_text()), Ok(store));
    }

    #[test]
    fn children_may_stand_before_what_is_above_them() {
        let text = "/a/b = \"1\"   (r3)\n/a = \"2\"   (n0,r4)\n";
        let store = Store::from_text(text).unwrap();
        assert_eq!(store.to_text(), "/a = \"2\"   (n0,r4)\n/a/b = \"1\"   (r3)\n");
    }

    proptest! {
        #[test]
        fn any_octets_read_as_a_store_or_an_error(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            text_form(&octets);
        }

        #[test]
        fn near_misses_of_a_line_read_as_a_store_or_an_error(
            lines in proptest::collection::vec("/[ab/]{0,3} = \"[\\\\xtn0-7\" (]{0,6}\"   \\([nrwb0-3,]{0,6}\\)", 0..4)
        ) {
            text_form(lines.join("\n").as_bytes());
        }
    }
}
