//! `xenstored`: the Xenstore server as a daemon, with the stock daemon's options.

mod background;
mod manual;
#[path = "../manual_page.rs"] // that of the other program
mod manual_page;
mod options;
mod wall;

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing_subscriber::filter::LevelFilter;
use xenstored::xen::{XenDevices, XenError};
use xenstored::{
    BackendError, Embedded, Inheritance, LiveUpdate, MetricsServer, RestoreError, ServeError,
    Server, Serving, SledBackend, Store,
};

use xsclient::on_one_line;

use crate::options::Options;
use crate::wall::WallFileError;

/// Where clients look when nothing else is said.
const RUN_DIRECTORY: &str = "/run/xenstored";

/// The file beside the socket by which a server's state goes to its successor.
const STATE: &str = "state_dump";

/// The file in the database's directory that keeps messages in flight.
const IN_FLIGHT: &str = "in-flight";

/// Why the daemon does not run.
#[derive(Debug, thiserror::Error)]
enum DaemonError {
    /// The socket, or that of the metrics, cannot be served.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The database cannot be used.
    #[error("the store cannot be kept")]
    Database(#[from] BackendError),
    /// There is no such wall.
    #[error("there is no Chinese wall")]
    Wall(#[from] WallFileError),
    /// A file or directory cannot be made.
    #[error("cannot {action} {}", path.display())]
    File { action: &'static str, path: PathBuf, source: io::Error },
    /// A predecessor's state cannot be gone on from.
    #[error("cannot go on from the predecessor's state")]
    TakeOver(#[from] RestoreError),
    /// This is a Xen host, and its devices cannot be used.
    #[error("cannot serve domains: --no-rings serves the socket only")]
    Xen(#[from] XenError),
    /// Which program this is cannot be told.
    #[error("cannot find this program")]
    Program(#[source] io::Error),
    /// Signals cannot be waited for.
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
    /// The process in the background cannot be started.
    #[error("cannot start in the background")]
    Background(#[source] io::Error),
    /// The process in the background has ended; it has said why.
    #[error("the daemon has not started")]
    NotStarted,
    /// Nobody reads what is printed.
    #[error("cannot print")]
    Print(#[source] io::Error),
}

fn main() -> ExitCode {
    let options = Options::parse();
    // A predecessor's process is in the background already, if it was to be.
    let outcome = if options.man {
        print_manual_page()
    } else if options.no_fork || options.detached || options.live_update {
        serve(&options)
    } else {
        background::start(&options)
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // There is nobody to tell if that fails.
            let _ = writeln!(io::stderr(), "xenstored: {}", on_one_line(&error));
            ExitCode::FAILURE
        }
    }
}

fn print_manual_page() -> Result<(), DaemonError> {
    manual::page().and_then(|page| io::stdout().write_all(&page)).map_err(DaemonError::Print)
}

fn serve(options: &Options) -> Result<(), DaemonError> {
    start_log(options)?;
    // Before anybody can be told that the daemon runs, so that no signal is missed.
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(DaemonError::Signals)?;
    let socket = socket()?;
    let state = socket.with_file_name(STATE);
    let mut server = configured(options)?;
    let mut serving = Serving::new(&socket).live_update(succession(&state)?);
    if options.live_update {
        let mut inheritance;
        (server, inheritance) = take_over(&state, server)?;
        serving = with_rings(serving, options, || inheritance.take_event_channels())?;
        serving = serving.inherited(inheritance);
    } else {
        serving = with_rings(serving, options, || None)?;
    }
    // systemd starts it again; nobody else could while this process holds the domains.
    let serving = serving.on_failure(|| {
        tracing::error!("nobody is served any more: the daemon ends");
        std::process::abort();
    });
    let xenstore = Embedded::from(server);
    let served = serving.start(&xenstore)?;
    let pid = std::process::id();
    tracing::info!(socket = %socket.display(), pid, "serving");
    let around = Around::start(options, &xenstore, pid);
    let around = if options.live_update {
        // Clients are served by this process already: what goes with that is no reason to end.
        if let Err(error) = fs::remove_file(&state) {
            tracing::error!(path = %state.display(), %error, "the predecessor's state is not removed");
        }
        around
            .inspect_err(|error| tracing::error!(error = on_one_line(error), "served all the same"))
            .ok()
    } else {
        Some(around?)
    };
    if options.detached {
        background::tell_ready();
    }
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::warn!(%error, "systemd is not told that the daemon serves");
    }
    // A terminal that goes away is no reason to end.
    let signal = signals.forever().find(|signal| *signal != SIGHUP);
    tracing::info!(signal, "stopping");
    served.stop();
    drop(around);
    Ok(())
}

/// What a daemon has beside its clients. It ends with it.
struct Around<'p> {
    _metrics: Option<MetricsServer>,
    _pid_file: Option<PidFile<'p>>,
}

impl<'p> Around<'p> {
    fn start(options: &'p Options, xenstore: &Embedded, pid: u32) -> Result<Self, DaemonError> {
        let metrics = options.metrics.as_ref().map(|path| xenstore.serve_metrics(path));
        let pid_file = options.pid_file.as_deref().map(|path| PidFile::write(path, pid));
        if options.output_pid && !options.detached {
            writeln!(io::stdout(), "{pid}").map_err(DaemonError::Print)?;
        }
        Ok(Self { _metrics: metrics.transpose()?, _pid_file: pid_file.transpose()? })
    }
}

/// The server that the options describe: where its store is kept, what domains may use, and who may do what.
fn configured(options: &Options) -> Result<Server, DaemonError> {
    let server = match &options.database {
        Some(path) => {
            let backend = SledBackend::open(path, options.sync_mode())?;
            Server::open(backend, Store::new())?
        }
        None => Server::new(Store::new()),
    };
    let server = server.with_quotas(&options.limits());
    let Some(file) = &options.chinese_wall else { return Ok(server) };
    let wall = wall::read(file)?;
    tracing::info!(file = %file.display(), "a Chinese wall stands");
    Ok(server.with_policy(Arc::new(wall)))
}

/// What a live update executes unless it is told otherwise: this program, with the same options.
fn succession(state: &Path) -> Result<LiveUpdate, DaemonError> {
    let program = env::current_exe().map_err(DaemonError::Program)?;
    let arguments = env::args_os().skip(1).collect();
    Ok(LiveUpdate { state: state.to_owned(), program, arguments })
}

/// Goes on from what a predecessor has left. The file stays until clients are served, so that nothing is lost if that fails.
fn take_over(state: &Path, server: Server) -> Result<(Server, Inheritance), DaemonError> {
    let failed = |source: io::Error| DaemonError::File {
        action: "read the predecessor's state",
        path: state.to_owned(),
        source,
    };
    let file = File::open(state).map_err(failed)?;
    // Beyond whatever a predecessor has counted: no server makes a change a nanosecond.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let stamp = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX / 2);
    let taken = Inheritance::take(BufReader::new(file), server, stamp)?;
    tracing::info!(state = %state.display(), "taken over");
    Ok(taken)
}

/// Serves domains as well, if this is a Xen host; `event_channels` are what a predecessor has left.
fn with_rings(
    serving: Serving,
    options: &Options,
    event_channels: impl FnOnce() -> Option<OwnedFd>,
) -> Result<Serving, DaemonError> {
    if options.no_rings {
        return Ok(serving);
    }
    if !XenDevices::are_here() {
        tracing::info!("no Xen host: only the socket is served");
        return Ok(serving);
    }
    let xen = event_channels().map_or_else(XenDevices::open, XenDevices::adopt)?;
    let mut serving = serving.rings(xen);
    if let Some(database) = &options.database {
        serving = serving.in_flight(database.join(IN_FLIGHT));
    }
    Ok(if options.no_domain_init { serving.without_own_ring() } else { serving })
}

/// Where clients look for the socket; its directory is made.
fn socket() -> Result<PathBuf, DaemonError> {
    let variable = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(socket) = variable("XENSTORED_PATH") {
        return Ok(socket);
    }
    let directory = variable("XENSTORED_RUNDIR").unwrap_or_else(|| RUN_DIRECTORY.into());
    fs::create_dir_all(&directory).map_err(|source| DaemonError::File {
        action: "make the directory",
        path: directory.clone(),
        source,
    })?;
    Ok(directory.join("socket"))
}

fn start_log(options: &Options) -> Result<(), DaemonError> {
    let level = if options.verbose { LevelFilter::DEBUG } else { LevelFilter::INFO };
    let log = tracing_subscriber::fmt().with_max_level(level).with_ansi(false);
    match &options.trace_file {
        Some(path) => {
            let file = OpenOptions::new().create(true).append(true).open(path);
            let file = file.map_err(|source| DaemonError::File {
                action: "open the log",
                path: path.clone(),
                source,
            })?;
            log.with_writer(std::sync::Mutex::new(file)).init();
        }
        None if options.detached => {}
        None => log.with_writer(io::stderr).init(),
    }
    Ok(())
}

/// A file that says which process runs, until it ends.
struct PidFile<'p>(&'p Path);

impl<'p> PidFile<'p> {
    fn write(path: &'p Path, pid: u32) -> Result<Self, DaemonError> {
        let written = File::create(path).and_then(|mut file| writeln!(file, "{pid}"));
        written.map_err(|source| DaemonError::File {
            action: "write the process id to",
            path: path.to_owned(),
            source,
        })?;
        Ok(Self(path))
    }
}

impl Drop for PidFile<'_> {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(self.0) {
            tracing::warn!(path = %self.0.display(), %error, "file not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use xsclient::{Client, DomId, Errno, Nodes, OperationError, Path};

    use super::*;

    /// No guest reaches the daemon's socket, so what it would get is asked of the server itself.
    #[test]
    fn a_wall_that_was_configured_keeps_a_domain_from_its_competitors_data() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("wall.json");
        let companies =
            r#"[{"name": "north", "paths": ["/north"]}, {"name": "south", "paths": ["/south"]}]"#;
        fs::write(&file, format!(r#"[{{"name": "banks", "companies": {companies}}}]"#)).unwrap();
        let path = |text: &str| text.parse::<Path>().unwrap();
        let read_both = |options: &Options| {
            let xenstore = Embedded::from(configured(options).unwrap());
            let client = |domid| {
                let options = xsclient::Options::with_timeout(std::time::Duration::from_secs(20));
                Client::over(Box::new(xenstore.transport(DomId::new(domid))), options)
            };
            let mut control = client(0);
            for company in ["/north", "/south"] {
                control.write(&path(company), b"plan").unwrap();
                control.set_perms(&path(company).into(), &"r0".parse().unwrap()).unwrap();
            }
            let mut guest = client(7);
            ["/north", "/south"].map(|company| guest.read(&path(company)))
        };
        let wall = Options::parse_from(["xenstored", "--chinese-wall", file.to_str().unwrap()]);
        let [north, south] = read_both(&wall);
        assert_eq!(north.unwrap(), b"plan");
        let denied = south.as_ref().err().and_then(OperationError::errno);
        assert_eq!(denied, Some(&Errno::EACCES));
        assert!(read_both(&Options::parse_from(["xenstored"])).iter().all(Result::is_ok));
    }
}
