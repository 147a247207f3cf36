//! `cargo xtask test`: everything that needs no Xen.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::command::{Failure, cargo, describe, execute};

/// Runs every check, the later ones also after an earlier one failed, and ends with a line that counts the tests.
pub(crate) fn run() -> Result<(), Failure> {
    let mut failures = Vec::new();
    let mut check = |outcome: Result<(), Failure>| failures.extend(outcome.err());
    check(tool("fmt", &["fmt", "--all", "--check"]));
    check(tool("clippy", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]));
    // Together with the workspace it is built with all features.
    check(execute(cargo(&["check", "-p", "xsclient", "--no-default-features"])));
    check(tool(
        "clippy",
        &["clippy", "-p", "xsclient", "--no-default-features", "--", "-D", "warnings"],
    ));
    let mut doc = cargo(&["doc", "--workspace", "--no-deps", "--document-private-items"]);
    doc.env("RUSTDOCFLAGS", "-Dwarnings");
    check(execute(doc));
    check(tool("deny", &["deny", "--all-features", "check", "bans", "licenses", "sources"]));
    let mut counts = Counts::default();
    check(counts.test(&["test", "--workspace", "--all-targets"]));
    check(counts.test(&["test", "--workspace", "--doc"]));
    for skipped in &counts.skipped {
        println!("{skipped}");
    }
    for failed in &counts.failed_names {
        println!("failed: {failed}");
    }
    println!(
        "{} passed, {} failed, {} skipped",
        counts.passed(),
        counts.failed,
        counts.skipped.len()
    );
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n")) }
}

/// Runs a command of cargo that is a tool of its own, which building does not need; where it is not installed, says so.
fn tool(name: &str, arguments: &[&str]) -> Result<(), Failure> {
    let mut probe = cargo(&[name, "--version"]);
    let present = probe.stdout(Stdio::null()).stderr(Stdio::null()).status();
    if present.is_ok_and(|status| status.success()) {
        return execute(cargo(arguments));
    }
    println!("not checked: cargo {name} is not installed");
    Ok(())
}

#[derive(Default)]
struct Counts {
    /// As libtest counts, those included that skipped themselves.
    returned: u64,
    failed: u64,
    failed_names: Vec<String>,
    skipped: Vec<String>,
}

impl Counts {
    /// Runs tests, passes their output on without that of passing tests, and counts.
    ///
    /// A test that cannot run here prints `skipped: NAME: REASON` and returns; libtest counts it as passed, this does not.
    fn test(&mut self, arguments: &[&str]) -> Result<(), Failure> {
        let mut command = cargo(arguments);
        command.args(["--no-fail-fast", "--", "--show-output"]).stdout(Stdio::piped());
        println!("$ {}", describe(&command));
        let mut child = command
            .spawn()
            .map_err(|error| format!("cannot run {}: {error}", describe(&command)))?;
        let output = child.stdout.take().ok_or("no output of the tests to read")?;
        let mut in_output = false;
        for line in BufReader::new(output).lines() {
            let line = line.map_err(|error| format!("cannot read the tests' output: {error}"))?;
            self.count(&line);
            in_output = match line.as_str() {
                "successes:" => true,
                "failures:" => false,
                other if other.starts_with("test result:") => false,
                _ => in_output,
            };
            if !in_output && !line.is_empty() {
                println!("{line}");
            }
        }
        let status = child.wait().map_err(|error| format!("cannot wait for the tests: {error}"))?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("{} failed ({status})", describe(&command)))
        }
    }

    fn passed(&self) -> u64 {
        self.returned.saturating_sub(self.skipped.len() as u64)
    }

    fn count(&mut self, line: &str) {
        if let Some(counts) = line.strip_prefix("test result: ") {
            let number = |what: &str| -> u64 {
                let before = counts.split(what).next().unwrap_or_default();
                before
                    .split([' ', ';', '.'])
                    .rfind(|word| !word.is_empty())
                    .and_then(|n| n.parse().ok())
                    .unwrap_or(0)
            };
            self.returned += number(" passed");
            self.failed += number(" failed");
        } else if line.starts_with("skipped: ") {
            self.skipped.push(line.to_owned());
        } else if let Some(name) =
            line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED"))
        {
            self.failed_names.push(name.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skipped_tests_are_counted_apart_from_passed_ones() {
        let mut counts = Counts::default();
        for line in [
            "test a ... ok",
            "test b ... FAILED",
            "skipped: stock_daemon_answers: no network",
            "test result: FAILED. 12 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        ] {
            counts.count(line);
        }
        assert_eq!((counts.passed(), counts.failed, counts.skipped.len()), (11, 1, 1));
        assert_eq!(counts.failed_names, ["b"]);
    }
}
