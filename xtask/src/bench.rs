//! `cargo xtask bench`: the benchmarks of `bench/`, built for release.

use crate::command::{Failure, cargo, execute};

/// Runs the named benchmarks, or all of them.
pub(crate) fn run(names: &[String]) -> Result<(), Failure> {
    let mut command = cargo(&["run", "--quiet", "--release", "--package", "domkeep-bench", "--"]);
    command.args(names);
    execute(command)
}
