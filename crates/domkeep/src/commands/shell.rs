//! `completions` and `man`: made from the arguments themselves.

use clap::{Command, CommandFactory};
use clap_complete::Shell;

use crate::arguments::Arguments;
use crate::exit::{CommandError, Exit};
use crate::output::Output;

pub(super) fn completions(shell: Shell, output: &mut Output) -> Result<Exit, CommandError> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "domkeep", &mut text);
    output.octets(&text)?;
    Ok(Exit::Done)
}

pub(super) fn man(words: &[String], output: &mut Output) -> Result<Exit, CommandError> {
    let mut all = Arguments::command();
    // Fills in the full names of subcommands and the global options.
    all.build();
    let mut command: &Command = &all;
    for word in words {
        command = command
            .find_subcommand(word)
            .ok_or_else(|| CommandError::NoSuchCommand { typed: words.join(" ") })?;
    }
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut text).map_err(CommandError::Output)?;
    output.octets(&text)?;
    Ok(Exit::Done)
}
