//! The client, with a real QEMU and with peers that are not one.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use snapshot::disk::qmp::{CacheMode, QmpClient, QmpError, TransactionAction};
use tempfile::TempDir;

use crate::nbd::NbdDisk;
use crate::programs::{StorageDaemon, available, deadline, qemu_img};

/// A directory with `a.qcow2`, and the description of a node that fails where blkdebug is told to.
pub(crate) fn faulty_disk(event: &str) -> (TempDir, Value) {
    let directory = tempfile::tempdir().unwrap();
    qemu_img(directory.path(), &["create", "-q", "-f", "qcow2", "a.qcow2", "8M"]);
    let node = json!({
        "driver": "qcow2",
        "node-name": "a-qcow2",
        "file": {
            "driver": "blkdebug",
            "image": { "driver": "file", "filename": directory.path().join("a.qcow2") },
            "inject-error": [{ "event": event, "errno": 5 }],
        },
    });
    (directory, node)
}

/// The disk that fails is the second one: QEMU has to take the first one back.
#[test]
fn an_io_error_in_a_transaction_is_a_refusal_and_undoes_the_rest() {
    const TEST: &str = "an_io_error_in_a_transaction_is_a_refusal_and_undoes_the_rest";
    if !available(TEST, &["qemu-img", "qemu-storage-daemon"]) {
        return;
    }
    let (directory, faulty) = faulty_disk("flush_to_disk");
    let path = directory.path().to_owned();
    for (name, base) in [("b.qcow2", ""), ("a-1.qcow2", "a.qcow2"), ("b-1.qcow2", "b.qcow2")] {
        let create = ["create", "-q", "-f", "qcow2"];
        let backing = if base.is_empty() { vec![] } else { vec!["-F", "qcow2", "-b", base] };
        qemu_img(&path, &[&create[..], &backing, &[name, "8M"]].concat());
    }
    let healthy = json!({
        "driver": "qcow2",
        "node-name": "b-qcow2",
        "file": { "driver": "file", "filename": path.join("b.qcow2") },
    });
    let daemon = StorageDaemon::start_in(directory, &["a", "b"], &[faulty, healthy]);
    let before = daemon.graph();
    NbdDisk::open(&daemon.nbd(), "a").write(0, &[1; 512]).unwrap(); // something to flush
    let mut client = QmpClient::connect(&daemon.qmp(), deadline()).unwrap();
    let cache: CacheMode =
        serde_json::from_value(json!({ "direct": false, "no-flush": false })).unwrap();
    let mut actions = Vec::new();
    for disk in ["b", "a"] {
        let (node, overlay) = (format!("{disk}-qcow2"), format!("{disk}-1"));
        let image = daemon.path(&format!("{disk}-1.qcow2"));
        client.add_overlay(&overlay, image.to_str().unwrap(), cache, deadline()).unwrap();
        actions.push(TransactionAction::Snapshot { node, overlay });
    }
    let error = client.transaction(&actions, deadline()).unwrap_err();
    assert!(matches!(error, QmpError::Refused { .. }), "{error}");
    for disk in ["a-1", "b-1"] {
        client.delete_node(disk, deadline()).unwrap();
    }
    drop(client);
    assert_eq!(daemon.graph(), before);
}

#[test]
fn a_socket_that_another_client_has_gives_no_greeting_until_the_deadline() {
    const TEST: &str = "a_socket_that_another_client_has_gives_no_greeting_until_the_deadline";
    if !available(TEST, &["qemu-img", "qemu-storage-daemon"]) {
        return;
    }
    let daemon = StorageDaemon::start(&["a"]);
    let first = QmpClient::connect(&daemon.qmp(), deadline()).unwrap();
    assert!(first.version().major >= 5);
    let error = QmpClient::connect(&daemon.qmp(), Instant::now() + Duration::from_millis(100));
    assert!(matches!(error, Err(QmpError::TooSlow { command: "greeting" })), "{error:?}");
    drop(first);
    QmpClient::connect(&daemon.qmp(), deadline()).unwrap();
}

const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}}}}"#;

/// Longer than an answer takes on a busy machine.
const ENOUGH: Duration = Duration::from_secs(20);
/// For a peer that does not answer.
const LITTLE: Duration = Duration::from_millis(300);

/// Connects to a peer that says all of this at once and then waits. `FIRST` and `SECOND` are the ids of the client's commands.
fn peer(said: &[u8], patience: Duration) -> Result<QmpClient, QmpError> {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("qmp");
    let listener = UnixListener::bind(&socket).unwrap();
    let said = said.to_vec();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        let first = serde_json::from_str::<Value>(&line).unwrap()["id"].as_u64().unwrap();
        let said = match String::from_utf8(said) {
            Ok(said) => {
                let said = said.replace("FIRST", &first.to_string());
                said.replace("SECOND", &(first + 1).to_string()).into_bytes()
            }
            Err(said) => said.into_bytes(),
        };
        // The client may hang up before it has all of it.
        let _ = stream.write_all(&said);
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let limit = Instant::now() + patience;
    QmpClient::connect(&socket, limit).and_then(|mut client| client.nodes(limit).map(|_| client))
}

#[test]
fn events_between_answers_are_kept_for_the_caller() {
    let said = format!(
        "{GREETING}\n{}\n{}\n{}\n{}\n",
        r#"{"return": {}, "id": FIRST}"#,
        r#"{"event": "BLOCK_IO_ERROR", "data": {"device": "xvda"}, "timestamp": {"seconds": 1}}"#,
        r#"{"event": "STOP"}"#,
        r#"{"return": [], "id": SECOND}"#,
    );
    let events = peer(said.as_bytes(), ENOUGH).unwrap().take_events();
    assert_eq!(
        events.iter().map(|event| &event.name[..]).collect::<Vec<_>>(),
        ["BLOCK_IO_ERROR", "STOP"]
    );
    assert_eq!(events[0].data["device"], "xvda");
}

/// As QEMU answers whoever comes next, if a client has died while it was at work for that.
#[test]
fn what_another_client_has_asked_is_not_taken_for_an_answer() {
    let said = format!(
        "{GREETING}\n{}\n{}\n{}\n{}\n",
        r#"{"return": [{"of": "another"}], "id": 1}"#,
        r#"{"error": {"class": "GenericError", "desc": "of another"}, "id": 0}"#,
        r#"{"return": {}, "id": FIRST}"#,
        r#"{"return": [], "id": SECOND}"#,
    );
    peer(said.as_bytes(), ENOUGH).unwrap();
}

/// A QEMU that is busy when a client goes and the next one comes answers the first before it greets the second.
#[test]
fn an_answer_to_another_client_is_passed_over_before_the_greeting_too() {
    let said = format!(
        "{}\n{GREETING}\n{}\n{}\n",
        r#"{"return": {}, "id": 1}"#,
        r#"{"return": {}, "id": FIRST}"#,
        r#"{"return": [], "id": SECOND}"#,
    );
    peer(said.as_bytes(), ENOUGH).unwrap();
}

/// The negotiation of the client before is executed for this one.
#[test]
fn a_qemu_that_is_ready_for_commands_already_is_ready() {
    let said = format!(
        "{GREETING}\n{}\n{}\n{}\n",
        r#"{"return": {}, "id": 1}"#,
        r#"{"error": {"class": "CommandNotFound", "desc": "negotiated"}, "id": FIRST}"#,
        r#"{"return": [], "id": SECOND}"#,
    );
    peer(said.as_bytes(), ENOUGH).unwrap();
}

#[test]
fn a_peer_that_is_no_qemu_is_an_error_before_the_deadline_or_at_it() {
    let capable = format!("{GREETING}\n{{\"return\": {{}}, \"id\": FIRST}}\n");
    let events = format!("{capable}{}", "{\"event\": \"X\"}\n".repeat(100_000));
    let check = |said: &[u8], patience: Duration, expected: fn(&QmpError) -> bool| {
        let error = peer(said, patience).unwrap_err();
        let begin = String::from_utf8_lossy(&said[..said.len().min(60)]);
        assert!(expected(&error), "{begin}: {error:?}");
    };
    check(b"", LITTLE, |error| matches!(error, QmpError::TooSlow { command: "greeting" }));
    check(b"SSH-2.0\n", ENOUGH, |error| matches!(error, QmpError::Malformed { .. }));
    check(b"{\"QMP\": {}}\n", ENOUGH, |error| matches!(error, QmpError::Malformed { .. }));
    check(&[b'['; 17 << 20], ENOUGH, |error| matches!(error, QmpError::LineTooLong { .. }));
    check([&[b'['; 4096][..], b"\n"].concat().as_slice(), ENOUGH, |error| {
        matches!(error, QmpError::Malformed { .. })
    });
    check(format!("{capable}{{\"return\": [], \"id\": 7}}\n").as_bytes(), ENOUGH, |error| {
        matches!(error, QmpError::OtherAnswer { .. })
    });
    check(format!("{capable}{{\"return\": 3, \"id\": SECOND}}\n").as_bytes(), ENOUGH, |error| {
        matches!(error, QmpError::Malformed { .. })
    });
    check(format!("{capable}{{}}\n").as_bytes(), ENOUGH, |error| {
        matches!(error, QmpError::Malformed { .. })
    });
    check(events.as_bytes(), LITTLE, |error| matches!(error, QmpError::TooSlow { .. }));
}
