//! A state under another domain id.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use xenstore_proto::{DomId, Path, PathError, PathOrSpecial, Perm, Perms, SpecialName};

use super::value_rules::ValueRule;
use super::{ConnectionState, DomainState, NodeState, PendingNode, TransactionState, WatchState};

/// What becomes of domain ids and paths when a domain goes on under another id.
///
/// Translated are the paths of nodes and roots, absolute paths of watches, `@releaseDomain/DOMID` and `@introduceDomain/DOMID`
/// among them, every entry of permissions, and the connection's target. Values stay as they are unless there are rules for
/// them; so do messages on the way. Ids and paths that nothing was said about stay as they are, which on another host are other
/// domains': [`DomainState::other_domids`] tells which ones there are.
///
/// A translation can be undone: if two domain ids or two paths would become one, the second of which may be one that stays as
/// it is, it fails. So a right that was given to another domain never becomes the right of the domain that has its
/// number now.
///
/// ```
/// use xenstore_migration::domain_state::Translation;
/// use xenstore_proto::DomId;
///
/// let translation = Translation::new(DomId::new(3), DomId::new(8))
///     .tree("/vm/7d1c2a90".parse()?, "/vm/e2f4b6d8".parse()?);
/// let translated = translation.translate_path(&"/vm/7d1c2a90/image".parse()?)?;
/// assert_eq!(translated.as_str(), "/vm/e2f4b6d8/image");
/// assert!(translation.translate_path(&"/local/domain/8/data".parse()?).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Translation {
    source: DomId,
    domids: BTreeMap<DomId, DomId>,
    trees: BTreeMap<Path, Path>,
    values: Vec<Arc<dyn ValueRule>>,
}

impl Translation {
    /// Domain `from` becomes domain `to`, and its tree `/local/domain/FROM` becomes `/local/domain/TO`.
    pub fn new(from: DomId, to: DomId) -> Self {
        let nothing = Self {
            source: from,
            domids: BTreeMap::new(),
            trees: BTreeMap::new(),
            values: Vec::new(),
        };
        nothing.domid(from, to)
    }

    /// Another domain, such as a stub domain or a driver domain, has another id too, and its tree moves with it.
    #[must_use]
    pub fn domid(mut self, from: DomId, to: DomId) -> Self {
        self.domids.insert(from, to);
        self.tree(Path::of_domain(from), Path::of_domain(to))
    }

    /// What is at and below the absolute path `from` goes to `to`. Of trees within each other, the inner one counts.
    #[must_use]
    pub fn tree(mut self, from: Path, to: Path) -> Self {
        self.trees.insert(from, to);
        self
    }

    /// Adds a rule for values. Of several, the first that is about a value counts.
    #[must_use]
    pub fn values(mut self, rule: impl ValueRule + 'static) -> Self {
        self.values.push(Arc::new(rule));
        self
    }

    /// The domain whose states it translates.
    pub fn source(&self) -> DomId {
        self.source
    }

    /// What becomes of a state.
    ///
    /// # Errors
    ///
    /// If the state is of another domain than the translation, two things become one, a path becomes too long, or a tree is torn
    /// from its parent that is in the state too.
    pub fn apply(&self, state: &DomainState) -> Result<DomainState, TranslateError> {
        if state.domid != self.source {
            return Err(TranslateError::OtherDomain { expected: self.source, state: state.domid });
        }
        let mut trees = self.trees.iter();
        if let Some((from, to)) = trees.find(|(from, to)| !from.is_absolute() || !to.is_absolute())
        {
            return Err(TranslateError::RelativeTree { from: from.clone(), to: to.clone() });
        }
        let roots = state.roots.iter().map(|root| self.translate_path(root));
        let mut nodes = BTreeMap::new();
        for (path, node) in &state.nodes {
            let translated = self.translate_path(path)?;
            if let Some(parent) = path.parent()
                && state.nodes.contains_key(&parent)
                && translated.parent() != Some(self.translate_path(&parent)?)
            {
                return Err(TranslateError::Torn { path: path.clone(), target: translated });
            }
            nodes.insert(translated, self.node(path, node)?);
        }
        Ok(DomainState {
            domid: self.translate_domid(state.domid)?,
            roots: roots.collect::<Result<BTreeSet<_>, _>>()?,
            nodes,
            connection: state.connection.as_ref().map(|it| self.connection(it)).transpose()?,
            quotas: state.quotas.clone(),
            features: state.features,
        })
    }

    /// What becomes of a domain id.
    ///
    /// # Errors
    ///
    /// If another one becomes the same.
    pub fn translate_domid(&self, domid: DomId) -> Result<DomId, TranslateError> {
        let target = self.domids.get(&domid).copied().unwrap_or(domid);
        let mut sources = self.domids.iter().filter(|(_, to)| **to == target);
        match sources.find(|(from, _)| **from != domid) {
            Some((other, _)) => Err(TranslateError::DomId { domid, other: *other, target }),
            None => Ok(target),
        }
    }

    /// What becomes of a path. A relative one stays as it is.
    ///
    /// # Errors
    ///
    /// If it becomes too long, or another one becomes the same.
    pub fn translate_path(&self, path: &Path) -> Result<Path, TranslateError> {
        if !path.is_absolute() {
            return Ok(path.clone());
        }
        let target = match innermost(path, self.trees.iter()) {
            None => path.clone(),
            Some((to, "")) => to.clone(),
            Some((to, below)) => to.join(below).map_err(|source| {
                let target = under(to, below);
                TranslateError::Path { path: path.clone(), target, source }
            })?,
        };
        let backward = self.trees.iter().map(|(from, to)| (to, from));
        let other = match innermost(&target, backward) {
            None => target.to_string(),
            Some((from, below)) => under(from, below),
        };
        if other == path.as_str() {
            Ok(target)
        } else {
            Err(TranslateError::Paths { path: path.clone(), other, target })
        }
    }

    fn node(&self, path: &Path, node: &NodeState) -> Result<NodeState, TranslateError> {
        let mut value = None;
        for rule in &self.values {
            value = rule.translate(path, &node.value, self).map_err(|source| {
                TranslateError::Value { path: path.clone(), source: source.into() }
            })?;
            if value.is_some() {
                break;
            }
        }
        let value = value.unwrap_or_else(|| node.value.clone());
        Ok(NodeState { value, perms: self.perms(path, &node.perms)? })
    }

    fn perms(&self, path: &Path, perms: &Perms) -> Result<Perms, TranslateError> {
        let entry = |perm: &Perm| Ok(Perm::new(perm.access, self.translate_domid(perm.domid)?));
        let entries = perms.entries().iter().map(entry).collect::<Result<Vec<_>, _>>();
        let entries = entries.map_err(|source: TranslateError| TranslateError::Perms {
            path: path.clone(),
            source: source.into(),
        })?;
        Ok(Perms::new(entries).expect("there are as many entries as before, so at least one"))
    }

    fn connection(&self, state: &ConnectionState) -> Result<ConnectionState, TranslateError> {
        let watches = state.watches.iter().map(|watch| self.watch(watch));
        let transactions = state.transactions.iter().map(|open| self.transaction(open));
        Ok(ConnectionState {
            target: state.target.map(|target| self.translate_domid(target)).transpose()?,
            input: state.input.clone(),
            output_rest: state.output_rest,
            output: state.output.clone(),
            watches: watches.collect::<Result<_, _>>()?,
            transactions: transactions.collect::<Result<_, _>>()?,
        })
    }

    fn watch(&self, watch: &WatchState) -> Result<WatchState, TranslateError> {
        let path = match &watch.path {
            PathOrSpecial::Node(path) => self.translate_path(path)?.into(),
            PathOrSpecial::Special(name) => self.special(name)?.into(),
        };
        Ok(WatchState { path, token: watch.token.clone(), depth: watch.depth })
    }

    fn special(&self, name: &SpecialName) -> Result<SpecialName, TranslateError> {
        let Some((event, domid)) = domain_of_event(name) else { return Ok(name.clone()) };
        let translated = self.translate_domid(domid)?;
        if translated == domid {
            return Ok(name.clone());
        }
        let text = format!("{event}/{translated}");
        Ok(text.parse().expect("the name of an event, a slash and digits are a special name"))
    }

    fn transaction(&self, open: &TransactionState) -> Result<TransactionState, TranslateError> {
        let mut nodes = BTreeMap::new();
        for (path, pending) in &open.nodes {
            let pending = match pending {
                PendingNode::Removed => PendingNode::Removed,
                PendingNode::Missed => PendingNode::Missed,
                PendingNode::Seen { access, node } => {
                    PendingNode::Seen { access: *access, node: self.node(path, node)? }
                }
            };
            nodes.insert(self.translate_path(path)?, pending);
        }
        Ok(TransactionState { id: open.id, nodes })
    }
}

/// The event that a special name stands for, and the domain if it is about one only.
pub(super) fn domain_of_event(name: &SpecialName) -> Option<(&str, DomId)> {
    match name.split() {
        (event @ (SpecialName::RELEASE_DOMAIN | SpecialName::INTRODUCE_DOMAIN), Some(domid)) => {
            Some((event, domid))
        }
        _ => None,
    }
}

/// What the innermost of the trees that hold a path becomes, and the rest of the path below it.
fn innermost<'p, 't>(
    path: &'p Path,
    trees: impl Iterator<Item = (&'t Path, &'t Path)>,
) -> Option<(&'t Path, &'p str)> {
    trees
        .filter_map(|(from, to)| Some((from, to, path.below(from)?)))
        .max_by_key(|(from, ..)| if from.is_root() { 0 } else { from.as_str().len() })
        .map(|(_, to, below)| (to, below))
}

/// The text of a path that may be none.
fn under(above: &Path, below: &str) -> String {
    match (above.is_root(), below) {
        (_, "") => above.to_string(),
        (true, _) => format!("/{below}"),
        (false, _) => format!("{above}/{below}"),
    }
}

/// Why a state was not translated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TranslateError {
    /// The state is of another domain.
    #[error("the translation is for domain {expected}, and the state is of domain {state}")]
    OtherDomain {
        /// For whom the translation is.
        expected: DomId,
        /// Whose the state is.
        state: DomId,
    },
    /// A tree at a relative path.
    #[error("a tree can move from an absolute path to another only, not from {from} to {to}")]
    RelativeTree {
        /// From where.
        from: Path,
        /// Where to.
        to: Path,
    },
    /// A path would be none.
    #[error("{path} would become {target}")]
    Path {
        /// The path.
        path: Path,
        /// What it would become.
        target: String,
        /// Why that is no path.
        source: PathError,
    },
    /// Two paths would become one.
    #[error("{path} and {other} would both become {target}")]
    Paths {
        /// One path.
        path: Path,
        /// The other.
        other: String,
        /// What they would become.
        target: Path,
    },
    /// Two domain ids would become one.
    #[error("domain {domid} and domain {other} would both become domain {target}")]
    DomId {
        /// One domain.
        domid: DomId,
        /// The other.
        other: DomId,
        /// What they would become.
        target: DomId,
    },
    /// A node would no longer be below its parent.
    #[error("{path} would become {target}, which is not below what its parent becomes")]
    Torn {
        /// The node.
        path: Path,
        /// What it would become.
        target: Path,
    },
    /// A node's permissions cannot be translated.
    #[error("the permissions of {path} cannot be translated")]
    Perms {
        /// The node.
        path: Path,
        /// Why not.
        source: Box<TranslateError>,
    },
    /// A node's value cannot be translated.
    #[error("the value of {path} cannot be translated")]
    Value {
        /// The node.
        path: Path,
        /// Why not.
        source: Box<TranslateError>,
    },
}
