//! `cargo xtask lab`: scenarios on a real Xen host under QEMU.

use std::path::PathBuf;
use std::process::Command;

use crate::command::{Failure, cargo, execute, root};

/// Has the lab run what is built for release, as times should be compared with.
const RELEASE: &str = "--release";

/// Builds the command and the lab's programs, and has the lab go on.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    // What comes after `--` is the host's.
    let mut own = arguments.iter().take_while(|argument| *argument != "--");
    let release = own.any(|argument| argument == RELEASE);
    let mut build = cargo(&["build", "--quiet", "--bins"]);
    build.args(["--package", "domkeep", "--package", "domkeep-lab"]);
    if release {
        build.arg(RELEASE);
    }
    execute(build)?;
    let profile = if release { "release" } else { "debug" };
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
    let mut lab = Command::new(root().join(target).join(profile).join("domkeep-lab"));
    lab.args(arguments).current_dir(root());
    execute(lab)
}
