//! Hotplug scripts: run as libxl runs them, with an end.

use std::collections::VecDeque;
use std::io::{self, PipeReader, Read};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::place::Place;
use crate::retrieve::DeviceClass;

/// How much of what a script said is kept: its end, which says why it failed.
pub const SCRIPT_SAID_MAX: usize = 8 * 1024;

/// Where scripts find programs, if the environment has no `PATH`.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a script is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Add,
    Remove,
}

/// A script with all it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ScriptCall {
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<&'static str>,
    pub(super) environment: Vec<(&'static str, String)>,
}

/// What the environment of a nic's script says beside that of every script.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NicNames {
    pub(super) ifname: Option<String>,
    pub(super) gatewaydev: Option<String>,
}

impl ScriptCall {
    pub(super) fn new(place: &Place, script: &str, action: Action, names: &NicNames) -> Self {
        let mut environment = vec![
            ("script", script.to_owned()),
            ("XENBUS_TYPE", place.backend_kind.to_owned()),
            ("XENBUS_PATH", place.script_path()),
            ("XENBUS_BASE_PATH", "backend".to_owned()),
        ];
        let mut arguments = Vec::new();
        if place.id.class == DeviceClass::Nic {
            let ifname = names.ifname.clone();
            let vif = ifname.unwrap_or_else(|| format!("vif{}.{}", place.domid, place.id.devid));
            environment.push(("vif", vif));
            environment.push(("netdev", names.gatewaydev.clone().unwrap_or_default()));
            arguments.push(match action {
                Action::Add => "online",
                Action::Remove => "offline",
            });
            arguments.push("type_if=vif");
        } else {
            arguments.push(match action {
                Action::Add => "add",
                Action::Remove => "remove",
            });
        }
        if std::env::var_os("PATH").is_none() {
            environment.push(("PATH", PATH_DEFAULT.to_owned()));
        }
        Self { program: script.into(), arguments, environment }
    }

    /// Starts it in a process group of its own.
    pub(super) fn start(&self) -> Result<RunningScript, ScriptError> {
        let not_started = |source| ScriptError::NotStarted { script: self.program.clone(), source };
        let (said, says) = io::pipe().map_err(not_started)?;
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(says.try_clone().map_err(not_started)?)
            .stderr(says)
            .process_group(0);
        let child = command.spawn().map_err(not_started)?;
        Ok(RunningScript { script: self.program.clone(), child, said, kept: VecDeque::new() })
    }
}

/// A script that has been started.
pub(super) struct RunningScript {
    script: PathBuf,
    child: Child,
    said: PipeReader,
    kept: VecDeque<u8>,
}

impl RunningScript {
    /// Waits for its end; at the deadline it is killed with its process group.
    pub(super) fn wait(mut self, limit: Duration, deadline: Instant) -> Result<(), ScriptError> {
        let script = self.script.clone();
        match self.end(deadline) {
            Ok(Some(status)) if status.success() => Ok(()),
            Ok(Some(status)) => Err(ScriptError::Failed { script, status, said: self.words() }),
            Ok(None) => {
                self.kill();
                Err(ScriptError::TimedOut { script, limit, said: self.words() })
            }
            Err(source) => {
                self.kill();
                Err(ScriptError::Lost { script, source })
            }
        }
    }

    fn end(&mut self, deadline: Instant) -> io::Result<Option<ExitStatus>> {
        let pidfd = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty())?;
        let flags = fcntl_getfl(&self.said)?;
        fcntl_setfl(&self.said, flags | OFlags::NONBLOCK)?;
        let mut listening = true;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            };
            let mut fds = vec![PollFd::new(&pidfd, PollFlags::IN)];
            if listening {
                fds.push(PollFd::new(&self.said, PollFlags::IN));
            }
            match poll(&mut fds, Some(&timeout)) {
                Ok(0) => return Ok(None),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let ended = !fds[0].revents().is_empty();
            drop(fds);
            listening = listening && self.listen()?;
            if ended {
                return self.child.wait().map(Some);
            }
        }
    }

    /// Takes what it has said; `false` once nobody can say anything more.
    fn listen(&mut self) -> io::Result<bool> {
        let mut octets = [0; 4096];
        loop {
            match self.said.read(&mut octets) {
                Ok(0) => return Ok(false),
                Ok(count) => {
                    self.kept.extend(&octets[..count]);
                    let over = self.kept.len().saturating_sub(SCRIPT_SAID_MAX);
                    self.kept.drain(..over);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn kill(&mut self) {
        if let Err(error) = kill_process_group(Pid::from_child(&self.child), Signal::KILL) {
            tracing::warn!(%error, script = %self.script.display(), "the script was not killed");
        }
        if let Err(error) = self.child.wait() {
            tracing::warn!(%error, script = %self.script.display(), "the script's end was not seen");
        }
    }

    fn words(&mut self) -> String {
        // What it said last may not have been taken yet; an error here only leaves that out.
        let _ = self.listen();
        String::from_utf8_lossy(self.kept.make_contiguous()).trim_end().to_owned()
    }
}

/// What became of a hotplug script.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScriptError {
    /// It could not be started.
    #[error("hotplug script {}: cannot be run", script.display())]
    NotStarted {
        /// Which.
        script: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It ended with an error.
    #[error("hotplug script {} failed: {status}{}", script.display(), quoted(said))]
    Failed {
        /// Which.
        script: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it said, at most [`SCRIPT_SAID_MAX`] octets.
        said: String,
    },
    /// It did not end in time, and was killed with its process group.
    #[error("hotplug script {} did not end within {} s and was killed{}", script.display(), limit.as_secs(), quoted(said))]
    TimedOut {
        /// Which.
        script: PathBuf,
        /// The time it had.
        limit: Duration,
        /// The end of what it said, at most [`SCRIPT_SAID_MAX`] octets.
        said: String,
    },
    /// Its end could not be waited for; it was killed.
    #[error("hotplug script {}: its end could not be waited for", script.display())]
    Lost {
        /// Which.
        script: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn quoted(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(" (it said: {said})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> ScriptCall {
        ScriptCall {
            program: "/bin/sh".into(),
            arguments: vec!["-c", "eval \"$script\""],
            environment: vec![("script", script.to_owned())],
        }
    }

    fn run(script: &str, limit: Duration) -> Result<(), ScriptError> {
        shell(script).start().unwrap().wait(limit, Instant::now() + limit)
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_scripts_last_words_and_status_are_in_the_error() {
        run("exit 0", LONG).unwrap();
        let error = run("echo no loop device >&2; exit 3", LONG).unwrap_err();
        let ScriptError::Failed { status, said, .. } = &error else { panic!("{error}") };
        assert_eq!((status.code(), said.as_str()), (Some(3), "no loop device"));
    }

    #[test]
    fn a_script_that_says_very_much_is_heard_to_its_end() {
        let error = run("yes | head -c 300000; echo last; exit 1", LONG).unwrap_err();
        let ScriptError::Failed { said, .. } = &error else { panic!("{error}") };
        assert!(said.len() <= SCRIPT_SAID_MAX && said.ends_with("last"), "{}", said.len());
    }

    /// Its end is the end of the process that was started, not of what that has left running.
    #[test]
    fn a_daemon_that_a_script_leaves_behind_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let told = directory.path().join("pid");
        run(&format!("sleep 600 & echo $! > {}", told.display()), LONG).unwrap();
        let pid: i32 = std::fs::read_to_string(told).unwrap().trim().parse().unwrap();
        rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    }

    #[test]
    fn a_script_that_hangs_is_killed_with_its_children() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, 0o600.into()).unwrap();
        // The child holds the pipe open for writing until it dies.
        let script = format!("(exec 3>{0}; sleep 600) & wait", fifo.display());
        let reading = std::thread::spawn(move || std::fs::read(fifo).unwrap());
        let error = run(&script, Duration::from_millis(500)).unwrap_err();
        assert!(matches!(error, ScriptError::TimedOut { .. }), "{error}");
        assert_eq!(reading.join().unwrap(), b"");
    }

    #[test]
    fn a_script_that_is_not_there_is_named() {
        let call = ScriptCall { program: "/nosuch/block".into(), ..shell("") };
        let error = call.start().map(drop).unwrap_err();
        assert!(error.to_string().contains("/nosuch/block"), "{error}");
    }
}
