//! A real socket: connecting, and what can go wrong there.

use std::error::Error;
use std::io::ErrorKind;
use std::os::unix::net::UnixListener;

use xsclient::*;

use crate::support::*;
use crate::under_test::{Client, over};

fn open_error(endpoint: Endpoint) -> OpenError {
    Client::open(endpoint, Options::with_timeout(SHORT)).unwrap_err()
}

#[test]
fn a_socket_that_is_not_there_is_named() {
    let error = open_error(Endpoint::UnixSocket("/nowhere/socket".into()));
    let message = error.to_string();
    assert!(message.starts_with("cannot connect to /nowhere/socket: "), "{message}");
    assert!(error.source().is_none(), "the cause is in the message");
    let OpenError::Unreachable(unreachable) = error else { panic!("{error}") };
    assert_eq!(unreachable.error.kind(), ErrorKind::NotFound);
}

#[test]
fn a_path_too_long_for_a_socket_is_an_error() {
    let long = format!("/{}", "x".repeat(200));
    assert!(open_error(Endpoint::UnixSocket(long.clone().into())).to_string().contains(&long));
}

#[test]
fn a_server_that_does_not_accept_is_a_timeout() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    rustix::net::listen(&listener, 4).unwrap();
    // Fill the queue of connections that nobody accepts.
    let mut waiting = Vec::new();
    let error = loop {
        let endpoint = Endpoint::UnixSocket(socket.clone());
        match Client::open(endpoint, Options::with_timeout(SHORT)) {
            Ok(client) => waiting.push(client),
            Err(error) => break error,
        }
        assert!(waiting.len() < 100, "the queue never fills");
    };
    let OpenError::Unreachable(unreachable) = &error else { panic!("{error}") };
    assert_eq!(unreachable.error.kind(), ErrorKind::TimedOut);
    assert!(error.to_string().contains("not accepted before the deadline"), "{error}");
}

#[test]
fn a_missing_device_is_named() {
    let error = open_error(Endpoint::Xenbus("/dev/no-such-xenbus".into()));
    assert!(error.to_string().contains("/dev/no-such-xenbus"), "{error}");
}

#[test]
fn timeouts_of_any_length_are_taken() {
    let (mut client, _server) = client_of_store(Store::with(&[("/a", "")]));
    let watch = client.watch(path("/a"), None).unwrap();
    assert!(client.next_event(&watch, std::time::Duration::MAX).unwrap().is_some());
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let options = Options::with_timeout(std::time::Duration::MAX);
    let mut client = over(ours, options);
    let server =
        std::thread::spawn(move || Peer::new(theirs).serve(&mut Store::with(&[("/a", "")])));
    client.read(&path("/a")).unwrap();
    drop(client);
    server.join().unwrap();
}

#[test]
fn a_client_can_be_sent_to_another_thread() {
    fn sendable<T: Send>() {}
    sendable::<Client>();
    sendable::<Connection>();
}
