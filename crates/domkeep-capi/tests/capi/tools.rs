//! Building programs in C and running them.

use std::env;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// What valgrind ends with if it has found something.
const FOUND: i32 = 99;

/// How a program is linked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Linked {
    Shared,
    Static,
}

/// A program in C, built.
pub(crate) struct Program {
    directory: TempDir,
}

pub(crate) fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Where cargo has put the libraries: beside this test.
fn libraries() -> PathBuf {
    env::current_exe().unwrap().parent().unwrap().to_owned()
}

pub(crate) fn is_there(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

impl Program {
    /// Builds a source; `None` if there is no compiler, which is said.
    pub(crate) fn build(test: &str, source: &Path, linked: Linked) -> Option<Self> {
        if !is_there("gcc") {
            println!("skipped: {test}: there is no gcc");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let library = libraries().join("libdomkeep.so");
        for name in ["libdomkeep.so", "libdomkeep.so.0"] {
            symlink(&library, directory.path().join(name)).unwrap();
        }
        let mut gcc = Command::new("gcc");
        gcc.args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-g", "-O1", "-o"]);
        gcc.arg(directory.path().join("program")).arg(source);
        gcc.arg("-I").arg(here("include")).arg("-I").arg(here("tests/c"));
        match linked {
            Linked::Shared => {
                gcc.arg("-L").arg(directory.path()).args(["-ldomkeep", "-lpthread"]);
                gcc.arg(format!("-Wl,-rpath,{}", directory.path().display()));
            }
            Linked::Static => {
                gcc.arg(libraries().join("libdomkeep.a")).args(private_libraries());
            }
        }
        let built = gcc.output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        Some(Self { directory })
    }

    /// Runs it, and gives what it printed.
    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&Path]) -> String {
        succeed(Command::new(self.directory.path().join("program")).args(arguments))
    }

    /// Runs it under valgrind, if there is one: an error or a leak fails it. Gives what it printed.
    #[track_caller]
    pub(crate) fn check(&self, test: &str, arguments: &[&Path]) -> String {
        let program = self.directory.path().join("program");
        let mut command = if is_there("valgrind") {
            let mut command = Command::new("valgrind");
            // What the process still reaches at its end, as the logger that there is one of, is no leak.
            let leaks = "definite,indirect,possible";
            command.args(["--quiet", "--leak-check=full"]);
            command.arg(format!("--errors-for-leak-kinds={leaks}"));
            command.arg(format!("--show-leak-kinds={leaks}"));
            command.arg(format!("--error-exitcode={FOUND}"));
            command.arg(format!("--suppressions={}", here("tests/c/rust.supp").display()));
            command.arg(program);
            command
        } else {
            println!("skipped: {test}: there is no valgrind: it is run without");
            Command::new(program)
        };
        succeed(command.args(arguments))
    }
}

#[track_caller]
fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}: {}", output.status, told(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn told(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text)).join("\n")
}

/// What the pkg-config file says that a static program needs besides.
fn private_libraries() -> Vec<String> {
    let file = std::fs::read_to_string(here("domkeep.pc.in")).unwrap();
    let line = file.lines().find_map(|line| line.strip_prefix("Libs.private:")).unwrap();
    line.split_whitespace().map(str::to_owned).collect()
}
