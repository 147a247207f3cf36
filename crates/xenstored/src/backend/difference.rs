//! What has changed between two states of a store.

use std::cmp::Ordering;
use std::iter::Peekable;

use super::{NodeChange, kept};
use crate::store::Store;
use crate::tree::Node;

/// What makes `new` of `old`. What the two share is not looked at.
pub(crate) fn difference(old: &Store, new: &Store) -> Vec<NodeChange> {
    let mut changes = Vec::new();
    let mut pending = vec![(&old.root, &new.root, 0)];
    while let Some((old, new, parent)) = pending.pop() {
        if old.is_same(new) {
            continue;
        }
        if old.value() != new.value() || old.perms() != new.perms() {
            changes.push(NodeChange::Put(kept(new, parent)));
        }
        if new.shares_children(old) {
            continue;
        }
        for pair in pairs(old.children_by_name().peekable(), new.children_by_name().peekable()) {
            match pair {
                (Some(old), Some(child)) if old.born() == child.born() => {
                    pending.push((old, child, new.born()));
                }
                (old, child) => {
                    old.into_iter().for_each(|old| removed(old, &mut changes));
                    child.into_iter().for_each(|child| created(child, new.born(), &mut changes));
                }
            }
        }
    }
    changes
}

/// Two lists of nodes sorted by name, those of one name together.
fn pairs<'a>(
    mut old: Peekable<impl Iterator<Item = &'a Node>>,
    mut new: Peekable<impl Iterator<Item = &'a Node>>,
) -> impl Iterator<Item = (Option<&'a Node>, Option<&'a Node>)> {
    std::iter::from_fn(move || {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return None,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => old.name().cmp(new.name()),
        };
        Some((
            if order.is_le() { old.next() } else { None },
            if order.is_ge() { new.next() } else { None },
        ))
    })
}

fn created(top: &Node, parent: u64, changes: &mut Vec<NodeChange>) {
    let mut pending = vec![(top, parent)];
    while let Some((node, parent)) = pending.pop() {
        changes.push(NodeChange::Put(kept(node, parent)));
        pending.extend(node.children_by_name().map(|child| (child, node.born())));
    }
}

fn removed(top: &Node, changes: &mut Vec<NodeChange>) {
    let mut pending = vec![top];
    while let Some(node) = pending.pop() {
        changes.push(NodeChange::Remove(node.born()));
        pending.extend(node.children_by_name());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    use crate::backend::KeptNode;
    use xenstore_proto::{Path, Perms};

    fn keep(nodes: &mut BTreeMap<u64, KeptNode>, changes: Vec<NodeChange>) {
        for change in changes {
            match change {
                NodeChange::Put(node) => {
                    nodes.insert(node.id, node);
                }
                NodeChange::Remove(id) => assert!(nodes.remove(&id).is_some()),
            }
        }
    }

    proptest! {
        #[test]
        fn differences_kept_one_after_the_other_are_the_store(
            steps in proptest::collection::vec(("(/[abc]){1,4}", 0..5, any::<bool>()), 0..80)
        ) {
            let mut store = Store::new();
            let mut nodes = BTreeMap::new();
            keep(&mut nodes, vec![NodeChange::Put(kept(&store.root, 0))]);
            let mut last = store.clone();
            for (at, what, compare) in steps {
                let path: Path = at.parse().unwrap();
                match what {
                    0 => drop(store.remove(&path).unwrap()),
                    1 => drop(store.set_perms(&path, at.len().to_string().replace(char::is_numeric, "r7").parse::<Perms>().unwrap())),
                    _ => store.write(&path, at.as_bytes()).unwrap(),
                }
                if compare {
                    keep(&mut nodes, difference(&last, &store));
                    last = store.clone();
                    let again = Store::from_kept(nodes.values().cloned().collect()).unwrap();
                    prop_assert_eq!(&again, &store);
                    prop_assert!(difference(&again, &store).is_empty());
                }
            }
        }
    }

    #[test]
    fn one_change_in_a_big_store_is_one_difference() {
        let mut store = Store::new();
        for i in 0..5000 {
            store.write(&format!("/d/{}/{i}", i % 70).parse().unwrap(), b"x").unwrap();
        }
        let before = store.clone();
        store.write(&"/d/3/3".parse().unwrap(), b"y").unwrap();
        assert_eq!(difference(&before, &store).len(), 1);
        assert_eq!(difference(&store, &store.clone()), []);
    }
}
