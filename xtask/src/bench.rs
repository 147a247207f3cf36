//! `cargo xtask bench` and `cargo xtask soak`: the benchmarks of `bench/`, built for release.

use crate::command::{Failure, cargo, execute};

/// What starts the daemon of this workspace as a process of its own.
const DAEMON: &str = "xenstored";

/// What needs the library for C.
const LIBRARY: &str = "c-api";

/// Runs the named benchmarks, or all of them.
pub(crate) fn run(names: &[String], quick: bool) -> Result<(), Failure> {
    let of_daemon = |name: &String| name == DAEMON || name.starts_with("xenstored:");
    if names.is_empty() || names.iter().any(of_daemon) {
        build_daemon()?;
    }
    if names.is_empty() || names.iter().any(|name| name == LIBRARY) {
        execute(cargo(&["build", "--quiet", "--release", "--package", "domkeep-capi"]))?;
    }
    let quick = if quick { &["--quick"][..] } else { &[] };
    program(names.iter().map(String::as_str).chain(quick.iter().copied()))
}

/// Runs the soak of the daemon.
pub(crate) fn soak(minutes: u64) -> Result<(), Failure> {
    build_daemon()?;
    program(["soak", &(minutes * 60).to_string()])
}

fn build_daemon() -> Result<(), Failure> {
    execute(cargo(&["build", "--quiet", "--release", "--package", "domkeep", "--bin", DAEMON]))
}

fn program<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Result<(), Failure> {
    let mut command = cargo(&["run", "--quiet", "--release", "--package", "domkeep-bench", "--"]);
    command.args(arguments);
    execute(command)
}
