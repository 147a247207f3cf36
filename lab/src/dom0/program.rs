//! Programs with a deadline and captured output.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::io::Errno;
use serde_json::Value;
use stock_xenstore::{spawn_bound, wait};

use super::Failure;

/// A program that ended.
#[derive(Debug)]
pub struct Ran {
    /// What was run, as it would be typed.
    pub line: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// From start to end.
    pub took: Duration,
}

/// A program that may still run. It is killed if this is dropped.
#[derive(Debug)]
pub struct Running {
    line: String,
    child: Child,
    stdout: File,
    stderr: File,
    started: Instant,
}

/// How many octets of a failed program's output a failure quotes.
const QUOTED: usize = 1500;

/// Runs a program to its end. One that has not ended within `limit` is killed, and a failure; one that ends with another
/// status than 0 is not: see [`Ran::ok`].
pub fn run(command: &mut Command, limit: Duration) -> Result<Ran, Failure> {
    start(command)?.wait(limit)
}

/// Starts a program, which ends with this one. Its output goes to files, so that nobody has to read while it runs.
pub fn start(command: &mut Command) -> Result<Running, Failure> {
    let mut given = Command::new(command.get_program());
    given.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => given.env(name, value),
            None => given.env_remove(name),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        given.current_dir(directory);
    }
    let line = line(command);
    let (stdout, stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
    given.stdin(Stdio::null()).stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
    let started = Instant::now();
    let child = spawn_bound(given).map_err(|error| Failure::because(format!("{line}: {error}")))?;
    Ok(Running { line, child, stdout, stderr, started })
}

impl Running {
    /// Waits for the end, at most `limit` from the start.
    pub fn wait(mut self, limit: Duration) -> Result<Ran, Failure> {
        let Some(status) = wait(&mut self.child, self.started + limit)? else {
            self.child.kill()?;
            self.child.wait()?;
            let said = quoted(&format!("{}{}", text(&self.stdout)?, text(&self.stderr)?));
            return Err(Failure::because(format!(
                "`{}` did not end within {limit:?}: {said}",
                self.line
            )));
        };
        Ok(Ran {
            took: self.started.elapsed(),
            status,
            stdout: text(&self.stdout)?,
            stderr: text(&self.stderr)?,
            line: std::mem::take(&mut self.line),
        })
    }

    /// Kills it as `kill -9` does, and waits until it is gone.
    pub fn kill(mut self) -> Result<(), Failure> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> Result<bool, Failure> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Waits until it has printed a line to standard output, at most `limit` from now.
    pub fn wait_for_line(&self, limit: Duration) -> Result<(), Failure> {
        let deadline = Instant::now() + limit;
        let changes =
            inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        inotify::add_watch(&changes, own_name(&self.stdout), inotify::WatchFlags::MODIFY)?;
        while !text(&self.stdout)?.contains('\n') {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let said = quoted(&text(&self.stderr)?);
                return Err(Failure::because(format!(
                    "`{}` printed nothing within {limit:?}: {said}",
                    self.line
                )));
            }
            wait_for_change(&changes, left)?;
        }
        Ok(())
    }

    /// What it has printed to standard output so far.
    pub fn stdout(&self) -> Result<String, Failure> {
        text(&self.stdout)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended, or been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ran {
    /// The same, if it ended with status 0.
    pub fn ok(self) -> Result<Ran, Failure> {
        self.status_is(0)
    }

    /// The same, if it ended with that status.
    pub fn status_is(self, status: i32) -> Result<Ran, Failure> {
        if self.status.code() == Some(status) {
            return Ok(self);
        }
        let said = quoted(&format!("{}{}", self.stdout, self.stderr));
        Err(Failure::because(format!("`{}` ended with {}: {said}", self.line, self.status)))
    }

    /// Its standard output, as JSON.
    pub fn json(&self) -> Result<Value, Failure> {
        serde_json::from_str(&self.stdout).map_err(|error| {
            let said = quoted(&self.stdout);
            Failure::because(format!("`{}` did not print JSON ({error}): {said}", self.line))
        })
    }
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn text(file: &File) -> Result<String, Failure> {
    // The child has the same offset; reading moves it for both, so this reads by a descriptor of its own.
    let mut own = File::open(own_name(file))?;
    own.rewind()?;
    let mut octets = Vec::new();
    own.read_to_end(&mut octets)?;
    Ok(String::from_utf8_lossy(&octets).into_owned())
}

/// A path to a file that has no name.
fn own_name(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// Waits until something watched changes, at most `left`, and forgets what it was.
pub(super) fn wait_for_change(changes: &OwnedFd, left: Duration) -> Result<(), Failure> {
    match poll(&mut [PollFd::new(changes, PollFlags::IN)], Some(&Timespec::try_from(left)?)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let mut octets = [0_u8; 4096];
    loop {
        match rustix::io::read(changes, &mut octets) {
            Ok(0) | Err(Errno::AGAIN) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The end of what a program printed.
fn quoted(text: &str) -> String {
    let text = text.trim();
    let mut start = text.len().saturating_sub(QUOTED);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text[start..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_mins(1);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_failed_program_is_quoted_with_its_status() {
        let ran = run(&mut shell("echo out; echo err >&2; exit 3"), LIMIT).unwrap();
        let Failure::Failed(reason) = ran.ok().unwrap_err() else { panic!("skipped") };
        assert!(reason.contains("exit status: 3: out\nerr"), "{reason}");
    }

    #[test]
    fn a_program_that_does_not_end_is_killed_and_a_failure() {
        let Failure::Failed(reason) =
            run(&mut shell("echo begun; exec sleep 1000"), Duration::from_millis(300)).unwrap_err()
        else {
            panic!("skipped")
        };
        assert!(reason.contains("did not end within 300ms"), "{reason}");
    }

    #[test]
    fn output_can_be_read_while_the_program_goes_on_writing() {
        let running = start(&mut shell("echo one; echo two")).unwrap();
        let _ = running.stdout().unwrap();
        let ran = running.wait(LIMIT).unwrap().ok().unwrap();
        assert_eq!(ran.stdout, "one\ntwo\n");
    }

    #[test]
    fn a_line_is_waited_for_and_one_that_never_comes_only_so_long() {
        let running = start(&mut shell("sleep 0.2; echo ready; exec sleep 1000")).unwrap();
        running.wait_for_line(LIMIT).unwrap();
        let silent = start(&mut shell("exec sleep 1000")).unwrap();
        assert!(silent.wait_for_line(Duration::from_millis(200)).is_err());
    }

    #[test]
    fn what_is_not_json_is_a_failure() {
        let ran = run(&mut shell("echo '{'"), LIMIT).unwrap();
        assert!(ran.json().is_err());
    }
}
