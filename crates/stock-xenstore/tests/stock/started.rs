//! What each test begins with: the packages, a daemon, or the reason why it is skipped.

use std::process::Command;

use stock_xenstore::{Kind, Packages, StartError, StockDaemon};

pub(crate) const KINDS: [Kind; 2] = [Kind::C, Kind::OCaml];

/// The packages, or the reason for skipping the test is printed.
pub(crate) fn packages(test: &str) -> Option<&'static Packages> {
    Packages::of_workspace().inspect_err(|reason| println!("skipped: {test}: {reason}")).ok()
}

/// A daemon, or the reason for skipping this part of the test is printed.
pub(crate) fn start(test: &str, kind: Kind, packages: &Packages) -> Option<StockDaemon> {
    match StockDaemon::start(kind, packages) {
        Ok(daemon) => Some(daemon),
        Err(StartError::Unavailable(reason)) => {
            println!("skipped: {test} with {kind:?}: {reason}");
            None
        }
        Err(error) => panic!("{error}: {:?}", std::error::Error::source(&error)),
    }
}

/// What the command prints, which must succeed.
pub(crate) fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let standard_error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {} {standard_error}", output.status);
    String::from_utf8(output.stdout).unwrap()
}
