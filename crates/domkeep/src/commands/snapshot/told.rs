//! Ending early, when a signal says so.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use snapshot::control::CancelToken;

use crate::exit::CommandError;
use crate::output::KILLED_BY;

/// A token that SIGINT and SIGTERM cancel. The second signal ends the process at once: what it has begun is then for a guardian
/// and `snapshot recover`.
pub(super) fn cancelled_by_signals() -> Result<CancelToken, CommandError> {
    started().map_err(CommandError::Signals)
}

fn started() -> io::Result<CancelToken> {
    let token = CancelToken::new()?;
    let told = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, KILLED_BY + signal, Arc::clone(&told))?;
        flag::register(signal, Arc::clone(&told))?;
    }
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let cancels = token.clone();
    thread::Builder::new().name("signals".into()).spawn(move || {
        if signals.forever().next().is_some() {
            cancels.cancel();
        }
    })?;
    Ok(token)
}
