//! `cargo xtask lab`: scenarios on a real Xen host under QEMU.

use std::path::PathBuf;
use std::process::Command;

use crate::command::{Failure, cargo, execute, root};

/// Builds the command and the lab's programs, and has the lab go on.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    execute(cargo(&[
        "build",
        "--quiet",
        "--package",
        "domkeep",
        "--package",
        "domkeep-lab",
        "--bins",
    ]))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
    let mut lab = Command::new(root().join(target).join("debug/domkeep-lab"));
    lab.args(arguments).current_dir(root());
    execute(lab)
}
