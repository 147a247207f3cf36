//! The xenstore-migration stream.

use std::error::Error;

use crate::{domain_state, migration_codec};

/// What each part of the crate costs, the codec first: the others read and write through it.
pub(crate) fn run() -> Result<(), Box<dyn Error>> {
    migration_codec::run()?;
    println!();
    domain_state::run()
}
