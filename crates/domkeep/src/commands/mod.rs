//! One module a subcommand.

mod config;
mod demo;
mod device;
mod guard;
mod hypervisor;
mod ids;
mod list;
mod octets;
mod retrieve;
mod shell;
mod simulate;
mod snapshot;
mod stream;
mod template;
mod watch;
mod whole;
mod xenstore;

use crate::arguments::{Arguments, Command};
use crate::exit::{CommandError, Exit};
use crate::output::Output;
use crate::places::Places;

pub(crate) use device::DeviceError;
pub(crate) use snapshot::SnapshotError;

/// Does what was asked for.
pub(crate) fn run(arguments: Arguments, output: &mut Output) -> Result<Exit, CommandError> {
    let places = Places::of(&arguments.global);
    match arguments.command {
        Command::Retrieve(asked) if asked.watch => watch::run(&asked, &places, output),
        Command::Retrieve(asked) => retrieve::run(&asked, &places, output),
        Command::List(asked) => list::run(&asked, &places, output),
        Command::Config(asked) => config::run(&asked, output),
        Command::Template(asked) => template::run(asked, &places, output),
        Command::Device(asked) => device::run(&asked, &places, output),
        Command::Xenstore(asked) => xenstore::run(asked, &arguments.global, &places, output),
        Command::Stream(asked) => stream::run(&asked, &places, output),
        Command::Simulate(asked) => simulate::run(asked, &places, output),
        Command::Snapshot(asked) => snapshot::run(asked, &arguments.global, &places, output),
        Command::Demo => demo::run(output),
        Command::Guard => guard::run(),
        Command::Completions { shell } => shell::completions(shell, output),
        Command::Man { all: Some(directory), .. } => shell::all_pages(&directory),
        Command::Man { command, all: None } => shell::man(&command, output),
    }
}
