//! Directories too big for one reply.

use xsclient::*;

use crate::support::*;

fn big(children: usize) -> Store {
    let mut store = Store::with(&[("/a", "")]);
    for i in 0..children {
        store.set(&format!("/a/child-{i:05}"), b"");
    }
    store.big_directories = true;
    store
}

#[test]
fn a_directory_that_does_not_fit_is_read_in_parts() {
    let (mut client, _server) = client_of_store(big(100));
    assert_eq!(client.directory(&path("/a")).unwrap().len(), 100);
    let done = client.statistics();
    // 64 octets of names a part, 12 octets a name.
    assert_eq!((done.round_trips, done.directory_pages, done.directory_restarts), (1, 20, 0));
}

#[test]
fn a_directory_with_no_child_left_is_one_empty_part() {
    let (mut client, _server) = client_of_store(big(0));
    assert_eq!(client.directory(&path("/a")).unwrap(), []);
}

#[test]
fn directories_of_a_batch_are_completed_after_it() {
    let (mut client, _server) = client_of_store(big(30));
    let mut batch = Batch::new();
    let before = batch.read(path("/a/child-00007"));
    let list = batch.directory(path("/a"));
    let missing = batch.directory(path("/missing"));
    let mut replies = client.run(batch).unwrap();
    assert_eq!(replies.take(list).unwrap().len(), 30);
    assert_eq!(replies.take(before).unwrap(), b"");
    assert!(replies.take(missing).unwrap_err().is_not_found());
    let done = client.statistics();
    assert_eq!((done.round_trips, done.directory_pages), (1, 6));
}

#[test]
fn a_directory_that_changes_between_parts_is_read_again() {
    let mut store = big(30);
    (store.change_after_parts, store.changes_left) = (4, 3);
    let (mut client, _server) = client_of_store(store);
    let names = client.directory(&path("/a")).unwrap();
    let mut unique: Vec<_> = names.clone();
    unique.sort();
    unique.dedup();
    assert_eq!((names.len(), unique.len()), (33, 33), "no name twice, none missing");
    assert_eq!(client.statistics().directory_restarts, 3);
}

#[test]
fn a_directory_that_never_stops_changing_is_an_error_after_a_bounded_number_of_attempts() {
    let mut store = big(30);
    (store.change_after_parts, store.changes_left) = (2, u32::MAX);
    let (mut client, _server) = client_of_store(store);
    let error = client.directory(&path("/a")).unwrap_err();
    let attempts = DIRECTORY_ATTEMPTS_MAX;
    assert_eq!(
        error.to_string(),
        format!(
            "DIRECTORY of /a: the directory changed in each of {attempts} attempts to read it in parts"
        )
    );
    client.read(&path("/a")).unwrap();
}

#[test]
fn a_server_without_parts_is_said_to_have_none() {
    let mut store = big(30);
    store.no_parts = true;
    let (mut client, _server) = client_of_store(store);
    let error = client.directory(&path("/a")).unwrap_err();
    assert!(matches!(error.failure(), Failure::NoParts), "{error}");
    assert!(error.to_string().contains("DIRECTORY_PART"), "{error}");
    let mut batch = Batch::new();
    let list = batch.directory(path("/a"));
    let error = client.run(batch).unwrap().take(list).unwrap_err();
    assert!(matches!(error.failure(), Failure::NoParts), "{error}");
}

#[test]
fn a_reply_longer_than_a_message_may_be_is_taken_as_oxenstored_sends_it() {
    let mut store = big(2000);
    store.big_directories = false;
    let (mut client, _server) = client_of_store(store);
    assert_eq!(client.directory(&path("/a")).unwrap().len(), 2000);
    assert_eq!(client.statistics().directory_pages, 0);
}

#[test]
fn a_server_that_sends_parts_without_names_or_without_end_does_not_hold_the_client() {
    for names in [0, 1000] {
        let (mut client, server) = client_of(LONG, move |mut peer| {
            while let Some(asked) = peer.next() {
                let reply = match asked.request {
                    Request::Directory(_) => Reply::Error(Errno::E2BIG),
                    _ => {
                        let names = vec!["x".repeat(200).parse().unwrap(); names];
                        Reply::Part(DirectoryPart { generation: 1, names, last: false })
                    }
                };
                peer.reply(&asked, &reply);
            }
        });
        let error = client.directory(&path("/a")).unwrap_err();
        match error.failure() {
            Failure::UnexpectedReply { .. } => assert_eq!(names, 0),
            Failure::DirectoryTooLong { max } => {
                assert_eq!((names, *max), (1000, DIRECTORY_OCTETS_MAX));
            }
            other => panic!("{other}"),
        }
        drop(client);
        server.join().unwrap();
    }
}
