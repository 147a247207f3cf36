//! Snapshots: how fast memory images are written and checked, and in how much memory.

mod guest;
mod images;
mod memory;

use std::error::Error;

pub(crate) use memory::{CHILD, child};

pub(crate) fn run() -> Result<(), Box<dyn Error>> {
    images::run()?;
    memory::run()
}
