//! What was read from Xenstore, as it was read: the ground that plan, view and fence stand on.

use std::collections::{BTreeMap, btree_map};

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
}

/// The server's answer: `Err(ENOENT)` where there is no such node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Value(Result<Vec<u8>, Errno>),
    Children(Result<Vec<Name>, Errno>),
}

/// Everything asked about one domain, with the answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Observed(BTreeMap<Ask, Answer>);

impl Observed {
    pub(super) fn insert(&mut self, ask: Ask, answer: Answer) {
        self.0.insert(ask, answer);
    }

    pub(super) fn is_asked(&self, ask: &Ask) -> bool {
        self.0.contains_key(ask)
    }

    /// The value of a node; `None` if there is no such node, or it was not asked for, or the server refused.
    pub(super) fn value(&self, path: &Path) -> Option<&[u8]> {
        match self.0.get(&Ask::Value(path.clone())) {
            Some(Answer::Value(Ok(value))) => Some(value),
            _ => None,
        }
    }

    /// The children of a node; none if there is no such node, or it was not asked for, or the server refused.
    pub(super) fn children(&self, path: &Path) -> &[Name] {
        match self.0.get(&Ask::Children(path.clone())) {
            Some(Answer::Children(Ok(names))) => names,
            _ => &[],
        }
    }

    /// Whether a listing found the node.
    pub(super) fn is_directory(&self, path: &Path) -> bool {
        matches!(self.0.get(&Ask::Children(path.clone())), Some(Answer::Children(Ok(_))))
    }

    /// What the server refused for another reason than that there is no such node.
    pub(super) fn refused(&self) -> impl Iterator<Item = (&Path, &Errno)> {
        self.0.iter().filter_map(|(ask, answer)| match answer {
            Answer::Value(Err(errno)) | Answer::Children(Err(errno)) if *errno != Errno::ENOENT => {
                Some((ask.path(), errno))
            }
            _ => None,
        })
    }

    /// The values that were read at or below a directory, by their path from there.
    pub(super) fn values_below<'a>(
        &'a self,
        directory: &'a Path,
    ) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let from = Ask::Value(directory.clone());
        self.0
            .range(from..)
            .map_while(move |(ask, answer)| match ask {
                Ask::Value(path) => {
                    // Neighbours such as DIRECTORY-x sort between DIRECTORY and DIRECTORY/x.
                    path.as_str().starts_with(directory.as_str()).then_some((path, answer))
                }
                Ask::Children(_) => None,
            })
            .filter_map(move |(path, answer)| match answer {
                Answer::Value(Ok(value)) => Some((path.below(directory)?, value.as_slice())),
                _ => None,
            })
    }

    /// Every answer in the order of the paths: the same for the same view of the store.
    pub(super) fn answers(&self) -> btree_map::Iter<'_, Ask, Answer> {
        self.0.iter()
    }

    /// Whether an event says that something read here may have changed since.
    ///
    /// Implicitly created parents fire no event of their own, and a removed subtree fires one for its root: so a missing
    /// node appears with any event below it, and a read node disappears with an event at any of its ancestors.
    pub(super) fn is_touched_by(&self, event: &Path) -> bool {
        self.0.iter().any(|(ask, answer)| {
            if ask.path().is_at_or_below(event) {
                return true;
            }
            let Some(below) = event.below(ask.path()) else { return false };
            match answer {
                Answer::Value(Err(_)) | Answer::Children(Err(_)) => true,
                Answer::Value(Ok(_)) => false,
                Answer::Children(Ok(names)) => {
                    let (child, deeper) = below.split_once('/').unwrap_or((below, ""));
                    deeper.is_empty() || !names.iter().any(|name| name.as_str() == child)
                }
            }
        })
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
        observed.insert(Ask::Value(path("/l/7/name")), Answer::Value(Ok(b"a".to_vec())));
        observed.insert(Ask::Value(path("/l/7/vm")), Answer::Value(Err(Errno::ENOENT)));
        observed.insert(
            Ask::Children(path("/l/7/device")),
            Answer::Children(Ok(vec!["vbd".parse().unwrap()])),
        );
        observed.insert(Ask::Children(path("/x/7")), Answer::Children(Err(Errno::ENOENT)));
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
