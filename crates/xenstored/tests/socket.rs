//! The Unix socket, and clients that do not behave.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, in what it is built of as well"
)]

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use xenstore_proto::{
    Decoded, Decoder, Message, Path, Reply, Request, RequestId, Token, TxId, limits,
};
use xenstored::{Embedded, ServeError, UnixServer};

const SOON: Duration = Duration::from_secs(20);

struct Served {
    xenstore: Embedded,
    server: UnixServer,
    _dir: tempfile::TempDir,
}

impl Served {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let xenstore = Embedded::default();
        let server = xenstore.serve_unix(dir.path().join("socket")).unwrap();
        Self { xenstore, server, _dir: dir }
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.server.path()).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_write_timeout(Some(SOON)).unwrap();
        stream
    }

    /// A client that behaves is served, whatever the others do.
    fn assert_alive(&self) {
        let mut stream = self.connect();
        stream.write_all(&wire(&write("/alive", "yes"))).unwrap();
        assert_eq!(next_message(&mut stream).payload, b"OK\0");
        stream.write_all(&wire(&Request::Read(path("/alive")))).unwrap();
        assert_eq!(next_message(&mut stream).payload, b"yes");
    }
}

fn path(text: &str) -> Path {
    text.parse().unwrap()
}

fn write(at: &str, value: &str) -> Request {
    Request::Write { path: path(at), value: value.into() }
}

fn wire(request: &Request) -> Vec<u8> {
    let mut octets = Vec::new();
    request.encode(RequestId(1), TxId::NONE, limits::PAYLOAD_MAX, &mut octets).unwrap();
    octets
}

fn next_message(stream: &mut UnixStream) -> Message {
    let mut decoder = Decoder::new(limits::PAYLOAD_MAX);
    loop {
        match decoder.decode().unwrap() {
            Decoded::Message(message) => return message,
            Decoded::Need(more) => {
                let mut octets = vec![0; more];
                stream.read_exact(&mut octets).unwrap();
                decoder.push(&octets);
            }
        }
    }
}

/// Reads until the server closes.
fn read_to_end(stream: &mut UnixStream) -> Vec<u8> {
    let mut octets = Vec::new();
    match stream.read_to_end(&mut octets) {
        Ok(_) => octets,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => octets,
        Err(error) => panic!("the server did not close the connection: {error}"),
    }
}

#[test]
fn a_batch_is_answered_in_order_and_events_come_from_everywhere() {
    let served = Served::new();
    let mut stream = served.connect();
    let token = Token::from_octets(*b"t").unwrap();
    let watch = Request::Watch { path: path("/a").into(), token, depth: None };
    let batch = [wire(&watch), wire(&write("/a", "1")), wire(&Request::Read(path("/a")))].concat();
    stream.write_all(&batch).unwrap();
    let payloads: Vec<_> = (0..5).map(|_| next_message(&mut stream).payload).collect();
    assert_eq!(payloads, [&b"OK\0"[..], b"/a\0t\0", b"/a\0t\0", b"OK\0", b"1"]);
    // From this process, while the thread of the socket sleeps.
    assert_eq!(served.xenstore.apply(write("/a/b", "2")), Reply::Ok);
    assert_eq!(next_message(&mut stream).payload, b"/a/b\0t\0");
}

#[test]
fn a_socket_is_private_and_gone_when_the_server_stops() {
    let served = Served::new();
    let socket = served.server.path().to_owned();
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let mut stream = served.connect();
    served.assert_alive();
    served.server.stop();
    assert!(!socket.exists());
    assert_eq!(read_to_end(&mut stream), b"");
    assert!(served.xenstore.snapshot().exists(&path("/alive")), "the store outlives the socket");
}

#[test]
fn a_live_socket_and_other_files_are_kept_and_a_stale_socket_is_replaced() {
    let served = Served::new();
    let live = served.server.path().to_owned();
    let error = Embedded::default().serve_unix(&live).unwrap_err();
    assert!(matches!(error, ServeError::InUse { .. }), "{error}");
    served.assert_alive();

    let file: PathBuf = live.with_file_name("file");
    fs::write(&file, "precious").unwrap();
    let error = Embedded::default().serve_unix(&file).unwrap_err();
    assert!(matches!(error, ServeError::NotASocket { .. }), "{error}");
    assert_eq!(fs::read(&file).unwrap(), b"precious");

    let stale = live.with_file_name("stale");
    drop(UnixListener::bind(&stale).unwrap());
    let again = Embedded::default().serve_unix(&stale).unwrap();
    UnixStream::connect(again.path()).unwrap();

    let error = Embedded::default().serve_unix(live.with_file_name("no/such/dir")).unwrap_err();
    assert!(matches!(error, ServeError::Io { .. }), "{error}");
    let error = Embedded::default().serve_unix(live.with_file_name("x".repeat(200))).unwrap_err();
    assert!(matches!(error, ServeError::Io { .. }), "{error}");
}

#[test]
fn a_stopped_server_does_not_remove_what_another_one_put_in_its_place() {
    let served = Served::new();
    let socket = served.server.path().to_owned();
    fs::remove_file(&socket).unwrap();
    let second = Embedded::default().serve_unix(&socket).unwrap();
    served.server.stop();
    UnixStream::connect(second.path()).unwrap();
}

#[test]
fn a_header_that_claims_too_much_closes_that_client_only() {
    let served = Served::new();
    let mut stream = served.connect();
    let mut header = wire(&Request::TransactionStart);
    header[12..16].copy_from_slice(&4097_u32.to_ne_bytes());
    stream.write_all(&header).unwrap();
    assert_eq!(read_to_end(&mut stream), b"");
    served.assert_alive();
}

#[test]
fn half_a_message_holds_nobody_up() {
    let served = Served::new();
    let halves: Vec<_> = (1..40)
        .map(|len| {
            let mut stream = served.connect();
            let message = wire(&write("/half", "0123456789012345678901234567890123456789"));
            stream.write_all(&message[..len]).unwrap();
            stream
        })
        .collect();
    served.assert_alive();
    drop(halves);
    served.assert_alive();
    assert!(!served.xenstore.snapshot().exists(&path("/half")));
}

#[test]
fn a_client_that_never_reads_is_held_back_and_the_others_are_served() {
    let served = Served::new();
    let mut silent = served.connect();
    served.xenstore.apply(Request::Write { path: path("/big"), value: vec![b'x'; 4000] });
    silent.set_nonblocking(true).unwrap();
    let batch = wire(&Request::Read(path("/big"))).repeat(1000);
    let start = Instant::now();
    let mut sent = 0;
    // Until neither the kernel's buffers nor the server take any more for a while.
    let mut refused = 0;
    while refused < 20 {
        assert!(start.elapsed() < SOON && sent < 256 << 20, "never held back: {sent} octets");
        match silent.write(&batch) {
            Ok(len) => {
                sent += len;
                refused = 0;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                refused += 1;
                served.assert_alive();
            }
        }
    }
    // Once it reads, it gets all its answers; the last request may have been cut.
    silent.set_nonblocking(false).unwrap();
    let message = wire(&Request::Read(path("/big"))).len();
    for _ in 0..sent / message {
        assert_eq!(next_message(&mut silent).payload.len(), 4000);
    }
}

#[test]
fn a_watcher_that_never_reads_is_closed_and_the_others_are_served() {
    let served = Served::new();
    let mut silent = served.connect();
    let token = Token::from_octets(vec![b't'; 3500]).unwrap();
    silent
        .write_all(&wire(&Request::Watch { path: Path::root().into(), token, depth: None }))
        .unwrap();
    next_message(&mut silent);
    for i in 0..2 * limits::PAYLOAD_MAX {
        served.xenstore.apply(write(&format!("/n{i}/{}", "x".repeat(500)), ""));
    }
    let tail = xenstored::limits::OUTPUT_MAX_PRIVILEGED / 4000;
    for i in 0..tail {
        served.xenstore.apply(write(&format!("/m{i}"), ""));
    }
    served.assert_alive();
    let got = read_to_end(&mut silent);
    assert!(got.len() < xenstored::limits::OUTPUT_MAX_PRIVILEGED, "{} octets", got.len());
}

#[test]
fn a_client_that_has_said_all_still_gets_all_replies_and_then_the_end() {
    let served = Served::new();
    assert_eq!(served.xenstore.apply(write("/big", &"x".repeat(4000))), Reply::Ok);
    // From what the socket holds to a multiple of it.
    for replies in [40, 80, 100, 120, 400] {
        let mut stream = served.connect();
        stream.write_all(&wire(&Request::Read(path("/big"))).repeat(replies)).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        served.assert_alive();
        assert_eq!(read_to_end(&mut stream).len(), replies * (16 + 4000));
    }
    // One that reads none of them and goes leaves nothing behind that could hold others up.
    let mut stream = served.connect();
    stream.write_all(&wire(&Request::Read(path("/big"))).repeat(300)).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    drop(stream);
    served.assert_alive();
}

#[test]
fn clients_come_and_go_by_the_hundred() {
    let served = Served::new();
    let idle: Vec<_> = (0..300).map(|_| served.connect()).collect();
    for _ in 0..200 {
        served.assert_alive();
    }
    drop(idle);
    served.assert_alive();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]
    #[test]
    fn garbage_closes_its_client_or_is_answered(octets in proptest::collection::vec(any::<u8>(), 0..300)) {
        let served = Served::new();
        let mut stream = served.connect();
        // The server may have closed already.
        let _ = stream.write_all(&octets);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        read_to_end(&mut stream);
        served.assert_alive();
    }
}

#[test]
fn a_transaction_open_for_too_long_is_given_up_by_the_thread_that_serves_the_socket() {
    let served = Served::new();
    served.xenstore.with(|server| server.set_transaction_limit(Duration::from_millis(20)));
    let mut stream = served.connect();
    stream.write_all(&wire(&Request::TransactionStart)).unwrap();
    assert_eq!(next_message(&mut stream).payload, b"1\0");
    let deadline = Instant::now() + SOON;
    let mut end = Vec::new();
    let commit = Request::TransactionEnd { commit: true };
    commit.encode(RequestId(1), TxId(1), limits::PAYLOAD_MAX, &mut end).unwrap();
    let mut in_it = Vec::new();
    Request::Read(path("/"))
        .encode(RequestId(1), TxId(1), limits::PAYLOAD_MAX, &mut in_it)
        .unwrap();
    loop {
        stream.write_all(&in_it).unwrap();
        if next_message(&mut stream).payload == b"EAGAIN\0" {
            break;
        }
        assert!(Instant::now() < deadline);
    }
    stream.write_all(&end).unwrap();
    assert_eq!(next_message(&mut stream).payload, b"EAGAIN\0");
    served.assert_alive();
}
