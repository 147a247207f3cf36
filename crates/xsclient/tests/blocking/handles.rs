//! What only the blocking client has: handles that outlive a borrow, and reconnecting.

use std::os::unix::net::UnixListener;
use std::time::Instant;

use xsclient::*;

use crate::support::*;

#[test]
fn one_function_works_in_a_transaction_and_outside() {
    fn count(nodes: &mut dyn Nodes) -> Result<usize, OperationError> {
        nodes.write(&path("/a/new"), b"")?;
        Ok(nodes.directory(&path("/a"))?.len())
    }
    let (mut client, _server) = client_of_store(Store::with(&[("/a/b", "")]));
    let mut transaction = client.transaction().unwrap();
    assert_eq!(count(&mut transaction).unwrap(), 2);
    transaction.abort().unwrap();
    assert_eq!(client.directory(&path("/a")).unwrap().len(), 1);
    assert_eq!(count(&mut client).unwrap(), 2);
    assert_eq!(count(&mut *client.with_deadline(Instant::now() + LONG)).unwrap(), 2);
}

#[test]
fn a_detached_transaction_goes_on_with_the_same_client_and_no_other() {
    let (mut client, _server) = client_of_store(Store::with(&[("/a", "old")]));
    let (mut other, _other) = client_of_store(Store::with(&[]));
    let mut transaction = client.transaction().unwrap();
    transaction.write(&path("/a"), b"new").unwrap();
    let detached = transaction.detach();
    assert_eq!(client.read(&path("/a")).unwrap(), b"old");
    let error = other.attach(detached).unwrap_err();
    assert!(matches!(error.failure(), Failure::StaleHandle), "{error}");
    assert_eq!(client.attach(detached).unwrap().commit().unwrap(), Commit::Committed);
    assert_eq!(client.read(&path("/a")).unwrap(), b"new");
}

#[test]
fn a_detached_transaction_ends_with_a_reset_and_does_not_read_as_an_empty_store() {
    let (mut client, _server) = client_of_store(Store::with(&[("/a", "old")]));
    let detached = client.transaction().unwrap().detach();
    client.reset_watches().unwrap();
    let error = client.attach(detached).unwrap_err();
    assert!(matches!(error.failure(), Failure::StaleHandle), "{error}");
}

#[test]
fn the_watch_of_another_client_is_refused() {
    let (mut one, _server) = client_of_store(Store::with(&[]));
    let (mut two, _other) = client_of_store(Store::with(&[]));
    let token = Token::from_octets(*b"t").unwrap();
    let watch = one.watch_with_token(path("/a"), token.clone(), None).unwrap();
    let _same = two.watch_with_token(path("/a"), token, None).unwrap();
    let error = two.next_event(&watch, SHORT).unwrap_err();
    assert!(matches!(error.failure(), Failure::StaleHandle), "{error}");
}

#[test]
fn a_reset_that_is_not_answered_in_time_makes_watches_and_transactions_stale_all_the_same() {
    let (mut client, _server) = client_of(LONG, |mut peer| {
        let mut store = Store::with(&[]);
        while let Some(asked) = peer.next() {
            let answer = store.answer(&asked);
            if asked.request != Request::ResetWatches {
                for message in answer {
                    peer.send(&message);
                }
            }
        }
    });
    let watch = client.watch(path("/a"), None).unwrap();
    let transaction = client.transaction().unwrap().detach();
    let mut hurried = client.with_deadline(Instant::now() + SHORT);
    assert!(hurried.reset_watches().unwrap_err().is_timeout());
    drop(hurried);
    let error = client.next_event(&watch, SHORT).unwrap_err();
    assert!(matches!(error.failure(), Failure::StaleHandle), "{error}");
    let error = client.attach(transaction).unwrap_err();
    assert!(matches!(error.failure(), Failure::StaleHandle), "{error}");
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
