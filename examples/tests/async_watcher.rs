//! The watcher, run against a server in this process: what it tells of each change, and how it ends.

#![expect(clippy::unwrap_used, reason = "what cannot go on fails its test")]

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use xenstored::{Embedded, Store, UnixServer};
use xsclient::{Client, Endpoint, Nodes, OperationError, Options, Path, RetryPolicy};

struct Watched {
    child: Child,
    told: BufReader<ChildStdout>,
    client: Client,
    server: UnixServer,
    _directory: tempfile::TempDir,
}

impl Watched {
    fn start(nodes: &[(&str, &str)], arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let server = Embedded::new(Store::new()).serve_unix(&socket).unwrap();
        let mut client =
            Client::open(Endpoint::UnixSocket(socket.clone()), Options::default()).unwrap();
        for (path, value) in nodes {
            client.write(&path.parse().unwrap(), value.as_bytes()).unwrap();
        }
        let mut child = Command::new(env!("CARGO_BIN_EXE_async_watcher"))
            .args(arguments)
            .env("XENSTORED_PATH", socket)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let told = BufReader::new(child.stdout.take().unwrap());
        Self { child, told, client, server, _directory: directory }
    }

    fn expect(&mut self, lines: &[&str]) {
        for expected in lines {
            let mut line = String::new();
            self.told.read_line(&mut line).unwrap();
            assert_eq!(line.trim_end(), *expected);
        }
    }

    /// All at once, so that what is told does not depend on when it is looked.
    fn write(&mut self, nodes: &[(&str, &str)]) {
        let written = self.client.transact(&RetryPolicy::default(), |transaction| {
            for (path, value) in nodes {
                transaction.write(&path.parse().unwrap(), value.as_bytes())?;
            }
            Ok::<_, OperationError>(())
        });
        written.unwrap();
    }

    fn remove(&mut self, path: &str) {
        let path: Path = path.parse().unwrap();
        self.client.rm(&path).unwrap();
    }
}

#[test]
fn domains_and_states_are_told_as_they_change_until_ctrl_c() {
    let disk = "/local/domain/7/device/vbd/51712/state";
    let mut watched = Watched::start(&[("/local/domain/0/name", "Domain-0")], &[]);
    watched.expect(&["watching /local/domain", "domain 0 is Domain-0"]);
    watched.write(&[("/local/domain/7/name", "web"), (disk, "1")]);
    watched.expect(&["domain 7 is web", "domain 7: vbd/51712 is initialising"]);
    watched.write(&[(disk, "4"), ("/local/domain/7/device/vif/0/state", "2")]);
    watched.expect(&[
        "domain 7: vbd/51712 is connected",
        "domain 7: vif/0 is waiting for its other end",
    ]);
    watched.write(&[("/local/domain/7/name", "web-2"), (disk, "a\nb")]);
    watched.expect(&["domain 7 is web-2", "domain 7: vbd/51712 is in no known state: a\\nb"]);
    watched.remove("/local/domain/7/device/vif/0");
    watched.expect(&["domain 7: vif/0 is gone"]);
    watched.remove("/local/domain/7");
    watched.expect(&["domain 7 is gone"]);

    kill_process(Pid::from_child(&watched.child), Signal::INT).unwrap();
    watched.expect(&["stopped", ""]);
    let output = watched.child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn a_path_of_the_callers_is_watched_though_it_is_not_there_yet() {
    let mut watched = Watched::start(&[], &["/elsewhere"]);
    watched.expect(&["watching /elsewhere"]);
    watched.write(&[("/elsewhere/3/data", "")]);
    watched.expect(&["domain 3 is without a name"]);
    kill_process(Pid::from_child(&watched.child), Signal::INT).unwrap();
    watched.expect(&["stopped"]);
    assert!(watched.child.wait().unwrap().success());
}

#[test]
fn a_server_that_goes_is_a_failure_that_says_so() {
    let mut watched = Watched::start(&[("/local/domain/0/name", "Domain-0")], &[]);
    watched.expect(&["watching /local/domain", "domain 0 is Domain-0"]);
    watched.server.stop();
    let output = watched.child.wait_with_output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said, "async_watcher: WATCH of /local/domain: the server closed the connection\n");
}
