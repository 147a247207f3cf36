//! Snapshots: how long a guest is held, how fast memory images are written and checked, and in how much memory.

mod guest;
mod images;
mod memory;
mod plain_zstd;
mod window;

use std::error::Error;

pub(crate) use memory::{CHILD, child};
pub(crate) use window::{GUARDIAN, HOST, guardian, host};

pub(crate) fn run() -> Result<(), Box<dyn Error>> {
    window::run()?;
    images::run()?;
    memory::run()
}
