//! A simulated host as a process of its own.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::client::SimulatedDomain;
use super::connection::{self, CallError};
use super::operator::Operator;
use super::wire::{Woken, wait};

/// How long a host may take to end when its tie has ended; it has nothing to do but to leave.
const END_LIMIT: Duration = Duration::from_secs(10);

/// A process that simulates a host, tied to this one: it ends when this value is dropped, and when this process dies.
///
/// Which program that is, the caller says: one that hands [`listener_on_stdin`] to [`Host::serve`](super::Host::serve). This
/// crate has none, since a program would bring a Xenstore along, which this crate does not depend on. The socket exists before
/// the program runs, and the tie is waiting on it, so that at no moment a host is left without one.
#[derive(Debug)]
pub struct HostProcess {
    socket: PathBuf,
    child: Child,
    /// Closed when this is dropped, by the kernel if need be.
    tie: Option<UnixStream>,
}

/// Why there is no simulated host.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The socket could not be made.
    #[error("cannot listen on {}", socket.display())]
    Socket {
        /// Its path.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The program could not be started.
    #[error("the program of the simulated host cannot be started")]
    Program {
        /// Why.
        source: io::Error,
    },
    /// The program did not serve before the deadline, or ended.
    #[error("the program of the simulated host does not serve")]
    NotServing {
        /// Why.
        source: CallError,
    },
}

impl HostProcess {
    /// Starts a program as the host that listens on `socket`, which must not exist.
    ///
    /// # Errors
    ///
    /// If it does not serve before the deadline; it has been ended then.
    pub fn start(
        mut program: Command,
        socket: impl Into<PathBuf>,
        deadline: Instant,
    ) -> Result<Self, StartError> {
        let socket = socket.into();
        let made = UnixListener::bind(&socket)
            .and_then(|listener| Ok((listener, connection::tie(&socket)?)));
        let (listener, tie) =
            made.map_err(|source| StartError::Socket { socket: socket.clone(), source })?;
        let child = program
            .stdin(OwnedFd::from(listener))
            .spawn()
            .map_err(|source| StartError::Program { source })?;
        // The command holds the listener as long as it lives.
        drop(program);
        let process = Self { socket, child, tie: Some(tie) };
        if let Some(tie) = &process.tie {
            connection::tied(tie, deadline).map_err(|source| StartError::NotServing { source })?;
        }
        Ok(process)
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its domains, as a saver sees them.
    pub fn control(&self) -> SimulatedDomain {
        SimulatedDomain::new(&self.socket)
    }

    /// What else can be done to it.
    pub fn operator(&self) -> Operator {
        Operator::new(&self.socket)
    }

    /// Ends it, and waits until it has.
    ///
    /// # Errors
    ///
    /// If it cannot be waited for.
    pub fn stop(mut self) -> io::Result<ExitStatus> {
        self.end()
    }

    /// It ends when the tie does. One that does not is killed: nobody has anything else to do with it.
    fn end(&mut self) -> io::Result<ExitStatus> {
        self.tie = None;
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        let pidfd = Pid::from_raw(self.child.id().cast_signed())
            .map(|pid| pidfd_open(pid, PidfdFlags::empty()))
            .transpose()?;
        let give_up = Instant::now() + END_LIMIT;
        if let Some(pidfd) = &pidfd
            && wait(pidfd.as_fd(), PollFlags::IN, None, Some(give_up))? != Woken::Ready
        {
            self.child.kill()?;
        }
        self.child.wait()
    }
}

/// Waits for the process, so that none is left as a zombie.
impl Drop for HostProcess {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!(%error, "cannot wait for the simulated host");
        }
    }
}

/// In a program started by [`HostProcess::start`]: the socket to serve.
///
/// # Errors
///
/// If standard input cannot be duplicated. That it is no socket shows when it is used.
pub fn listener_on_stdin() -> io::Result<UnixListener> {
    Ok(io::stdin().as_fd().try_clone_to_owned()?.into())
}
