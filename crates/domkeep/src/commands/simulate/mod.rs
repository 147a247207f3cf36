//! `simulate`: a host of simulated domains, and what is done to it.

mod domains;
mod serve;

use crate::arguments::Simulate;
use crate::exit::{CommandError, Exit};
use crate::output::Output;
use crate::places::Places;

pub(super) fn run(
    asked: Simulate,
    places: &Places,
    output: &mut Output,
) -> Result<Exit, CommandError> {
    match asked {
        Simulate::Serve { directory, socket } => serve::run(&directory, socket, output),
        Simulate::Create(asked) => domains::create(asked, places, output),
        Simulate::List { host } => domains::list(&host, places, output),
        Simulate::Destroy { host, domain } => domains::destroy(&host, &domain, places, output),
    }
}
