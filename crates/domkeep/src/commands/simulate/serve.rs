//! `simulate serve`: a host with a Xenstore of its own, until it is told to stop.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use snapshot::simulated::{Host, HostXenstore, Operator};
use xenstored::{Embedded, Store};
use xsclient::{Client, DomId, Options};

use crate::exit::{CommandError, Exit};
use crate::output::Output;

/// How long the host may take to hear that it is to end.
const END_LIMIT: Duration = Duration::from_secs(10);

#[derive(Serialize)]
struct Serving<'s> {
    host: &'s Path,
    xenstore: &'s Path,
    templates: &'s Path,
}

pub(super) fn run(
    directory: &Path,
    socket: Option<PathBuf>,
    output: &mut Output,
) -> Result<Exit, CommandError> {
    // Clients have other directories.
    let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    let socket = socket.map_or_else(
        || directory.join("host"),
        |given| std::path::absolute(&given).unwrap_or(given),
    );
    let (xenstore_socket, templates) = (directory.join("xenstore"), directory.join("templates"));
    if !templates.is_dir() {
        failed(&templates, "made", fs::create_dir(&templates))?;
    }
    // Before anybody can be told that the host runs, so that no signal is missed.
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(CommandError::Signals)?;
    let listener = listener(&socket)?;
    let xenstore = Embedded::new(Store::new());
    let server = xenstore.serve_unix(&xenstore_socket)?;
    let client = Client::over(Box::new(xenstore.transport(DomId::DOM0)), Options::default());
    let host = Host::new(&directory, Some(HostXenstore::new(client, &xenstore_socket)));
    let host = failed(&directory, "used", host)?.with_templates(&templates)?;

    let operator = Operator::new(&socket);
    let waits = signals.handle();
    let teller = thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            if signals.forever().next().is_some()
                && let Err(error) = operator.end(Instant::now() + END_LIMIT)
            {
                tracing::warn!(%error, "the simulated host cannot be told to end");
            }
        })
        .map_err(CommandError::Thread)?;
    if output.is_json() {
        output.line(&Serving {
            host: &socket,
            xenstore: &xenstore_socket,
            templates: &templates,
        })?;
    } else {
        output.text(format!(
            "serving simulated domains on {}\nXenstore: {}\ntemplates: {}",
            socket.display(),
            xenstore_socket.display(),
            templates.display(),
        ))?;
    }
    let served = host.serve(&listener);
    waits.close();
    if teller.join().is_err() {
        tracing::warn!("the thread that waited for signals has panicked");
    }
    drop(listener);
    failed(&socket, "removed", fs::remove_file(&socket))?;
    server.stop();
    failed(&socket, "served", served)?;
    Ok(Exit::Done)
}

fn failed<T>(path: &Path, action: &'static str, done: io::Result<T>) -> Result<T, CommandError> {
    done.map_err(|source| CommandError::File { path: path.to_owned(), action, source })
}

/// A socket that a host left behind is taken over; one on which a host listens is not.
fn listener(socket: &Path) -> Result<UnixListener, CommandError> {
    let is_socket = fs::symlink_metadata(socket).is_ok_and(|found| found.file_type().is_socket());
    if is_socket {
        match UnixStream::connect(socket) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                failed(socket, "removed", fs::remove_file(socket))?;
            }
            _ => return Err(CommandError::SimulatedHostRuns { socket: socket.to_owned() }),
        }
    }
    failed(socket, "listened on", UnixListener::bind(socket))
}
