//! Patterns of node paths.

use std::fmt;
use std::str::FromStr;

use xenstore_proto::limits::ABSOLUTE_PATH_MAX;
use xenstore_proto::{DomId, Path};

/// Names nodes by their path: absolute, or relative to a domain's tree.
///
/// `*` stands for any number of characters within one name, also none. `**` stands at the end, as a whole name, for the node
/// before it and all below it.
///
/// ```
/// use xenstore_migration::domain_state::NodePattern;
/// use xenstore_proto::DomId;
///
/// let features: NodePattern = "control/feature-*".parse()?;
/// assert!(features.matches(&"/local/domain/3/control/feature-suspend".parse()?, DomId::new(3)));
/// assert!(!features.matches(&"/local/domain/4/control/feature-suspend".parse()?, DomId::new(3)));
///
/// let images: NodePattern = "/vm/*/image/**".parse()?;
/// assert!(images.matches(&"/vm/7d1c2a90/image".parse()?, DomId::new(3)));
/// assert!(images.matches(&"/vm/7d1c2a90/image/kernel".parse()?, DomId::new(3)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodePattern(Box<str>);

impl NodePattern {
    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it names the node at the absolute `path`. A relative pattern is relative to `/local/domain/DOMID`.
    pub fn matches(&self, path: &Path, domid: DomId) -> bool {
        let (pattern, path) = match self.0.strip_prefix('/') {
            Some(pattern) => (pattern, path.as_str().strip_prefix('/')),
            None => (&*self.0, path.below(&Path::of_domain(domid))),
        };
        path.is_some_and(|path| names_match(pattern, path))
    }
}

impl FromStr for NodePattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let allowed =
            |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'/' | b'@' | b'*');
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if text.len() > ABSOLUTE_PATH_MAX {
            return Err(PatternError::TooLong { len: text.len(), max: ABSOLUTE_PATH_MAX });
        }
        if let Some((at, octet)) = text.bytes().enumerate().find(|(_, octet)| !allowed(*octet)) {
            return Err(PatternError::Character { octet, at });
        }
        if text.starts_with('@') {
            return Err(PatternError::Special);
        }
        if let Some(at) = text.find("//") {
            return Err(PatternError::DoubledSlash { at });
        }
        if text.len() > 1 && text.ends_with('/') {
            return Err(PatternError::TrailingSlash);
        }
        if let Some(at) = text.find("**") {
            let whole = at == 0 || text.as_bytes()[at - 1] == b'/';
            if !whole || at + 2 != text.len() {
                return Err(PatternError::DoubleStar { at });
            }
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for NodePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// No octets at all.
    #[error("empty pattern")]
    Empty,
    /// Longer than any path.
    #[error("pattern of {len} octets is longer than the {max} of the longest path")]
    TooLong {
        /// Octets given.
        len: usize,
        /// Octets allowed.
        max: usize,
    },
    /// An octet that neither paths nor patterns hold.
    #[error("octet {octet:#04x} at offset {at}: patterns hold only letters, digits and - _ / @ *")]
    Character {
        /// The octet.
        octet: u8,
        /// Where it stands.
        at: usize,
    },
    /// A special name, which is no node.
    #[error("pattern of special names (starting with @), which are no nodes")]
    Special,
    /// `//` inside the pattern.
    #[error("doubled slash at offset {at} of the pattern")]
    DoubledSlash {
        /// Where it stands.
        at: usize,
    },
    /// `/` at the end of a pattern other than that of the root.
    #[error("slash at the end of the pattern")]
    TrailingSlash,
    /// `**` elsewhere than as the last name.
    #[error("`**` at offset {at} of the pattern is not its last name")]
    DoubleStar {
        /// Where it stands.
        at: usize,
    },
}

fn names_match(pattern: &str, path: &str) -> bool {
    let mut names = path.split('/').filter(|name| !name.is_empty());
    for wanted in pattern.split('/').filter(|name| !name.is_empty()) {
        if wanted == "**" {
            return true;
        }
        if !names.next().is_some_and(|name| name_matches(wanted.as_bytes(), name.as_bytes())) {
            return false;
        }
    }
    names.next().is_none()
}

/// Whether a name is one of those that a name with stars stands for. Goes back to the last star only, so that a pattern
/// of many stars takes no longer than the product of both lengths.
fn name_matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(octet) if *octet == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match &mut star {
                Some((at, taken)) => {
                    *taken += 1;
                    (p, n) = (*at + 1, *taken);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|octet| *octet == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What it says in the documentation, word by word.
    fn stands_for(pattern: &[u8], name: &[u8]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some((b'*', rest)) => (0..=name.len()).any(|n| stands_for(rest, &name[n..])),
            Some((octet, rest)) => name.first() == Some(octet) && stands_for(rest, &name[1..]),
        }
    }

    proptest! {
        #[test]
        fn stars_within_names_stand_for_any_characters(
            pattern in "[ab*]{0,8}",
            name in "[ab]{0,8}",
        ) {
            let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
            prop_assert_eq!(name_matches(pattern, name), stands_for(pattern, name));
        }

        #[test]
        fn a_path_is_a_pattern_of_itself_alone(one in "(/[a-c]{1,2}){1,4}", other in "(/[a-c]{1,2}){1,4}") {
            let pattern: NodePattern = one.parse().unwrap();
            prop_assert!(pattern.matches(&one.parse().unwrap(), DomId::DOM0));
            prop_assert_eq!(pattern.matches(&other.parse().unwrap(), DomId::DOM0), one == other);
        }
    }

    #[test]
    fn patterns_match_where_they_say() {
        for (pattern, path, matches) in [
            ("data/**", "/local/domain/3/data", true),
            ("data/**", "/local/domain/3/data/a/b", true),
            ("data/**", "/local/domain/3/database", false),
            ("data/**", "/local/domain/33/data", false),
            ("data/*", "/local/domain/3/data", false),
            ("data/*", "/local/domain/3/data/a", true),
            ("data/*", "/local/domain/3/data/a/b", false),
            ("**", "/local/domain/3", true),
            ("**", "/local/domain", false),
            ("/**", "/", true),
            ("/**", "/vm/x", true),
            ("/", "/", true),
            ("/", "/vm", false),
            ("*", "/local/domain/3", false),
            ("*", "/local/domain/3/data", true),
            ("/vm/*/image/**", "/vm/x/image/kernel", true),
            ("/vm/*/image/**", "/vm/x/y/image", false),
        ] {
            let parsed: NodePattern = pattern.parse().unwrap();
            let path: Path = path.parse().unwrap();
            assert_eq!(parsed.matches(&path, DomId::new(3)), matches, "{pattern} {path}");
        }
    }

    #[test]
    fn malformed_patterns_are_refused_with_the_reason() {
        let refused = |text: &str| text.parse::<NodePattern>().unwrap_err();
        assert_eq!(refused(""), PatternError::Empty);
        assert_eq!(refused("a.b"), PatternError::Character { octet: b'.', at: 1 });
        assert_eq!(refused("@releaseDomain"), PatternError::Special);
        assert_eq!(refused("a//b"), PatternError::DoubledSlash { at: 1 });
        assert_eq!(refused("a/"), PatternError::TrailingSlash);
        assert_eq!(refused("a/**/b"), PatternError::DoubleStar { at: 2 });
        assert_eq!(refused("a**"), PatternError::DoubleStar { at: 1 });
        assert_eq!(refused("a/***"), PatternError::DoubleStar { at: 2 });
        let long = "x".repeat(ABSOLUTE_PATH_MAX + 1);
        assert_eq!(
            refused(&long),
            PatternError::TooLong { len: ABSOLUTE_PATH_MAX + 1, max: ABSOLUTE_PATH_MAX }
        );
    }
}
