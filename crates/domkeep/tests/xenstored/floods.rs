//! Clients that take what they can get: what that costs the others in time, and the daemon in memory.
//!
//! Times are printed (`--nocapture`) and not asserted; memory, and that everybody is served to the end, are.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use xsclient::{Request, RequestId, Token, TxId, limits};

use super::{Foreground, HEADER, READ, SOON, WRITE, ask};

const MEBIBYTE: u64 = 1 << 20;
const TRANSACTION_START: u32 = 6;
const WATCH: u32 = 4;
const ERROR: u32 = 16;

/// A daemon, its memory before, and somebody who reads and writes all the time.
struct Victim {
    daemon: Foreground,
    before: u64,
    _directory: tempfile::TempDir,
}

/// What it cost.
struct Cost {
    /// Of the others' requests, in the order of their length.
    waits: Vec<Duration>,
    /// At the most, above what the daemon had before.
    memory: u64,
}

impl Victim {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let daemon = Foreground::start(directory.path(), &[]);
        let mut client = daemon.connect();
        assert_eq!(ask(&mut client, WRITE, &[b"/big\0", &[b'x'; 4000][..]].concat()).0, WRITE);
        assert_eq!(ask(&mut client, WRITE, b"/other\0value").0, WRITE);
        let before = memory(&daemon, "VmRSS:");
        Self { daemon, before, _directory: directory }
    }

    /// Floods, while somebody else works. What the flood gives lives until that one was served to the end.
    fn under<T>(&self, flood: impl FnOnce(&Foreground) -> T) -> Cost {
        let over = AtomicBool::new(false);
        let mut waits = thread::scope(|scope| {
            let other = scope.spawn(|| {
                let mut client = self.daemon.connect();
                let mut waits = Vec::new();
                // As many after the flood as make a measure.
                while !over.load(Ordering::Relaxed) || waits.len() < 200 {
                    let start = Instant::now();
                    assert_eq!(ask(&mut client, WRITE, b"/other\0value").1, b"OK\0");
                    waits.push(start.elapsed());
                    let start = Instant::now();
                    assert_eq!(ask(&mut client, READ, b"/other\0").1, b"value");
                    waits.push(start.elapsed());
                }
                waits
            });
            let held = flood(&self.daemon);
            over.store(true, Ordering::Relaxed);
            let waits = other.join().unwrap();
            drop(held);
            waits
        });
        waits.sort_unstable();
        let memory = memory(&self.daemon, "VmHWM:").saturating_sub(self.before);
        Cost { waits, memory }
    }
}

impl Cost {
    fn print(&self, flood: &str) {
        let at = |part: usize| self.waits[(self.waits.len() - 1) * part / 1000];
        println!(
            "{flood}: {} requests of others waited {:?} in the median, {:?} at the 99th of 100, {:?} at most; {} KiB more memory",
            self.waits.len(),
            at(500),
            at(990),
            at(1000),
            self.memory / 1024,
        );
    }
}

/// Of the daemon's process, in octets.
fn memory(daemon: &Foreground, line: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid)).unwrap();
    let found = status.lines().find_map(|it| it.strip_prefix(line)).unwrap();
    let kibibytes: u64 = found.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    kibibytes * 1024
}

fn wire(request: &Request) -> Vec<u8> {
    let mut octets = Vec::new();
    request.encode(RequestId(1), TxId::NONE, limits::PAYLOAD_MAX, &mut octets).unwrap();
    octets
}

/// The type of the next message; its payload is passed over.
fn next_type(stream: &mut UnixStream) -> u32 {
    let mut header = [0; HEADER];
    stream.read_exact(&mut header).unwrap();
    let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap());
    let mut payload = vec![0; usize::try_from(word(12)).unwrap()];
    stream.read_exact(&mut payload).unwrap();
    word(0)
}

/// Sends as much as is taken, and reads as much of the answers.
fn pump(stream: &mut UnixStream, octets: &[u8], until: Instant) {
    stream.set_nonblocking(true).unwrap();
    let (mut at, mut answers) = (0, vec![0; 1 << 20]);
    while Instant::now() < until {
        match stream.write(&octets[at..]) {
            Ok(len) => at = (at + len) % octets.len(),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        match stream.read(&mut answers) {
            Ok(len) => assert_ne!(len, 0, "the daemon closed the connection"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
}

#[test]
fn one_that_floods_with_requests_delays_the_others_little() {
    let victim = Victim::start();
    let batch = wire(&Request::Read("/big".parse().unwrap())).repeat(500);
    let cost = victim.under(|daemon| {
        pump(&mut daemon.connect(), &batch, Instant::now() + Duration::from_secs(2));
    });
    cost.print("a flood of requests");
    assert!(cost.memory < 16 * MEBIBYTE, "{}", cost.memory);
}

#[test]
fn a_hundred_that_read_nothing_cost_what_they_may_have_unread() {
    const CLIENTS: u64 = 100;
    let victim = Victim::start();
    let batch = wire(&Request::Read("/big".parse().unwrap())).repeat(1000);
    let cost = victim.under(|daemon| {
        let mut silent: Vec<_> = (0..CLIENTS).map(|_| daemon.connect()).collect();
        for stream in &mut silent {
            stream.set_nonblocking(true).unwrap();
            let (mut refused, mut at) = (0, 0);
            while refused < 5 {
                match stream.write(&batch[at..]) {
                    Ok(len) => (refused, at) = (0, (at + len) % batch.len()),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::WouldBlock);
                        refused += 1;
                        thread::sleep(Duration::from_millis(1));
                    }
                }
            }
        }
        silent
    });
    cost.print("a hundred clients that read nothing");
    // Twice the mark above which requests wait, for messages and for octets on their way.
    assert!(cost.memory < CLIENTS * MEBIBYTE, "{}", cost.memory);
}

/// Each keeps the store as it was at its start.
#[test]
fn thousands_of_open_transactions_are_refused_beyond_their_number() {
    const ASKED: usize = 10_000;
    let victim = Victim::start();
    let mut opened = 0;
    let cost = victim.under(|daemon| {
        let mut client = daemon.connect();
        let start = wire(&Request::TransactionStart);
        for _ in 0..ASKED / 100 {
            client.write_all(&start.repeat(100)).unwrap();
            opened += (0..100).filter(|_| next_type(&mut client) == TRANSACTION_START).count();
        }
        client
    });
    cost.print("ten thousand transactions of one client");
    assert_eq!(opened, xenstored::limits::TRANSACTIONS_MAX_PRIVILEGED);
    assert!(cost.memory < 64 * MEBIBYTE, "{}", cost.memory);
}

#[test]
fn a_million_watches_cost_their_memory_and_no_time_and_more_are_refused() {
    const WATCHES: u32 = 1_001_000;
    const BATCH: u32 = 100;
    let victim = Victim::start();
    let mut refused = 0;
    let cost = victim.under(|daemon| {
        let mut client = daemon.connect();
        for first in (0..WATCHES).step_by(usize::try_from(BATCH).unwrap()) {
            let mut octets = Vec::new();
            for number in first..first + BATCH {
                let path = format!("/w/{}/{number}", number % 1000).parse::<xsclient::Path>();
                let token = Token::from_octets(*b"t").unwrap();
                let watch = Request::Watch { path: path.unwrap().into(), token, depth: None };
                octets.extend(wire(&watch));
            }
            client.write_all(&octets).unwrap();
            for _ in 0..BATCH {
                // Whoever gets a watch gets its first event.
                match next_type(&mut client) {
                    ERROR => refused += 1,
                    _ => drop(next_type(&mut client)),
                }
            }
        }
        client
    });
    cost.print("a million watches of one client");
    assert_eq!(refused, 1000);
    assert!(cost.memory < u64::from(WATCHES) * 512, "{}", cost.memory);
}

#[test]
fn a_thousand_that_send_half_a_message_hold_nobody_up() {
    const CLIENTS: u64 = 1000;
    let victim = Victim::start();
    let write = Request::Write { path: "/half".parse().unwrap(), value: vec![b'x'; 4000] };
    let message = wire(&write);
    let cost = victim.under(|daemon| {
        let halves: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let mut stream = daemon.connect();
                stream.write_all(&message[..message.len() - 1]).unwrap();
                stream
            })
            .collect();
        halves
    });
    cost.print("a thousand clients with half a message");
    assert!(cost.memory < CLIENTS * 32 * 1024, "{}", cost.memory);
}

#[test]
fn one_after_the_other_with_an_oversized_message_is_thrown_out() {
    const CLIENTS: usize = 2000;
    let victim = Victim::start();
    let mut message = wire(&Request::TransactionStart);
    message[12..16].copy_from_slice(&u32::MAX.to_ne_bytes());
    let cost = victim.under(|daemon| {
        for _ in 0..CLIENTS {
            let mut stream = daemon.connect();
            stream.set_read_timeout(Some(SOON)).unwrap();
            stream.write_all(&message).unwrap();
            match stream.read(&mut [0]) {
                Ok(read) => assert_eq!(read, 0),
                Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
            }
        }
    });
    cost.print("two thousand clients with an oversized message");
    assert!(cost.memory < 16 * MEBIBYTE, "{}", cost.memory);
    assert!(victim.daemon.stop(Signal::TERM).status.success());
}

/// What one has been given is not kept for the next.
#[test]
fn what_a_flood_took_is_given_back_when_it_ends() {
    let victim = Victim::start();
    let mut after = Vec::new();
    for _ in 0..4 {
        victim.under(|daemon| {
            let mut client = daemon.connect();
            for number in 0..20_000 {
                let path: xsclient::Path = format!("/w/{number}").parse().unwrap();
                let token = Token::from_octets(*b"t").unwrap();
                let watch = Request::Watch { path: path.into(), token, depth: None };
                client.write_all(&wire(&watch)).unwrap();
                assert_eq!(next_type(&mut client), WATCH);
                next_type(&mut client);
            }
            client
        });
        after.push(memory(&victim.daemon, "VmRSS:"));
    }
    println!("memory after each of four floods: {after:?}");
    assert!(after[3] < after[0] + 4 * MEBIBYTE, "{after:?}");
}
