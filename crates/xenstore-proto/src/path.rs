//! Paths of nodes, and the special names that watches and permissions also take.

use std::fmt;
use std::str::FromStr;

use crate::domid::DomId;
use crate::limits::{ABSOLUTE_PATH_MAX, RELATIVE_PATH_MAX};

/// The path of a node: absolute (`/local/domain/1/name`) or relative to the connection's own domain (`name`).
///
/// Made of the letters, digits and `-`, `_`, `@` between single slashes; no slash at the end but for the root. At most
/// [`ABSOLUTE_PATH_MAX`] octets when absolute and [`RELATIVE_PATH_MAX`] when relative. Specified in Xen's `xenstore.txt`.
///
/// ```
/// use xenstore_proto::Path;
/// let name: Path = "name".parse()?;
/// let base: Path = "/local/domain/7".parse()?;
/// assert_eq!(name.resolve(&base)?.as_str(), "/local/domain/7/name");
/// assert!("/a//b".parse::<Path>().is_err());
/// # Ok::<(), xenstore_proto::PathError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(Box<str>);

impl Path {
    /// Checks the octets of a path as they stand in a message, without the NUL.
    pub fn from_octets(octets: &[u8]) -> Result<Self, PathError> {
        let absolute = octets.first() == Some(&b'/');
        if octets.is_empty() {
            return Err(PathError::Empty);
        }
        if octets[0] == b'@' {
            return Err(PathError::Special);
        }
        let max = if absolute { ABSOLUTE_PATH_MAX } else { RELATIVE_PATH_MAX };
        if octets.len() > max {
            return Err(PathError::TooLong { len: octets.len(), max });
        }
        let text = checked_text(octets)?;
        if text.len() > 1 && text.ends_with('/') {
            return Err(PathError::TrailingSlash);
        }
        if octets.windows(2).any(|two| two == b"//") {
            return Err(PathError::DoubledSlash);
        }
        Ok(Self(text.into()))
    }

    /// The root, `/`.
    pub fn root() -> Self {
        Self("/".into())
    }

    /// `/local/domain/DOMID`, to which a domain's relative paths are relative.
    pub fn of_domain(domid: DomId) -> Self {
        Self(format!("/local/domain/{domid}").into())
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the path starts at the root.
    pub fn is_absolute(&self) -> bool {
        self.0.starts_with('/')
    }

    /// Whether this is `/`.
    pub fn is_root(&self) -> bool {
        &*self.0 == "/"
    }

    /// The names on the way from the root (or the base) to the node; none for the root.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        // What was checked has no name that is empty, so that the slashes are all there is to look for.
        Components { rest: self.0.strip_prefix('/').unwrap_or(&self.0) }
    }

    /// The last name; `None` for the root.
    pub fn name(&self) -> Option<&str> {
        self.components().next_back()
    }

    /// The path of the node above; `None` for the root and for a relative path of one name.
    pub fn parent(&self) -> Option<Self> {
        match self.0.rsplit_once('/') {
            Some(("", "")) | None => None,
            Some(("", _)) => Some(Self::root()),
            Some((above, _)) => Some(Self(above.into())),
        }
    }

    /// The path of a child.
    pub fn child(&self, name: &Name) -> Result<Self, PathError> {
        self.join(name.as_str())
    }

    /// The path of the node at the relative path `below` under this one.
    pub fn join(&self, below: &str) -> Result<Self, PathError> {
        check_names(below)?;
        let above = if self.is_root() { "" } else { &*self.0 };
        let len = above.len() + 1 + below.len();
        let max = if self.is_absolute() { ABSOLUTE_PATH_MAX } else { RELATIVE_PATH_MAX };
        if len > max {
            return Err(PathError::TooLong { len, max });
        }
        let mut joined = String::with_capacity(len);
        joined.push_str(above);
        joined.push('/');
        joined.push_str(below);
        Ok(Self(joined.into()))
    }

    /// An absolute path: this one, or this one under `base` if it is relative.
    pub fn resolve(&self, base: &Self) -> Result<Self, PathError> {
        if self.is_absolute() { Ok(self.clone()) } else { base.join(&self.0) }
    }

    /// Whether this is `above` itself or lies below it. Both absolute or both relative to the same base.
    pub fn is_at_or_below(&self, above: &Self) -> bool {
        self.below(above).is_some()
    }

    /// The rest of this path below `above`: `""` when they are the same, `None` when it does not lie below.
    pub fn below(&self, above: &Self) -> Option<&str> {
        if above.is_root() {
            return self.0.strip_prefix('/');
        }
        let rest = self.0.strip_prefix(&*above.0)?;
        if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
    }
}

/// The names in a path, of which no slash is left at either end.
struct Components<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Components<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        if self.rest.is_empty() {
            return None;
        }
        // Names are short: looking at each octet is faster than what finds a slash in a long text.
        let name = match self.rest.bytes().position(|c| c == b'/') {
            Some(at) => {
                let name = &self.rest[..at];
                self.rest = &self.rest[at + 1..];
                name
            }
            None => std::mem::take(&mut self.rest),
        };
        Some(name)
    }
}

impl<'a> DoubleEndedIterator for Components<'a> {
    fn next_back(&mut self) -> Option<&'a str> {
        if self.rest.is_empty() {
            return None;
        }
        let name = match self.rest.bytes().rposition(|c| c == b'/') {
            Some(at) => {
                let name = &self.rest[at + 1..];
                self.rest = &self.rest[..at];
                name
            }
            None => std::mem::take(&mut self.rest),
        };
        Some(name)
    }
}

impl FromStr for Path {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        Self::from_octets(text.as_bytes())
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// The name of a child, as DIRECTORY lists it: one component of a path.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<str>);

impl Name {
    /// Checks the octets of a name, without the NUL.
    pub fn from_octets(octets: &[u8]) -> Result<Self, PathError> {
        if octets.is_empty() {
            return Err(PathError::Empty);
        }
        if octets.len() > ABSOLUTE_PATH_MAX {
            return Err(PathError::TooLong { len: octets.len(), max: ABSOLUTE_PATH_MAX });
        }
        if let Some(at) = octets.iter().position(|&c| c == b'/') {
            return Err(PathError::Character { octet: b'/', at });
        }
        Ok(Self(checked_text(octets)?.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        Self::from_octets(text.as_bytes())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// What WATCH, UNWATCH, GET_PERMS and SET_PERMS act on: a node, or a special name that starts with `@`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PathOrSpecial {
    /// A node.
    Node(Path),
    /// A name the server invents events for.
    Special(SpecialName),
}

impl PathOrSpecial {
    /// Checks octets as they stand in a message, without the NUL.
    pub fn from_octets(octets: &[u8]) -> Result<Self, PathError> {
        if octets.first() == Some(&b'@') {
            SpecialName::from_octets(octets).map(Self::Special)
        } else {
            Path::from_octets(octets).map(Self::Node)
        }
    }

    /// The path or name as text.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Node(path) => path.as_str(),
            Self::Special(name) => name.as_str(),
        }
    }
}

impl From<Path> for PathOrSpecial {
    fn from(path: Path) -> Self {
        Self::Node(path)
    }
}

impl From<SpecialName> for PathOrSpecial {
    fn from(name: SpecialName) -> Self {
        Self::Special(name)
    }
}

impl FromStr for PathOrSpecial {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        Self::from_octets(text.as_bytes())
    }
}

impl fmt::Display for PathOrSpecial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A special name: `@introduceDomain`, `@releaseDomain`, either with `/DOMID` behind it, or one not known yet.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpecialName(Box<str>);

impl SpecialName {
    /// Fires when a domain is introduced.
    pub const INTRODUCE_DOMAIN: &str = "@introduceDomain";
    /// Fires when a domain shuts down, dies or is released.
    pub const RELEASE_DOMAIN: &str = "@releaseDomain";

    /// Checks octets as they stand in a message, without the NUL.
    pub fn from_octets(octets: &[u8]) -> Result<Self, PathError> {
        if octets.first() != Some(&b'@') {
            return Err(PathError::NotSpecial);
        }
        if octets.len() > ABSOLUTE_PATH_MAX {
            return Err(PathError::TooLong { len: octets.len(), max: ABSOLUTE_PATH_MAX });
        }
        Ok(Self(checked_text(octets)?.into()))
    }

    /// The name as text, `@` included.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name without a domain id behind it, and the domain id if there is one.
    pub fn split(&self) -> (&str, Option<DomId>) {
        match self.0.split_once('/') {
            Some((name, domid)) => match domid.parse() {
                Ok(domid) => (name, Some(domid)),
                Err(_) => (&self.0, None),
            },
            None => (&self.0, None),
        }
    }
}

impl FromStr for SpecialName {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        Self::from_octets(text.as_bytes())
    }
}

impl fmt::Display for SpecialName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SpecialName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// Why octets are no path. A server answers every one of these with EINVAL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// No octets at all.
    #[error("empty path")]
    Empty,
    /// Longer than the protocol allows.
    #[error("path of {len} octets is longer than the {max} allowed")]
    TooLong {
        /// Octets given.
        len: usize,
        /// Octets allowed.
        max: usize,
    },
    /// An octet that paths cannot hold.
    #[error("octet {octet:#04x} at offset {at}: paths hold only letters, digits and - _ / @")]
    Character {
        /// The octet.
        octet: u8,
        /// Where it stands.
        at: usize,
    },
    /// `//` inside the path.
    #[error("doubled slash in path")]
    DoubledSlash,
    /// `/` at the end of a path other than the root.
    #[error("slash at the end of the path")]
    TrailingSlash,
    /// A special name where only a node can stand.
    #[error("special name (starting with @) where a node's path is needed")]
    Special,
    /// A node's path where only a special name can stand.
    #[error("not a special name: it does not start with @")]
    NotSpecial,
}

/// What can stand behind the slash of a path that has one: names with single slashes between.
fn check_names(below: &str) -> Result<(), PathError> {
    checked_text(below.as_bytes())?;
    match below {
        "" => Err(PathError::Empty),
        _ if below.ends_with('/') => Err(PathError::TrailingSlash),
        _ if below.starts_with('/') || below.contains("//") => Err(PathError::DoubledSlash),
        _ => Ok(()),
    }
}

fn checked_text(octets: &[u8]) -> Result<&str, PathError> {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'/' | b'@');
    match octets.iter().position(|&c| !allowed(c)) {
        Some(at) => Err(PathError::Character { octet: octets[at], at }),
        None => Ok(str::from_utf8(octets).expect("only ASCII octets passed the check above")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(text: &str) -> Path {
        text.parse().unwrap()
    }

    #[test]
    fn malformed_paths_are_refused_with_the_reason() {
        let refused = |text: &str| Path::from_octets(text.as_bytes()).unwrap_err();
        assert_eq!(refused(""), PathError::Empty);
        assert_eq!(refused("/a//b"), PathError::DoubledSlash);
        assert_eq!(refused("//"), PathError::TrailingSlash);
        assert_eq!(refused("/a/"), PathError::TrailingSlash);
        assert_eq!(refused("a/"), PathError::TrailingSlash);
        assert_eq!(refused("/a.b"), PathError::Character { octet: b'.', at: 2 });
        assert_eq!(refused("/a\0"), PathError::Character { octet: 0, at: 2 });
        assert_eq!(refused("@releaseDomain"), PathError::Special);
        assert_eq!(Path::from_octets(b"/\xff"), Err(PathError::Character { octet: 255, at: 1 }));
    }

    #[test]
    fn the_longest_paths_are_3072_octets_absolute_and_2048_relative() {
        for (start, max) in [("/", ABSOLUTE_PATH_MAX), ("a", RELATIVE_PATH_MAX)] {
            let longest = format!("{start}{}", "x".repeat(max - 1));
            assert!(longest.parse::<Path>().is_ok());
            let over = format!("{longest}x").parse::<Path>();
            assert_eq!(over, Err(PathError::TooLong { len: max + 1, max }));
        }
    }

    #[test]
    fn parents_end_at_the_root() {
        assert_eq!(path("/a/b").parent(), Some(path("/a")));
        assert_eq!(path("/a").parent(), Some(Path::root()));
        assert_eq!(Path::root().parent(), None);
        assert_eq!(path("a/b").parent(), Some(path("a")));
        assert_eq!(path("a").parent(), None);
    }

    #[test]
    fn a_sibling_with_a_longer_name_is_not_below() {
        assert!(path("/a/b").is_at_or_below(&path("/a")));
        assert!(path("/a").is_at_or_below(&Path::root()));
        assert_eq!(path("/a").below(&path("/a")), Some(""));
        assert_eq!(path("/a/b/c").below(&path("/a")), Some("b/c"));
        assert!(!path("/ab").is_at_or_below(&path("/a")));
        assert_eq!(Path::root().below(&Path::root()), Some(""));
    }

    #[test]
    fn joining_refuses_what_would_make_no_path() {
        let base = path("/a");
        assert_eq!(base.join("b/c"), Ok(path("/a/b/c")));
        assert_eq!(Path::root().join("b"), Ok(path("/b")));
        assert_eq!(base.join("@b"), Ok(path("/a/@b")));
        assert_eq!(base.join(""), Err(PathError::Empty));
        assert_eq!(base.join("/b"), Err(PathError::DoubledSlash));
        assert_eq!(base.join("b//c"), Err(PathError::DoubledSlash));
        assert_eq!(base.join("b/"), Err(PathError::TrailingSlash));
        assert_eq!(base.join("b.c"), Err(PathError::Character { octet: b'.', at: 1 }));
        let long = "x".repeat(ABSOLUTE_PATH_MAX - 2);
        assert_eq!(
            base.join(&long),
            Err(PathError::TooLong { len: ABSOLUTE_PATH_MAX + 1, max: ABSOLUTE_PATH_MAX })
        );
    }

    #[test]
    fn special_names_split_into_event_and_domain() {
        let name: SpecialName = "@releaseDomain/7".parse().unwrap();
        assert_eq!(name.split(), (SpecialName::RELEASE_DOMAIN, Some(DomId::new(7))));
        let name: SpecialName = "@releaseDomain".parse().unwrap();
        assert_eq!(name.split(), (SpecialName::RELEASE_DOMAIN, None));
        assert_eq!("/a".parse::<SpecialName>(), Err(PathError::NotSpecial));
    }

    proptest! {
        #[test]
        fn any_octets_give_a_path_or_an_error_and_a_path_reads_back(octets in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(path) = Path::from_octets(&octets) {
                prop_assert_eq!(path.as_str().as_bytes(), &octets[..]);
            }
            let _ = PathOrSpecial::from_octets(&octets);
            let _ = Name::from_octets(&octets);
        }

        #[test]
        fn joining_the_components_gives_the_path_again(names in proptest::collection::vec("[a-z@_0-9-]{1,9}", 0..6)) {
            let text = format!("/{}", names.join("/"));
            let built = path(&text);
            prop_assert_eq!(built.components().collect::<Vec<_>>(), names.iter().map(String::as_str).collect::<Vec<_>>());
            prop_assert_eq!(built.components().rev().collect::<Vec<_>>(), names.iter().rev().map(String::as_str).collect::<Vec<_>>());
            let (mut ends, mut both) = (built.components(), Vec::new());
            while let Some(first) = ends.next() {
                both.push(first);
                both.extend(ends.next_back());
            }
            prop_assert_eq!(both.len(), names.len(), "each name comes from one end only");
            if let (Some(parent), Some(name)) = (built.parent(), built.name()) {
                prop_assert_eq!(parent.join(name).unwrap(), built.clone());
            }
        }
    }
}
