//! A shell that is told one command after the other, and whose words are taken as a terminal would show them.

use std::ffi::OsString;
use std::io::{self, PipeReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// Reads commands that end in NUL; says that one is done by what no command prints. `$?` is what the last command left.
const LOOP: &str = "\
status=0
while IFS= read -r -d '' command; do
    (exit $status)
    eval \"$command\" < /dev/null
    status=$?
    printf '\\0done\\0'
done
";
const DONE: &[u8] = b"\0done\0";
/// For what a shell leaves running to end once it was told so.
const LAST_WORDS: Duration = Duration::from_secs(10);

pub(crate) struct Shell {
    bash: Child,
    commands: Option<ChildStdin>,
    printed: Receiver<Vec<u8>>,
    /// Octets that have come and are nobody's yet.
    waiting: Vec<u8>,
}

/// A command did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShellError {
    #[error("not done in {0:?}; printed so far: {1:?}")]
    Late(Duration, String),
    #[error("the shell ended; printed before: {0:?}")]
    Ended(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Shell {
    /// In that directory, with these variables beside those of this process.
    pub(crate) fn start(directory: &Path, variables: &[(OsString, OsString)]) -> io::Result<Shell> {
        let (output, end) = io::pipe()?;
        let mut bash = Command::new("bash");
        bash.args(["--noprofile", "--norc", "-c", LOOP]);
        for odd in ["XENSTORED_PATH", "XENSTORED_RUNDIR", "DOMKEEP_LOG", "DOMKEEP_TEMPLATES"] {
            bash.env_remove(odd);
        }
        bash.envs(variables.iter().map(|(name, value)| (name, value)));
        bash.env("LC_ALL", "C.UTF-8").env("PWD", directory).current_dir(directory);
        bash.stdin(Stdio::piped()).stdout(end.try_clone()?).stderr(end);
        let mut bash = bash.process_group(0).spawn()?;
        let commands = bash.stdin.take();
        let (sender, printed) = mpsc::channel();
        thread::spawn(move || pass_on(output, &sender));
        Ok(Shell { bash, commands, printed, waiting: Vec::new() })
    }

    /// What a command prints: until it is done, and until so many lines have come.
    pub(crate) fn run(
        &mut self,
        command: &str,
        lines: usize,
        limit: Duration,
    ) -> Result<String, ShellError> {
        let deadline = Instant::now() + limit;
        if let Some(commands) = &mut self.commands {
            commands.write_all(command.as_bytes())?;
            commands.write_all(b"\0")?;
            commands.flush()?;
        }
        let mut done = false;
        loop {
            if !done && let Some(at) = find(&self.waiting) {
                self.waiting.drain(at..at + DONE.len());
                done = true;
            }
            let come = self.waiting.iter().filter(|octet| **octet == b'\n').count();
            if done && come >= lines {
                return Ok(self.take());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.printed.recv_timeout(left) {
                Ok(octets) => self.waiting.extend(octets),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(ShellError::Late(limit, self.take()));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(ShellError::Ended(self.take()));
                }
            }
        }
    }

    fn take(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.waiting)).into_owned()
    }

    /// Tells all that it left running to end, and waits for that.
    fn stop(&mut self) {
        self.commands = None;
        let group = Pid::from_child(&self.bash);
        // None of it may be left.
        let _ = kill_process_group(group, Signal::TERM);
        let deadline = Instant::now() + LAST_WORDS;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.printed.recv_timeout(left) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    let _ = kill_process_group(group, Signal::KILL);
                    break;
                }
            }
        }
        // The shell itself obeys; it may have ended before.
        let _ = self.bash.kill();
        let _ = self.bash.wait();
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        self.stop();
    }
}

fn find(octets: &[u8]) -> Option<usize> {
    octets.windows(DONE.len()).position(|window| window == DONE)
}

/// Ends when nobody can write any more.
fn pass_on(mut output: PipeReader, sender: &mpsc::Sender<Vec<u8>>) {
    let mut octets = vec![0; 1 << 16];
    while let Ok(count) = output.read(&mut octets) {
        if count == 0 || sender.send(octets[..count].to_vec()).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::io::Errno;
    use rustix::process::{PidfdFlags, pidfd_open};

    use super::*;

    const LIMIT: Duration = Duration::from_mins(1);

    fn shell() -> (tempfile::TempDir, Shell) {
        let directory = tempfile::tempdir().unwrap();
        let shell = Shell::start(directory.path(), &[]).unwrap();
        (directory, shell)
    }

    #[test]
    fn variables_directories_and_statuses_last_from_command_to_command() {
        let (_directory, mut shell) = shell();
        assert_eq!(shell.run("A=1; mkdir d; cd d; false", 0, LIMIT).unwrap(), "");
        assert_eq!(shell.run("echo $? $A; cat; echo >&2 b", 0, LIMIT).unwrap(), "1 1\nb\n");
    }

    #[test]
    fn what_is_started_beside_is_waited_for_by_its_lines_and_ended_in_the_end() {
        let (directory, mut shell) = shell();
        let told =
            shell.run("(sleep 0.3; echo $BASHPID > pid; echo up; exec sleep 1000) &", 1, LIMIT);
        assert_eq!(told.unwrap(), "up\n");
        drop(shell);
        let pid = std::fs::read_to_string(directory.path().join("pid")).unwrap();
        let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        // Its output is closed a moment before it has ended.
        let ended = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(process) => {
                let limit = Timespec { tv_sec: 60, tv_nsec: 0 };
                poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&limit)).unwrap() == 1
            }
            Err(error) => error == Errno::SRCH,
        };
        assert!(ended, "it runs still");
    }

    #[test]
    fn a_command_that_does_not_end_is_given_up_and_one_that_ends_the_shell_is_told() {
        let (_directory, mut shell) = shell();
        let late = shell.run("echo a; sleep 1000", 0, Duration::from_millis(300)).unwrap_err();
        assert!(matches!(late, ShellError::Late(_, printed) if printed == "a\n"));
        let (_directory, mut shell) = self::shell();
        let ended = shell.run("echo a; exit 3", 0, LIMIT).unwrap_err();
        assert!(matches!(ended, ShellError::Ended(printed) if printed == "a\n"));
    }
}
