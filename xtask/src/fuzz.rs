//! `cargo xtask fuzz`: each target for a bounded time, on a stable toolchain.

use std::path::Path;

use crate::command::{Failure, cargo, execute, host_tuple, root};

/// The coverage that libFuzzer steers by, as cargo-fuzz asks for it but without the sanitizer, which needs a nightly
/// compiler: the crates fuzzed forbid unsafe code.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1";

/// Largest input in octets: a few messages or a whole small configuration.
const INPUT_MAX: u32 = 16 * 1024;

/// Builds and runs the named targets, or all of them. New inputs go to `target/fuzz/corpus`; the committed corpus is read.
pub(crate) fn run(seconds: u32, names: &[String]) -> Result<(), Failure> {
    let fuzz = root().join("fuzz");
    let known = targets(&fuzz)?;
    if let Some(unknown) = names.iter().find(|name| !known.contains(name)) {
        return Err(format!("no fuzz target {unknown}; there are {}", known.join(", ")));
    }
    let build_dir = root().join("target/fuzz");
    // A target of its own on the command line keeps the flags away from build scripts.
    let host = host_tuple()?;
    let mut build = cargo(&["build", "--release", "--target", &host, "--bins"]);
    build.current_dir(&fuzz).env("CARGO_TARGET_DIR", &build_dir);
    build.env(flags_of(&host), COVERAGE);
    execute(build)?;
    for name in known.iter().filter(|name| names.is_empty() || names.contains(name)) {
        let found = build_dir.join("corpus").join(name);
        std::fs::create_dir_all(&found)
            .map_err(|error| format!("cannot create {}: {error}", found.display()))?;
        let program = build_dir.join(&host).join("release").join(name);
        let mut command = std::process::Command::new(program);
        command.arg(&found).arg(fuzz.join("corpus").join(name)).current_dir(&build_dir);
        command.args([format!("-max_total_time={seconds}"), format!("-max_len={INPUT_MAX}")]);
        command.args(["-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1", "-verbosity=0"]);
        execute(command)?;
    }
    Ok(())
}

/// The variable that cargo takes flags for a target from.
fn flags_of(target: &str) -> String {
    format!("CARGO_TARGET_{}_RUSTFLAGS", target.to_uppercase().replace('-', "_"))
}

fn targets(fuzz: &Path) -> Result<Vec<String>, Failure> {
    let dir = fuzz.join("fuzz_targets");
    let entries = std::fs::read_dir(&dir)
        .map_err(|error| format!("cannot list {}: {error}", dir.display()))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| {
            entry.ok()?.path().file_stem().map(|stem| stem.to_string_lossy().into_owned())
        })
        .collect();
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_those_of_the_machine_that_fuzzes() {
        let host = host_tuple().expect("rustc is here");
        assert_eq!(host.split('-').next(), Some(std::env::consts::ARCH));
        assert_eq!(
            flags_of("aarch64-unknown-linux-gnu"),
            "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS"
        );
    }
}
