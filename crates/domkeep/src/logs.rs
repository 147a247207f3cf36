//! The libraries' logs, on stderr when asked for.

use std::io;

use tracing_subscriber::filter::LevelFilter;

/// Says how much is logged: `error`, `warn`, `info`, `debug`, `trace`.
const VARIABLE: &str = "DOMKEEP_LOG";

/// Shows logs from now on: as `DOMKEEP_LOG` says, else as often as `--verbose` was given, else none.
pub(crate) fn start(verbose: u8) {
    let typed = match verbose {
        0 => LevelFilter::OFF,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let told = std::env::var(VARIABLE).ok().and_then(|level| level.parse().ok());
    let level = told.unwrap_or(typed);
    if level != LevelFilter::OFF {
        tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr).init();
    }
}
