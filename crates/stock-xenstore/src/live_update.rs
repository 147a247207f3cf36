//! Live updates of the C daemon, with a look at the dump on its way from the old process to the new one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{CWD, Mode, mkfifoat};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::daemon::{Answer, STATE_DUMP};
use crate::wire::Control;
use crate::{Kind, StockDaemon, commands};

/// A live update failed. Each variant says what became of the daemon.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LiveUpdateError {
    /// The daemon is oxenstored, which has no xenstore-migration stream. It runs as before.
    #[error("only the C daemon writes and reads a xenstore-migration stream")]
    OtherDaemon,
    /// The scratch directory cannot be used. The daemon runs as before.
    #[error("cannot prepare {} for a live update", path.display())]
    Scratch {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The daemon could not be asked. What it does is not known.
    #[error("cannot ask the daemon at {} for a live update", socket.display())]
    Connection {
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The daemon refused. It runs as before.
    #[error("the daemon refused a live update: {answer}")]
    Refused {
        /// In its words.
        answer: String,
    },
    /// The dump cannot be read, or the rewritten one not be written. The daemon was killed.
    #[error("cannot exchange the dump {}", path.display())]
    Dump {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The daemon has ended: the new process did not accept its stream.
    #[error("the daemon ended in a live update ({status}) and printed: {log}")]
    Ended {
        /// How it ended.
        status: ExitStatus,
        /// What it printed since the update began: the first 2000 octets.
        log: String,
    },
    /// The daemon's process is there and does not answer.
    #[error("the daemon does not answer {limit:?} after {stage} and printed: {log}")]
    Silent {
        /// What it should have done: `being asked for a dump` or `being given a stream`.
        stage: &'static str,
        /// How long it was waited for.
        limit: Duration,
        /// What it printed since the update began: the first 2000 octets.
        log: String,
    },
}

/// For each of the two halves: writing a dump, and reading one. 20,000 nodes take 25 ms to write, and 0.6 s to read in
/// directories of 100, or 1.6 s in a single one.
const HALF_LIMIT: Duration = Duration::from_secs(20);

/// What the old process executes.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/stand-in/live-update.sh");

/// The script's two FIFOs in the scratch directory.
const DUMPED: &str = "live-update-dumped";
const GO: &str = "live-update-go";

impl StockDaemon {
    /// The C daemon's whole state, as an xenstore-migration stream.
    ///
    /// A dump is what a live update hands from the old process to the new one, so this makes one, with the effects that
    /// [`StockDaemon::live_update_through`] tells.
    pub fn live_update_dump(&mut self) -> Result<Vec<u8>, LiveUpdateError> {
        let mut kept = Vec::new();
        self.live_update_through(|dump| {
            kept.clone_from(&dump);
            dump
        })?;
        Ok(kept)
    }

    /// Updates the C daemon live, and has the new process read what `rewrite` makes of the old one's dump.
    ///
    /// The process id, the socket and the clients' connections stay: the descriptors that the stream names are open at
    /// the same numbers in the new process, which is the same daemon with the same arguments. Open transactions are
    /// lost, as with `xenstore-control live-update -F`. The dump also holds the connection that asked for the update,
    /// which is closed when this call returns; any further update works as the first.
    ///
    /// It ends when the new process answers. Neither process may take longer than 20 s; `rewrite` may take as long as
    /// it wants. Should it panic, the daemon ends.
    ///
    /// The daemon has ended if the new process does not accept the stream: that is [`LiveUpdateError::Ended`]. Xen 4.17
    /// checks little: a stream that is cut short, or a record of an unknown type, may also lead to a daemon that runs
    /// with a part of the nodes, which is no error here.
    pub fn live_update_through(
        &mut self,
        rewrite: impl FnOnce(Vec<u8>) -> Vec<u8>,
    ) -> Result<(), LiveUpdateError> {
        if self.kind() != Kind::C {
            return Err(LiveUpdateError::OtherDaemon);
        }
        let before = self.log_length();
        let dumped = Fifo::new(self.directory().join(DUMPED))?;
        let mut go = Fifo::new(self.directory().join(GO))?;
        let mut asked = self.ask_for_update()?; // open until the new process has it, too
        self.wait_for_dump(&mut asked, &dumped, before)?;

        let path = self.directory().join(STATE_DUMP);
        let exchanged = fs::read(&path)
            .and_then(|dump| fs::write(&path, rewrite(dump)))
            .and_then(|()| go.file.write_all(b"go\n"));
        if let Err(source) = exchanged {
            // Nothing could be done about a failure of these two either.
            let _ = self.child.kill().and_then(|()| self.child.wait());
            return Err(LiveUpdateError::Dump { path, source });
        }
        match self.wait_for_answer(HALF_LIMIT).map_err(|source| self.lost(source))? {
            Answer::Given => Ok(()),
            Answer::Ended(status) => {
                Err(LiveUpdateError::Ended { status, log: self.log_from(before) })
            }
            Answer::None(_) => Err(self.silent("being given a stream", before)),
        }
    }

    /// Asks for the update and leaves the answer to it, which comes only if there is none, unread.
    fn ask_for_update(&self) -> Result<Control, LiveUpdateError> {
        let lost = |source| self.lost(source);
        let mut control = Control::open(self.socket()).map_err(lost)?;
        control.send(&[b"live-update", b"-f", SCRIPT.as_bytes()]).map_err(lost)?;
        let answer = control.answer().map_err(lost)?;
        if answer != "OK" {
            return Err(LiveUpdateError::Refused { answer });
        }
        // However old or young an open transaction is, it is not waited for.
        control.send(&[b"live-update", b"-s", b"-F", b"-t", b"0"]).map_err(lost)?;
        Ok(control)
    }

    /// Waits until the old process has written its dump and executed the script.
    fn wait_for_dump(
        &mut self,
        asked: &mut Control,
        dumped: &Fifo,
        before: u64,
    ) -> Result<(), LiveUpdateError> {
        let deadline = Instant::now() + HALF_LIMIT;
        let process = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty())
            .map_err(|error| self.lost(error.into()))?;
        let mut watched = [
            PollFd::new(&dumped.file, PollFlags::IN),
            PollFd::new(&process, PollFlags::IN),
            PollFd::new(asked, PollFlags::IN),
        ];
        if !commands::poll_until(&mut watched, deadline).map_err(|source| self.lost(source))? {
            return Err(self.silent("being asked for a dump", before));
        }
        let [is_dumped, has_ended, _] = watched.map(|one| !one.revents().is_empty());
        if is_dumped {
            return Ok(());
        }
        if !has_ended && let Ok(answer) = asked.answer() {
            return Err(LiveUpdateError::Refused { answer });
        }
        match commands::wait(&mut self.child, deadline).map_err(|source| self.lost(source))? {
            Some(status) => Err(LiveUpdateError::Ended { status, log: self.log_from(before) }),
            None => Err(self.silent("being asked for a dump", before)),
        }
    }

    fn silent(&self, stage: &'static str, before: u64) -> LiveUpdateError {
        LiveUpdateError::Silent { stage, limit: HALF_LIMIT, log: self.log_from(before) }
    }

    fn lost(&self, source: io::Error) -> LiveUpdateError {
        LiveUpdateError::Connection { socket: self.socket().into(), source }
    }
}

/// A FIFO that is open in both directions here, so that nobody waits for an opener, and is gone after its use.
struct Fifo {
    path: PathBuf,
    file: File,
}

impl Fifo {
    fn new(path: PathBuf) -> Result<Fifo, LiveUpdateError> {
        match Fifo::open(&path) {
            Ok(file) => Ok(Fifo { path, file }),
            Err(source) => Err(LiveUpdateError::Scratch { path, source }),
        }
    }

    fn open(path: &Path) -> io::Result<File> {
        mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR)?;
        File::options().read(true).write(true).open(path)
    }
}

impl Drop for Fifo {
    fn drop(&mut self) {
        // A script that comes late finds nothing, or reads an end. The directory is removed in the end anyway.
        let _ = fs::remove_file(&self.path);
    }
}
