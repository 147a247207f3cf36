//! The C daemon's dump, and what it makes of other streams.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use stock_xenstore::{Client, Kind, LiveUpdateError, StartError, StockDaemon};

use crate::started::{output, packages, start};

const END: u32 = 0;
const GLOBAL_DATA: u32 = 1;
const CONNECTION_DATA: u32 = 2;

#[test]
fn the_c_daemon_dumps_its_state_and_goes_on() {
    const TEST: &str = "the_c_daemon_dumps_its_state_and_goes_on";
    let Some(packages) = packages(TEST) else { return };
    let Some(mut daemon) = start(TEST, Kind::C, packages) else { return };
    output(daemon.client(Client::Write).args(["/kept", "value"]));
    let mut connection = connect(daemon.socket());
    let pid = daemon.pid();
    // Again and again: none leaves anything behind that the next one shows.
    for _ in 0..3 {
        let dump = daemon.live_update_dump().unwrap();
        assert!(dump.starts_with(b"xenstore"));
        assert!(dump.ends_with(&[0; 8]), "an END record");
        let records = records(&dump);
        assert_eq!(records.first().unwrap().0, GLOBAL_DATA);
        assert_eq!(records.last().unwrap().0, END);
        assert!(dump.windows(11).any(|part| part == b"/kept\0value"));
        let connections = records.iter().filter(|(kind, _)| *kind == CONNECTION_DATA);
        assert_eq!(connections.count(), 3, "dom0's ring, the connection above, and who asked");
        assert_eq!(read(&mut connection, "/kept"), b"value");
        assert_eq!(daemon.pid(), pid);
        output(daemon.client(Client::Exists).arg("/kept"));
    }
}

#[test]
fn the_arguments_of_a_daemon_outlive_a_live_update() {
    const TEST: &str = "the_arguments_of_a_daemon_outlive_a_live_update";
    let Some(packages) = packages(TEST) else { return };
    let daemon = StockDaemon::start_with(Kind::C, packages, ["-S", "10"]);
    let mut daemon = daemon.unwrap();
    for _ in 0..2 {
        daemon.live_update_dump().unwrap();
        let arguments = fs::read(format!("/proc/{}/cmdline", daemon.pid())).unwrap();
        let arguments = String::from_utf8(arguments).unwrap();
        assert!(arguments.ends_with("/xenstored\0-N\0-I\0-S\x0010\0-U\0"), "{arguments:?}");
    }
}

#[test]
fn the_new_daemon_reads_what_the_caller_made_of_the_dump() {
    const TEST: &str = "the_new_daemon_reads_what_the_caller_made_of_the_dump";
    let Some(packages) = packages(TEST) else { return };
    let Some(mut daemon) = start(TEST, Kind::C, packages) else { return };
    output(daemon.client(Client::Write).args(["/changed", "before-the-update"]));
    let mut connection = connect(daemon.socket());
    daemon
        .live_update_through(|mut dump| {
            let value = b"before-the-update";
            let at = dump.windows(value.len()).position(|part| part == value).unwrap();
            dump[at..at + 6].copy_from_slice(b"during");
            dump
        })
        .unwrap();
    assert_eq!(read(&mut connection, "/changed"), b"during-the-update");
    let printed = output(daemon.client(Client::Read).arg("/changed"));
    assert_eq!(printed, "during-the-update\n");
}

#[test]
fn a_daemon_that_does_not_accept_its_stream_is_quoted() {
    const TEST: &str = "a_daemon_that_does_not_accept_its_stream_is_quoted";
    let Some(packages) = packages(TEST) else { return };
    let streams = [
        ("Unknown record identifier", b"none of those streams".as_slice()),
        ("No state found after live-update", b""),
    ];
    for (reason, stream) in streams {
        let Some(mut daemon) = start(TEST, Kind::C, packages) else { return };
        let many: String = (0..200).map(|node| format!("/{node} = \"\"   (n0)\n")).collect();
        daemon.fill(&many).unwrap();
        let before = Instant::now();
        let error = daemon.live_update_through(|_| stream.to_vec()).unwrap_err();
        let LiveUpdateError::Ended { log, status } = &error else { panic!("{error}") };
        assert_eq!(status.code(), Some(1));
        assert!(log.contains(reason), "{log}");
        assert!(before.elapsed() < Duration::from_secs(10), "{:?}", before.elapsed());
        // Dead for good, which another attempt finds out at once.
        let error = daemon.live_update_dump().unwrap_err();
        assert!(matches!(error, LiveUpdateError::Connection { .. }), "{error}");
    }
}

#[test]
fn a_refused_live_update_leaves_the_daemon_as_it_was() {
    const TEST: &str = "a_refused_live_update_leaves_the_daemon_as_it_was";
    let Some(packages) = packages(TEST) else { return };
    let Some(mut daemon) = start(TEST, Kind::C, packages) else { return };
    // Somebody else has begun an update, and keeps it waiting.
    let mut other = connect(daemon.socket());
    assert_eq!(ask(&mut other, 0, b"live-update\0-f\0/bin/true\0"), b"OK\0");
    let error = daemon.live_update_dump().unwrap_err();
    let LiveUpdateError::Refused { answer } = &error else { panic!("{error}") };
    assert!(answer.contains("already active"), "{answer}");
    output(daemon.client(Client::Ls).arg("/"));
    assert_eq!(ask(&mut other, 0, b"live-update\0-a\0"), b"OK\0");
    daemon.live_update_dump().unwrap();
}

#[test]
fn an_open_transaction_does_not_hold_up_a_live_update() {
    const TEST: &str = "an_open_transaction_does_not_hold_up_a_live_update";
    let Some(packages) = packages(TEST) else { return };
    let Some(mut daemon) = start(TEST, Kind::C, packages) else { return };
    let mut connection = connect(daemon.socket());
    const TRANSACTION_START: u32 = 6;
    const TRANSACTION_END: u32 = 7;
    const ERROR: u32 = 16;
    let id = ask(&mut connection, TRANSACTION_START, b"\0");
    let id: u32 = str::from_utf8(&id).unwrap().trim_end_matches('\0').parse().unwrap();
    daemon.live_update_dump().unwrap();
    // It is lost.
    let header = [TRANSACTION_END, 0, id, 2].map(u32::to_ne_bytes).concat();
    connection.write_all(&[&header, b"T\0".as_slice()].concat()).unwrap();
    assert_eq!(receive(&mut connection, ERROR), b"ENOENT\0");
}

#[test]
fn a_panic_between_the_two_daemons_ends_both() {
    const TEST: &str = "a_panic_between_the_two_daemons_ends_both";
    let Some(packages) = packages(TEST) else { return };
    let Some(mut daemon) = start(TEST, Kind::C, packages) else { return };
    let mut connection = connect(daemon.socket());
    let update = AssertUnwindSafe(|| daemon.live_update_through(|_| panic!("as a test fails")));
    catch_unwind(update).unwrap_err();
    // The script has seen that nobody will answer it.
    assert_eq!(connection.read(&mut [0]).unwrap(), 0);
}

#[test]
fn oxenstored_is_not_asked_for_a_stream() {
    const TEST: &str = "oxenstored_is_not_asked_for_a_stream";
    let Some(packages) = packages(TEST) else { return };
    let Some(mut daemon) = start(TEST, Kind::OCaml, packages) else { return };
    let error = daemon.live_update_dump().unwrap_err();
    assert!(matches!(error, LiveUpdateError::OtherDaemon), "{error}");
    output(daemon.client(Client::Ls).arg("/"));
}

#[test]
fn a_new_daemon_starts_on_the_dump_of_another() {
    const TEST: &str = "a_new_daemon_starts_on_the_dump_of_another";
    let Some(packages) = packages(TEST) else { return };
    let Some(mut daemon) = start(TEST, Kind::C, packages) else { return };
    output(daemon.client(Client::Write).args(["/kept", "value"]));
    let mut connection = connect(daemon.socket());
    const WATCH: u32 = 4;
    assert_eq!(ask(&mut connection, WATCH, b"/kept\0its-token\0"), b"OK\0");
    event(&mut connection); // the one that every watch begins with
    let dump = daemon.live_update_dump().unwrap();
    drop(daemon);

    let (mut daemon, mut clients) = StockDaemon::start_on(packages, &dump).unwrap();
    assert_eq!(output(daemon.client(Client::Read).arg("/kept")), "value\n");
    // The connection above goes on where it was, and so does the one that asked for the dump: it gets its answer.
    let mut ids: Vec<_> = clients.keys().copied().collect();
    ids.sort_unstable();
    let [watching, asking] = ids[..] else { panic!("{ids:?}") };
    let asking = clients.get_mut(&asking).unwrap();
    asking.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut answer = [0; 19];
    asking.read_exact(&mut answer).unwrap();
    assert!(answer.ends_with(b"OK\0"));
    let watching = clients.get_mut(&watching).unwrap();
    watching.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    output(daemon.client(Client::Write).args(["/kept", "other"]));
    assert_eq!(event(watching), b"/kept\0its-token\0");
    assert_eq!(read(watching, "/kept"), b"other");
    // It is a daemon as any other.
    assert!(daemon.live_update_dump().unwrap().starts_with(b"xenstore"));
}

#[test]
fn a_new_daemon_that_does_not_accept_its_stream_is_quoted() {
    const TEST: &str = "a_new_daemon_that_does_not_accept_its_stream_is_quoted";
    let Some(packages) = packages(TEST) else { return };
    let Some(mut daemon) = start(TEST, Kind::C, packages) else { return };
    let mut dump = daemon.live_update_dump().unwrap();
    dump[11] = 77; // the version
    let error = StockDaemon::start_on(packages, &dump).unwrap_err();
    let StartError::Ended { log, .. } = &error else { panic!("{error}") };
    assert!(log.contains("Unknown record identifier"), "{log}");
}

/// The types and bodies of a stream's records.
fn records(stream: &[u8]) -> Vec<(u32, &[u8])> {
    let mut records = Vec::new();
    let mut rest = &stream[16..];
    while !rest.is_empty() {
        let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
        let (kind, length) = (word(0), usize::try_from(word(4)).unwrap());
        let (body, next) = rest[8..].split_at(length.next_multiple_of(8));
        records.push((kind, &body[..length]));
        rest = next;
    }
    records
}

fn connect(socket: &Path) -> UnixStream {
    let connection = UnixStream::connect(socket).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    connection
}

fn read(connection: &mut UnixStream, path: &str) -> Vec<u8> {
    const READ: u32 = 2;
    ask(connection, READ, format!("{path}\0").as_bytes())
}

/// The payload of the next message, which is a watch event.
fn event(connection: &mut UnixStream) -> Vec<u8> {
    const WATCH_EVENT: u32 = 15;
    receive(connection, WATCH_EVENT)
}

fn ask(connection: &mut UnixStream, operation: u32, payload: &[u8]) -> Vec<u8> {
    let header = [operation, 0, 0, payload.len().try_into().unwrap()].map(u32::to_ne_bytes);
    connection.write_all(&[&header.concat(), payload].concat()).unwrap();
    receive(connection, operation)
}

fn receive(connection: &mut UnixStream, operation: u32) -> Vec<u8> {
    let mut header = [0; 16];
    connection.read_exact(&mut header).unwrap();
    assert_eq!(header[..4], operation.to_ne_bytes(), "not an error");
    let mut reply = vec![0; header[12].into()]; // all of them are short
    connection.read_exact(&mut reply).unwrap();
    reply
}
