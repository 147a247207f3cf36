//! A real socket: connecting, reconnecting, and what can go wrong there.

use std::error::Error;
use std::io::ErrorKind;
use std::os::unix::net::UnixListener;
use std::time::Instant;

use xsclient::*;

use crate::support::*;

fn open_error(endpoint: Endpoint) -> OpenError {
    Client::open(endpoint, Options::with_timeout(SHORT)).unwrap_err()
}

#[test]
fn a_client_reconnects_when_told_to_and_says_what_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let server = std::thread::spawn(move || {
        for value in ["first", "second"] {
            let (stream, _) = listener.accept().unwrap();
            let mut store = Store::with(&[("/a", value)]);
            if value == "first" {
                let mut peer = Peer::new(stream);
                while let Some(asked) = peer.next() {
                    for message in store.answer(&asked) {
                        peer.send(&message);
                    }
                    if matches!(asked.request, Request::TransactionStart) {
                        break;
                    }
                }
            } else {
                Peer::new(stream).serve(&mut store);
            }
        }
    });
    let mut client =
        Client::open(Endpoint::UnixSocket(socket), Options::with_timeout(LONG)).unwrap();
    assert_eq!(client.read(&path("/a")).unwrap(), b"first");
    let token = Token::from_octets(*b"mine").unwrap();
    let watch = client.watch_with_token(path("/a"), token.clone(), None).unwrap();
    let transaction = client.transaction().unwrap().detach();
    assert!(client.read(&path("/a")).unwrap_err().is_lost());
    assert!(client.read(&path("/a")).unwrap_err().is_lost(), "never by itself");

    let before = client.statistics();
    let Reconnected { lost_watches } = client.reconnect(Instant::now() + LONG).unwrap();
    assert!(client.lost().is_none());
    assert_eq!(lost_watches.len(), 1);
    let lost = &lost_watches[0];
    assert_eq!((lost.path.as_str(), &lost.token, lost.depth), ("/a", &token, None));
    assert_eq!(client.read(&path("/a")).unwrap(), b"second");
    assert_eq!(client.statistics().since(&before).requests, 1, "the counts go on");

    // The same token again: the old handle does not get the new watch's events.
    let again = client.watch_with_token(lost.path.clone(), token, lost.depth).unwrap();
    let error = client.next_event(&watch, SHORT).unwrap_err();
    assert!(matches!(error.failure(), Failure::StaleHandle), "{error}");
    assert!(client.unwatch(&watch).is_err());
    assert!(client.next_event(&again, LONG).unwrap().unwrap().first);
    let error = client.attach(transaction).unwrap_err();
    assert!(matches!(error.failure(), Failure::StaleHandle), "{error}");
    drop(client);
    server.join().unwrap();
}

#[test]
fn a_client_over_a_transport_does_not_know_where_to_reconnect() {
    let (mut client, _server) = client_of_store(Store::with(&[]));
    let error = client.reconnect(Instant::now() + LONG).unwrap_err();
    assert!(matches!(error, ReconnectError::NoEndpoint));
    assert!(client.domain_path(DomId::DOM0).is_ok(), "the client is as it was");
}

#[test]
fn a_failed_reconnect_leaves_the_client_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let server = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        drop(listener);
        Peer::new(stream).serve(&mut Store::with(&[("/a", "1")]));
    });
    let mut client =
        Client::open(Endpoint::UnixSocket(socket.clone()), Options::with_timeout(LONG)).unwrap();
    client.read(&path("/a")).unwrap();
    std::fs::remove_file(&socket).unwrap();
    assert!(client.reconnect(Instant::now() + LONG).is_err());
    assert_eq!(client.read(&path("/a")).unwrap(), b"1");
    drop(client);
    server.join().unwrap();
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
    let _listener = UnixListener::bind(&socket).unwrap();
    // Fill the queue of connections that nobody accepts.
    let mut waiting = Vec::new();
    let error = loop {
        let endpoint = Endpoint::UnixSocket(socket.clone());
        match Client::open(endpoint, Options::with_timeout(SHORT)) {
            Ok(client) => waiting.push(client),
            Err(error) => break error,
        }
        assert!(waiting.len() < 100_000, "the queue never fills");
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
    let mut client = Client::over(Box::new(UnixSocket::over(ours).unwrap()), options);
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
