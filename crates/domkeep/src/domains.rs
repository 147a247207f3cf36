//! A name or a number to a domain.

use xsclient::{Batch, Client, DomId, Nodes, OperationError, Path};

use crate::exit::CommandError;

/// The domain that was meant: a number is an id, everything else a name.
pub(crate) fn find(client: &mut Client, typed: &str) -> Result<DomId, CommandError> {
    if let Ok(domid) = typed.parse() {
        return Ok(domid);
    }
    let mut domids: Vec<DomId> = names(client)?
        .into_iter()
        .filter(|(_, name)| name.as_slice() == typed.as_bytes())
        .map(|(domid, _)| domid)
        .collect();
    domids.sort_unstable();
    match domids.as_slice() {
        [domid] => Ok(*domid),
        [] => Err(CommandError::NoSuchName { name: typed.to_owned() }),
        _ => Err(CommandError::SeveralOfThatName { name: typed.to_owned(), domids }),
    }
}

/// The names of all domains that have one, in two round trips.
fn names(client: &mut Client) -> Result<Vec<(DomId, Vec<u8>)>, OperationError> {
    let all: Path = "/local/domain".parse().expect("written out here");
    let children = match client.directory(&all) {
        Err(error) if error.is_not_found() => Vec::new(),
        children => children?,
    };
    let mut batch = Batch::new();
    let mut slots = Vec::new();
    for domid in children.iter().filter_map(|child| child.as_str().parse::<DomId>().ok()) {
        if let Ok(name) = Path::of_domain(domid).join("name") {
            slots.push((domid, batch.read(name)));
        }
    }
    let mut replies = client.run(batch)?;
    let mut names = Vec::new();
    for (domid, slot) in slots {
        // A domain may go at any time.
        if let Some(name) = replies.take_optional(slot)? {
            names.push((domid, name));
        }
    }
    Ok(names)
}
