//! The immutable tree: nodes, their names and values, and how they share.

mod dir;

use std::sync::Arc;

use xenstore_proto::Perms;

use dir::Dir;

/// Octets in front of a node's name that say how long it is.
const NAME_LEN: usize = 2;

/// One node. Cloning shares everything.
///
/// Forty octets inside its directory, and one allocation for name and value together:
///
/// ```text
/// text  octet 0          2     2+n
///       name length u16  name  value
/// ```
#[derive(Clone, Debug)]
pub(crate) struct Node {
    text: Arc<[u8]>,
    perms: Arc<Perms>,
    dir: Option<Arc<Dir>>,
    /// When it was created, counted in changes: the order of siblings.
    born: u64,
}

impl Node {
    /// `name` is a component of a checked path, so its length fits.
    pub(crate) fn new(name: &str, value: &[u8], perms: Arc<Perms>, born: u64) -> Self {
        Self { text: text(name, value), perms, dir: None, born }
    }

    /// When it was created, counted in changes: no two nodes of a server share a number.
    pub(crate) fn born(&self) -> u64 {
        self.born
    }

    pub(crate) fn name(&self) -> &str {
        str::from_utf8(&self.text[NAME_LEN..self.value_at()])
            .expect("Node::new and set_value put a str here")
    }

    fn name_octets(&self) -> &[u8] {
        &self.text[NAME_LEN..self.value_at()]
    }

    pub(crate) fn value(&self) -> &[u8] {
        &self.text[self.value_at()..]
    }

    fn value_at(&self) -> usize {
        NAME_LEN + usize::from(u16::from_ne_bytes([self.text[0], self.text[1]]))
    }

    pub(crate) fn perms(&self) -> &Arc<Perms> {
        &self.perms
    }

    pub(crate) fn set_value(&mut self, value: &[u8]) {
        self.text = text(self.name(), value);
    }

    pub(crate) fn set_perms(&mut self, perms: Arc<Perms>) -> Arc<Perms> {
        std::mem::replace(&mut self.perms, perms)
    }

    pub(crate) fn child(&self, name: &str) -> Option<&Self> {
        self.dir.as_ref()?.get(name)
    }

    /// Copies what others share on the way to the child. Ask [`Node::child`] first: a miss may have copied for nothing.
    pub(crate) fn child_mut(&mut self, name: &str) -> Option<&mut Self> {
        Arc::make_mut(self.dir.as_mut()?).get_mut(name)
    }

    /// Adds a child that is not there yet; its `born` becomes the directory's generation.
    pub(crate) fn add_child(&mut self, child: Self) {
        Arc::make_mut(self.dir.get_or_insert_default()).insert(child);
    }

    pub(crate) fn remove_child(&mut self, name: &str, generation: u64) -> Option<Self> {
        self.child(name)?;
        let dir = Arc::make_mut(self.dir.as_mut()?);
        let removed = dir.remove(name, generation);
        if dir.is_empty() {
            self.dir = None;
        }
        removed
    }

    /// Changes with the list of children, and only then; 0 without children.
    pub(crate) fn generation(&self) -> u64 {
        self.dir.as_ref().map_or(0, |dir| dir.generation())
    }

    /// The children, in the order of their creation.
    pub(crate) fn children(&self) -> Vec<&Self> {
        let mut children: Vec<_> = self.dir.iter().flat_map(|dir| dir.iter()).collect();
        children.sort_unstable_by_key(|child| child.born);
        children
    }

    /// The children, sorted by name: cheaper, where the order does not matter.
    pub(crate) fn children_by_name(&self) -> impl Iterator<Item = &Self> {
        self.dir.iter().flat_map(|dir| dir.iter())
    }

    pub(crate) fn child_count(&self) -> usize {
        self.dir.as_ref().map_or(0, |dir| dir.len())
    }

    /// Octets of the children's names with a NUL after each: the length of a DIRECTORY reply.
    pub(crate) fn child_names_octets(&self) -> usize {
        self.dir.as_ref().map_or(0, |dir| dir.names_octets())
    }

    pub(crate) fn without_children(&self) -> Self {
        let (text, perms) = (Arc::clone(&self.text), Arc::clone(&self.perms));
        Self { text, perms, dir: None, born: self.born }
    }

    /// Whether the two share everything, and so are the same node with the same things below.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.shares_children(other)
            && Arc::ptr_eq(&self.text, &other.text)
            && Arc::ptr_eq(&self.perms, &other.perms)
    }

    /// Whether the two share what is below them.
    pub(crate) fn shares_children(&self, other: &Self) -> bool {
        match (&self.dir, &other.dir) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }

    /// Whether the two have the same children's names in the same order.
    pub(crate) fn has_same_list(&self, other: &Self) -> bool {
        if self.generation() == other.generation() {
            return true;
        }
        self.child_count() == other.child_count()
            && self.child_names_octets() == other.child_names_octets()
            && self
                .children()
                .iter()
                .map(|node| node.name_octets())
                .eq(other.children().iter().map(|node| node.name_octets()))
    }
}

fn text(name: &str, value: &[u8]) -> Arc<[u8]> {
    let len =
        u16::try_from(name.len()).expect("a name is shorter than a path, and that has 3072 octets");
    let mut text = Vec::with_capacity(NAME_LEN + name.len() + value.len());
    text.extend_from_slice(&len.to_ne_bytes());
    text.extend_from_slice(name.as_bytes());
    text.extend_from_slice(value);
    text.into()
}
