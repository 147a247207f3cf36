//! The three daemons, each a process of its own with a Unix socket.

use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use stock_xenstore::{Packages, StockDaemon, spawn_bound};
use tempfile::TempDir;

/// Which daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Stock C xenstored.
    C,
    /// Stock oxenstored.
    OCaml,
    /// The `xenstored` of this workspace.
    Ours,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::C, Self::OCaml, Self::Ours];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::C => "C",
            Self::OCaml => "OCaml",
            Self::Ours => "ours",
        })
    }
}

/// A daemon that runs, with an empty store. Dropping it kills it.
pub(crate) enum Daemon {
    Stock(Box<StockDaemon>),
    Ours(Ours),
}

impl Daemon {
    /// Starts one. The quotas of neither bind clients on the socket, which are dom0's.
    pub(crate) fn start(kind: Kind, packages: &Packages) -> Result<Self, Box<dyn Error>> {
        let stock =
            |kind| StockDaemon::start(kind, packages).map(|daemon| Self::Stock(Box::new(daemon)));
        Ok(match kind {
            Kind::C => stock(stock_xenstore::Kind::C)?,
            Kind::OCaml => stock(stock_xenstore::Kind::OCaml)?,
            Kind::Ours => Self::Ours(Ours::start()?),
        })
    }

    pub(crate) fn socket(&self) -> &Path {
        match self {
            Self::Stock(daemon) => daemon.socket(),
            Self::Ours(daemon) => &daemon.socket,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        match self {
            Self::Stock(daemon) => daemon.pid(),
            Self::Ours(daemon) => daemon.child.id(),
        }
    }
}

/// The daemon of this workspace, in memory only.
pub(crate) struct Ours {
    child: Child,
    pub(crate) socket: PathBuf,
    pub(crate) metrics: PathBuf,
    _directory: TempDir,
}

impl Ours {
    /// Starts it and waits until it serves.
    pub(crate) fn start() -> Result<Self, Box<dyn Error>> {
        let program = program()?;
        let directory = tempfile::tempdir()?;
        let metrics = directory.path().join("metrics");
        let mut command = Command::new(&program);
        command
            .args(["--no-fork", "--output-pid", "--metrics"])
            .arg(&metrics)
            .env_remove("XENSTORED_PATH")
            .env_remove("XENSTORED_TRACE")
            .env("XENSTORED_RUNDIR", directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(directory.path().join("log"))?);
        let mut child = spawn_bound(command)?;
        let mut line = String::new();
        let output = child.stdout.as_mut().ok_or("no output of xenstored")?;
        BufReader::new(output).read_line(&mut line)?;
        let socket = directory.path().join("socket");
        let ours = Self { child, socket, metrics, _directory: directory };
        if line.trim_end() == ours.child.id().to_string() {
            Ok(ours)
        } else {
            Err(format!("{} did not start", program.display()).into())
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        // Neither fails for a child that is not reaped yet, and nobody is left to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The daemon that `cargo xtask` has built beside this program.
fn program() -> Result<PathBuf, Box<dyn Error>> {
    let program = std::env::current_exe()?.with_file_name("xenstored");
    if program.exists() {
        Ok(program)
    } else {
        Err(format!("{} is not there: `cargo xtask bench xenstored` builds it", program.display())
            .into())
    }
}
