//! Futures that are dropped at every point where they wait: nothing of them is left, here or on the server.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::task::Poll;

use proptest::prelude::*;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use xenstored::{Embedded, Store, UnixServer};
use xsclient::asynchronous::{Client, Nodes};
use xsclient::*;

use crate::support::{LONG, path};

/// A server in this process, which can be asked what its clients have left behind.
struct Served {
    server: Embedded,
    client: Client,
    runtime: Runtime,
    _socket: (UnixServer, tempfile::TempDir),
}

impl Served {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let server = Embedded::new(Store::new());
        let serving = server.serve_unix(&socket).unwrap();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let open = Client::open(Endpoint::UnixSocket(socket), Options::with_timeout(LONG));
        let client = runtime.block_on(open).unwrap();
        Self { server, client, runtime, _socket: (serving, directory) }
    }

    /// That nothing is left of what was dropped: the server was told to close it with the first reply at the latest, and
    /// has done so with the second.
    fn assert_nothing_is_left(&self, what: &str) {
        for _ in 0..2 {
            let canary = self.runtime.block_on(self.client.read(&path("/canary")));
            assert_eq!(canary.unwrap(), b"alive", "{what}");
        }
        let usage = self.server.with(|server| server.usage_of(DomId::DOM0));
        assert_eq!((usage.watches, usage.transactions), (0, 0), "{what}");
    }
}

/// What becomes of a future after so many polls.
#[derive(Clone, Copy, Debug)]
enum Dropped {
    /// It is dropped while what it waits for has not come.
    Waiting,
    /// It is dropped when it was woken and has not seen why.
    Woken,
}

/// Polls a future so many times, each time when it was woken, and then drops it. Whether it was ready by then.
async fn polled(future: impl Future<Output = ()>, polls: usize, dropped: Dropped) -> bool {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(false);
        }
        left -= 1;
        match (future.as_mut().poll(context), dropped) {
            (Poll::Ready(()), _) => Poll::Ready(true),
            (Poll::Pending, Dropped::Waiting) if left == 0 => Poll::Ready(false),
            (Poll::Pending, _) => Poll::Pending,
        }
    })
    .await
}

type Operation = fn(Client) -> Pin<Box<dyn Future<Output = ()>>>;

const OPERATIONS: &[(&str, Operation)] = &[
    ("read", |client| {
        Box::pin(async move { assert_eq!(client.read(&path("/canary")).await.unwrap(), b"alive") })
    }),
    ("write", |client| {
        Box::pin(async move { client.write(&path("/written"), b"1").await.unwrap() })
    }),
    ("a directory in parts", |client| {
        Box::pin(async move {
            assert_eq!(client.directory(&path("/big")).await.unwrap().len(), 500);
        })
    }),
    ("control", |client| Box::pin(async move { drop(client.control(&["help"]).await.unwrap()) })),
    ("a watch and its events", |client| {
        Box::pin(async move {
            let watch = client.watch(path("/watched"), None).await.unwrap();
            assert!(watch.next_event(LONG).await.unwrap().unwrap().first);
            client.write(&path("/watched"), b"1").await.unwrap();
            assert!(watch.next_event(LONG).await.unwrap().is_some());
            client.unwatch(&watch).await.unwrap();
        })
    }),
    ("any event", |client| {
        Box::pin(async move {
            let _watch = client.watch(path("/watched"), None).await.unwrap();
            assert!(client.next_event_any(LONG).await.unwrap().is_some());
        })
    }),
    ("a fence", |client| {
        Box::pin(async move {
            let fence = client.fence([path("/a").into(), path("/b").into()]).await.unwrap();
            client.read(&path("/canary")).await.unwrap();
            assert_eq!(client.lower(fence).await.unwrap(), []);
        })
    }),
    ("a batch with a fence, a watch and a directory in parts", |client| {
        Box::pin(async move {
            let mut batch = Batch::new();
            let fence = batch.fence(path("/big"));
            let watch = batch.watch(path("/watched"), None);
            let list = batch.directory(path("/big"));
            let mut replies = client.run(batch).await.unwrap();
            assert_eq!(replies.take(list).unwrap().len(), 500);
            assert_eq!(replies.disturbances(fence).unwrap(), []);
            let watch = replies.take_watch(watch).unwrap();
            let mut batch = Batch::new();
            batch.unwatch(&watch);
            assert!(!client.run(batch).await.unwrap().events(&watch).is_empty());
        })
    }),
    ("a transaction", |client| {
        Box::pin(async move {
            let transaction = client.transaction().await.unwrap();
            transaction.write(&path("/pair/a"), b"1").await.unwrap();
            transaction.write(&path("/pair/b"), b"1").await.unwrap();
            assert_eq!(transaction.directory(&path("/big")).await.unwrap().len(), 500);
            assert_eq!(transaction.commit().await.unwrap(), Commit::Committed);
        })
    }),
    ("an abort", |client| {
        Box::pin(async move { client.transaction().await.unwrap().abort().await.unwrap() })
    }),
    ("a transaction in two round trips", |client| {
        Box::pin(async move {
            let mut batch = Batch::new();
            let _watch = batch.watch(path("/watched"), None);
            let (transaction, _replies) = client.transaction_with(batch).await.unwrap();
            let mut batch = Batch::new();
            batch.write(path("/pair/a"), "2");
            batch.write(path("/pair/b"), "2");
            let (commit, _replies) = transaction.commit_with(batch).await.unwrap();
            assert_eq!(commit, Commit::Committed);
        })
    }),
    ("a transaction that is tried again", |client| {
        Box::pin(async move {
            let tries = AtomicU32::new(0);
            let policy = RetryPolicy::default();
            let transact = client.transact(&policy, async |transaction| {
                transaction.read(&path("/pair/a")).await?;
                if tries.fetch_add(1, Relaxed) < 3 {
                    // Another change, outside of the transaction; writing what is there already is none.
                    static LAST: AtomicU32 = AtomicU32::new(0);
                    let value = LAST.fetch_add(1, Relaxed).to_string();
                    client.write(&path("/pair/a"), value.as_bytes()).await?;
                }
                transaction.write(&path("/pair/b"), b"3").await?;
                Ok::<_, OperationError>((transaction, ()))
            });
            transact.await.unwrap();
            assert_eq!(tries.into_inner(), 4);
        })
    }),
];

#[test]
fn a_future_dropped_at_any_point_leaves_nothing_behind() {
    let served = Served::new();
    served.runtime.block_on(async {
        let mut batch = Batch::new();
        batch.write(path("/canary"), "alive");
        for i in 0..500 {
            batch.mkdir(path(&format!("/big/child-{i:06}")));
        }
        for pair in ["/pair/a", "/pair/b"] {
            batch.write(path(pair), "0");
        }
        let replies = served.client.run(batch).await.unwrap();
        drop(replies);
    });
    for (name, operation) in OPERATIONS {
        for dropped in [Dropped::Waiting, Dropped::Woken] {
            let mut points = 0;
            loop {
                points += 1;
                let future = operation(served.client.clone());
                let ready = served.runtime.block_on(polled(future, points, dropped));
                served.assert_nothing_is_left(&format!("{name}: {points} polls, {dropped:?}"));
                if ready {
                    break;
                }
            }
            assert!(points > 1, "{name} never waits");
        }
    }
}

#[test]
fn a_transaction_dropped_while_it_commits_writes_everything_or_nothing() {
    let served = Served::new();
    served.runtime.block_on(served.client.write(&path("/canary"), b"alive")).unwrap();
    for points in 1.. {
        let value = points.to_string();
        let client = served.client.clone();
        let future = async move {
            let transaction = client.transaction().await.unwrap();
            transaction.write(&path("/pair/a"), value.as_bytes()).await.unwrap();
            transaction.write(&path("/pair/b"), value.as_bytes()).await.unwrap();
            assert_eq!(transaction.commit().await.unwrap(), Commit::Committed);
        };
        let ready = served.runtime.block_on(polled(future, points, Dropped::Waiting));
        served.assert_nothing_is_left(&format!("{points} polls"));
        let pair = ["/pair/a", "/pair/b"]
            .map(|node| served.runtime.block_on(served.client.read_optional(&path(node))).unwrap());
        assert_eq!(pair[0], pair[1], "{points} polls");
        if ready {
            assert_eq!(pair[0], Some(points.to_string().into_bytes()));
            break;
        }
    }
}

#[test]
fn requests_given_up_take_no_place_in_the_window() {
    let served = Served::new();
    served.runtime.block_on(served.client.write(&path("/canary"), b"alive")).unwrap();
    for dropped in [Dropped::Waiting, Dropped::Woken] {
        for _ in 0..2 * IN_FLIGHT_MAX {
            let client = &served.client;
            let read = async { drop(client.read(&path("/canary")).await) };
            served.runtime.block_on(polled(read, 1, dropped));
        }
    }
    served.assert_nothing_is_left("many reads given up");
}

#[test]
fn an_event_is_not_lost_with_the_future_that_waited_for_it() {
    let served = Served::new();
    served.runtime.block_on(async {
        let watch = served.client.watch(path("/a"), None).await.unwrap();
        assert!(watch.next_event(LONG).await.unwrap().unwrap().first);
        let waiting = async { drop(watch.next_event(LONG).await) };
        let node = path("/a/b");
        // Woken by the event, and dropped before it could take it.
        let mut taken = pin!(polled(waiting, 1, Dropped::Woken));
        let mut written = pin!(served.client.write(&node, b""));
        let mut done = (None, None);
        poll_fn(|context| {
            if done.0.is_none() {
                done.0 = ready(taken.as_mut().poll(context));
            }
            if done.1.is_none() {
                done.1 = ready(written.as_mut().poll(context));
            }
            if done.0.is_some() && done.1.is_some() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        assert_eq!(done.0, Some(false));
        done.1.unwrap().unwrap();
        let event = watch.next_event(LONG).await.unwrap().unwrap();
        assert_eq!(event.path.as_str(), "/a/b");
    });
}

fn ready<T>(poll: Poll<T>) -> Option<T> {
    match poll {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// One step of a task on nodes of its own.
#[derive(Clone, Debug)]
struct Step {
    node: u8,
    value: u8,
    in_transaction: bool,
    /// After how many polls it is given up, and how.
    given_up: Option<(usize, bool)>,
}

/// Carries steps out one after the other, and gives what its nodes must hold then.
async fn carry_out(client: Client, base: Path, steps: Vec<Step>) -> BTreeMap<String, Vec<u8>> {
    let mut model = BTreeMap::new();
    for Step { node, value, in_transaction, given_up } in steps {
        let node = base.join(&format!("node-{node}")).unwrap();
        let value = vec![b'a' + value];
        let write = async {
            if in_transaction {
                let policy = RetryPolicy::default();
                let body = async |inside: asynchronous::Transaction| {
                    inside.read_optional(&node).await?;
                    inside.write(&node, &value).await?;
                    Ok::<_, OperationError>((inside, ()))
                };
                client.transact(&policy, body).await.unwrap();
            } else {
                client.write(&node, &value).await.unwrap();
            }
        };
        let (polls, woken) = given_up.unwrap_or((usize::MAX, false));
        let dropped = if woken { Dropped::Woken } else { Dropped::Waiting };
        let done = polled(write, polls, dropped).await;
        let before: Option<Vec<u8>> = model.get(node.as_str()).cloned();
        let found = client.read_optional(&node).await.unwrap();
        if done {
            assert_eq!(found.as_ref(), Some(&value), "{node} was written");
        } else {
            assert!(found == before || found.as_ref() == Some(&value), "{node}: {found:?}");
        }
        if let Some(found) = found {
            model.insert(node.to_string(), found);
        }
    }
    model
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let given_up = proptest::option::of((1..6_usize, any::<bool>()));
    let step = (0..3_u8, 0..20_u8, any::<bool>(), given_up).prop_map(
        |(node, value, in_transaction, given_up)| Step { node, value, in_transaction, given_up },
    );
    proptest::collection::vec(step, 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn tasks_that_give_up_at_random_leave_the_store_that_a_model_has(
        tasks in proptest::collection::vec(steps(), 1..6),
    ) {
        let served = Served::new();
        let models = served.runtime.block_on(async {
            served.client.write(&path("/canary"), b"alive").await.unwrap();
            let mut running = JoinSet::new();
            for (number, steps) in tasks.into_iter().enumerate() {
                let base = path(&format!("/task-{number}"));
                running.spawn(carry_out(served.client.clone(), base, steps));
            }
            let mut models = BTreeMap::new();
            while let Some(model) = running.join_next().await {
                models.extend(model.unwrap());
            }
            models
        });
        served.assert_nothing_is_left("after all tasks");
        let store = served.server.snapshot();
        for (node, value) in models {
            prop_assert_eq!(store.read(&path(&node)), Some(&value[..]));
        }
    }
}
