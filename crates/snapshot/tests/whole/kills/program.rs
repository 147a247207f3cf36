//! The processes that are killed: this test program once more, which saves, restores or recovers.

use std::cell::Cell;
use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::rc::Rc;

use rustix::process::{Signal, getpid, kill_process};
use serde::{Deserialize, Serialize};
use snapshot::control::DomainIdentity;
use snapshot::restore::RestoreMode;
use snapshot::simulated::SimulatedDomain;
use snapshot::{Observer, Progress, guard};

use super::world::{self, Saving};

const TASK: &str = "DOMKEEP_TEST_TASK";
/// What a program says once it begins.
const READY: &str = "the work begins";

/// What a program is to do, and where it is to die.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Task {
    /// The host's directory.
    pub(super) host: PathBuf,
    /// Where its files go.
    pub(super) files: PathBuf,
    pub(super) work: Work,
    pub(super) kill: Kill,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Work {
    Save { domain: DomainIdentity, saving: Saving },
    Restore { manifest: PathBuf, mode: RestoreMode },
    Recover,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Kill {
    Never,
    /// At the step of that number, from 0.
    At(u32),
    /// At the first step of that name.
    Named(String),
}

impl Task {
    /// Starts the program, and waits until it begins.
    pub(super) fn start(&self) -> Child {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--ignored", "--exact", "--nocapture", "kills::program::killed_program"]);
        command.env(TASK, serde_json::to_string(self).unwrap());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.as_mut().unwrap());
        let mut line = String::new();
        while !line.contains(READY) {
            line.clear();
            assert!(lines.read_line(&mut line).unwrap() > 0, "the program does not begin");
        }
        child
    }

    /// Runs the program to its end. The step that it was killed at; `None` if it has done all its work.
    pub(super) fn run(&self) -> Option<String> {
        let _ = fs::remove_file(self.last_step());
        self.ended(self.start().wait().unwrap())
    }

    pub(super) fn ended(&self, status: ExitStatus) -> Option<String> {
        use std::os::unix::process::ExitStatusExt;
        if status.signal() == Some(Signal::KILL.as_raw()) {
            return Some(fs::read_to_string(self.last_step()).unwrap_or_default());
        }
        assert!(status.success(), "{self:?}: {status}");
        None
    }

    fn last_step(&self) -> PathBuf {
        self.host.join("last-step")
    }
}

/// Planned, a program says that it begins.
pub(super) fn begins() {
    println!("{READY}");
}

#[test]
#[ignore = "saves, restores or recovers until it kills itself or is killed, which other tests start"]
fn killed_program() {
    let Ok(task) = env::var(TASK) else { return };
    let task: Task = serde_json::from_str(&task).unwrap();
    let (count, last, kill) = (Rc::new(Cell::new(0)), task.last_step(), task.kill.clone());
    let strike = move |step: &str| {
        let number = count.replace(count.get() + 1);
        let is_now = match &kill {
            Kill::Never => false,
            Kill::At(at) => number == *at,
            Kill::Named(name) => step == name,
        };
        if is_now {
            fs::write(&last, step).unwrap();
            kill_process(getpid(), Signal::KILL).unwrap();
        }
    };
    let at_journal = strike.clone();
    snapshot::crash_steps::at_every_step(move |step| at_journal(step));
    // Each phase, and each mebibyte of it: pieces come as the pipe has them.
    let mut told = None;
    let mut at_progress = |progress: &Progress| {
        let now = (progress.phase, progress.done >> 20);
        if told.replace(now) != Some(now) {
            strike(&format!("{} {} MiB", now.0, now.1));
        }
    };
    let mut observer = Observer::none().progress(&mut at_progress);
    match &task.work {
        Work::Save { domain, saving } => {
            world::save(&task.host, &task.files, domain, *saving, &mut observer);
        }
        Work::Restore { manifest, mode } => {
            world::restore(&task.host, &task.files, manifest, *mode, &mut observer);
        }
        Work::Recover => {
            begins();
            world::recover(&task.host, &task.files, &mut observer).unwrap();
        }
    }
}

/// What a saver starts as its guardian. A test program writes to its standard output before any test does, so the guardian's words
/// go through another descriptor.
pub(super) fn guardian() -> snapshot::GuardianProgram {
    let script = r#"exec 3>&1 >/dev/null; exec "$0" --ignored --exact "$1""#;
    let program = env::current_exe().unwrap().to_str().unwrap().to_owned();
    snapshot::GuardianProgram {
        program: "sh".into(),
        arguments: vec![
            "-c".into(),
            script.into(),
            program,
            "kills::program::guardian_program".into(),
        ],
    }
}

#[test]
#[ignore = "a guardian, which savers start"]
fn guardian_program() {
    let words = Path::new("/proc/self/fd/3");
    if !words.exists() || io::stdin().as_fd().try_clone_to_owned().is_err() {
        return;
    }
    let mut input = io::stdin().lock();
    let Ok(needs) = guard::read_needs(&mut input) else { return };
    let control = SimulatedDomain::from_guardian(&needs).unwrap();
    let mut output = fs::File::options().write(true).open(words).unwrap();
    guard::run(&control, &needs.domain, input, &mut output).unwrap();
    let _ = output.flush();
}
