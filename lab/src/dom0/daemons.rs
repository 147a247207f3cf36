//! The host's own daemons: how they are started, killed, and replaced while domains run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use xsclient::{Client, Endpoint, Nodes, Options};

use super::guest::client;
use super::program::wait_for_change;
use super::{Failure, Host, Ran, XENSTORED, run};
use crate::xenstored::Xenstored;

/// Debian's programs for this version of Xen.
const XEN_BIN: &str = "/usr/lib/xen-4.17/bin";
/// Domkeep's daemon.
const OURS: &str = "/lab/bin/xenstored";
const PID_FILE: &str = "/run/xen/xenstored.pid";
const CONSOLE_PID_FILE: &str = "/run/xen/xenconsoled.pid";
/// On this host's disk: the stock daemon writes octet by octet.
const STOCK_LOG: &str = "/run/xenstored-trace.log";
const OUR_LOG: &str = "/lab/share/logs/xenstored.log";
/// Where the store is kept, if it is.
const DATABASE: &str = "/run/xenstored/store";
const SOCKET_DIRECTORY: &str = "/run/xenstored";

/// For a daemon to come up, to go, or to be replaced.
const DAEMON_LIMIT: Duration = Duration::from_mins(1);
/// For transactions to end before an update, as `xenstore-control` has it, in seconds.
const TRANSACTION_LIMIT: &str = "30";

/// The daemon that this host was started with.
pub fn xenstored() -> Xenstored {
    let name = fs::read_to_string(Path::new("/lab/share").join(XENSTORED)).unwrap_or_default();
    Xenstored::named(name.trim()).unwrap_or_default()
}

/// Starts a Xenstore daemon, and waits until it answers.
pub fn start_xenstored(xenstored: Xenstored) -> Result<(), Failure> {
    fs::create_dir_all(SOCKET_DIRECTORY)?;
    let mut command = Command::new(program(xenstored));
    run(command.args(options(xenstored)), DAEMON_LIMIT)?.ok()?;
    wait_until_it_answers()
}

/// Starts the daemon that writes what guests print.
pub fn start_xenconsoled() -> Result<(), Failure> {
    let mut command = Command::new(Path::new(XEN_BIN).join("xenconsoled"));
    command.args(["--pid-file", CONSOLE_PID_FILE, "--log=all", "--timestamp=none"]);
    run(command.arg("--log-dir=/lab/console"), DAEMON_LIMIT)?.ok().map(drop)
}

fn program(xenstored: Xenstored) -> PathBuf {
    match xenstored {
        Xenstored::Stock => Path::new(XEN_BIN).join("xenstored"),
        _ => OURS.into(),
    }
}

fn options(xenstored: Xenstored) -> Vec<&'static str> {
    let log = if xenstored == Xenstored::Stock { STOCK_LOG } else { OUR_LOG };
    let mut options = vec!["--pid-file", PID_FILE, "--trace-file", log];
    if xenstored == Xenstored::OursKept {
        options.extend(["--database", DATABASE]);
    }
    options
}

fn wait_until_it_answers() -> Result<(), Failure> {
    let deadline = Instant::now() + DAEMON_LIMIT;
    let changes = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    inotify::add_watch(&changes, SOCKET_DIRECTORY, inotify::WatchFlags::CREATE)?;
    loop {
        let socket = Endpoint::UnixSocket(Path::new(SOCKET_DIRECTORY).join("socket"));
        let error = match Client::open(socket, Options::with_timeout(DAEMON_LIMIT)) {
            Ok(mut client) => return Ok(client.directory(&"/".parse()?).map(drop)?),
            Err(error) => error,
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Failure::from(error).and("the daemon was just started"));
        }
        wait_for_change(&changes, left)?;
    }
}

impl Host {
    /// The daemon that this host was started with.
    pub fn xenstored(&self) -> Xenstored {
        xenstored()
    }

    /// The process id of the Xenstore daemon.
    pub fn xenstored_pid(&self) -> Result<i32, Failure> {
        pid(PID_FILE)
    }

    /// The program that the Xenstore daemon's process runs now.
    pub fn xenstored_program(&self) -> Result<PathBuf, Failure> {
        Ok(fs::read_link(format!("/proc/{}/exe", self.xenstored_pid()?))?)
    }

    /// What the Xenstore daemon has in memory, in KiB.
    pub fn xenstored_resident(&self) -> Result<u64, Failure> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.xenstored_pid()?))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.and_then(|text| text.trim().strip_suffix(" kB"));
        Ok(kib.ok_or_else(|| Failure::because("a process without memory"))?.parse()?)
    }

    /// Kills the Xenstore daemon as `kill -9` does, and waits until it is gone.
    pub fn kill_xenstored(&self) -> Result<(), Failure> {
        self.step("kill -9 of xenstored");
        end(self.xenstored_pid()?, Signal::KILL)
    }

    /// Starts the Xenstore daemon that the host was started with, again.
    pub fn start_xenstored(&self) -> Result<(), Failure> {
        self.step("start xenstored");
        start_xenstored(self.xenstored())
    }

    /// Starts xenconsoled again, which ends when its connection to Xenstore does.
    pub fn restart_xenconsoled(&self) -> Result<(), Failure> {
        if let Ok(pid) = pid(CONSOLE_PID_FILE)
            && Path::new(&format!("/proc/{pid}")).exists()
        {
            end(pid, Signal::TERM)?;
        }
        start_xenconsoled()
    }

    /// Replaces the running Xenstore daemon by another with the stock tool, and gives the time it took.
    pub fn live_update(&mut self, to: Xenstored) -> Result<Duration, Failure> {
        self.step(&format!("live update to {}", to.name()));
        let (pid, program) = (self.xenstored_pid()?, program(to));
        let mut control = Command::new(Path::new(XEN_BIN).join("xenstore-control"));
        control.args(["live-update", "-c", &options(to).join(" "), "-t", TRANSACTION_LIMIT]);
        let updated = run(control.arg(&program), DAEMON_LIMIT)?.ok()?;
        let said = format!("{}{}", updated.stdout, updated.stderr);
        client()?.directory(&"/".parse()?)?;
        let now = self.xenstored_program()?;
        self.check_equal("the program that serves is the new one", &now, &program)
            .map_err(|failure| failure.and(said.trim()))?;
        self.check_equal("it is the same process", &self.xenstored_pid()?, &pid)?;
        Ok(updated.took)
    }

    /// Upstream's test and benchmark of Xenstore servers, each of its tests so often.
    pub fn test_xenstore(&self, iterations: u32) -> Result<Ran, Failure> {
        let mut command = Command::new(Path::new(XEN_BIN).join("test-xenstore"));
        run(command.args(["-i", &iterations.to_string()]), 10 * DAEMON_LIMIT)?.ok()
    }
}

fn pid(file: &str) -> Result<i32, Failure> {
    Ok(fs::read_to_string(file)?.trim().parse()?)
}

/// Sends a signal to a process that is no child of this one, and waits for its end.
fn end(pid: i32, signal: Signal) -> Result<(), Failure> {
    let pid = Pid::from_raw(pid).ok_or_else(|| Failure::because("0 is no process"))?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    kill_process(pid, signal)?;
    let limit = Timespec::try_from(DAEMON_LIMIT)?;
    match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&limit))? {
        0 => Err(Failure::because(format!("process {pid:?} did not end"))),
        _ => Ok(()),
    }
}
