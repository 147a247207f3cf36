//! `snapshot`.

mod files;
mod session;

use std::path::Path;

use crate::host::{Answer, domkeep, shipped};

/// Runs it in the directory of the memory images that are shipped.
fn snapshot(arguments: &[&str]) -> Answer {
    let mut command = domkeep();
    let images = shipped("../snapshot/testdata");
    Answer::of(command.arg("snapshot").args(arguments).current_dir(images))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
