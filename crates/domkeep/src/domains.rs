//! A name or a number to a domain.

use libxl_config::retrieve::Retriever;
use libxl_config::template::MemoryStore;
use xsclient::{Client, DomId};

use crate::exit::CommandError;
use crate::places::Places;

/// The domain that was meant: a number is an id, everything else a name.
pub(crate) fn find(
    client: &mut Client,
    places: &Places,
    typed: &str,
) -> Result<DomId, CommandError> {
    if let Ok(domid) = typed.parse() {
        return Ok(domid);
    }
    // Names are in Xenstore alone.
    let templates = MemoryStore::new();
    let domids = Retriever::new(client, &templates).timeout(places.timeout()).named(typed)?;
    match domids.as_slice() {
        [domid] => Ok(*domid),
        [] => Err(CommandError::NoSuchName { name: typed.to_owned() }),
        _ => Err(CommandError::SeveralOfThatName { name: typed.to_owned(), domids }),
    }
}
