//! The children of one node.

use std::sync::Arc;

use super::Node;

/// Most nodes in one array of a directory that has only one.
const FEW_MAX: usize = 48;

/// The children of a node, sorted by name.
///
/// A small directory is one array. A big one is an array of shared arrays, none longer than about the root of the
/// number of children, so that a change copies that many nodes and that many pointers, whatever others still share.
/// What nobody shares is changed in place.
#[derive(Clone, Debug)]
pub(crate) struct Dir {
    generation: u64,
    names_octets: usize,
    nodes: Nodes,
}

#[derive(Clone, Debug)]
enum Nodes {
    Few(Vec<Node>),
    /// None of them empty.
    Many(Vec<Arc<Vec<Node>>>),
}

impl Default for Dir {
    fn default() -> Self {
        Self { generation: 0, names_octets: 0, nodes: Nodes::Few(Vec::new()) }
    }
}

impl Dir {
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn names_octets(&self) -> usize {
        self.names_octets
    }

    pub(crate) fn len(&self) -> usize {
        match &self.nodes {
            Nodes::Few(nodes) => nodes.len(),
            Nodes::Many(arrays) => arrays.iter().map(|nodes| nodes.len()).sum(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        match &self.nodes {
            Nodes::Few(nodes) => nodes.is_empty(),
            Nodes::Many(arrays) => arrays.is_empty(),
        }
    }

    /// The children, sorted by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Node> {
        let (few, many) = match &self.nodes {
            Nodes::Few(nodes) => (&nodes[..], &[][..]),
            Nodes::Many(arrays) => (&[][..], &arrays[..]),
        };
        few.iter().chain(many.iter().flat_map(|nodes| nodes.iter()))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Node> {
        let nodes = match &self.nodes {
            Nodes::Few(nodes) => nodes,
            Nodes::Many(arrays) => &arrays[array_for(arrays, name)],
        };
        find(nodes, name).ok().map(|at| &nodes[at])
    }

    pub(crate) fn get_mut(&mut self, name: &str) -> Option<&mut Node> {
        let nodes = match &mut self.nodes {
            Nodes::Few(nodes) => nodes,
            Nodes::Many(arrays) => {
                let at = array_for(arrays, name);
                Arc::make_mut(&mut arrays[at])
            }
        };
        find(nodes, name).ok().map(|at| &mut nodes[at])
    }

    pub(crate) fn insert(&mut self, node: Node) {
        self.generation = node.born;
        self.names_octets += node.name_octets().len() + 1;
        match &mut self.nodes {
            Nodes::Few(nodes) => {
                insert_sorted(nodes, node);
                if nodes.len() > FEW_MAX {
                    let upper = Arc::new(nodes.split_off(nodes.len() / 2));
                    let lower = Arc::new(std::mem::take(nodes));
                    self.nodes = Nodes::Many(vec![lower, upper]);
                }
            }
            Nodes::Many(arrays) => {
                let max = array_max(arrays.len());
                let at = array_for(arrays, node.name());
                let nodes = Arc::make_mut(&mut arrays[at]);
                insert_sorted(nodes, node);
                if nodes.len() > max {
                    let upper = nodes.split_off(nodes.len() / 2);
                    nodes.shrink_to_fit();
                    arrays.insert(at + 1, Arc::new(upper));
                }
            }
        }
    }

    pub(crate) fn remove(&mut self, name: &str, generation: u64) -> Option<Node> {
        let removed = match &mut self.nodes {
            Nodes::Few(nodes) => nodes.remove(find(nodes, name).ok()?),
            Nodes::Many(arrays) => {
                let at = array_for(arrays, name);
                let place = find(&arrays[at], name).ok()?;
                let nodes = Arc::make_mut(&mut arrays[at]);
                let removed = nodes.remove(place);
                if nodes.len() < FEW_MAX / 4 {
                    merge(arrays, at);
                }
                if let [only] = &mut arrays[..] {
                    let nodes = std::mem::take(Arc::make_mut(only));
                    self.nodes = Nodes::Few(nodes);
                }
                removed
            }
        };
        self.generation = generation;
        self.names_octets -= removed.name_octets().len() + 1;
        Some(removed)
    }

    /// Moves the directories one level below out, so that dropping this one goes no deeper.
    fn take_dirs(&mut self, into: &mut Vec<Arc<Self>>) {
        match &mut self.nodes {
            Nodes::Few(nodes) => into.extend(nodes.iter_mut().filter_map(|node| node.dir.take())),
            Nodes::Many(arrays) => {
                for nodes in arrays.drain(..).filter_map(Arc::into_inner) {
                    into.extend(nodes.into_iter().filter_map(|mut node| node.dir.take()));
                }
            }
        }
    }
}

/// Clients decide how deep a tree is, so dropping one must not recurse (XSA-418).
impl Drop for Dir {
    fn drop(&mut self) {
        let mut doomed = Vec::new();
        self.take_dirs(&mut doomed);
        while let Some(dir) = doomed.pop() {
            if let Some(mut last) = Arc::into_inner(dir) {
                last.take_dirs(&mut doomed);
            }
        }
    }
}

/// Most nodes in one array beside `arrays` others: copying an array costs three counters a node, copying the list
/// of arrays one.
fn array_max(arrays: usize) -> usize {
    FEW_MAX.max(arrays / 2)
}

fn find(nodes: &[Node], name: &str) -> Result<usize, usize> {
    nodes.binary_search_by(|node| node.name_octets().cmp(name.as_bytes()))
}

/// The array that holds the name if any does.
fn array_for(arrays: &[Arc<Vec<Node>>], name: &str) -> usize {
    arrays.partition_point(|nodes| nodes[0].name_octets() <= name.as_bytes()).saturating_sub(1)
}

fn insert_sorted(nodes: &mut Vec<Node>, node: Node) {
    if let Err(at) = find(nodes, node.name()) {
        if nodes.len() == nodes.capacity() {
            // Most directories are small and never grow again: little slack.
            nodes.reserve_exact(1 + nodes.len() / 8);
        }
        nodes.insert(at, node);
    }
}

/// Puts a small array together with a neighbour, if the two fit in one.
fn merge(arrays: &mut Vec<Arc<Vec<Node>>>, at: usize) {
    let lower = if at + 1 < arrays.len() { at } else { at.saturating_sub(1) };
    let Some([a, b]) = arrays.get(lower..lower + 2) else { return };
    if a.len() + b.len() <= FEW_MAX {
        let upper = Arc::unwrap_or_clone(arrays.remove(lower + 1));
        Arc::make_mut(&mut arrays[lower]).extend(upper);
    } else if arrays[at].is_empty() {
        arrays.remove(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use xenstore_proto::{DomId, Perms};

    fn node(name: &str, born: u64) -> Node {
        Node::new(name, b"v", Arc::new(Perms::owned_by(DomId::DOM0)), born)
    }

    proptest! {
        #[test]
        fn a_directory_is_a_sorted_map_whatever_is_shared(
            steps in proptest::collection::vec((any::<bool>(), 0_u32..400, any::<bool>()), 0..600)
        ) {
            let mut dir = Arc::new(Dir::default());
            let mut model = BTreeMap::new();
            let mut kept = Vec::new();
            for (born, (insert, number, keep)) in (1..).zip(steps) {
                let name = format!("n{number}");
                if keep && kept.len() < 40 {
                    kept.push((Arc::clone(&dir), model.clone()));
                }
                if insert && !model.contains_key(&name) {
                    Arc::make_mut(&mut dir).insert(node(&name, born));
                    model.insert(name, born);
                } else {
                    let removed = Arc::make_mut(&mut dir).remove(&name, born).map(|node| node.born);
                    prop_assert_eq!(removed, model.remove(&name));
                }
            }
            kept.push((dir, model));
            for (dir, model) in kept {
                let got: Vec<_> = dir.iter().map(|node| (node.name().to_owned(), node.born)).collect();
                prop_assert!(model.keys().all(|name| dir.get(name).is_some()));
                prop_assert_eq!(dir.len(), model.len());
                prop_assert_eq!(dir.names_octets(), model.keys().map(|name| name.len() + 1).sum::<usize>());
                prop_assert_eq!(got, model.into_iter().collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn the_shape_stays_flat_while_a_directory_grows_and_shrinks() {
        let mut dir = Dir::default();
        for i in 0..20_000 {
            dir.insert(node(&format!("c{}", i * 7919 % 20_000), i + 1));
        }
        let Nodes::Many(arrays) = &dir.nodes else { panic!("20,000 children in one array") };
        assert!(arrays.len() < 600, "{} arrays", arrays.len());
        assert!(arrays.iter().all(|nodes| nodes.len() <= 300));
        for i in 0..20_000 {
            assert!(dir.remove(&format!("c{i}"), 1).is_some());
        }
        assert!(dir.is_empty() && dir.names_octets() == 0);
    }
}
