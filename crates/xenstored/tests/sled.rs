//! The store in a database, and servers that are killed while they write to it.
#![cfg(feature = "sled")]
#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in what it is built of as well"
)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path as FsPath;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use xenstore_proto::{DomId, Path, Perms, Reply, Request};
use xenstored::{Embedded, Server, SledBackend, Store, SyncMode};

/// How many servers are killed if nothing else is said. `cargo xtask kills` does 200.
const KILLS: u64 = 100;

/// Says how many servers are to be killed.
const KILLS_VARIABLE: &str = "DOMKEEP_KILLS";

/// The directory of a server that is to be killed, the number of its first commit, and how it syncs.
const DIRECTORY: &str = "DOMKEEP_TEST_DIRECTORY";
const FIRST: &str = "DOMKEEP_TEST_FIRST";
const INTERVAL: &str = "DOMKEEP_TEST_INTERVAL";

fn path(text: &str) -> Path {
    text.parse().unwrap()
}

/// Opens what nobody has open any more. Another test that starts a process at this moment gives that the database's lock
/// until it has become another program.
fn open(directory: &FsPath, mode: SyncMode) -> Embedded {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match SledBackend::open(directory, mode) {
            Ok(backend) => return Server::open(backend, Store::new()).unwrap().into(),
            Err(error) => assert!(Instant::now() < deadline, "{error:?}"),
        }
        std::thread::yield_now();
    }
}

/// A number that depends on another, and on nothing else.
fn mixed(n: u64) -> u64 {
    let n = (n ^ (n >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (n ^ (n >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ (n >> 32)
}

/// Commit number `n`: exactly one change of the store, the same in every process.
fn commit(xenstore: &Embedded, n: u64) {
    let random = |salt: u64, below: u64| mixed(n * 64 + salt) % below;
    let at = |salt| path(&format!("/d{}/n{}/leaf", random(salt, 6), random(salt + 1, 40)));
    let count = Request::Write { path: path("/count"), value: n.to_string().into() };
    match random(0, 8) {
        0..3 => {
            let value = n.to_string().repeat(1 + usize::try_from(random(1, 200)).unwrap());
            let write = Request::Write { path: at(2), value: value.into() };
            assert_eq!(xenstore.apply(write), Reply::Ok);
        }
        3 => assert_eq!(xenstore.apply(count), Reply::Ok),
        4 => {
            // A domain with nodes of its own, and one in another's permissions.
            let (domid, own) = (DomId::new(7), path("/own"));
            let introduce = Request::Introduce { domid, gfn: 1, event_channel: 1 };
            assert_eq!(xenstore.apply(introduce), Reply::Ok);
            if xenstore.snapshot().exists(&own) {
                assert_eq!(xenstore.apply(Request::Release(domid)), Reply::Ok);
            } else {
                let transaction = xenstore.transaction(DomId::DOM0).unwrap();
                for i in 0..20 {
                    let path = path(&format!("/own/{i}"));
                    transaction.ask(Request::Write { path, value: n.to_string().into() });
                }
                let perms: Perms = "n7".parse().unwrap();
                transaction.ask(Request::SetPerms { path: own.into(), perms });
                let perms: Perms = "n0,r7".parse().unwrap();
                transaction.ask(Request::SetPerms { path: path("/").into(), perms });
                transaction.commit().unwrap();
            }
        }
        _ => {
            let transaction = xenstore.transaction(DomId::DOM0).unwrap();
            for i in 0..random(3, 12) {
                let salt = 4 + 3 * i;
                let value = n.to_string().repeat(1 + usize::try_from(random(salt, 500)).unwrap());
                let request = match random(salt + 1, 6) {
                    0 => Request::Rm(at(salt).parent().unwrap()),
                    1 => Request::Rm(path(&format!("/d{}", random(salt, 6)))),
                    2 => Request::Mkdir(at(salt)),
                    _ => Request::Write { path: at(salt), value: value.into() },
                };
                transaction.ask(request);
            }
            assert_eq!(transaction.ask(count), Reply::Ok);
            transaction.commit().unwrap();
        }
    }
}

/// Not a test of its own: what the others run again as a process that they kill.
#[test]
fn a_server_to_be_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let first: u64 = std::env::var(FIRST).unwrap().parse().unwrap();
    let mode = match std::env::var(INTERVAL) {
        Ok(interval) => SyncMode::Interval(Duration::from_millis(interval.parse().unwrap())),
        Err(_) => SyncMode::Always,
    };
    let xenstore = open(FsPath::new(&directory), mode);
    tell("ready");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    for n in first.. {
        commit(&xenstore, n);
        tell(&n.to_string());
    }
}

fn tell(what: &str) {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "@{what}").and_then(|()| stdout.flush()).unwrap();
}

struct Victim {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Victim {
    fn start(directory: &FsPath, first: u64, interval: Option<u64>) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_server_to_be_killed", "--nocapture", "--test-threads=1"])
            .env(DIRECTORY, directory)
            .env(FIRST, first.to_string())
            .envs(interval.map(|interval| (INTERVAL, interval.to_string())))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdin, stdout }
    }

    /// What it tells next; `None` once it is dead.
    fn hear(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.stdout.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            // The test runner's own output is around it; what was cut off by the kill does not count.
            if let Some((_, told)) = line.strip_suffix('\n').and_then(|line| line.split_once('@')) {
                return Some(told.to_owned());
            }
        }
    }

    /// Lets it write for a while, kills it, and gives the last commit that it has acknowledged.
    fn kill_after(mut self, while_writing: Duration) -> Option<u64> {
        assert_eq!(self.hear().as_deref(), Some("ready"));
        writeln!(self.stdin).unwrap();
        std::thread::sleep(while_writing);
        self.child.kill().unwrap();
        let mut last = None;
        while let Some(told) = self.hear() {
            last = Some(told.parse().unwrap());
        }
        self.child.wait().unwrap();
        last
    }
}

fn kills() -> u64 {
    std::env::var(KILLS_VARIABLE).ok().map_or(KILLS, |kills| kills.parse().unwrap())
}

/// Random, within a range that a server's whole cycle of writing and syncing fits into some times; from the very start.
fn moment(kill: u64) -> Duration {
    Duration::from_micros(mixed(kill) % 60_000)
}

#[test]
fn a_server_killed_at_any_moment_is_found_in_the_last_state_that_it_acknowledged_or_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let model = Embedded::default();
    let mut acknowledged = 0;
    let (mut as_told, mut one_more) = (0, 0);
    for kill in 0..kills() {
        let victim = Victim::start(directory.path(), acknowledged + 1, None);
        let last = victim.kill_after(moment(kill)).unwrap_or(acknowledged);
        while acknowledged < last {
            acknowledged += 1;
            commit(&model, acknowledged);
        }
        let found = open(directory.path(), SyncMode::Always).snapshot();
        if found == model.snapshot() {
            as_told += 1;
            continue;
        }
        // What was in the making when it died may be there as well, whole.
        acknowledged += 1;
        commit(&model, acknowledged);
        assert!(found == model.snapshot(), "kill {kill}: neither commit {last} nor {acknowledged}");
        one_more += 1;
    }
    println!("{acknowledged} commits, {as_told} as acknowledged, {one_more} with one more");
    assert!(acknowledged > kills(), "the servers hardly wrote: {acknowledged}");
}

#[test]
fn a_server_that_syncs_at_intervals_is_found_in_some_committed_state() {
    let directory = tempfile::tempdir().unwrap();
    let model = Embedded::default();
    let mut known = 0;
    for kill in 0..kills().div_ceil(8) {
        let victim = Victim::start(directory.path(), known + 1, Some(5));
        let last = victim.kill_after(moment(kill)).unwrap_or(known);
        let found = open(directory.path(), SyncMode::Always).snapshot();
        // Any state from the last one that was found, to the one in the making.
        while found != model.snapshot() {
            known += 1;
            assert!(known <= last + 1, "kill {kill}: none of the commits to {last} and the next");
            commit(&model, known);
        }
    }
    assert!(known > 0, "nothing was ever kept");
}

#[test]
fn what_is_kept_is_found_again_and_one_process_owns_it() {
    let directory = tempfile::tempdir().unwrap();
    for mode in [SyncMode::Always, SyncMode::Interval(Duration::from_secs(3600))] {
        let place = directory.path().join(format!("{mode:?}").len().to_string());
        let xenstore = open(&place, mode);
        for n in 1..60 {
            commit(&xenstore, n);
        }
        let before = xenstore.snapshot();
        assert!(SledBackend::open(&place, mode).is_err(), "somebody has it");
        drop(xenstore);
        assert_eq!(open(&place, mode).snapshot(), before);
    }
}

#[test]
fn a_big_store_is_kept_in_one_file() {
    let directory = tempfile::tempdir().unwrap();
    let xenstore = open(directory.path(), SyncMode::Always);
    let transaction = xenstore.transaction(DomId::DOM0).unwrap();
    for i in 0..300 {
        // As long as a node can get: path, value and permissions.
        let name = "p".repeat(3000);
        let at = path(&format!("/{i}{name}"));
        let write = Request::Write { path: at.clone(), value: vec![b'v'; 1000] };
        assert_eq!(transaction.ask(write), Reply::Ok);
        let perms: Perms = format!("n0{}", ",r65535".repeat(500)).parse().unwrap();
        assert_eq!(transaction.ask(Request::SetPerms { path: at.into(), perms }), Reply::Ok);
    }
    transaction.commit().unwrap();
    let before = xenstore.snapshot();
    drop(xenstore);
    let blobs = directory.path().join("sled").join("blobs");
    let others = blobs.read_dir().map_or(0, Iterator::count);
    assert_eq!(others, 0, "files that nobody syncs");
    assert_eq!(open(directory.path(), SyncMode::Always).snapshot(), before);
}

#[test]
fn a_damaged_database_is_not_taken_for_an_older_store() {
    let directory = tempfile::tempdir().unwrap();
    let xenstore = open(directory.path(), SyncMode::Always);
    for n in 1..120 {
        commit(&xenstore, n);
    }
    let last = xenstore.snapshot();
    drop(xenstore);
    let file = directory.path().join("sled").join("db");
    let whole = std::fs::read(&file).unwrap();
    let used = whole.iter().rposition(|&octet| octet != 0).unwrap();
    let (mut refused, mut found) = (0, 0);
    for place in 0..24 {
        // The first is changed nowhere.
        let at = usize::try_from(mixed(place)).unwrap_or(usize::MAX) % used;
        let copy = tempfile::tempdir().unwrap();
        let sled = copy.path().join("sled");
        std::fs::create_dir(&sled).unwrap();
        std::fs::copy(directory.path().join("changes"), copy.path().join("changes")).unwrap();
        std::fs::copy(directory.path().join("sled").join("conf"), sled.join("conf")).unwrap();
        let mut damaged = whole.clone();
        damaged[at] ^= if place == 0 { 0 } else { 0x40 };
        std::fs::write(sled.join("db"), damaged).unwrap();
        let opened = SledBackend::open(copy.path(), SyncMode::Always)
            .and_then(|backend| Server::open(backend, Store::new()));
        match opened {
            Ok(server) => {
                assert!(*server.store() == last, "another store with octet {at} of {used} changed");
                found += 1;
            }
            Err(error) => {
                assert!(place > 0, "{error:?}");
                refused += 1;
            }
        }
    }
    println!("{refused} refused, {found} found whole");
    assert!(refused > 0, "no place mattered");
}
