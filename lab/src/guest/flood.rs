//! More requests, watches and transactions than a guest has any use for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use xsclient::{Client, Endpoint, Nodes, Options, Path, Watch};

use super::{Answer, XENBUS};

/// Below the guest's home, what a flood writes.
const DIRECTORY: &str = "data/flood";
/// Nodes that one thread of a flood writes in turns: below the quota, so that the flood does not end there.
const NODES: u64 = 100;
/// For one request: a server under a flood is slow, and one that is gone does not answer at all.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was begun and is not let go.
#[derive(Default)]
pub(super) struct Floods {
    counters: Arc<Counters>,
    stop: Arc<AtomicBool>,
    /// With their clients, whose end would take them along.
    watches: Vec<(Client, Vec<Watch>)>,
    transactions: Vec<Client>,
}

#[derive(Default)]
struct Counters {
    done: AtomicU64,
    refused: AtomicU64,
}

impl Floods {
    /// Starts so many threads that write, read, list and remove values of so many octets without a pause.
    pub(super) fn start(&mut self, threads: u64, octets: u64) -> Answer {
        let value = vec![b'x'; usize::try_from(octets)?];
        self.counters = Arc::default();
        self.stop = Arc::default();
        for number in 0..threads {
            let client = open()?;
            let (counters, stop) = (Arc::clone(&self.counters), Arc::clone(&self.stop));
            let value = value.clone();
            let flood = move || flood(client, number, &value, &counters, &stop);
            thread::Builder::new().spawn(flood)?;
        }
        Ok(String::new())
    }

    /// Ends them, and tells how many requests were carried out and how many refused. A thread whose request is never
    /// answered is not waited for.
    pub(super) fn stop(&mut self) -> String {
        self.stop.store(true, Ordering::SeqCst);
        let count = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        format!("{} {}", count(&self.counters.done), count(&self.counters.refused))
    }

    /// Sets so many watches or as many as it gets, keeps them, and tells how many and why there are not more.
    pub(super) fn watches(&mut self, count: u64) -> Answer {
        let mut client = open()?;
        let path: Path = "data".parse()?;
        let mut watches = Vec::new();
        let refused = (0..count).find_map(|_| match client.watch(path.clone(), None) {
            Ok(watch) => {
                watches.push(watch);
                None
            }
            Err(error) => Some(error),
        });
        let answer = told(watches.len(), refused);
        self.watches.push((client, watches));
        Ok(answer)
    }

    /// As [`Floods::watches`], with transactions.
    pub(super) fn transactions(&mut self, count: u64) -> Answer {
        let mut client = open()?;
        let mut opened = 0;
        let mut refused = None;
        for _ in 0..count {
            match client.transaction() {
                // Left open.
                Ok(transaction) => {
                    transaction.detach();
                    opened += 1;
                }
                Err(error) => {
                    refused = Some(error);
                    break;
                }
            }
        }
        self.transactions.push(client);
        Ok(told(opened, refused))
    }
}

fn told(count: usize, refused: Option<xsclient::OperationError>) -> String {
    refused.map_or_else(|| count.to_string(), |error| format!("{count}, then {error}"))
}

fn open() -> Result<Client, xsclient::OpenError> {
    Client::open(Endpoint::Xenbus(XENBUS.into()), Options::with_timeout(PATIENCE))
}

fn flood(mut client: Client, thread: u64, value: &[u8], counters: &Counters, stop: &AtomicBool) {
    let directory: Result<Path, _> = DIRECTORY.parse();
    let Ok(directory) = directory else { return };
    for number in 0_u64.. {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let name = format!("{thread}-{}", number % NODES);
        let Ok(node) = directory.join(&name) else { return };
        let outcome = match number % 8 {
            0..5 => client.write(&node, value).map(drop),
            5 => client.read(&node).map(drop),
            6 => client.directory(&directory).map(drop),
            _ => client.rm(&node).map(drop),
        };
        let counter = if outcome.is_ok() { &counters.done } else { &counters.refused };
        counter.fetch_add(1, Ordering::SeqCst);
    }
}
