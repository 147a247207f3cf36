//! A soak of the Xenstore daemon: clients of all kinds at once, who come and go, for as long as is asked. It passes if every
//! answer was the expected one and nothing grew.
//!
//! Growth is judged after a warm-up, the first fifth of the time: the daemon's resident memory, looked at each second, has
//! grown if its median over the last fifth is above the highest of the second fifth by more than a twentieth and a mebibyte.
//! Once the clients have gone, no connection, watch or transaction may be left, and no more nodes than they know of.

mod latency;
mod players;
mod store;

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Read;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use latency::Latencies;
use players::{Chance, Part, Player, Seen};
use store::Outcome;

use crate::measure::{per, resident};
use crate::xenstored::{Client, Ours};

/// What this program is called with for a soak, followed by seconds.
pub(crate) const NAME: &str = "soak";

const PARTS: [Part; 10] = [
    Part::Reader,
    Part::Reader,
    Part::Writer,
    Part::Writer,
    Part::Transactor,
    Part::Transactor,
    Part::Watcher,
    Part::Lister,
    Part::Maker,
    Part::Flooder,
];

const LOOK_EVERY: Duration = Duration::from_secs(1);
const TELL_EVERY: Duration = Duration::from_secs(60);
/// For the daemon to notice that the clients have gone.
const GONE_LIMIT: Duration = Duration::from_secs(10);

pub(crate) fn run(seconds: &str) -> Result<(), Box<dyn Error>> {
    let length = Duration::from_secs(seconds.parse()?);
    let daemon = Ours::start()?;
    let pid = daemon.pid().to_string();
    Client::connect(&daemon.socket)?.pipeline(&store::filled()?, 32)?;
    let start = resident(&pid)?;
    println!("{} clients for {length:?}; resident at the start: {} KiB", PARTS.len(), start >> 10);

    let mut faults = Vec::new();
    let (seen, memory) = play(&daemon, &pid, length, &mut faults)?;
    report(&seen);
    let counts = left_behind(&daemon.metrics, &mut faults)?;
    let nodes_max = store::nodes_max(PARTS.len());
    if counts.get("nodes").is_none_or(|nodes| *nodes > nodes_max) {
        faults.push(format!("{:?} nodes are left, more than {nodes_max}", counts.get("nodes")));
    }
    println!("resident at the end: {} KiB, at the start {}", resident(&pid)? >> 10, start >> 10);
    match growth(&memory) {
        Growth::None { before, after } => {
            println!("after the warm-up at most {} KiB, at last {} KiB", before >> 10, after >> 10);
        }
        Growth::Grown { before, after } => faults.push(format!(
            "memory has grown: after the warm-up at most {} KiB, at last {} KiB",
            before >> 10,
            after >> 10
        )),
        Growth::Unknown => faults.push("too short to say whether memory grows".to_owned()),
    }
    if faults.is_empty() {
        println!("no growth, no error");
        return Ok(());
    }
    Err(faults.join("; ").into())
}

/// Lets the clients work, and looks at the daemon's memory meanwhile. The first fault ends it.
fn play(
    daemon: &Ours,
    pid: &str,
    length: Duration,
    faults: &mut Vec<String>,
) -> Outcome<(Vec<Seen>, Vec<usize>)> {
    let stop = Arc::new(AtomicBool::new(false));
    let (failed, failures) = mpsc::channel();
    let mut threads = Vec::new();
    for (number, part) in PARTS.into_iter().enumerate() {
        let (stop, failed) = (Arc::clone(&stop), failed.clone());
        let (socket, chance) = (daemon.socket.clone(), Chance(number as u64));
        let player = Player { number, part, socket, stop, chance };
        threads.push(thread::spawn(move || match player.play() {
            Ok(seen) => seen,
            Err(error) => {
                // Nobody listens once it is over.
                let _ = failed.send(format!("{part:?} {number}: {error}"));
                Seen::default()
            }
        }));
    }
    let begun = Instant::now();
    let mut memory = Vec::new();
    let mut told = begun;
    while begun.elapsed() < length && faults.is_empty() {
        match failures.recv_timeout(LOOK_EVERY) {
            Ok(failure) => faults.push(failure),
            Err(RecvTimeoutError::Timeout) => memory.push(resident(pid)?),
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            let now = memory.last().copied().unwrap_or_default();
            println!("{:4} s: {} KiB resident", begun.elapsed().as_secs(), now >> 10);
        }
    }
    stop.store(true, Ordering::Relaxed);
    let seen = threads.into_iter().filter_map(|thread| thread.join().ok()).collect::<Vec<_>>();
    if seen.len() < PARTS.len() {
        faults.push("a client has panicked".to_owned());
    }
    faults.extend(failures.try_iter());
    Ok((seen, memory))
}

fn report(seen: &[Seen]) {
    let mut sums: BTreeMap<&str, Latencies> = BTreeMap::new();
    for (what, latencies) in seen.iter().flat_map(|seen| &seen.latencies) {
        sums.entry(what).or_insert_with(Latencies::new).add(latencies);
    }
    println!("{:<20} {:>12} {:>10} {:>10} {:>10}", "", "operations", "p50", "p99", "p99.9");
    for (what, latencies) in &sums {
        let [half, most, all] = [500, 990, 999].map(|share| latencies.per_mille(share));
        println!(
            "{what:<20} {:>12} {:>10} {:>10} {:>10}",
            latencies.total(),
            format!("{half:.0?}"),
            format!("{most:.0?}"),
            format!("{all:.0?}"),
        );
    }
    let sum = |of: fn(&Seen) -> u64| seen.iter().map(of).sum::<u64>();
    println!(
        "{} restarts of clients, {} transactions met a conflict",
        sum(|seen| seen.restarts),
        sum(|seen| seen.conflicts)
    );
}

/// What the daemon still holds once the clients have gone; it is asked until it has noticed that.
fn left_behind(metrics: &Path, faults: &mut Vec<String>) -> Outcome<BTreeMap<String, usize>> {
    let deadline = Instant::now() + GONE_LIMIT;
    loop {
        let counts = counts(metrics)?;
        let left: Vec<String> = ["connections", "watches", "transactions"]
            .into_iter()
            .filter(|name| counts.get(*name) != Some(&0))
            .map(|name| format!("{name} left: {:?}", counts.get(name)))
            .collect();
        if left.is_empty() {
            return Ok(counts);
        }
        if Instant::now() >= deadline {
            faults.extend(left);
            return Ok(counts);
        }
        thread::yield_now();
    }
}

/// The daemon's metrics without labels.
fn counts(metrics: &Path) -> Outcome<BTreeMap<String, usize>> {
    let mut stream = UnixStream::connect(metrics)?;
    stream.shutdown(Shutdown::Write)?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let count = |line: &str| {
        let (name, value) = line.strip_prefix("xenstored_")?.split_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    Ok(text.lines().filter_map(count).collect())
}

#[derive(Debug, PartialEq)]
enum Growth {
    None { before: usize, after: usize },
    Grown { before: usize, after: usize },
    Unknown,
}

/// Judges what was resident, in octets, looked at in equal intervals.
fn growth(memory: &[usize]) -> Growth {
    /// More than the allocator may keep by chance.
    const SLACK: usize = 1 << 20;
    let fifth = memory.len() / 5;
    let mut last = memory[memory.len() - fifth..].to_vec();
    last.sort_unstable();
    let before = memory[fifth..].iter().take(fifth).max();
    let (Some(&before), Some(&after)) = (before, last.get(fifth / 2)) else {
        return Growth::Unknown;
    };
    let grown = per(after, before) > 1.05 && after > before + SLACK;
    if grown { Growth::Grown { before, after } } else { Growth::None { before, after } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_still_grows_after_the_warm_up_has_grown() {
        const MIB: usize = 1 << 20;
        let steady: Vec<usize> = (0..100).map(|second| second.min(15) * MIB + 5 * MIB).collect();
        assert_eq!(growth(&steady), Growth::None { before: 20 * MIB, after: 20 * MIB });
        let growing: Vec<usize> = (0..100).map(|second| (second + 5) * MIB).collect();
        assert!(matches!(growth(&growing), Growth::Grown { .. }));
        assert_eq!(growth(&[MIB; 4]), Growth::Unknown);
    }
}
