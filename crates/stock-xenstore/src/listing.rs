//! The text of `xenstore-ls -fp`: one line a node, `PATH = "VALUE"   (PERMISSION,PERMISSION...)`.

use std::path::Path;

use crate::wire::{self, FillError};

/// What `xenstore-ls -fp` printed: nodes, parents first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    nodes: Vec<ListedNode>,
}

/// One line of a [`Listing`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedNode {
    path: String,
    value: Vec<u8>,
    permissions: Vec<String>,
}

/// A line is none that `xenstore-ls -fp` prints.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[error("line {line} of the listing {what}")]
pub struct ListingError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: &'static str,
}

impl Listing {
    /// Reads the text. Empty lines are skipped.
    pub fn parse(text: &str) -> Result<Listing, ListingError> {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty());
        let node = |(index, line)| {
            ListedNode::parse(line).map_err(|what| ListingError { line: index + 1, what })
        };
        Ok(Listing { nodes: lines.map(node).collect::<Result<_, _>>()? })
    }

    /// The nodes in the order of the lines.
    pub fn nodes(&self) -> &[ListedNode] {
        &self.nodes
    }

    /// Writes every node with its value and permissions to the Xenstore at `socket`, stock or not, as dom0.
    ///
    /// Many requests are on their way at a time, and there is no transaction: another client sees the nodes appear, for
    /// a moment with inherited permissions. Fails if the server is silent for ten seconds.
    pub fn write_to(&self, socket: &Path) -> Result<(), FillError> {
        wire::fill(socket, &self.nodes)
    }
}

impl ListedNode {
    /// The absolute path.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The value, any octets.
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// The permissions as on the wire, such as `n0` and `r7`, the owner's first; never empty.
    pub fn permissions(&self) -> &[String] {
        &self.permissions
    }

    fn parse(line: &str) -> Result<ListedNode, &'static str> {
        // A path has neither a space nor a quote, and a permission has no quote: the first match and the last one are
        // right whatever the value holds.
        let (path, rest) = line.split_once(" = \"").ok_or("has no ` = \"` after a path")?;
        let (value, permissions) = rest.rsplit_once("\"   (").ok_or("has no `\"   (`")?;
        let permissions = permissions.strip_suffix(')').ok_or("does not end in `)`")?;
        if !path.starts_with('/') {
            return Err("does not begin with an absolute path");
        }
        if path.contains('\0') {
            return Err("has a NUL in its path");
        }
        let permissions = permissions.split(',').map(permission).collect::<Option<_>>();
        Ok(ListedNode {
            path: path.to_owned(),
            value: unescape(value).ok_or("has an unknown or incomplete escape in its value")?,
            permissions: permissions.ok_or("has a permission that is no letter with a domid")?,
        })
    }
}

fn permission(text: &str) -> Option<String> {
    let digits = text.strip_prefix(['n', 'r', 'w', 'b'])?;
    digits.parse::<u16>().ok()?;
    Some(text.to_owned())
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut value = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, more @ ..] = rest {
        rest = more;
        if *first != b'\\' {
            value.push(*first);
            continue;
        }
        let (octet, length) = match rest {
            [b'\\', ..] => (b'\\', 1),
            [b'n', ..] => (b'\n', 1),
            [b'r', ..] => (b'\r', 1),
            [b't', ..] => (b'\t', 1),
            [b'x', digits @ ..] => (number(digits.get(..2)?, 16)?, 3),
            digits => (number(digits.get(..3)?, 8)?, 3),
        };
        value.push(octet);
        rest = rest.get(length..)?;
    }
    Some(value)
}

fn number(digits: &[u8], radix: u32) -> Option<u8> {
    let digits = str::from_utf8(digits).ok()?;
    digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then_some(())?;
    u8::from_str_radix(digits, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Option<Vec<u8>> {
        unescape(text)
    }

    #[test]
    fn escapes_stand_for_single_octets() {
        assert_eq!(value(r"a\\b\n\r\t\000\007\x7f\xff").unwrap(), b"a\\b\n\r\t\0\x07\x7f\xff");
    }

    #[test]
    fn broken_escapes_are_refused() {
        for text in [r"\", r"\q", r"\x1", r"\xzz", r"\+12", r"\x+1", r"\400", r"\08é", r"\01"] {
            assert_eq!(value(text), None, "{text}");
        }
    }

    #[test]
    fn a_value_that_looks_like_the_end_of_a_line_is_a_value() {
        let listing = Listing::parse("/a = \"x = \"y\"   (n0)\"   (n0,b7)\n").unwrap();
        let [node] = listing.nodes() else { panic!("one line, one node") };
        assert_eq!(node.path(), "/a");
        assert_eq!(node.value(), b"x = \"y\"   (n0)");
        assert_eq!(node.permissions(), ["n0", "b7"]);
    }

    #[test]
    fn a_line_of_another_form_is_named() {
        let broken = ["/a", "a = \"\"   (n0)", "/a = \"\"", "/a = \"\"   (n0", "/a = \"\"   ()"];
        for line in broken.into_iter().chain(["/a = \"\"   (x0)", "/a = \"\"   (n0,)"]) {
            let error = Listing::parse(&format!("/ok = \"\"   (n0)\n{line}\n")).unwrap_err();
            assert_eq!(error.line, 2, "{line}");
        }
    }
}
