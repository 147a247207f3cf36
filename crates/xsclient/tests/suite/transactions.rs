//! Transactions: all or nothing, and a bounded number of tries.

use std::time::{Duration, Instant};

use xsclient::*;

use crate::support::*;

fn quick(attempts: u32) -> RetryPolicy {
    let pause = Duration::from_micros(10);
    RetryPolicy { attempts, pause_first: pause, pause_max: pause }
}

#[test]
fn a_commit_makes_all_writes_visible_and_an_abort_none() {
    let (mut client, server) = client_of_store(Store::with(&[("/a", "old")]));
    let mut transaction = client.transaction().unwrap();
    transaction.write(&path("/a"), b"new").unwrap();
    assert_eq!(transaction.read(&path("/a")).unwrap(), b"new");
    assert_eq!(transaction.commit().unwrap(), Commit::Committed);
    assert_eq!(client.read(&path("/a")).unwrap(), b"new");
    let mut transaction = client.transaction().unwrap();
    transaction.write(&path("/a"), b"newer").unwrap();
    transaction.abort().unwrap();
    assert_eq!(client.read(&path("/a")).unwrap(), b"new");
    drop(client);
    assert_eq!(server.join().unwrap().open_transactions(), 0);
}

#[test]
fn a_dropped_transaction_is_aborted() {
    let (mut client, server) = client_of_store(Store::with(&[("/a", "old")]));
    let mut transaction = client.transaction().unwrap();
    transaction.write(&path("/a"), b"new").unwrap();
    drop(transaction);
    assert_eq!(client.read(&path("/a")).unwrap(), b"old");
    drop(client);
    assert_eq!(server.join().unwrap().open_transactions(), 0);
}

#[test]
fn batches_and_directories_in_a_transaction_see_its_own_state() {
    let mut store = Store::with(&[("/a/b", "old")]);
    store.big_directories = true;
    let (mut client, server) = client_of_store(store);
    let mut transaction = client.transaction().unwrap();
    transaction.write(&path("/a/b"), b"new").unwrap();
    let mut batch = Batch::new();
    let b = batch.read(path("/a/b"));
    let list = batch.directory(path("/a"));
    let mut replies = transaction.run(batch).unwrap();
    assert_eq!(replies.take(b).unwrap(), b"new");
    assert_eq!(replies.take(list).unwrap().len(), 1);
    assert_eq!(transaction.directory(&path("/a")).unwrap().len(), 1);
    let id = transaction.id();
    transaction.abort().unwrap();
    drop(client);
    let seen = server.join().unwrap().seen;
    assert!(seen[1..].iter().all(|asked| asked.tx == id), "{seen:?}");
}

#[test]
fn a_conflict_is_tried_again_until_it_commits() {
    let mut store = Store::with(&[("/a", "")]);
    store.conflicts = 3;
    let (mut client, _server) = client_of_store(store);
    let mut runs = 0;
    let value = client
        .transact(&quick(10), |transaction| {
            runs += 1;
            transaction.write(&path("/a"), b"x")?;
            Ok::<_, OperationError>(runs)
        })
        .unwrap();
    assert_eq!(value, 4);
    assert_eq!(client.statistics().transaction_retries, 3);
    assert_eq!(client.read(&path("/a")).unwrap(), b"x");
}

#[test]
fn conflicts_without_end_are_an_error_that_says_how_many_tries_were_made() {
    let mut store = Store::with(&[("/a", "")]);
    store.conflicts = u32::MAX;
    let (mut client, _server) = client_of_store(store);
    let error =
        client.transact(&quick(7), |transaction| transaction.write(&path("/a"), b"x")).unwrap_err();
    assert!(error.is_conflict());
    assert_eq!(
        error.to_string(),
        "TRANSACTION_END: another change got in between in each of 7 attempts"
    );
}

#[test]
fn conflicts_without_end_stop_at_the_deadline() {
    let mut store = Store::with(&[("/a", "")]);
    store.conflicts = u32::MAX;
    let (mut client, _server) = client_of_store(store);
    let policy = RetryPolicy { attempts: u32::MAX, ..RetryPolicy::default() };
    let error = client
        .with_deadline(Instant::now() + SHORT)
        .transact(&policy, |transaction| transaction.write(&path("/a"), b"x"))
        .unwrap_err();
    assert!(error.is_conflict() || error.is_timeout(), "{error}");
}

#[test]
fn an_error_of_the_body_aborts_and_is_given_back() {
    let (mut client, server) = client_of_store(Store::with(&[("/a", "old")]));
    let error = client
        .transact(&quick(7), |transaction| {
            transaction.write(&path("/a"), b"new")?;
            transaction.read(&path("/missing")).map(drop)
        })
        .unwrap_err();
    assert!(error.is_not_found(), "{error}");
    assert_eq!(client.read(&path("/a")).unwrap(), b"old");
    drop(client);
    assert_eq!(server.join().unwrap().open_transactions(), 0);
}

#[test]
fn a_commit_refused_for_another_reason_is_an_error_and_not_a_conflict() {
    let (mut client, _server) = client_of(LONG, |mut peer| {
        let start = peer.expect();
        peer.reply(&start, &Reply::Transaction(TxId(1)));
        let end = peer.expect();
        peer.reply(&end, &Reply::Error(Errno::ENOSPC));
        assert!(peer.next().is_none(), "the transaction is over: no abort");
    });
    let error = client.transaction().unwrap().commit().unwrap_err();
    assert_eq!(error.errno(), Some(&Errno::ENOSPC));
}

#[test]
fn a_server_that_dies_in_a_transaction_is_no_hang_and_no_panic() {
    let (mut client, server) = client_of(LONG, |mut peer| {
        let start = peer.expect();
        peer.reply(&start, &Reply::Transaction(TxId(1)));
        peer.expect();
    });
    let mut transaction = client.transaction().unwrap();
    assert!(transaction.read(&path("/a")).unwrap_err().is_lost());
    drop(transaction);
    assert!(client.transaction().unwrap_err().is_lost());
    server.join().unwrap();
}

#[test]
fn a_last_batch_and_the_commit_are_one_round_trip_and_a_big_directory_in_it_is_not_missing() {
    let mut store = Store::with(&[("/a/b", "old")]);
    store.big_directories = true;
    let (mut client, _server) = client_of_store(store);
    let mut batch = Batch::new();
    let before = batch.read(path("/a/b"));
    let (transaction, mut replies) = client.transaction_with(batch).unwrap();
    assert_eq!(replies.take(before).unwrap(), b"old");
    let mut batch = Batch::new();
    batch.write(path("/a/b"), "new");
    let list = batch.directory(path("/a"));
    let (commit, mut replies) = transaction.commit_with(batch).unwrap();
    assert_eq!(commit, Commit::Committed);
    // The parts could only be asked for in a transaction that is no more, where everything is ENOENT.
    assert_eq!(replies.take(list).unwrap_err().errno(), Some(&Errno::E2BIG));
    assert_eq!(client.statistics().round_trips, 2);
    assert_eq!(client.read(&path("/a/b")).unwrap(), b"new");
}
