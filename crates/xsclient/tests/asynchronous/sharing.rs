//! One connection for many tasks: what they ask at once, how it ends, and what handles leave when they are dropped.

use std::future::poll_fn;
use std::os::unix::net::UnixStream;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use xsclient::asynchronous::{Client, Nodes};
use xsclient::*;

use crate::support::{Asked, LONG, Peer, SHORT, Store, path};

/// A client on a socket pair, whose other end `server` plays in a thread.
pub(crate) fn client_of<T: Send + 'static>(
    server: impl FnOnce(Peer) -> T + Send + 'static,
) -> (Client, JoinHandle<T>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let thread = std::thread::spawn(move || server(Peer::new(theirs)));
    let socket = UnixSocket::over(ours).unwrap();
    (Client::over(socket, Options::with_timeout(LONG)).unwrap(), thread)
}

fn client_of_store(mut store: Store) -> (Client, JoinHandle<Store>) {
    client_of(move |peer| {
        peer.serve(&mut store);
        store
    })
}

/// What a server's thread gives, without holding up the runtime.
pub(crate) async fn joined<T: Send + 'static>(server: JoinHandle<T>) -> T {
    tokio::task::spawn_blocking(|| server.join().unwrap()).await.unwrap()
}

fn token_of(asked: &Asked) -> Token {
    let Request::Watch { token, .. } = &asked.request else { panic!("{asked:?}") };
    token.clone()
}

#[tokio::test]
async fn what_tasks_ask_at_once_is_sent_at_once_and_each_gets_its_own_reply() {
    let (client, server) = client_of(|mut peer| {
        // Not one is answered before all have come, and the last first.
        let asked: Vec<Asked> = (0..100).map(|_| peer.expect()).collect();
        for asked in asked.iter().rev() {
            let Request::Read(path) = &asked.request else { panic!() };
            peer.reply(asked, &Reply::Value(path.as_str().as_bytes().to_vec()));
        }
    });
    let mut tasks = JoinSet::new();
    for i in 0..100 {
        let client = client.clone();
        tasks.spawn(async move {
            let node = format!("/n/{i}");
            assert_eq!(client.read_text(&path(&node)).await.unwrap(), node);
        });
    }
    tasks.join_all().await;
    joined(server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_on_several_threads_use_one_client() {
    let (client, _server) = client_of_store(Store::with(&[]));
    let mut tasks = JoinSet::new();
    for task in 0..40 {
        let client = client.clone();
        tasks.spawn(async move {
            let node = path(&format!("/task-{task}"));
            let watch = client.watch(node.clone(), None).await.unwrap();
            assert!(watch.next_event(LONG).await.unwrap().unwrap().first);
            for round in 0..20_u8 {
                client.write(&node, &[task, round]).await.unwrap();
                assert_eq!(client.read(&node).await.unwrap(), [task, round]);
                assert!(watch.next_event(LONG).await.unwrap().is_some());
            }
        });
    }
    tasks.join_all().await;
}

#[tokio::test]
async fn no_more_requests_are_in_flight_than_the_window_holds_whoever_asks() {
    let (client, server) = client_of(|mut peer| {
        let mut held: Vec<Asked> = (0..IN_FLIGHT_MAX).map(|_| peer.expect()).collect();
        peer.stream.set_read_timeout(Some(SHORT)).unwrap();
        assert!(peer.next().is_none(), "more than the window holds");
        peer.stream.set_read_timeout(Some(LONG)).unwrap();
        let mut left = 3 * IN_FLIGHT_MAX;
        loop {
            left -= held.len();
            for asked in held.drain(..) {
                peer.reply(&asked, &Reply::Value(Vec::new()));
            }
            match left {
                0 => return,
                _ => held.push(peer.expect()),
            }
        }
    });
    let mut tasks = JoinSet::new();
    for _ in 0..3 * IN_FLIGHT_MAX {
        let client = client.clone();
        tasks.spawn(async move { client.read(&path("/a")).await.unwrap() });
    }
    tasks.join_all().await;
    joined(server).await;
}

#[tokio::test]
async fn the_connection_ends_with_the_last_handle_whatever_kind_that_is() {
    let (client, server) = client_of(|mut peer| {
        let watch = peer.expect();
        peer.reply(&watch, &Reply::Ok);
        let read = peer.expect();
        peer.reply(&read, &Reply::Value(Vec::new()));
        // The UNWATCH of a watch that is dropped with its connection need not come.
        while peer.next().is_some() {}
    });
    let watch = client.watch(path("/a"), None).await.unwrap();
    let other = client.clone();
    drop(client);
    other.read(&path("/a")).await.unwrap();
    drop(other);
    assert_eq!(watch.next_event(SHORT).await.unwrap(), None, "the watch is a handle too");
    drop(watch);
    joined(server).await;
}

#[tokio::test]
async fn everybody_hears_that_the_connection_is_lost_and_why() {
    let (client, server) = client_of(|mut peer| {
        for _ in 0..2 {
            let asked = peer.expect();
            peer.reply(&asked, &Reply::Ok);
            peer.event("/w", &token_of(&asked));
        }
        for _ in 0..3 {
            peer.expect();
        }
    });
    let watches = [
        client.watch(path("/w"), None).await.unwrap(),
        client.watch(path("/w"), None).await.unwrap(),
    ];
    let mut tasks = JoinSet::new();
    for watch in watches {
        assert!(watch.next_event(LONG).await.unwrap().unwrap().first);
        tasks.spawn(async move { watch.next_event(LONG).await.map(drop) });
    }
    let any = client.clone();
    tasks.spawn(async move { any.next_event_any(LONG).await.map(drop) });
    for i in 0..3 {
        let client = client.clone();
        tasks.spawn(async move { client.read(&path(&format!("/n/{i}"))).await.map(drop) });
    }
    for outcome in tasks.join_all().await {
        let error = outcome.unwrap_err();
        let closed = matches!(error.failure(), Failure::Lost(ConnectionLost::Closed));
        assert!(closed, "{error}");
    }
    joined(server).await;
    let error = client.write(&path("/a"), b"").await.unwrap_err();
    assert_eq!(error.to_string(), "WRITE of /a: the server closed the connection");
    assert!(client.lost().is_some());
}

#[test]
fn a_runtime_that_ends_is_an_error_for_those_on_another_and_no_hang() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (carrying, other) = (runtime(), runtime());
    let entered = carrying.enter();
    let (client, server) = client_of(|mut peer| while peer.next().is_some() {});
    drop(entered);
    let asking = client.clone();
    let asking = std::thread::spawn(move || other.block_on(asking.read(&path("/a"))));
    // One turn, so that the request is sent; then the task that carries it is gone.
    carrying.block_on(tokio::task::yield_now());
    drop(carrying);
    let error = asking.join().unwrap().unwrap_err();
    assert!(matches!(error.failure(), Failure::Lost(ConnectionLost::RuntimeEnded)), "{error}");
    server.join().unwrap();
}

#[tokio::test]
async fn handles_that_are_dropped_close_what_they_stand_for() {
    let (client, server) = client_of_store(Store::with(&[("/a", "old")]));
    drop(client.watch(path("/a"), None).await.unwrap());
    drop(client.fence([path("/a").into(), path("/b").into()]).await.unwrap());
    let transaction = client.transaction().await.unwrap();
    transaction.write(&path("/a"), b"new").await.unwrap();
    drop(transaction);
    let mut batch = Batch::new();
    let (taken, _not_taken) = (batch.watch(path("/a"), None), batch.watch(path("/b"), None));
    let mut replies = client.run(batch).await.unwrap();
    let taken = replies.take_watch(taken).unwrap();
    drop(replies);
    assert_eq!(client.read(&path("/a")).await.unwrap(), b"old");
    client.unwatch(&taken).await.unwrap();
    client.read(&path("/a")).await.unwrap();
    drop((client, taken));
    let store = joined(server).await;
    let unwatched = |asked: &&Asked| matches!(asked.request, Request::Unwatch { .. });
    assert_eq!(store.seen.iter().filter(unwatched).count(), 5, "each once");
    assert_eq!((store.watch_count(), store.open_transactions()), (0, 0));
}

#[tokio::test]
async fn a_watch_that_another_task_ends_is_stale_for_whoever_waits_for_it() {
    let (client, _server) = client_of_store(Store::with(&[]));
    let (other, _other) = client_of_store(Store::with(&[]));
    let watch = client.watch(path("/a"), None).await.unwrap();
    assert!(watch.next_event(LONG).await.unwrap().unwrap().first);
    let error = other.unwatch(&watch).await.unwrap_err();
    assert!(matches!(error.failure(), Failure::StaleHandle), "of another client: {error}");
    let ending = client.clone();
    let ended = (*watch).clone();
    let waiting = tokio::spawn(async move { watch.next_event(LONG).await });
    tokio::task::yield_now().await;
    let mut batch = Batch::new();
    batch.unwatch(&ended);
    ending.run(batch).await.unwrap();
    let error = waiting.await.unwrap().unwrap_err();
    assert!(matches!(error.failure(), Failure::StaleHandle), "{error}");
}

#[tokio::test]
async fn the_handle_of_an_ended_watch_does_not_end_another_that_has_its_token() {
    let (client, server) = client_of_store(Store::with(&[]));
    let token = Token::from_octets(*b"t").unwrap();
    let mut watch = client.watch_with_token(path("/a"), token.clone(), None).await.unwrap();
    client.unwatch(&watch).await.unwrap();
    // The old handle is dropped when the new watch is set already.
    watch = client.watch_with_token(path("/b"), token, None).await.unwrap();
    client.write(&path("/b/c"), b"").await.unwrap();
    for wanted in ["/b", "/b/c"] {
        assert_eq!(watch.next_event(LONG).await.unwrap().unwrap().path.as_str(), wanted);
    }
    drop((client, watch));
    let unwatched = |asked: &&Asked| matches!(asked.request, Request::Unwatch { .. });
    let seen = joined(server).await.seen;
    assert!(seen.iter().filter(unwatched).count() <= 2, "one for each watch at most: {seen:?}");
}

#[tokio::test]
async fn who_waited_for_an_ended_watch_leaves_those_who_wait_for_another_with_its_token() {
    let (client, _server) = client_of_store(Store::with(&[]));
    let token = Token::from_octets(*b"t").unwrap();
    let ended = client.watch_with_token(path("/a"), token.clone(), None).await.unwrap();
    assert!(ended.next_event(LONG).await.unwrap().unwrap().first);
    let mut waited = Box::pin(ended.next_event(LONG));
    assert!(poll_fn(|context| Poll::Ready(waited.as_mut().poll(context))).await.is_pending());
    client.unwatch(&ended).await.unwrap();
    let other = client.watch_with_token(path("/b"), token, None).await.unwrap();
    assert!(other.next_event(LONG).await.unwrap().unwrap().first);
    let waiting = tokio::spawn(async move { other.next_event(LONG).await });
    tokio::task::yield_now().await;
    drop(waited);
    client.write(&path("/b/c"), b"").await.unwrap();
    let event = tokio::time::timeout(LONG / 3, waiting).await.unwrap().unwrap();
    assert_eq!(event.unwrap().unwrap().path.as_str(), "/b/c");
}

#[tokio::test]
async fn a_task_that_takes_any_event_does_not_hide_a_change_from_a_fenced_batch() {
    let (client, server) = client_of(|mut peer| {
        let watch = peer.expect();
        peer.reply(&watch, &Reply::Ok);
        peer.event("/a", &token_of(&watch));
        peer.event("/a/b", &token_of(&watch));
        // Time for the other task to take what it should not.
        std::thread::sleep(2 * SHORT);
        let read = peer.expect();
        peer.reply(&read, &Reply::Value(Vec::new()));
        let unwatch = peer.expect();
        peer.reply(&unwatch, &Reply::Ok);
    });
    let mut batch = Batch::new();
    let fence = batch.fence(path("/a"));
    batch.read(path("/a/b"));
    let (replies, any) = tokio::join!(client.run(batch), client.next_event_any(SHORT));
    assert_eq!(any.unwrap(), None);
    let replies = replies.unwrap();
    let changed = replies.disturbances(fence).unwrap();
    assert_eq!(changed.len(), 1);
    assert_eq!(changed[0].path.as_str(), "/a/b");
    joined(server).await;
}

#[tokio::test]
async fn a_transaction_that_a_reset_ended_is_stale_and_no_empty_store() {
    let (client, server) = client_of_store(Store::with(&[("/a", "old")]));
    let transaction = client.transaction().await.unwrap();
    client.reset_watches().await.unwrap();
    for error in [
        transaction.read_optional(&path("/a")).await.unwrap_err(),
        transaction.run(Batch::new()).await.unwrap_err(),
        transaction.commit().await.unwrap_err(),
    ] {
        assert!(matches!(error.failure(), Failure::StaleHandle), "{error}");
    }
    drop(client);
    let seen = joined(server).await.seen;
    assert_eq!(seen.len(), 2, "nothing is asked in it: {seen:?}");
}

#[tokio::test]
async fn one_function_works_in_a_transaction_and_outside() {
    async fn count(nodes: &impl Nodes) -> Result<usize, OperationError> {
        nodes.write(&path("/a/new"), b"").await?;
        Ok(nodes.directory(&path("/a")).await?.len())
    }
    let (client, _server) = client_of_store(Store::with(&[("/a/b", "")]));
    let transaction = client.transaction().await.unwrap();
    assert_eq!(count(&transaction).await.unwrap(), 2);
    transaction.abort().await.unwrap();
    assert_eq!(client.directory(&path("/a")).await.unwrap().len(), 1);
    assert_eq!(count(&client.with_deadline(Instant::now() + LONG)).await.unwrap(), 2);
}

#[tokio::test]
async fn a_deadline_is_that_of_its_handle_and_of_no_other() {
    let (client, server) = client_of(|mut peer| {
        let late = peer.expect();
        let asked = peer.expect();
        peer.reply(&asked, &Reply::Value(b"right".to_vec()));
        peer.reply(&late, &Reply::Value(b"late".to_vec()));
        let asked = peer.expect();
        peer.reply(&asked, &Reply::Value(b"right".to_vec()));
    });
    let hurried = client.with_deadline(Instant::now() + SHORT);
    let sooner = hurried.with_deadline(Instant::now() + Duration::from_secs(3600));
    let error = sooner.read(&path("/a")).await.unwrap_err();
    assert!(matches!(error.failure(), Failure::Timeout { sent: true }), "{error}");
    let error = hurried.read(&path("/a")).await.unwrap_err();
    assert!(matches!(error.failure(), Failure::Timeout { sent: false }), "{error}");
    for _ in 0..2 {
        assert_eq!(client.read(&path("/a")).await.unwrap(), b"right");
    }
    assert_eq!(client.statistics().late_replies, 1);
    joined(server).await;
}

#[tokio::test]
async fn a_large_batch_of_one_task_does_not_keep_a_later_one_from_its_reply() {
    let (client, _server) = client_of_store(Store::with(&[("/a", "1")]));
    let mut batch = Batch::new();
    let slots: Vec<_> = (0..20 * IN_FLIGHT_MAX).map(|_| batch.read(path("/a"))).collect();
    let large = client.clone();
    let large = tokio::spawn(async move { large.run(batch).await });
    tokio::task::yield_now().await;
    assert_eq!(client.read(&path("/a")).await.unwrap(), b"1");
    let mut replies = large.await.unwrap().unwrap();
    for slot in slots {
        assert_eq!(replies.take(slot).unwrap(), b"1");
    }
}

#[tokio::test]
async fn the_xenbus_device_is_refused_by_name() {
    let endpoint = Endpoint::Xenbus("/dev/null".into());
    let error = Client::open(endpoint, Options::default()).await.unwrap_err();
    let wanted =
        "cannot connect to /dev/null: the asynchronous client does not carry the xenbus device";
    assert_eq!(error.to_string(), wanted);
}
