//! README and the pages of `docs/`: what they show is run, and compared with what they say.
//!
//! [`pages`] reads them, and [`Page::blocks`] has their blocks of code, each of a [`Kind`]:
//!
//! | in the page | what is done with it |
//! |---|---|
//! | `console` | run as a session of bash ([`Page::play`]), by every test run |
//! | `console lab` | the same in the dom0 of a real Xen host, by the scenario `documents` of the lab |
//! | `sh dev` | commands of the project's development: tests see that cargo and xtask take them |
//! | `rust` | compiled: as documentation of this crate, below |
//! | `rust from=FILE` | stands so in that file of the project |
//! | anything else | shown only; must not look like commands |
//!
//! # Sessions
//!
//! A line that begins with `$ ` is a command; lines that begin with `> ` behind it belong to it. What follows, up to the next
//! command, is what it prints, errors included. All sessions of a page are one shell, in one empty directory, in the
//! order of the page; `domkeep` in it is a link to the project.
//!
//! What varies by its nature is written so: `[..]` for any part of a line, a line of `...` for any lines, `[CWD]` for the
//! directory. All else is compared octet for octet.
//!
//! A command that ends in `&` has been given its time when all lines have come that the page says it prints.

#![forbid(unsafe_code)]

mod page;
mod play;
mod session;
mod shell;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use page::{Block, Kind, Page};
pub use play::{Played, Stage};
pub use session::Step;

/// Where the project is, when this is run where it was built.
#[must_use]
pub fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// README, CONTRIBUTING and all pages of `docs/` of the project at `root`, in the order of their names.
///
/// # Errors
///
/// If a page or the directory cannot be read; the error names it.
pub fn pages(root: &Path) -> io::Result<Vec<Page>> {
    let docs = root.join("docs");
    let mut names = vec!["README.md".to_owned(), "CONTRIBUTING.md".to_owned()];
    for entry in fs::read_dir(&docs).map_err(|error| named(&docs, &error))? {
        let name = entry?.file_name();
        if let Some(name) = name.to_str().filter(|name| name.ends_with(".md")) {
            names.push(format!("docs/{name}"));
        }
    }
    names.sort();
    let read = |name: String| {
        let file = root.join(&name);
        let text = fs::read_to_string(&file).map_err(|error| named(&file, &error))?;
        Ok(Page::new(name, text))
    };
    names.into_iter().map(read).collect()
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// The Rust of the pages, compiled.
#[cfg(doctest)]
mod rust {
    #[doc = include_str!("../../../README.md")]
    struct Readme;

    #[doc = include_str!("../../../docs/embedding.md")]
    struct Embedding;

    #[doc = include_str!("../../../docs/hotplug.md")]
    struct Hotplug;
}
