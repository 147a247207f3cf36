//! Going into the background: the same program again, in a session of its own.

use std::env;
use std::io::{self, Read, Write};
use std::process::{Command, Stdio};

use crate::DaemonError;
use crate::options::Options;

/// What the process in the background says on its standard output once it serves.
const READY: &[u8] = b"ready\n";

/// Starts the daemon and returns when it serves.
pub(crate) fn start(options: &Options) -> Result<(), DaemonError> {
    let program = env::current_exe().map_err(DaemonError::Background)?;
    let mut daemon = Command::new(program)
        .args(env::args_os().skip(1))
        .arg("--detached")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(DaemonError::Background)?;
    let mut said = [0; READY.len()];
    let output = daemon.stdout.as_mut();
    let read =
        output.map_or(Err(io::ErrorKind::BrokenPipe.into()), |out| out.read_exact(&mut said));
    if read.is_err() || said != READY {
        daemon.wait().map_err(DaemonError::Background)?;
        return Err(DaemonError::NotStarted);
    }
    if options.output_pid {
        writeln!(io::stdout(), "{}", daemon.id()).map_err(DaemonError::Print)?;
    }
    Ok(())
}

/// Leaves the session of whoever started the daemon, and tells that it serves.
pub(crate) fn tell_ready() {
    if let Err(error) = rustix::process::setsid() {
        tracing::warn!(%error, "still in the session of whoever started this");
    }
    let mut output = io::stdout();
    // Nobody may be waiting any more.
    let _ = output.write_all(READY).and_then(|()| output.flush());
    // From now on nothing is printed: who reads standard output and error until they end need not wait for the daemon.
    if let Ok(null) = std::fs::File::options().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&null);
        let _ = rustix::stdio::dup2_stderr(&null);
    }
}
