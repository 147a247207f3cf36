//! Ids that nothing has yet.

use std::fs::File;
use std::io::{self, Read};

use uuid::{Builder, Uuid};

use crate::exit::CommandError;

/// A random uuid.
pub(super) fn random_uuid() -> Result<Uuid, CommandError> {
    const SOURCE: &str = "/dev/urandom";
    let mut octets = [0; 16];
    let read = |octets: &mut [u8]| -> io::Result<()> { File::open(SOURCE)?.read_exact(octets) };
    read(&mut octets).map_err(|source| CommandError::File {
        path: SOURCE.into(),
        action: "read",
        source,
    })?;
    Ok(Builder::from_random_bytes(octets).into_uuid())
}
