//! `xenstore read`, `write` and `rm`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use serde::Serialize;
use xsclient::{Batch, Nodes, Path, RetryPolicy};

use crate::commands::octets::Octets;
use crate::exit::{CommandError, Exit};
use crate::output::Output;
use crate::places::Places;

#[derive(Serialize)]
struct Node<'p> {
    path: &'p str,
    #[serde(flatten)]
    value: Octets,
}

pub(super) fn read(
    paths: &[Path],
    places: &Places,
    output: &mut Output,
) -> Result<Exit, CommandError> {
    let mut client = places.client()?;
    let mut batch = Batch::new();
    let slots: Vec<_> = paths.iter().map(|path| batch.read(path.clone())).collect();
    let mut replies = client.run(batch)?;
    let mut nodes = Vec::new();
    for (path, slot) in paths.iter().zip(slots) {
        let value = replies.take(slot)?;
        if output.is_json() {
            nodes.push(Node { path: path.as_str(), value: value.as_slice().into() });
        } else {
            output.octets(&[value.as_slice(), b"\n"].concat())?;
        }
    }
    if output.is_json() {
        output.document(&nodes)?;
    }
    Ok(Exit::Done)
}

pub(super) fn write(pairs: &[OsString], places: &Places) -> Result<Exit, CommandError> {
    let (pairs, rest) = pairs.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(CommandError::Unpaired);
    }
    let mut writes = Vec::new();
    for [path, value] in pairs {
        let path = Path::from_octets(path.as_bytes())
            .map_err(|_| CommandError::NotAPath { typed: path.clone() })?;
        writes.push((path, value.as_bytes()));
    }
    let mut client = places.client()?;
    if let [(path, value)] = writes.as_slice() {
        client.write(path, value)?;
    } else {
        let policy = RetryPolicy::default();
        client.transact(&policy, |transaction| {
            writes.iter().try_for_each(|(path, value)| transaction.write(path, value))?;
            Ok::<(), CommandError>(())
        })?;
    }
    Ok(Exit::Done)
}

pub(super) fn rm(paths: &[Path], places: &Places) -> Result<Exit, CommandError> {
    let mut client = places.client()?;
    for path in paths {
        client.rm(path)?;
    }
    Ok(Exit::Done)
}
