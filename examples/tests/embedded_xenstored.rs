//! The embedded Xenstore: what it tells, what a client on its socket finds, and what is there at the next start.

mod readme;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path as FilePath;
use std::process::{Command, Stdio};

use xenstore_migration::{ReadOptions, Record, StreamReader};
use xsclient::{Client, Endpoint, Nodes, Options, Path};

const TOLD: &str = "\
started with 1 nodes
watch: /local/domain/7/data changed
the toolstack reads \"seen by the toolstack\"
domain 8 is refused what domain 7 has opened to all: READ of /local/domain/7/data: refused with EACCES
domain 8 has what it may have: WRITE of data/6: refused with ENOSPC
domain 8 has 8 nodes
before the commit: []
after the commit: [\"frontend\", \"backend\"]
a client on the socket reads \"1\"
serving until the input ends
saved 11 nodes
";

fn program(directory: &FilePath) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_embedded_xenstored"));
    command.arg(directory).stdin(Stdio::null());
    command
}

#[test]
fn what_is_shown_is_what_happens() {
    let directory = tempfile::tempdir().unwrap();
    let output = program(directory.path()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(String::from_utf8_lossy(&output.stdout), TOLD);
    assert_eq!(readme::shown_of("embedded_xenstored"), TOLD);
    assert!(output.status.success());
    assert!(!directory.path().join("socket").exists());

    // The state is a stream that anybody can read.
    let state = fs::read(directory.path().join("state")).unwrap();
    let mut reader = StreamReader::open(&*state, ReadOptions::default()).unwrap();
    let mut paths = Vec::new();
    while let Some(placed) = reader.next_record().unwrap() {
        if let Record::Node(node) = placed.record {
            paths.push(String::from_utf8(node.path.to_vec()).unwrap());
        }
    }
    assert_eq!(paths.len(), 11);
    assert!(paths.contains(&"/local/domain/7/data".to_owned()), "{paths:?}");
}

#[test]
fn what_a_client_on_the_socket_wrote_is_there_after_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let node: Path = "/tool/kept".parse().unwrap();
    for round in 0..2 {
        let mut child =
            program(directory.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut told = BufReader::new(child.stdout.take().unwrap());
        let mut lines = String::new();
        while !lines.ends_with("serving until the input ends\n") {
            assert_ne!(told.read_line(&mut lines).unwrap(), 0, "{lines}");
        }
        let socket = Endpoint::UnixSocket(directory.path().join("socket"));
        let mut client = Client::open(socket, Options::default()).unwrap();
        if round == 0 {
            client.write(&node, b"across \0 the stop").unwrap();
            client.set_perms(&node.clone().into(), &"n0,r7".parse().unwrap()).unwrap();
        } else {
            assert!(lines.starts_with("started with 12 nodes\n"), "{lines}");
            assert_eq!(client.read(&node).unwrap(), b"across \0 the stop");
            assert_eq!(client.get_perms(&node.clone().into()).unwrap().to_string(), "n0,r7");
        }
        // The end of its input ends it, also while a client is connected.
        drop(child.stdin.take());
        told.read_to_string(&mut lines).unwrap();
        assert!(lines.ends_with("saved 12 nodes\n"), "{lines}");
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn a_state_that_is_none_is_named_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    fs::write(&state, "no stream").unwrap();
    let output = program(directory.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    let told = String::from_utf8(output.stderr).unwrap();
    let expected = format!("embedded_xenstored: {}: ", state.display());
    assert!(told.starts_with(&expected), "{told}");
    assert_eq!(fs::read(&state).unwrap(), b"no stream");
}
