//! `xenstore ls`: the nodes below a path.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};

use serde::Serialize;
use xenstored::escape_value;
use xsclient::{Batch, Client, Name, Nodes, OperationError, Path, PathOrSpecial, Perms};

use crate::commands::octets::Octets;
use crate::exit::{CommandError, Exit, on_one_line};
use crate::output::Output;
use crate::places::Places;

/// Nodes that one batch asks for: enough to keep the server busy, few enough that a huge store is not asked for in one.
const NODES_AT_ONCE: usize = 1024;

/// How nodes are printed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    pub(super) perms: bool,
    pub(super) full: bool,
}

#[derive(Serialize)]
struct Listed<'p> {
    path: &'p str,
    #[serde(flatten)]
    value: Octets,
    perms: String,
}

pub(super) fn run(
    style: Style,
    path: &Path,
    places: &Places,
    output: &mut Output,
) -> Result<Exit, CommandError> {
    let tree = Tree::read(&mut places.client()?, path)?;
    if output.is_json() {
        let listed = tree.nodes().map(|(path, node, _)| Listed {
            path: path.as_str(),
            value: node.value.as_slice().into(),
            perms: node.perms.to_string(),
        });
        let listed: Vec<_> = listed.collect();
        output.document(&listed)?;
    } else {
        output.text(tree.in_words(style))?;
    }
    for (path, why) in &tree.refused {
        let told = format!("domkeep: {path} and what is below is not shown: {why}\n");
        // If stderr is closed there is nobody to tell.
        let _ = io::stderr().write_all(told.as_bytes());
    }
    Ok(Exit::bad_news_if(!tree.refused.is_empty()))
}

/// All nodes below one. They are read level by level, so the tree is of one moment only if nobody changes it meanwhile.
struct Tree {
    top: Vec<Path>,
    nodes: HashMap<Path, Node>,
    /// Nodes that cannot be shown, and why.
    refused: Vec<(Path, String)>,
}

struct Node {
    value: Vec<u8>,
    perms: Perms,
    children: Vec<Path>,
}

impl Tree {
    fn read(client: &mut Client, path: &Path) -> Result<Self, OperationError> {
        let children = |path: &Path, names: Vec<Name>| -> Vec<Path> {
            names.iter().filter_map(|name| path.child(name).ok()).collect()
        };
        let top = children(path, client.directory(path)?);
        let mut tree = Self { top, nodes: HashMap::new(), refused: Vec::new() };
        let mut level = tree.top.clone();
        while !level.is_empty() {
            let mut below = Vec::new();
            for some in level.chunks(NODES_AT_ONCE) {
                let mut batch = Batch::new();
                let slots: Vec<_> = some
                    .iter()
                    .map(|path| {
                        let perms = batch.get_perms(PathOrSpecial::from(path.clone()));
                        (batch.read(path.clone()), perms, batch.directory(path.clone()))
                    })
                    .collect();
                let mut replies = client.run(batch)?;
                for (path, (value, perms, names)) in some.iter().zip(slots) {
                    let (value, perms) = (replies.take(value), replies.take(perms));
                    let read = (|| Ok((value?, perms?, replies.take(names)?)))();
                    match read {
                        Ok((value, perms, names)) => {
                            let children = children(path, names);
                            below.extend(children.iter().cloned());
                            tree.nodes.insert(path.clone(), Node { value, perms, children });
                        }
                        Err(error) => tree.missed(path, error)?,
                    }
                }
            }
            level = below;
        }
        Ok(tree)
    }

    /// A node that went meanwhile is none any more; one that may not be read is told of.
    fn missed(&mut self, path: &Path, error: OperationError) -> Result<(), OperationError> {
        if error.is_not_found() {
            return Ok(());
        }
        if error.is_lost() || error.is_timeout() {
            return Err(error);
        }
        // Not only what the server refuses: oxenstored hands out permissions that a guest made up.
        let why = error
            .errno()
            .map_or_else(|| on_one_line(&error), |errno| format!("refused with {errno}"));
        self.refused.push((path.clone(), why));
        Ok(())
    }

    /// Every node before its children, children in the server's order; with how deep it is.
    fn nodes(&self) -> impl Iterator<Item = (&Path, &Node, usize)> {
        let mut pending: Vec<(&Path, usize)> =
            self.top.iter().rev().map(|path| (path, 0)).collect();
        std::iter::from_fn(move || {
            loop {
                let (path, depth) = pending.pop()?;
                if let Some(node) = self.nodes.get(path) {
                    pending.extend(node.children.iter().rev().map(|child| (child, depth + 1)));
                    return Some((path, node, depth));
                }
            }
        })
    }

    fn in_words(&self, style: Style) -> String {
        let mut words = String::new();
        for (path, node, depth) in self.nodes() {
            if style.full {
                words.push_str(path.as_str());
            } else {
                let name = path.name().unwrap_or_default();
                // Writing to a String cannot fail.
                let _ = write!(words, "{:depth$}{name}", "");
            }
            words.push_str(" = \"");
            escape_value(&node.value, &mut words);
            words.push('"');
            if style.perms {
                let _ = write!(words, "   ({})", node.perms);
            }
            words.push('\n');
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xenstored::{Embedded, Store};
    use xsclient::{DomId, Options};

    #[test]
    fn the_full_form_is_the_text_that_a_store_is_loaded_from() {
        let text = "/z = \"\"   (n0)\n/z/odd = \"a\\\\b\\n\\000\\xff \"q\"\"   (n0,r7)\n/a = \"1\"   (r3,b4)\n";
        let xenstore = Embedded::new(Store::from_text(text).unwrap());
        let transport = Box::new(xenstore.transport(DomId::DOM0));
        let mut client = Client::over(transport, Options::default());
        let tree = Tree::read(&mut client, &Path::root()).unwrap();
        assert_eq!(tree.in_words(Style { perms: true, full: true }), text);
        let words = tree.in_words(Style { perms: false, full: false });
        assert_eq!(words, "z = \"\"\n odd = \"a\\\\b\\n\\000\\xff \"q\"\"\na = \"1\"\n");
    }
}
