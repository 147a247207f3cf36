//! The process becomes its successor.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use xenstore_migration::Version;

use super::capture::{CaptureError, Successor};
use super::command::{Started, Update};

/// A program that has this in its file follows the specification when it takes a state over: its state is not written for
/// the stock daemon, which would lose some of it.
///
/// It begins with an octet that is rare in programs.
const MARK: &[u8] =
    b"\x1eDomkeep takes xenstore-migration states over as specified, transactions included";

/// Octets of a program that are searched at a time.
const SEARCHED: usize = 1 << 20;

/// How a daemon is succeeded when CONTROL `live-update` asks for it.
#[derive(Clone, Debug)]
pub struct LiveUpdate {
    /// Where the successor looks for the state: `state_dump` in the run directory.
    pub state: PathBuf,
    /// What succeeds if nothing else is named.
    pub program: PathBuf,
    /// Its arguments, if none are given. `-U` is added.
    pub arguments: Vec<OsString>,
}

/// Why the process is still the old one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SuccessionError {
    #[error(transparent)]
    Capture(#[from] CaptureError),
    #[error("cannot read the successor {}", path.display())]
    Program { path: PathBuf, source: io::Error },
    #[error("cannot write the state to {}", path.display())]
    State { path: PathBuf, source: io::Error },
    #[error("cannot execute {}: it is no program", path.display())]
    NoProgram { path: PathBuf },
    #[error("cannot hand a descriptor over")]
    Descriptor(#[source] io::Error),
    #[error("cannot execute {}", path.display())]
    Execute { path: PathBuf, source: io::Error },
}

/// An update that can be made.
#[derive(Debug)]
pub(crate) struct Succession {
    program: PathBuf,
    arguments: Vec<OsString>,
    state: PathBuf,
    pub(crate) successor: Successor,
}

impl LiveUpdate {
    /// What has been asked for.
    pub(crate) fn plan(
        &self,
        update: &Update,
        started: &Started,
    ) -> Result<Succession, SuccessionError> {
        let program = update.program.clone().unwrap_or_else(|| self.program.clone());
        let unreadable = |source| SuccessionError::Program { path: program.clone(), source };
        let marked = is_marked(&program).map_err(unreadable)?;
        // A failed exec has reset the signals of this process already: what can be known before is looked at before.
        rustix::fs::access(&program, rustix::fs::Access::EXEC_OK).map_err(|error| {
            SuccessionError::Execute { path: program.clone(), source: error.into() }
        })?;
        if !is_program(&program).map_err(unreadable)? {
            return Err(SuccessionError::NoProgram { path: program });
        }
        let successor = match started.version {
            None if marked => Successor::Own,
            None => Successor::Stock(Version::V1),
            Some(version) if version >= Version::V2 && marked => Successor::Own,
            Some(version) => Successor::Stock(version),
        };
        let mut arguments: Vec<OsString> = match &update.arguments {
            Some(given) => given.split_whitespace().map(OsString::from).collect(),
            None if marked => self.arguments.clone(),
            // Ours mean something else to the stock daemon, or nothing.
            None => Vec::new(),
        };
        if !arguments.iter().any(|argument| argument == "-U" || argument == "--live-update") {
            arguments.push("-U".into());
        }
        Ok(Succession { program, arguments, state: self.state.clone(), successor })
    }
}

impl Succession {
    /// Has the successor go on from `state` with these descriptors. Comes back only if that failed, and then everything is as
    /// before.
    pub(crate) fn execute(&self, state: &[u8], descriptors: &[BorrowedFd<'_>]) -> SuccessionError {
        if let Err(source) = write_private(&self.state, state) {
            // What there is of it is of no use to anybody, and may fill the file system.
            let _ = fs::remove_file(&self.state);
            return SuccessionError::State { path: self.state.clone(), source };
        }
        let mut handed = Vec::new();
        let mut failed = None;
        for descriptor in descriptors {
            let flags = fcntl_getfd(descriptor);
            match flags.and_then(|_| fcntl_setfd(descriptor, FdFlags::empty())) {
                Ok(()) => handed.push(descriptor),
                Err(error) => {
                    failed = Some(SuccessionError::Descriptor(error.into()));
                    break;
                }
            }
        }
        let failed = failed.unwrap_or_else(|| {
            tracing::info!(program = %self.program.display(), successor = ?self.successor, "handing over");
            let source = Command::new(&self.program).args(&self.arguments).exec();
            SuccessionError::Execute { path: self.program.clone(), source }
        });
        for descriptor in handed {
            // What was set can be set back.
            let _ = fcntl_setfd(descriptor, FdFlags::CLOEXEC);
        }
        if let Err(error) = fs::remove_file(&self.state) {
            tracing::warn!(path = %self.state.display(), %error, "state not removed");
        }
        failed
    }
}

/// Writes a file that nobody else reads. The successor is the one reader, and as lost as this process if the host goes down.
fn write_private(path: &Path, octets: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(octets)
}

/// Whether a file begins as one that the kernel executes.
fn is_program(file: &Path) -> io::Result<bool> {
    let mut start = Vec::new();
    File::open(file)?.take(4).read_to_end(&mut start)?;
    Ok(start.starts_with(b"\x7fELF") || start.starts_with(b"#!"))
}

/// Whether a program takes states over as specified.
fn is_marked(program: &Path) -> io::Result<bool> {
    let mut file = File::open(program)?;
    let mut window = Vec::with_capacity(SEARCHED + MARK.len());
    loop {
        let read = Read::by_ref(&mut file).take(SEARCHED as u64).read_to_end(&mut window)?;
        if find(&window, MARK) {
            return Ok(true);
        }
        if read == 0 {
            return Ok(false);
        }
        let kept = window.len().saturating_sub(MARK.len());
        window.drain(..kept);
    }
}

fn find(octets: &[u8], wanted: &[u8]) -> bool {
    let Some(first) = wanted.first() else { return true };
    let mut rest = octets;
    while let Some(at) = rest.iter().position(|octet| octet == first) {
        if rest[at..].starts_with(wanted) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}
