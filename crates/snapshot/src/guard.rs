//! What resumes a domain whose saver has died.
//!
//! A guardian is a program of its own. The saver starts it before the guest is suspended, and holds the writing end of its standard
//! input:
//!
//! ```text
//! saver                         guardian
//! what it needs, as JSON  --->  opens its DomainControl
//!                         <---  armed
//! (the guest is suspended, saved, resumed)
//! qmp SOCKET              --->  (QEMU is about to be asked to freeze the disks)
//! release                 --->  ends
//! (or: the pipe closes)   --->  waits until nothing of the saver is under way, resumes the domain if it is suspended, ends
//! ```
//!
//! What QEMU was asked for it may do after its client has died. A guest that goes on before that writes into images that are to
//! be of the moment of its suspend. So QEMU is asked something as well, which it answers after all else.
//!
//! It is in a process group of its own, so that what a terminal sends to the saver's does not end it as well.

mod program;

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::GuardianProgram;
use crate::control::GuardianNeeds;

pub use program::{GuardError, GuardOutcome, read_needs, run};

/// What a guardian says once it is ready.
const ARMED: &[u8] = b"armed\n";
/// What it is told before the socket of a QEMU that is about to be asked for something.
const QMP: &[u8] = b"qmp ";
/// Most octets of a word: no socket has a longer path than 108.
const WORD_MAX: usize = 128;
/// What it is told when it is not needed any more.
const RELEASE: &[u8] = b"release\n";
/// More than that a guardian does not say before it is armed.
const HEARD_MAX: usize = 4096;
/// How long a guardian may take to end once it is told to.
const END_LIMIT: Duration = Duration::from_secs(10);

/// A program that resumes a domain if this value, or the process, ends without [`release`](Self::release).
#[derive(Debug)]
pub struct Guardian {
    program: PathBuf,
    child: Child,
    words: Option<ChildStdin>,
}

/// Why there is no guardian, or whether there was is not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuardianError {
    /// The program cannot be started or talked to.
    #[error("the guardian {}: cannot {step}", program.display())]
    Program {
        /// The program.
        program: PathBuf,
        /// What was to be done.
        step: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// It said something else than that it is armed, or nothing.
    #[error("the guardian {} does not say that it is armed", program.display())]
    NotArmed {
        /// The program.
        program: PathBuf,
    },
    /// It has ended by itself.
    #[error("the guardian {} ended before it was released", program.display())]
    Ended {
        /// The program.
        program: PathBuf,
    },
}

impl Guardian {
    /// Starts the program and waits until it is armed.
    ///
    /// # Errors
    ///
    /// If it does not say so before the deadline: it has been ended then.
    pub fn arm(
        program: &GuardianProgram,
        needs: &GuardianNeeds,
        deadline: Instant,
    ) -> Result<Self, GuardianError> {
        let GuardianProgram { program, arguments } = program;
        let failed =
            |step| move |source| GuardianError::Program { program: program.clone(), step, source };
        let mut child = Command::new(program)
            .args(arguments)
            .envs(&needs.environment)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed("start it"))?;
        let (words, answers) = (child.stdin.take(), child.stdout.take());
        let mut guardian = Self { program: program.clone(), child, words };
        // A pipe holds what a guardian needs, also if nobody reads it.
        let mut line = needs.to_json().into_bytes();
        line.push(b'\n');
        let armed = guardian
            .say(&line)
            .map_err(failed("tell it what it needs"))
            .and_then(|()| match answers {
                Some(answers) => is_armed(answers, deadline).map_err(failed("hear from it")),
                None => Ok(false),
            })
            .and_then(|armed| {
                let program = program.clone();
                if armed { Ok(()) } else { Err(GuardianError::NotArmed { program }) }
            });
        match armed {
            Ok(()) => Ok(guardian),
            Err(error) => {
                guardian.end();
                Err(error)
            }
        }
    }

    /// Tells it that the QEMU behind a socket is about to be asked for something that the guest must not outrun.
    ///
    /// # Errors
    ///
    /// If it cannot be told.
    pub fn awaits_qemu(&mut self, socket: &Path) -> Result<(), GuardianError> {
        let path = socket.as_os_str().as_bytes();
        if path.contains(&b'\n') || QMP.len() + path.len() > WORD_MAX {
            // No QEMU listens there, and there would be no connection to it.
            return Ok(());
        }
        let word = [QMP, path, b"\n"].concat();
        self.say(&word).map_err(|source| GuardianError::Program {
            program: self.program.clone(),
            step: "tell it of QEMU",
            source,
        })
    }

    /// Has it end without touching the domain.
    ///
    /// # Errors
    ///
    /// [`GuardianError::Ended`] if it was not there any more: nothing would have resumed the domain.
    pub fn release(mut self) -> Result<(), GuardianError> {
        let told = self.say(RELEASE);
        self.words = None;
        if !has_ended(&self.child, Instant::now() + END_LIMIT) {
            tracing::warn!(guardian = %self.program.display(), "it does not end, and is killed");
        }
        self.end();
        let program = self.program.clone();
        told.map_err(|source| match source.kind() {
            io::ErrorKind::BrokenPipe => GuardianError::Ended { program },
            _ => GuardianError::Program { program, step: "release it", source },
        })
    }

    /// The program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    fn say(&mut self, words: &[u8]) -> io::Result<()> {
        match &mut self.words {
            Some(pipe) => pipe.write_all(words),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Ends it whatever it does. One that has ended leaves no zombie.
    fn end(&mut self) {
        // Killing fails if it has ended already, and waiting then tells nothing more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether the guardian says that it is armed, before a deadline. It may say something else before, on lines of its own.
fn is_armed(mut answers: impl Read + AsFd, deadline: Instant) -> io::Result<bool> {
    let mut heard = Vec::new();
    while heard.len() < HEARD_MAX {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&answers, PollFlags::IN)], Some(&left)) {
            Ok(0) | Err(Errno::INTR) => continue,
            Ok(_) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut piece = [0; 64];
        match answers.read(&mut piece)? {
            0 => return Ok(false),
            read => heard.extend_from_slice(&piece[..read]),
        }
        if heard.split_inclusive(|octet| *octet == b'\n').any(|line| line == ARMED) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn has_ended(child: &Child, give_up: Instant) -> bool {
    let pid = Pid::from_raw(child.id().cast_signed());
    let Some(Ok(pidfd)) = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) else { return false };
    loop {
        let left = give_up.saturating_duration_since(Instant::now());
        let Ok(left) = Timespec::try_from(left) else { return false };
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&left)) {
            Ok(1) => return true,
            Err(Errno::INTR) => {}
            _ => return false,
        }
    }
}
