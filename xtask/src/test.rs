//! `cargo xtask test`: everything that needs no Xen.

use std::collections::BTreeSet;
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
    for line in &counts.skip_lines {
        println!("{line}");
    }
    for failed in &counts.failed_names {
        println!("failed: {failed}");
    }
    println!("{} passed, {} failed, {} skipped", counts.passed(), counts.failed, counts.skipped);
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
    /// Tests, each once, whatever they print.
    skipped: u64,
    /// What skipped tests print, and those that lack a part.
    skip_lines: Vec<String>,
    /// Whether what is read is what passed tests have printed.
    in_output: bool,
    /// Which of them, with its modules.
    printing: Option<String>,
    /// Those of the program whose output is being read that have skipped themselves.
    skipped_here: BTreeSet<String>,
}

impl Counts {
    /// Runs tests, passes their output on without that of passing tests, and counts.
    ///
    /// A test that cannot run here prints `skipped: NAME: REASON` and returns; libtest counts it as passed, this does not. One that
    /// prints it of what is no test's name, or `partly skipped: `, has passed.
    fn test(&mut self, arguments: &[&str]) -> Result<(), Failure> {
        let mut command = cargo(arguments);
        command.args(["--no-fail-fast", "--", "--show-output"]).stdout(Stdio::piped());
        println!("$ {}", describe(&command));
        let mut child = command
            .spawn()
            .map_err(|error| format!("cannot run {}: {error}", describe(&command)))?;
        let output = child.stdout.take().ok_or("no output of the tests to read")?;
        for line in BufReader::new(output).lines() {
            let line = line.map_err(|error| format!("cannot read the tests' output: {error}"))?;
            self.count(&line);
            if !self.in_output && !line.is_empty() {
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
        self.returned.saturating_sub(self.skipped)
    }

    fn count(&mut self, line: &str) {
        match line {
            "successes:" => (self.in_output, self.printing) = (true, None),
            "failures:" => (self.in_output, self.printing) = (false, None),
            _ => self.count_within(line),
        }
    }

    fn count_within(&mut self, line: &str) {
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
            self.skipped += std::mem::take(&mut self.skipped_here).len() as u64;
            (self.in_output, self.printing) = (false, None);
        } else if let Some(told) = line.strip_prefix("skipped: ") {
            self.skip_lines.push(line.to_owned());
            let name = told.split_once(": ").map_or(told, |(name, _)| name);
            // `NAME on KIND` is no test's name.
            if !name.contains(' ') {
                self.skipped_here.extend(self.printing.clone());
            }
        } else if line.starts_with("partly skipped: ") {
            self.skip_lines.push(line.to_owned());
        } else if let Some(test) =
            line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"))
        {
            self.printing = self.in_output.then(|| test.to_owned());
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

    fn counted(lines: &[&str]) -> Counts {
        let mut counts = Counts::default();
        for line in lines {
            counts.count(line);
        }
        counts
    }

    #[test]
    fn skipped_tests_are_counted_apart_from_passed_ones() {
        let counts = counted(&[
            "test a ... ok",
            "test b ... FAILED",
            "successes:",
            "---- suite::stock_daemon_answers stdout ----",
            "skipped: stock_daemon_answers: no network",
            "successes:",
            "    a",
            "failures:",
            "---- b stdout ----",
            "test result: FAILED. 12 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        ]);
        assert_eq!((counts.passed(), counts.failed, counts.skipped), (11, 1, 1));
        assert_eq!(counts.failed_names, ["b"]);
    }

    #[test]
    fn a_test_that_says_several_times_that_it_is_skipped_is_one() {
        let counts = counted(&[
            "successes:",
            "---- every_page stdout ----",
            "skipped: every_page: docs/one.md: no QEMU",
            "skipped: every_page: docs/two.md: no curl",
            "---- blocking::answers stdout ----",
            "skipped: answers: no network",
            "---- tokio::answers stdout ----",
            "skipped: answers: no network",
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "successes:",
            "---- every_page stdout ----",
            "skipped: every_page: of another program, with a test of that name",
            "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        ]);
        assert_eq!((counts.passed(), counts.skipped), (1, 4));
        assert_eq!(counts.skip_lines.len(), 5);
    }

    #[test]
    fn a_test_that_lacks_only_a_part_has_passed_and_its_line_is_kept() {
        let counts = counted(&[
            "successes:",
            "---- answers stdout ----",
            "skipped: answers on OCaml: not installed",
            "partly skipped: answers: no network",
            "failures:",
            "---- fails stdout ----",
            "skipped: fails: it was not even that",
            "test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        ]);
        assert_eq!((counts.passed(), counts.failed, counts.skipped), (1, 1, 0));
        assert_eq!(counts.skip_lines.len(), 3);
    }
}
