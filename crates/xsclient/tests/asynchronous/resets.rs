//! Resets of a connection while other tasks ask: the server carries requests out in their order, and what was opened before a
//! reset is gone, what was opened after it is there, whenever the replies are looked at.

use std::thread::JoinHandle;
use std::time::Instant;

use xsclient::asynchronous::{Client, Nodes, Transaction, Watch};
use xsclient::*;

use crate::sharing::{client_of, joined};
use crate::support::{LONG, SHORT, Store, path};

/// A client of a store that carries out so many requests before it sends the first reply, and then sends all of them at once.
fn client_of_store_that_holds(held: usize) -> (Client, JoinHandle<Store>) {
    client_of(move |mut peer| {
        let mut store = Store::with(&[("/a", "old")]);
        let replies: Vec<u8> =
            (0..held).flat_map(|_| store.answer(&peer.expect()).concat()).collect();
        // Longer than those wait who do not wait long.
        std::thread::sleep(2 * SHORT);
        peer.send(&replies);
        peer.serve(&mut store);
        store
    })
}

async fn assert_stale(transaction: &Transaction) {
    let found = transaction.read_optional(&path("/a")).await;
    let error = found.expect_err("what the server has dropped must not read as an empty store");
    assert!(matches!(error.failure(), Failure::StaleHandle), "{error}");
}

async fn assert_stale_watch(watch: &Watch) {
    let error = watch.next_event(LONG).await.unwrap_err();
    assert!(matches!(error.failure(), Failure::StaleHandle), "{error}");
}

/// That a watch is told of what happens, and that it is ended with its handle.
async fn assert_set(client: Client, watch: Watch, server: JoinHandle<Store>) {
    assert!(watch.next_event(LONG).await.unwrap().unwrap().first);
    client.write(&path("/a/b"), b"").await.unwrap();
    assert_eq!(watch.next_event(LONG).await.unwrap().unwrap().path.as_str(), "/a/b");
    drop(watch);
    client.read(&path("/a")).await.unwrap();
    drop(client);
    assert_eq!(joined(server).await.watch_count(), 0);
}

#[tokio::test]
async fn a_transaction_is_stale_whose_reply_is_looked_at_when_a_later_reset_is_answered_too() {
    let (client, _server) = client_of_store_that_holds(2);
    let (transaction, reset) = tokio::join!(client.transaction(), client.reset_watches());
    reset.unwrap();
    assert_stale(&transaction.unwrap()).await;

    let (client, _server) = client_of_store_that_holds(3);
    let mut batch = Batch::new();
    batch.read(path("/a"));
    let (started, reset) = tokio::join!(client.transaction_with(batch), client.reset_watches());
    reset.unwrap();
    assert_stale(&started.unwrap().0).await;
}

#[tokio::test]
async fn a_transaction_started_right_after_a_reset_is_open() {
    let (client, _server) = client_of_store_that_holds(2);
    let (reset, transaction) = tokio::join!(client.reset_watches(), client.transaction());
    reset.unwrap();
    let transaction = transaction.unwrap();
    assert_eq!(transaction.read(&path("/a")).await.unwrap(), b"old");
    assert_eq!(transaction.commit().await.unwrap(), Commit::Committed);
}

#[tokio::test]
async fn a_watch_set_right_after_a_reset_is_set() {
    let (client, server) = client_of_store_that_holds(2);
    let (reset, watch) = tokio::join!(client.reset_watches(), client.watch(path("/a"), None));
    reset.unwrap();
    assert_set(client, watch.unwrap(), server).await;
}

#[tokio::test]
async fn a_watch_that_a_batch_sets_right_after_a_reset_is_set() {
    let (client, server) = client_of_store_that_holds(2);
    let mut batch = Batch::new();
    let watch = batch.watch(path("/a"), None);
    let (reset, replies) = tokio::join!(client.reset_watches(), client.run(batch));
    reset.unwrap();
    let watch = replies.unwrap().take_watch(watch).unwrap();
    assert_set(client, watch, server).await;
}

#[tokio::test]
async fn of_a_batch_that_resets_only_the_later_watch_is_set() {
    let (client, server) = client_of_store_that_holds(3);
    let mut batch = Batch::new();
    let earlier = batch.watch(path("/a"), None);
    batch.push::<()>(Request::ResetWatches);
    let later = batch.watch(path("/a"), None);
    let mut replies = client.run(batch).await.unwrap();
    assert_stale_watch(&replies.take_watch(earlier).unwrap()).await;
    let later = replies.take_watch(later).unwrap();
    drop(replies);
    assert_set(client, later, server).await;
}

#[tokio::test]
async fn a_watch_set_right_before_a_reset_is_stale() {
    let (client, _server) = client_of_store_that_holds(2);
    let (watch, reset) = tokio::join!(client.watch(path("/a"), None), client.reset_watches());
    reset.unwrap();
    assert_stale_watch(&watch.unwrap()).await;
}

#[tokio::test]
async fn a_fence_stands_right_after_a_reset_and_not_right_before_it() {
    let (client, server) = client_of_store_that_holds(2);
    let fence = client.fence([path("/a").into()]);
    let (reset, fence) = tokio::join!(client.reset_watches(), fence);
    reset.unwrap();
    client.write(&path("/a/b"), b"").await.unwrap();
    assert_eq!(client.lower(fence.unwrap()).await.unwrap().len(), 1);
    drop(client);
    assert_eq!(joined(server).await.watch_count(), 0);

    let (client, _server) = client_of_store_that_holds(2);
    let fence = client.fence([path("/a").into()]);
    let (fence, reset) = tokio::join!(fence, client.reset_watches());
    reset.unwrap();
    let error = match fence {
        Ok(fence) => client.lower(fence).await.unwrap_err(),
        Err(error) => error,
    };
    assert!(matches!(error.failure(), Failure::StaleHandle), "{error}");
}

#[tokio::test]
async fn a_reset_right_after_a_watch_is_ended_does_not_take_its_events() {
    let (client, _server) = client_of(|mut peer| {
        let mut store = Store::with(&[]);
        for _ in 0..2 {
            let watch = peer.expect();
            peer.send(&store.answer(&watch).concat());
        }
        let write = peer.expect();
        peer.send(&store.answer(&write).concat());
        let replies: Vec<u8> = (0..3).flat_map(|_| store.answer(&peer.expect()).concat()).collect();
        peer.send(&replies);
        peer.serve(&mut store);
    });
    let fence = client.fence([path("/a").into()]).await.unwrap();
    let watch = client.watch(path("/a"), None).await.unwrap();
    client.write(&path("/a/b"), b"").await.unwrap();
    let mut batch = Batch::new();
    batch.unwatch(&watch);
    let (happened, replies, reset) =
        tokio::join!(client.lower(fence), client.run(batch), client.reset_watches());
    reset.unwrap();
    assert_eq!(happened.unwrap().len(), 1, "a fence must not say that nothing happened");
    assert_eq!(replies.unwrap().events(&watch).len(), 2);
}

#[tokio::test]
async fn a_reset_that_nobody_waits_for_any_more_ends_what_was_asked_before_it() {
    let (client, _server) = client_of_store_that_holds(3);
    let hurried = client.with_deadline(Instant::now() + SHORT);
    let (transaction, watch, reset) = tokio::join!(
        client.transaction(),
        client.watch(path("/a"), None),
        hurried.reset_watches(),
    );
    assert!(reset.unwrap_err().is_timeout());
    assert_stale(&transaction.unwrap()).await;
    assert_stale_watch(&watch.unwrap()).await;
}

#[tokio::test]
async fn a_reset_that_nobody_waits_for_any_more_leaves_what_was_asked_after_it() {
    let (client, server) = client_of_store_that_holds(3);
    let hurried = client.with_deadline(Instant::now() + SHORT);
    let (reset, transaction, watch) = tokio::join!(
        hurried.reset_watches(),
        client.transaction(),
        client.watch(path("/a"), None),
    );
    assert!(reset.unwrap_err().is_timeout());
    drop(hurried);
    let transaction = transaction.unwrap();
    assert_eq!(transaction.read(&path("/a")).await.unwrap(), b"old");
    transaction.abort().await.unwrap();
    assert_set(client, watch.unwrap(), server).await;
}
