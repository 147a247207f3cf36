//! `xenstore serve`: the embedded server, until it is told to stop.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use xenstored::{Embedded, Store};

use crate::exit::{CommandError, Exit};
use crate::output::Output;

/// Where clients search first when nothing else is said.
const SOCKET_DEFAULT: &str = "/run/xenstored/socket";

/// Who may read a saved store: it holds what the store's permissions hide, such as passwords of consoles.
const SAVED_MODE: u32 = 0o600;

#[derive(Serialize)]
struct Serving<'s> {
    socket: &'s str,
    nodes: usize,
}

pub(super) fn run(
    socket: Option<PathBuf>,
    load: Option<&Path>,
    save: Option<&Path>,
    metrics: Option<&Path>,
    output: &mut Output,
) -> Result<Exit, CommandError> {
    let store = load.map(loaded).transpose()?.unwrap_or_default();
    let nodes = store.nodes().count();
    let socket = socket.unwrap_or_else(usual_socket);
    // Before anybody can be told that the server runs, so that no signal is missed.
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(CommandError::Signals)?;
    let xenstore = Embedded::new(store);
    let server = xenstore.serve_unix(&socket)?;
    let metrics = metrics.map(|path| xenstore.serve_metrics(path)).transpose()?;
    let shown = socket.to_string_lossy();
    if output.is_json() {
        output.line(&Serving { socket: &shown, nodes })?;
    } else {
        output.text(format!("serving {nodes} nodes on {shown}"))?;
    }
    signals.forever().next();
    server.stop();
    drop(metrics);
    if let Some(path) = save {
        saved(&xenstore.snapshot(), path).map_err(|source| CommandError::File {
            path: path.to_owned(),
            action: "saved",
            source,
        })?;
    }
    Ok(Exit::Done)
}

fn usual_socket() -> PathBuf {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("XENSTORED_PATH")
        .or_else(|| variable("XENSTORED_RUNDIR").map(|directory| directory.join("socket")))
        .unwrap_or_else(|| SOCKET_DEFAULT.into())
}

fn loaded(path: &Path) -> Result<Store, CommandError> {
    let text = fs::read(path).map_err(|source| CommandError::File {
        path: path.to_owned(),
        action: "read",
        source,
    })?;
    Store::from_text(text).map_err(|source| CommandError::Nodes { path: path.to_owned(), source })
}

/// Either the old file or the whole new one is there, also after a crash.
fn saved(store: &Store, path: &Path) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = parent.unwrap_or(Path::new("."));
    let mut temporary = name.to_owned();
    temporary.push(format!(".new-{}", std::process::id()));
    let temporary = directory.join(temporary);
    let written = (|| {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(SAVED_MODE).open(&temporary)?;
        file.write_all(store.to_text().as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        // What is left of a failed attempt is of no use; that it was never there is no harm.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    File::open(directory)?.sync_all()
}
