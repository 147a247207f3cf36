//! What was read from Xenstore, as it was read: the ground that plan, view and fence stand on.

use std::collections::BTreeMap;

use xsclient::{Errno, Name, Path};

/// One thing to read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ask {
    /// The value of a node.
    Value(Path),
    /// The names of a node's children.
    Children(Path),
}

impl Ask {
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Value(path) | Self::Children(path) => path,
        }
    }

    pub(super) fn into_path(self) -> Path {
        match self {
            Self::Value(path) | Self::Children(path) => path,
        }
    }
}

/// The server's answer: `Err(ENOENT)` where there is no such node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Value(Result<Vec<u8>, Errno>),
    Children(Result<Vec<Name>, Errno>),
}

/// Everything asked about one domain, with the answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Observed {
    values: BTreeMap<Path, Result<Vec<u8>, Errno>>,
    children: BTreeMap<Path, Result<Vec<Name>, Errno>>,
}

impl Observed {
    pub(super) fn insert(&mut self, path: Path, answer: Answer) {
        match answer {
            Answer::Value(value) => drop(self.values.insert(path, value)),
            Answer::Children(names) => drop(self.children.insert(path, names)),
        }
    }

    pub(super) fn is_asked(&self, ask: &Ask) -> bool {
        match ask {
            Ask::Value(path) => self.values.contains_key(path),
            Ask::Children(path) => self.children.contains_key(path),
        }
    }

    /// The answer to what was asked.
    pub(super) fn answer(&self, ask: &Ask) -> Option<Answer> {
        match ask {
            Ask::Value(path) => self.values.get(path).cloned().map(Answer::Value),
            Ask::Children(path) => self.children.get(path).cloned().map(Answer::Children),
        }
    }

    /// Everything that was asked.
    pub(super) fn asked(&self) -> impl Iterator<Item = Ask> {
        self.values
            .keys()
            .cloned()
            .map(Ask::Value)
            .chain(self.children.keys().cloned().map(Ask::Children))
    }

    /// The value of a node; `None` if there is no such node, or it was not asked for, or the server refused.
    pub(super) fn value(&self, path: &Path) -> Option<&[u8]> {
        self.values.get(path)?.as_deref().ok()
    }

    /// The children of a node; none if there is no such node, or it was not asked for, or the server refused.
    pub(super) fn children(&self, path: &Path) -> &[Name] {
        match self.children.get(path) {
            Some(Ok(names)) => names,
            _ => &[],
        }
    }

    /// Whether a listing found the node.
    pub(super) fn is_directory(&self, path: &Path) -> bool {
        matches!(self.children.get(path), Some(Ok(_)))
    }

    /// What the server refused for another reason than that there is no such node.
    pub(super) fn refused(&self) -> impl Iterator<Item = (&Path, &Errno)> {
        let values =
            self.values.iter().filter_map(|(path, answer)| Some((path, answer.as_ref().err()?)));
        let children =
            self.children.iter().filter_map(|(path, answer)| Some((path, answer.as_ref().err()?)));
        values.chain(children).filter(|(_, errno)| **errno != Errno::ENOENT)
    }

    /// The values that were read at or below a directory, by their path from there.
    pub(super) fn values_below<'a>(
        &'a self,
        directory: &'a Path,
    ) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        // Neighbours such as DIRECTORY-x sort between DIRECTORY and DIRECTORY/x.
        let near = move |(path, _): &(&'a Path, _)| path.as_str().starts_with(directory.as_str());
        let found = self.values.range(directory.clone()..).take_while(near);
        found
            .filter_map(move |(path, value)| Some((path.below(directory)?, value.as_deref().ok()?)))
    }

    /// All of it as octets: the same for the same view of the store, and for no other.
    pub(super) fn to_octets(&self) -> Vec<u8> {
        let mut octets = Vec::with_capacity(16 * 1024);
        // Lengths go in front of everything, so that no two views look alike when joined.
        let mut put = |part: &[u8]| {
            octets.extend_from_slice(&(part.len() as u64).to_le_bytes());
            octets.extend_from_slice(part);
        };
        for (path, value) in &self.values {
            put(path.as_str().as_bytes());
            put(value.as_deref().unwrap_or_else(|errno| errno.name().as_bytes()));
            put(&[u8::from(value.is_ok())]);
        }
        put(b"children");
        for (path, names) in &self.children {
            put(path.as_str().as_bytes());
            match names {
                Ok(names) => {
                    // The order of names is the server's own.
                    let mut names: Vec<&str> = names.iter().map(Name::as_str).collect();
                    names.sort_unstable();
                    put(&[1]);
                    put(names.join("/").as_bytes());
                }
                Err(errno) => {
                    put(&[0]);
                    put(errno.name().as_bytes());
                }
            }
        }
        octets
    }

    /// Whether an event says that something read here may have changed since.
    ///
    /// Implicitly created parents fire no event of their own, and a removed subtree fires one for its root: so a missing
    /// node appears with any event below it, and a read node disappears with an event at any of its ancestors.
    pub(super) fn is_touched_by(&self, event: &Path) -> bool {
        let value = |(path, value): (&Path, &Result<_, _>)| {
            path.is_at_or_below(event) || value.is_err() && event.is_at_or_below(path)
        };
        let list = |(path, names): (&Path, &Result<Vec<Name>, Errno>)| {
            let Some(below) = event.below(path) else { return path.is_at_or_below(event) };
            let Ok(names) = names else { return true };
            let (child, deeper) = below.split_once('/').unwrap_or((below, ""));
            deeper.is_empty() || !names.iter().any(|name| name.as_str() == child)
        };
        self.values.iter().any(value) || self.children.iter().any(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Path {
        text.parse().unwrap()
    }

    fn observed() -> Observed {
        let mut observed = Observed::default();
        observed.insert(path("/l/7/name"), Answer::Value(Ok(b"a".to_vec())));
        observed.insert(path("/l/7/vm"), Answer::Value(Err(Errno::ENOENT)));
        observed.insert(path("/l/7/device"), Answer::Children(Ok(vec!["vbd".parse().unwrap()])));
        observed.insert(path("/x/7"), Answer::Children(Err(Errno::ENOENT)));
        observed
    }

    #[test]
    fn an_event_touches_what_it_may_have_changed_and_nothing_else() {
        let observed = observed();
        for touching in [
            "/l/7/name",         // written
            "/l/7",              // the whole subtree removed
            "/l/7/vm",           // created
            "/l/7/vm/sub",       // created by implication
            "/l/7/device",       // removed or written
            "/l/7/device/vbd",   // the child removed or written
            "/l/7/device/vif/0", // a new child by implication
            "/x/7/51712/state",  // a missing directory appears
            "/",
        ] {
            assert!(observed.is_touched_by(&path(touching)), "{touching}");
        }
        for other in
            ["/l/7/data", "/l/7/name/below", "/l/7/device/vbd/51712/state", "/l/70/name", "/x/70"]
        {
            assert!(!observed.is_touched_by(&path(other)), "{other}");
        }
    }
}
