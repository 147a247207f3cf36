//! `demo`.
use crate::exit::{CommandError, Exit};
use crate::output::Output;

pub(super) fn run(_output: &mut Output) -> Result<Exit, CommandError> {
    Ok(Exit::Done)
}
