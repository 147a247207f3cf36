//! Answers, for people or for programs.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use libxl_config::Layout;
use libxl_config::json::Value;
use rustix::event::{PollFd, PollFlags, poll};
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use crate::exit::CommandError;

/// What shells add to the number of the signal that ended a process.
pub(crate) const KILLED_BY: i32 = 128;

/// Where answers go: whole documents, so that a reader never has half of one because of us.
pub(crate) struct Output {
    json: bool,
    out: Box<dyn Write>,
}

impl Output {
    pub(crate) fn stdout(json: bool) -> Self {
        Self { json, out: Box::new(io::stdout()) }
    }

    /// For answers about what itself goes to stdout.
    pub(crate) fn stderr(json: bool) -> Self {
        Self { json, out: Box::new(io::stderr()) }
    }

    /// Whether the answer is for a program.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Prints octets as they are.
    pub(crate) fn octets(&mut self, octets: &[u8]) -> Result<(), CommandError> {
        self.out.write_all(octets).and_then(|()| self.out.flush()).map_err(CommandError::Output)
    }

    /// Prints text; a newline is put at its end if it has none.
    pub(crate) fn text(&mut self, text: impl Into<String>) -> Result<(), CommandError> {
        let mut text = text.into();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        self.octets(text.as_bytes())
    }

    /// Prints a document of its own.
    pub(crate) fn document(&mut self, document: &impl Serialize) -> Result<(), CommandError> {
        let text = serde_json::to_string_pretty(document);
        self.text(text.map_err(|error| CommandError::Output(error.into()))?)
    }

    /// Prints one document of a stream, on one line.
    pub(crate) fn line(&mut self, document: &impl Serialize) -> Result<(), CommandError> {
        let text = serde_json::to_string(document);
        self.text(text.map_err(|error| CommandError::Output(error.into()))?)
    }

    /// Prints a configuration, or a list of them, as xl does.
    pub(crate) fn configuration(&mut self, value: &Value) -> Result<(), CommandError> {
        let mut octets = value.to_octets(Layout::Yajl);
        if octets.last() != Some(&b'\n') {
            octets.push(b'\n');
        }
        self.octets(&octets)
    }
}

/// For commands that mostly wait: ends this process, between two documents, when it is told to (SIGINT, SIGTERM) and when nobody
/// can read its output any more.
pub(crate) fn end_when_told() {
    // The second signal ends it at once: the first may wait for a reader that does not read.
    let told = Arc::new(AtomicBool::new(false));
    let signals = (|| {
        for signal in [SIGINT, SIGTERM] {
            flag::register_conditional_shutdown(signal, KILLED_BY + signal, Arc::clone(&told))?;
            flag::register(signal, Arc::clone(&told))?;
        }
        Signals::new([SIGINT, SIGTERM])
    })();
    let waiting = signals.and_then(|mut signals| {
        let wait = move || {
            signals.forever().next();
            // A document is written under this lock.
            let _between_documents = io::stdout().lock();
            std::process::exit(0)
        };
        thread::Builder::new().name("signals".into()).spawn(wait)
    });
    if let Err(error) = waiting {
        tracing::warn!(%error, "signals will end this process at once");
    }
    end_with_the_reader();
}

/// Ends this process once nobody can read its output any more. Otherwise it would learn of it only when it
/// has something to print.
fn end_with_the_reader() {
    let wait = || {
        let stdout = io::stdout();
        loop {
            let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
            match poll(&mut fds, None) {
                Ok(_) if fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) => {
                    std::process::exit(0)
                }
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
        }
    };
    // Without the thread the end is noticed later.
    if let Err(error) = thread::Builder::new().name("reader".into()).spawn(wait) {
        tracing::warn!(%error, "cannot watch whether the output is still read");
    }
}
