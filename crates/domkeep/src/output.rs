//! Answers, for people or for programs.

use std::io::{self, Write};

use libxl_config::Layout;
use libxl_config::json::Value;
use rustix::event::{PollFd, PollFlags, poll};
use serde::Serialize;

use crate::exit::CommandError;

/// Where answers go: whole documents, so that a reader never has half of one because of us.
pub(crate) struct Output {
    json: bool,
    out: Box<dyn Write>,
}

impl Output {
    pub(crate) fn stdout(json: bool) -> Self {
        Self { json, out: Box::new(io::stdout()) }
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

/// Ends this process once nobody can read its output any more. For commands that mostly wait: otherwise they would learn of it
/// only when they have something to print.
pub(crate) fn end_with_the_reader() {
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
    if let Err(error) = std::thread::Builder::new().name("reader".into()).spawn(wait) {
        tracing::warn!(%error, "cannot watch whether the output is still read");
    }
}
