//! What the clients of a soak work on: so many nodes and no more.

use std::error::Error;

use xenstore_proto::{Path, Request};

use crate::xenstored::Batch;

pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

const DOMAINS: usize = 50;
const KEYS: usize = 40;
/// Nodes that come and go below each of as many directories as there are clients.
pub(crate) const SCRATCH: usize = 20;

/// Where writers write, readers read, and transactions meet.
pub(crate) fn data(domain: usize) -> Outcome<Path> {
    Ok(format!("/local/domain/{}/data", 1 + domain % DOMAINS).parse()?)
}

pub(crate) fn key(domain: usize, key: usize) -> Outcome<Path> {
    Ok(data(domain)?.join(&format!("key{}", key % KEYS))?)
}

/// What belongs to one client.
pub(crate) fn own(client: usize, name: &str) -> Outcome<Path> {
    Ok(format!("/tool/soak/{client}/{name}").parse()?)
}

pub(crate) fn write(path: Path, value: &[u8]) -> Request {
    Request::Write { path, value: value.to_vec() }
}

/// The keys of all domains.
pub(crate) fn filled() -> Outcome<Batch> {
    let mut batch = Batch::default();
    for number in 0..DOMAINS * KEYS {
        batch.push(&write(key(number / KEYS, number)?, b"first"))?;
    }
    Ok(batch)
}

/// Most nodes there can ever be, with so many clients.
pub(crate) fn nodes_max(clients: usize) -> usize {
    // The root, /local, /local/domain, /tool, /tool/soak; two above the keys; of a client its own node and two below.
    5 + DOMAINS * (2 + KEYS) + clients * (3 + SCRATCH)
}
