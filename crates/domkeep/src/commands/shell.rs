//! `completions` and `man`: made from the arguments themselves.

use std::fs;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::arguments::Arguments;
use crate::exit::{CommandError, Exit};
use crate::manual;
use crate::output::Output;

pub(super) fn completions(shell: Shell, output: &mut Output) -> Result<Exit, CommandError> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "domkeep", &mut text);
    output.octets(&text)?;
    Ok(Exit::Done)
}

/// Prints the page of one command.
pub(super) fn man(words: &[String], output: &mut Output) -> Result<Exit, CommandError> {
    let page = manual::page(words)
        .ok_or_else(|| CommandError::NoSuchCommand { typed: words.join(" ") })?;
    output.octets(&page.text().map_err(CommandError::Output)?)?;
    Ok(Exit::Done)
}

/// Writes the pages of all commands into a directory, which is made if there is none.
pub(super) fn all_pages(directory: &Path) -> Result<Exit, CommandError> {
    let failed = |path: &Path, action| {
        let path = path.to_owned();
        move |source| CommandError::File { path, action, source }
    };
    fs::create_dir_all(directory).map_err(failed(directory, "made"))?;
    for (file, page) in manual::pages() {
        let path = directory.join(file);
        let text = page.text().map_err(failed(&path, "written"))?;
        fs::write(&path, text).map_err(failed(&path, "written"))?;
    }
    Ok(Exit::Done)
}
