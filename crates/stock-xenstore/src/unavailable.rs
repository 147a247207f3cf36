//! Why stock Xenstore cannot be had on this machine.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// Why stock Xenstore cannot be had on this machine. Its text is made to be the reason of a skipped test.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unavailable {
    /// A program that fetching needs is not installed.
    #[error("`{}` is not installed; it is needed to {needed_to}", tool.display())]
    ToolMissing {
        /// As it would have been started.
        tool: PathBuf,
        /// What it does here.
        needed_to: &'static str,
    },
    /// A program exists and could not be started.
    #[error("cannot start `{}` to {needed_to}", tool.display())]
    ToolNotStarted {
        /// The program.
        tool: PathBuf,
        /// What it does here.
        needed_to: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A program failed; without a network, this is apt-get.
    #[error("`{}` could not {needed_to} ({status}): {output}", tool.display())]
    ToolFailed {
        /// The program.
        tool: PathBuf,
        /// What it should have done.
        needed_to: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it printed.
        output: String,
    },
    /// A program did not end in time and was killed.
    #[error("`{}` took longer than {limit:?} to {needed_to}", tool.display())]
    ToolTooSlow {
        /// The program.
        tool: PathBuf,
        /// What it should have done.
        needed_to: &'static str,
        /// The time it had.
        limit: Duration,
    },
    /// The packages do not hold a file that belongs to them.
    #[error("Debian's packages hold no {file}")]
    FileMissing {
        /// The file, below the directory that the packages are unpacked in.
        file: &'static str,
    },
    /// A program of the packages needs a shared library that neither the packages nor this machine have.
    #[error("{program} needs the shared library {library}, which is not installed")]
    LibraryMissing {
        /// The program, below the directory that the packages are unpacked in.
        program: &'static str,
        /// The library's name.
        library: String,
    },
    /// The cache cannot be read or written.
    #[error("cannot use {} in the cache of stock packages", path.display())]
    Cache {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process holds the cache's lock for longer than any fetch takes.
    #[error("another process has held {} for {limit:?}", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// How long it was waited for.
        limit: Duration,
    },
    /// oxenstored needs a mount namespace of its own, and this process may not make one.
    #[error("no mount namespace for oxenstored ({failure}): run as root, or allow user namespaces")]
    NoMountNamespace {
        /// The step that failed, and its errno.
        failure: String,
    },
}
