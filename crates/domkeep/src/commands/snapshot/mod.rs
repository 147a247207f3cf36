//! `snapshot`: saved domains, in files that the caller names.

mod bar;
pub(super) mod demo;
mod error;
mod host;
mod inspect;
mod journal;
mod manifest;
mod memory;
mod new_file;
mod recover;
mod refused;
mod restore;
mod save;
mod saved;
mod told;
mod transcode;
mod verify;

pub(crate) use error::SnapshotError;

use crate::arguments::{Global, Snapshot};
use crate::exit::{CommandError, Exit};
use crate::output::Output;
use crate::places::Places;

pub(super) fn run(
    asked: Snapshot,
    global: &Global,
    places: &Places,
    output: &mut Output,
) -> Result<Exit, CommandError> {
    match asked {
        Snapshot::Plan(asked) => save::plan(&asked, global, places, output),
        Snapshot::Save(asked) => save::run(&asked, global, places, output),
        Snapshot::Verify(asked) => verify::run(&asked, output),
        Snapshot::Restore(asked) => restore::run(asked, global, places, output),
        Snapshot::Recover(asked) => recover::run(&asked, global, places, output),
        Snapshot::Inspect { file } => inspect::run(&file, output),
        Snapshot::Transcode(asked) => transcode::run(&asked, output),
    }
}
