//! Other processes for tests: this test program run again, as one test that plays a role.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
};

const ROLE: &str = "DOMKEEP_TEST_ROLE";
const DIRECTORY: &str = "DOMKEEP_TEST_DIRECTORY";

/// What this process is to play, and on which directory; `None` if it is not a child of a test.
pub(crate) fn role() -> Option<(String, PathBuf)> {
    Some((std::env::var(ROLE).ok()?, std::env::var_os(DIRECTORY)?.into()))
}

/// Tells the parent something.
pub(crate) fn tell(what: impl std::fmt::Display) {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "@{what}").and_then(|()| stdout.flush()).expect("the parent listens");
}

/// Waits until the parent says so.
pub(crate) fn await_parent() {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("the parent speaks");
}

/// A child that plays a role.
pub(crate) struct Player {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Player {
    /// Runs the named test again as a process that plays this role.
    pub(crate) fn start(
        test: &str,
        role: &str,
        directory: &Path,
        environment: &[(&str, &str)],
    ) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(DIRECTORY, directory)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Player { child, stdin, stdout }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the child tells next; `None` if it has ended.
    pub(crate) fn hear(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.stdout.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            // The test runner's own output is around it.
            if let Some((_, told)) = line.trim_end().split_once('@') {
                return Some(told.to_owned());
            }
        }
    }

    /// Lets the child get on from [`await_parent`].
    pub(crate) fn go_on(&mut self) {
        writeln!(self.stdin).unwrap();
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
    }

    pub(crate) fn end(mut self) -> ExitStatus {
        drop(self.stdin);
        while self.stdout.read_line(&mut String::new()).unwrap() > 0 {}
        self.child.wait().unwrap()
    }
}
