//! `snapshot`: saved domains, in files that the caller names.

mod bar;
mod error;
mod inspect;
mod journal;
mod manifest;
mod memory;
mod new_file;
mod told;
mod transcode;
mod verify;

pub(crate) use error::SnapshotError;

use crate::arguments::Snapshot;
use crate::exit::{CommandError, Exit};
use crate::output::Output;

pub(super) fn run(asked: Snapshot, output: &mut Output) -> Result<Exit, CommandError> {
    match asked {
        Snapshot::Verify(asked) => verify::run(&asked, output),
        Snapshot::Inspect { file } => inspect::run(&file, output),
        Snapshot::Transcode(asked) => transcode::run(&asked, output),
    }
}
