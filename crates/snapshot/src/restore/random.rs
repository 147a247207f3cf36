//! Random ids.

use std::fs::File;
use std::io::{self, Read};

use uuid::{Builder, Uuid};

/// A uuid that nothing else has.
pub(super) fn uuid() -> io::Result<Uuid> {
    let mut octets = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut octets)?;
    Ok(Builder::from_random_bytes(octets).into_uuid())
}
