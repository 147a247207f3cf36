//! A host for the command to look at, and the running of the command.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// The command, with no answer yet.
pub(crate) fn domkeep() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_domkeep"));
    for variable in ["XENSTORED_PATH", "XENSTORED_RUNDIR", "DOMKEEP_LOG", "DOMKEEP_TEMPLATES"] {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null());
    command
}

/// What the command answered.
pub(crate) struct Answer(pub Output);

impl Answer {
    pub(crate) fn of(command: &mut Command) -> Self {
        Self(command.output().unwrap())
    }

    pub(crate) fn status(&self) -> i32 {
        self.0.status.code().unwrap_or_else(|| panic!("killed: {}", self.stderr()))
    }

    pub(crate) fn stdout(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).unwrap()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }

    /// Requires this exit status.
    #[track_caller]
    pub(crate) fn expect(self, status: i32) -> Self {
        assert_eq!(self.status(), status, "stdout: {}\nstderr: {}", self.stdout(), self.stderr());
        assert!(!self.stderr().contains("panicked"), "{}", self.stderr());
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.0.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", self.stdout()))
    }
}

/// Files that are shipped: `demo/host`, `tests/data/captures/NAME`.
pub(crate) fn shipped(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// `domkeep xenstore serve`, and the command pointed at it.
pub(crate) struct Host {
    child: Child,
    stdout: Option<BufReader<ChildStdout>>,
    pub(crate) directory: TempDir,
    templates: PathBuf,
}

impl Host {
    /// Serves the nodes of a capture; the templates are a copy that may be changed.
    pub(crate) fn of(capture: &Path) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let templates = directory.path().join("templates");
        fs::create_dir(&templates).unwrap();
        for entry in fs::read_dir(capture).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_string_lossy().starts_with("userdata-") {
                fs::copy(&path, templates.join(path.file_name().unwrap())).unwrap();
            }
        }
        Self::start(
            directory,
            templates,
            &[OsStr::new("--load"), capture.join("xenstore.txt").as_os_str()],
        )
    }

    /// The host that is shipped for the demonstration.
    pub(crate) fn demo() -> Self {
        Self::of(&shipped("demo/host"))
    }

    /// An empty Xenstore and no templates, started with more options.
    pub(crate) fn empty(options: &[&OsStr]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let templates = directory.path().join("templates");
        fs::create_dir(&templates).unwrap();
        Self::start(directory, templates, options)
    }

    fn start(directory: TempDir, templates: PathBuf, options: &[&OsStr]) -> Self {
        let mut command = domkeep();
        command.args(["xenstore", "serve", "--socket"]).arg(directory.path().join("socket"));
        let mut child = command.args(options).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert!(line.starts_with("serving "), "{line:?}");
        Self { child, stdout: Some(stdout), directory, templates }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    pub(crate) fn templates(&self) -> &Path {
        &self.templates
    }

    /// The command, with Xenstore and templates of this host.
    pub(crate) fn domkeep(&self, arguments: &[&str]) -> Command {
        let mut command = domkeep();
        let mut templates = std::ffi::OsString::from("userdata:");
        templates.push(&self.templates);
        command.arg("--xenstore").arg(self.socket()).arg("--templates").arg(templates);
        command.args(arguments);
        command
    }

    pub(crate) fn ask(&self, arguments: &[&str]) -> Answer {
        Answer::of(&mut self.domkeep(arguments))
    }

    /// Stops the server as a service manager does, and gives its exit status and what else it printed.
    pub(crate) fn stop(mut self) -> (i32, String, TempDir) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let mut rest = String::new();
        self.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
        let status = self.child.wait().unwrap().code().unwrap();
        let empty = tempfile::tempdir().unwrap();
        (status, rest, std::mem::replace(&mut self.directory, empty))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // It may have been stopped already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
