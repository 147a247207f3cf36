//! Running a program to its end, with a deadline.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::Unavailable;

/// How many octets of a program's output are kept for an error.
const QUOTED_OUTPUT: u64 = 2000;
/// How many lines of a failed program's output an error quotes: apt-get ends with the reason and a summary.
const QUOTED_LINES: usize = 2;

/// Runs `command` to its end within `limit`, discarding what it prints unless it fails.
pub fn run(
    command: &mut Command,
    needed_to: &'static str,
    limit: Duration,
) -> Result<(), Unavailable> {
    let tool = PathBuf::from(command.get_program());
    let not_started = {
        let tool = tool.clone();
        move |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => Unavailable::ToolMissing { tool, needed_to },
            _ => Unavailable::ToolNotStarted { tool, needed_to, source },
        }
    };
    match run_to_end(command, limit) {
        Err(source) => Err(not_started(source)),
        Ok(Ended::TooSlow) => Err(Unavailable::ToolTooSlow { tool, needed_to, limit }),
        Ok(Ended::In(status, _)) if status.success() => Ok(()),
        Ok(Ended::In(status, output)) => {
            let output = last_lines(&tail(output));
            Err(Unavailable::ToolFailed { tool, needed_to, status, output })
        }
    }
}

/// Waits until `child` has ended, or gives `None` at the `deadline`.
pub fn wait(child: &mut Child, deadline: Instant) -> io::Result<Option<ExitStatus>> {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if !poll_until(&mut [PollFd::new(&pidfd, PollFlags::IN)], deadline)? {
            return Ok(None);
        }
    }
}

/// Waits until one of `watched` has something to tell: `false` at the deadline.
pub(crate) fn poll_until(watched: &mut [PollFd<'_>], deadline: Instant) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
        match poll(watched, Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The end of a file that a program printed to.
pub(crate) fn tail(printed: File) -> String {
    let length = printed.metadata().map_or(0, |metadata| metadata.len());
    part(printed, length.saturating_sub(QUOTED_OUTPUT))
}

/// What a program printed to a file from octet `start` on, the beginning of it if it is long.
pub(crate) fn part(mut printed: File, start: u64) -> String {
    let mut quoted = Vec::new();
    let read = printed
        .seek(SeekFrom::Start(start))
        .and_then(|_| printed.take(QUOTED_OUTPUT).read_to_end(&mut quoted));
    match read {
        Ok(_) => String::from_utf8_lossy(&quoted).trim().to_owned(),
        Err(error) => format!("(its output cannot be read: {error})"),
    }
}

/// In one line, so that the reason of a skipped test is one.
fn last_lines(output: &str) -> String {
    let lines: Vec<_> = output.lines().collect();
    lines[lines.len().saturating_sub(QUOTED_LINES)..].join("; ")
}

enum Ended {
    In(ExitStatus, File),
    TooSlow,
}

fn run_to_end(command: &mut Command, limit: Duration) -> io::Result<Ended> {
    // A file rather than a pipe: nobody has to read while the program runs.
    let printed = tempfile::tempfile()?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(printed.try_clone()?)
        .stderr(printed.try_clone()?)
        .spawn()?;
    match wait(&mut child, Instant::now() + limit) {
        Ok(Some(status)) => Ok(Ended::In(status, printed)),
        outcome => {
            child.kill()?;
            child.wait()?;
            outcome.map(|_| Ended::TooSlow)
        }
    }
}
