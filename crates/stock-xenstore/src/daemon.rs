//! A running daemon.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::launcher::{self, Descriptor, OwnRunDirectory, STEP_FAILED};
use crate::{
    Client, FillError, Listing, Packages, StreamError, Unavailable, commands, guest, wire,
};

/// Which stock daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// C xenstored.
    C,
    /// oxenstored, written in OCaml.
    OCaml,
}

/// A running stock daemon with a scratch directory of its own. Dropping it kills the daemon and removes the directory.
#[derive(Debug)]
pub struct StockDaemon {
    pub(crate) child: Child,
    kind: Kind,
    packages: Packages,
    socket: PathBuf,
    directory: TempDir, // dropped after the child is reaped
}

/// A daemon did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// This machine does not let this kind of daemon run: a reason to skip a test.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The stream to start on names the descriptors of no daemon that could be started.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// No scratch directory.
    #[error("cannot prepare a scratch directory for a stock daemon")]
    Scratch {
        /// Why.
        source: io::Error,
    },
    /// The program could not be started.
    #[error("cannot start {}", program.display())]
    Program {
        /// The daemon's file.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The daemon ended by itself.
    #[error("{kind:?} daemon ended at once ({status}) and printed: {log}")]
    Ended {
        /// Which daemon.
        kind: Kind,
        /// How it ended.
        status: ExitStatus,
        /// What it printed: the first 2000 octets.
        log: String,
    },
    /// The daemon runs but does not answer on its socket.
    #[error("{kind:?} daemon did not answer within {limit:?} ({last}) and printed: {log}")]
    Silent {
        /// Which daemon.
        kind: Kind,
        /// How long it was asked.
        limit: Duration,
        /// The outcome of the last attempt.
        last: io::ErrorKind,
        /// What it printed: the first 2000 octets.
        log: String,
    },
}

/// Until the first answer: a few milliseconds on an idle machine.
const START_LIMIT: Duration = Duration::from_secs(20);
/// Between two attempts to connect. The kernel tells when a socket file appears, but not when somebody listens on it.
const CONNECT_RETRY: Duration = Duration::from_millis(2);

/// Files in the scratch directory.
pub(crate) const SOCKET: &str = "socket"; // the daemons' own choice
pub(crate) const STATE_DUMP: &str = "state_dump"; // the C daemon's own choice
const LOG: &str = "stock-xenstore.log";
const CONFIGURATION: &str = "oxenstored.conf";

/// Where the script that a live update executes finds the daemon's file.
const PROGRAM_VARIABLE: &str = "STOCK_XENSTORED";

/// The paths are as the daemon sees them; those in /proc are the stand-in's.
const CONFIGURATION_TEXT: &str = "\
    xenstored-port = /proc/xen/xsd_port\n\
    xenstored-kva = /proc/xen/xsd_kva\n\
    pid-file = /var/run/xenstored/oxenstored.pid\n\
    persistent = false\n\
    quota-activate = true\n\
    xenstored-log-file = /var/run/xenstored/oxenstored.log\n";

impl Kind {
    /// The nodes that a daemon makes by itself, and that it lists in its store from the start.
    pub fn own_nodes(self) -> &'static [&'static str] {
        match self {
            Kind::C => &["/tool", "/tool/xenstored"],
            Kind::OCaml => {
                &["/@introduceDomain", "/@releaseDomain", "/local", "/tool", "/tool/xenstored"]
            }
        }
    }

    fn program(self) -> &'static str {
        match self {
            Kind::C => "usr/lib/xen-4.17/bin/xenstored",
            Kind::OCaml => "usr/lib/xen-4.17/bin/oxenstored",
        }
    }
}

impl StockDaemon {
    /// Starts a daemon and waits until it answers.
    pub fn start(kind: Kind, packages: &Packages) -> Result<StockDaemon, StartError> {
        StockDaemon::start_with(kind, packages, [] as [&OsStr; 0])
    }

    /// As [`StockDaemon::start`], with `arguments` after those that the daemon needs.
    pub fn start_with(
        kind: Kind,
        packages: &Packages,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Result<StockDaemon, StartError> {
        StockDaemon::launch(kind, packages, arguments, |_| Ok(Vec::new()))
    }

    /// Starts a C daemon, with `arguments` after those that it needs, of which guests can be played
    /// ([`StockDaemon::guest`]).
    pub fn start_with_guests(
        packages: &Packages,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Result<StockDaemon, StartError> {
        let directory = scratch_directory()?;
        guest::prepare(directory.path()).map_err(scratch)?;
        let guests = [(guest::VARIABLE, directory.path().to_owned())];
        StockDaemon::launch_in(directory, guests, Kind::C, packages, arguments, |_| Ok(Vec::new()))
    }

    /// As [`StockDaemon::start_with`], with the descriptors that `prepare` has for the scratch directory.
    pub(crate) fn launch(
        kind: Kind,
        packages: &Packages,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
        prepare: impl FnOnce(&Path) -> io::Result<Vec<Descriptor>>,
    ) -> Result<StockDaemon, StartError> {
        StockDaemon::launch_in(scratch_directory()?, [], kind, packages, arguments, prepare)
    }

    fn launch_in(
        directory: TempDir,
        environment: impl IntoIterator<Item = (&'static str, PathBuf)>,
        kind: Kind,
        packages: &Packages,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
        prepare: impl FnOnce(&Path) -> io::Result<Vec<Descriptor>>,
    ) -> Result<StockDaemon, StartError> {
        let log = directory.path().join(LOG);
        let log = File::options().create_new(true).append(true).open(log).map_err(scratch)?;

        let mut command = packages.command(kind.program());
        command
            .env("LD_PRELOAD", packages.stand_in())
            .envs(environment)
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(scratch)?)
            .stderr(log);
        let place = match kind {
            Kind::C => {
                command
                    .args(["-N", "-I"])
                    .env(PROGRAM_VARIABLE, packages.root().join(kind.program()))
                    .env("XENSTORED_RUNDIR", directory.path())
                    .env("XENSTORED_ROOTDIR", directory.path());
                None
            }
            Kind::OCaml => {
                let file = directory.path().join(CONFIGURATION);
                fs::write(file, CONFIGURATION_TEXT).map_err(scratch)?;
                command
                    .args(["--no-fork", "--no-access-log", "--config-file"])
                    .arg(Path::new("/var/run/xenstored").join(CONFIGURATION));
                Some(OwnRunDirectory::new(directory.path(), "xenstored").map_err(scratch)?)
            }
        };
        command.args(arguments);

        let descriptors = prepare(directory.path()).map_err(scratch)?;
        let child = launcher::spawn(command, place, descriptors)
            .map_err(|source| not_started(kind, packages, directory.path(), source))?;
        let socket = directory.path().join(SOCKET);
        let packages = packages.clone();
        let mut daemon = StockDaemon { child, kind, packages, socket, directory };
        match daemon.wait_for_answer(START_LIMIT).map_err(scratch)? {
            Answer::Given => Ok(daemon),
            Answer::Ended(status) => {
                Err(StartError::Ended { kind, status, log: daemon.log_from(0) })
            }
            Answer::None(last) => {
                Err(StartError::Silent { kind, limit: START_LIMIT, last, log: daemon.log_from(0) })
            }
        }
    }

    /// The Unix socket that clients connect to.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The daemon's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Which daemon this is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The scratch directory.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The end of what the daemon printed so far.
    pub fn log(&self) -> String {
        log_in(self.directory.path())
    }

    /// Writes every node in the text of an `xenstore-ls -fp`, as [`Listing::write_to`] does.
    pub fn fill(&self, xenstore_ls_fp_text: &str) -> Result<(), FillError> {
        Listing::parse(xenstore_ls_fp_text)?.write_to(&self.socket)
    }

    /// A stock command line tool, ready to talk to this daemon.
    pub fn client(&self, client: Client) -> Command {
        self.packages.client(client, &self.socket)
    }

    /// Asks the daemon until it answers or has ended, for at most `limit`.
    pub(crate) fn wait_for_answer(&mut self, limit: Duration) -> io::Result<Answer> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let answer = wire::check_answer(&self.socket, left.max(CONNECT_RETRY));
            let Err(error) = answer else { return Ok(Answer::Given) };
            if let Some(status) = self.child.try_wait()? {
                return Ok(Answer::Ended(status));
            }
            if left.is_zero() {
                return Ok(Answer::None(error.kind()));
            }
            thread::sleep(CONNECT_RETRY);
        }
    }

    /// How many octets the daemon printed so far.
    pub(crate) fn log_length(&self) -> u64 {
        fs::metadata(self.directory.path().join(LOG)).map_or(0, |log| log.len())
    }

    /// What the daemon printed from octet `start` on, the beginning of it if it is long.
    pub(crate) fn log_from(&self, start: u64) -> String {
        quote_log(self.directory.path(), |log| commands::part(log, start))
    }
}

/// Whether a daemon answers on its socket.
pub(crate) enum Answer {
    /// It does.
    Given,
    /// It has ended.
    Ended(ExitStatus),
    /// It runs and does not; the outcome of the last attempt.
    None(io::ErrorKind),
}

impl Drop for StockDaemon {
    fn drop(&mut self) {
        // Neither fails for a child that is not reaped yet, and nobody is left to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn not_started(kind: Kind, packages: &Packages, directory: &Path, source: io::Error) -> StartError {
    let log = log_in(directory);
    match log.strip_prefix(STEP_FAILED) {
        Some(step) => Unavailable::NoMountNamespace { failure: format!("{step}: {source}") }.into(),
        None => StartError::Program { program: packages.root().join(kind.program()), source },
    }
}

fn log_in(directory: &Path) -> String {
    quote_log(directory, commands::tail)
}

fn quote_log(directory: &Path, part: impl FnOnce(File) -> String) -> String {
    match File::open(directory.join(LOG)) {
        Ok(log) => part(log),
        Err(error) => format!("(its log cannot be read: {error})"),
    }
}

fn scratch_directory() -> Result<TempDir, StartError> {
    tempfile::Builder::new().prefix("stock-xenstore-").tempdir().map_err(scratch)
}

pub(crate) fn scratch(source: io::Error) -> StartError {
    StartError::Scratch { source }
}
