//! A server with a socket, and the stock programs against it.

use std::process::{Command, Output};

use stock_xenstore::{Client, Packages};
use xenstore_proto::Path;
use xenstored::{Embedded, UnixServer};

pub(crate) struct Served {
    pub(crate) xenstore: Embedded,
    pub(crate) server: UnixServer,
    packages: &'static Packages,
    _directory: tempfile::TempDir,
}

impl Served {
    /// `None`, and says so, where the stock programs cannot be had.
    pub(crate) fn with_stock_tools(test: &str) -> Option<Self> {
        let packages = Packages::of_workspace()
            .inspect_err(|reason| println!("skipped: {test}: {reason}"))
            .ok()?;
        let directory = tempfile::tempdir().unwrap();
        let xenstore = Embedded::default();
        let server = xenstore.serve_unix(directory.path().join("socket")).unwrap();
        Some(Self { xenstore, server, packages, _directory: directory })
    }

    pub(crate) fn command(&self, client: Client) -> Command {
        self.packages.client(client, self.server.path())
    }

    pub(crate) fn output(&self, client: Client, arguments: &[&str]) -> Output {
        self.command(client).args(arguments).output().unwrap()
    }

    /// What a tool prints that succeeds.
    pub(crate) fn run(&self, client: Client, arguments: &[&str]) -> String {
        let output = self.output(client, arguments);
        assert!(output.status.success(), "{client:?} {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a tool says that fails.
    pub(crate) fn refused(&self, client: Client, arguments: &[&str]) -> String {
        let output = self.output(client, arguments);
        assert!(!output.status.success(), "{client:?} {arguments:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    pub(crate) fn value(&self, at: &str) -> Option<String> {
        let at: Path = at.parse().unwrap();
        let value = self.xenstore.snapshot().read(&at)?.to_vec();
        Some(String::from_utf8(value).unwrap())
    }
}
