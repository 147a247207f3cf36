//! Live updates: from the stock C daemon into ours, into itself, and back, with everybody connected all the time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use stock_xenstore::{Client, Kind, Packages, StartError, StockDaemon, run};

use super::{Foreground, GET_QUOTA, HEADER, READ, SOON, WRITE, connect};

const CONTROL: u32 = 0;
const WATCH: u32 = 4;
const TRANSACTION_START: u32 = 6;
const TRANSACTION_END: u32 = 7;
const DIRECTORY: u32 = 1;
const INTRODUCE: u32 = 8;
const MKDIR: u32 = 12;
const RM: u32 = 13;
const IS_DOMAIN_INTRODUCED: u32 = 17;
const EVENT: u32 = 15;
const ERROR: u32 = 16;

/// An update of 20,000 nodes by a debug build on a machine with other work.
const UPDATE_LIMIT: Duration = Duration::from_mins(1);

fn stock(test: &str) -> Option<StockDaemon> {
    let packages = match Packages::of_workspace() {
        Ok(packages) => packages,
        Err(reason) => {
            println!("skipped: {test}: {reason}");
            return None;
        }
    };
    match StockDaemon::start(Kind::C, packages) {
        Err(StartError::Unavailable(reason)) => {
            println!("skipped: {test}: {reason}");
            None
        }
        started => Some(started.unwrap()),
    }
}

/// A client that says what it sends octet by octet.
struct Wire {
    stream: UnixStream,
    /// Events that came before a reply.
    events: Vec<Vec<u8>>,
}

impl Wire {
    fn to(socket: &Path) -> Self {
        Self { stream: connect(socket), events: Vec::new() }
    }

    fn send(&mut self, ty: u32, id: u32, tx: u32, payload: &[u8]) {
        self.stream.write_all(&message(ty, id, tx, payload)).unwrap();
    }

    fn receive(&mut self) -> (u32, u32, Vec<u8>) {
        let mut header = [0; HEADER];
        self.stream.read_exact(&mut header).unwrap();
        let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap());
        let mut payload = vec![0; usize::try_from(word(12)).unwrap()];
        self.stream.read_exact(&mut payload).unwrap();
        (word(0), word(4), payload)
    }

    /// The next reply; events before it are kept.
    fn reply(&mut self) -> (u32, u32, Vec<u8>) {
        loop {
            let (ty, id, payload) = self.receive();
            if ty != EVENT {
                return (ty, id, payload);
            }
            self.events.push(payload);
        }
    }

    fn ask(&mut self, ty: u32, tx: u32, payload: &[u8]) -> (u32, Vec<u8>) {
        self.send(ty, 77, tx, payload);
        let (ty, id, payload) = self.reply();
        assert_eq!(id, 77);
        (ty, payload)
    }

    fn event(&mut self) -> Vec<u8> {
        if !self.events.is_empty() {
            return self.events.remove(0);
        }
        let (ty, _, payload) = self.receive();
        assert_eq!(ty, EVENT);
        payload
    }
}

fn message(ty: u32, id: u32, tx: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap();
    let mut octets: Vec<u8> = [ty, id, tx, len].into_iter().flat_map(u32::to_ne_bytes).collect();
    octets.extend_from_slice(payload);
    octets
}

fn ours() -> PathBuf {
    env!("CARGO_BIN_EXE_xenstored").into()
}

/// Updates what serves the socket by the stock tool, which waits until the successor answers.
fn update(control: Command, program: &Path, options: &[&str]) {
    let mut control = control;
    control.arg("live-update").args(options).arg(program);
    let output = run(&mut control, "update live", UPDATE_LIMIT);
    assert!(output.is_ok(), "{output:?}");
}

/// All nodes with values and permissions, as the stock tool lists them.
fn listing(mut ls: Command) -> String {
    let output = ls.args(["-fp"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Which program serves.
fn program_of(pid: u32) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/exe")).unwrap()
}

const DIRECTORIES: usize = 200;
const NODES: usize = 20_000;
const WATCHES: usize = 300;
const WATCHERS: usize = 6;

/// 20,000 nodes with all kinds of values and permissions.
fn nodes() -> String {
    let mut text = String::new();
    for number in 0..NODES {
        let (directory, name) = (number % DIRECTORIES, number / DIRECTORIES);
        let value = match number % 4 {
            0 => String::new(),
            1 => format!("value {number}"),
            2 => "\\001\\377 not text".to_owned(),
            _ => "long ".repeat(20),
        };
        let perms = ["n0", "n0,r3", "b0", "n0,b5,w6"][number % 4];
        writeln!(text, "/nodes/d{directory}/n{name} = \"{value}\"   ({perms})").unwrap();
    }
    text
}

#[test]
fn stock_to_ours_to_ours_to_stock_with_everybody_connected_all_the_time() {
    const TEST: &str = "stock_to_ours_to_ours_to_stock_with_everybody_connected_all_the_time";
    let Some(stock) = stock(TEST) else { return };
    let stock_program = program_of(stock.pid());
    let socket = stock.socket().to_owned();
    let mut first = Wire::to(&socket);
    for domid in [3, 5, 6] {
        let domain = format!("{domid}\x001\x00{}\0", 100 + domid);
        assert_eq!(first.ask(INTRODUCE, 0, domain.as_bytes()).1, b"OK\0");
    }
    stock.fill(&nodes()).unwrap();

    // 300 watches on several connections, and the stock tool that watches.
    let mut watchers: Vec<Wire> = (0..WATCHERS).map(|_| Wire::to(&socket)).collect();
    for number in 0..WATCHES {
        let watcher = &mut watchers[number % WATCHERS];
        let watch = format!("/nodes/d{}\0token {number}\0", number % DIRECTORIES);
        assert_eq!(watcher.ask(WATCH, 0, watch.as_bytes()).0, WATCH);
        watcher.event();
    }
    let mut watching = stock.client(Client::Watch);
    let watching = watching.args(["/stream"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut watching = Watching::new(watching);
    watching.wait_for("/stream");

    // The stock daemon lets anybody watch what can never be a path.
    assert_eq!(first.ask(WATCH, 0, b"@a%n b\xff\0token\0").0, WATCH);
    first.event();

    // One with half a request sent, and one that reads no replies.
    let mut half = Wire::to(&socket);
    let request = message(READ, 5, 0, b"/nodes/d1/n0\0");
    let mut lazy = Wire::to(&socket);
    assert_eq!(lazy.ask(MKDIR, 0, b"/lazy\0").0, MKDIR);
    let before = listing(stock.client(Client::Ls));
    assert!(before.lines().count() > NODES);

    let routes: [(&Path, &[&str]); 4] = [
        (&ours(), &["-c", "-N"]),
        (&ours(), &[]),
        (&stock_program, &["-c", "-N -I"]),
        (&ours(), &["-c", "-N"]),
    ];
    for (round, (program, options)) in routes.into_iter().enumerate() {
        half.stream.write_all(&request[..10]).unwrap();
        for number in 0..400 {
            lazy.send(READ, number, 0, b"/nodes/d3/n0\0");
        }
        let over = AtomicBool::new(false);
        let written = thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut wire = Wire::to(&socket);
                let mut written = 0;
                // Some before, some while and some after.
                let mut after = 0;
                while after < 50 {
                    let node = format!("/stream/{round}-{written}\0");
                    assert_eq!(wire.ask(WRITE, 0, node.as_bytes()).1, b"OK\0");
                    written += 1;
                    after += usize::from(over.load(Ordering::Relaxed));
                }
                written
            });
            update(stock.client(Client::Control), program, options);
            over.store(true, Ordering::Relaxed);
            writer.join().unwrap()
        });
        assert_eq!(program_of(stock.pid()), fs::canonicalize(program).unwrap(), "round {round}");

        // Nothing was lost: every write was told, every reply given, every request taken.
        for number in 0..written {
            watching.wait_for(&format!("/stream/{round}-{number}"));
        }
        half.stream.write_all(&request[10..]).unwrap();
        let (ty, id, value) = half.reply();
        assert_eq!((ty, id, &value[..]), (READ, 5, &b"value 1"[..]), "round {round}");
        for number in 0..400 {
            let (ty, id, value) = lazy.reply();
            assert_eq!((ty, id, value.len()), (READ, number, 100), "round {round}");
        }
        // Every node is the same, and every watch tells of a change.
        let (_, names) = first.ask(DIRECTORY, 0, b"/nodes/d7\0");
        assert_eq!(names.split(|c| *c == 0).filter(|name| !name.is_empty()).count(), 100);
        assert_eq!(first.ask(RM, 0, b"/stream\0").0, RM);
        watching.wait_for("/stream");
        let now = listing(stock.client(Client::Ls));
        let differs = now.lines().zip(before.lines()).find(|(now, before)| now != before);
        assert_eq!(differs, None, "round {round}");
        assert_eq!(now.lines().count(), before.lines().count(), "round {round}");
        for domid in [3, 5, 6] {
            let known = first.ask(IS_DOMAIN_INTRODUCED, 0, format!("{domid}\0").as_bytes()).1;
            assert_eq!(known, b"T\0", "round {round}: domain {domid}");
        }
        for directory in 0..DIRECTORIES {
            let node = format!("/nodes/d{directory}/n0\0");
            let value = first.ask(READ, 0, node.as_bytes()).1;
            assert_eq!(first.ask(WRITE, 0, &[node.as_bytes(), &value].concat()).1, b"OK\0");
        }
        for (number, watcher) in watchers.iter_mut().enumerate() {
            let expected: BTreeSet<_> = (0..WATCHES)
                .filter(|watch| watch % WATCHERS == number)
                .map(|watch| format!("/nodes/d{}/n0\0token {watch}\0", watch % DIRECTORIES))
                .collect();
            let told: BTreeSet<_> =
                (0..expected.len()).map(|_| String::from_utf8(watcher.event()).unwrap()).collect();
            assert_eq!(told, expected, "round {round}");
        }
    }
}

/// A program that is no daemon of ours: it only says that it was executed.
fn impostor(daemon: &Foreground) -> (PathBuf, PathBuf) {
    let (program, trace) = (daemon.path("impostor"), daemon.path("trace"));
    fs::write(&program, format!("#!/bin/sh\necho \"$@\" > {}\nexec sleep 60\n", trace.display()))
        .unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    (program, trace)
}

#[test]
fn open_transactions_go_on_in_a_successor_of_ours() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = Foreground::start(directory.path(), &[]);
    let socket = daemon.path("socket");
    let mut other = Wire::to(&socket);
    for node in ["/a", "/b", "/c", "/gone"] {
        assert_eq!(other.ask(WRITE, 0, format!("{node}\0old").as_bytes()).0, WRITE);
    }
    let start = |wire: &mut Wire| -> u32 {
        let (ty, id) = wire.ask(TRANSACTION_START, 0, b"\0");
        assert_eq!(ty, TRANSACTION_START);
        str::from_utf8(id.strip_suffix(b"\0").unwrap()).unwrap().parse().unwrap()
    };
    // One that commits, one that is in conflict before the update, one after it, and one that only reads.
    let mut wire = Wire::to(&socket);
    let (good, before, after, reads) =
        (start(&mut wire), start(&mut wire), start(&mut wire), start(&mut wire));
    for (ty, tx, payload) in [
        (READ, good, &b"/a\0"[..]),
        (WRITE, good, b"/a\0new"),
        (WRITE, good, b"/new/below\0made"),
        (14, good, b"/new/below\0b7\0"),
        (RM, good, b"/gone\0"),
        (READ, before, b"/b\0"),
        (WRITE, before, b"/x\0never"),
        (READ, after, b"/c\0"),
        (WRITE, after, b"/x\0never"),
        (READ, reads, b"/a\0"),
    ] {
        assert_ne!(wire.ask(ty, tx, payload).0, ERROR, "{ty} in {tx}");
    }
    assert_eq!(other.ask(WRITE, 0, b"/b\0changed").0, WRITE);
    let answer = daemon.control(&["live-update", "-s"]);
    assert_eq!(answer, (CONTROL, b"OK\0".to_vec()));

    assert_eq!(other.ask(WRITE, 0, b"/c\0changed").0, WRITE);
    assert_eq!(wire.ask(READ, good, b"/a\0").1, b"new", "it sees what it has written");
    assert_eq!(other.ask(READ, 0, b"/a\0").1, b"old", "and nobody else does");
    assert_eq!(wire.ask(TRANSACTION_END, good, b"T\0").1, b"OK\0");
    assert_eq!(wire.ask(TRANSACTION_END, before, b"T\0").1, b"EAGAIN\0");
    assert_eq!(wire.ask(TRANSACTION_END, after, b"T\0").1, b"EAGAIN\0");
    assert_eq!(wire.ask(TRANSACTION_END, reads, b"T\0").1, b"OK\0");
    for (node, value) in
        [("/a", "new"), ("/new/below", "made"), ("/gone", "ENOENT\0"), ("/x", "ENOENT\0")]
    {
        let found = other.ask(READ, 0, format!("{node}\0").as_bytes()).1;
        assert_eq!(found, value.as_bytes(), "{node}");
    }
    assert_eq!(other.ask(3, 0, b"/new/below\0").1, b"b7\0");
    assert_ne!(start(&mut wire), reads, "numbers are not given again while they are in use");
}

#[test]
fn a_stock_successor_waits_for_transactions_and_none_is_started_meanwhile() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = Foreground::start(directory.path(), &[]);
    let socket = daemon.path("socket");
    let (program, trace) = impostor(&daemon);
    let program = program.to_str().unwrap();
    let mut wire = Wire::to(&socket);
    assert_eq!(wire.ask(TRANSACTION_START, 0, b"\0").1, b"1\0");

    // Not forced, and the time is up: refused, and told how many.
    assert_eq!(daemon.control(&["live-update", "-f", program]).1, b"OK\0");
    let refused = daemon.control(&["live-update", "-s", "-t", "0"]).1;
    assert!(refused.starts_with(b"1 transactions are open"), "{}", refused.escape_ascii());

    // While it waits, a transaction that somebody wants to start waits as well, and everything else goes on.
    assert_eq!(daemon.control(&["live-update", "-f", program]).1, b"OK\0");
    let mut waiting = Wire::to(&socket);
    waiting.send(CONTROL, 9, 0, b"live-update\0-s\0-t\x0060\0");
    let mut held = Wire::to(&socket);
    // The daemon takes what one client sends in order, and clients in turn.
    while daemon.control(&["live-update", "-a"]).1 != b"EBUSY\0" {}
    held.send(TRANSACTION_START, 3, 0, b"\0");
    assert_eq!(wire.ask(WRITE, 0, b"/goes/on\0").0, WRITE);
    assert_eq!(wire.ask(WRITE, 1, b"/in/it\0").0, WRITE);
    assert!(!trace.exists());
    assert_eq!(wire.ask(TRANSACTION_END, 1, b"T\0").1, b"OK\0");
    let deadline = Instant::now() + SOON;
    while !fs::read_to_string(&trace).is_ok_and(|said| said == "-U\n") {
        assert!(Instant::now() < deadline, "the successor is not executed");
    }
    // The state has the client that waits with its request, for whoever comes.
    let state = fs::read(daemon.path("state_dump")).unwrap();
    let request = message(TRANSACTION_START, 3, 0, b"\0");
    assert!(state.windows(request.len()).any(|window| window == request));
    assert_eq!(
        fs::metadata(daemon.path("state_dump")).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[test]
fn an_update_that_cannot_be_made_leaves_everything_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = Foreground::start(directory.path(), &[]);
    let mut wire = Wire::to(&daemon.path("socket"));
    assert_eq!(wire.ask(WATCH, 0, b"/a\0token\0").0, WATCH);
    wire.event();
    let missing = daemon.control(&["live-update", "-f", "/no/such/file"]).1;
    assert!(missing.starts_with(b"/no/such/file is not there"), "{}", missing.escape_ascii());
    for wrong in
        [&["live-update"][..], &["live-update", "-x"], &["live-update", "-s", "-t", "soon"]]
    {
        assert_eq!(daemon.control(wrong), (ERROR, b"EINVAL\0".to_vec()), "{wrong:?}");
    }
    // A file that cannot be executed, and nodes that the stock daemon would not start with.
    let text = daemon.path("text");
    fs::write(&text, "no program").unwrap();
    assert_eq!(daemon.control(&["live-update", "-f", text.to_str().unwrap()]).1, b"OK\0");
    let refused = daemon.control(&["live-update", "-s"]).1;
    assert!(refused.starts_with(b"cannot execute "), "{}", refused.escape_ascii());
    let (program, trace) = impostor(&daemon);
    assert_eq!(wire.ask(WRITE, 0, b"/b\0").0, WRITE);
    assert_eq!(wire.ask(14, 0, b"/b\0n9\0").0, 14);
    assert_eq!(daemon.control(&["live-update", "-f", program.to_str().unwrap()]).1, b"OK\0");
    let refused = daemon.control(&["live-update", "-s"]).1;
    assert!(refused.starts_with(b"/b is owned by domain 9"), "{}", refused.escape_ascii());
    assert!(!trace.exists());

    assert!(!daemon.path("state_dump").exists());
    assert_eq!(wire.ask(TRANSACTION_START, 0, b"\0").0, TRANSACTION_START);
    assert_eq!(wire.ask(WRITE, 0, b"/a\0").0, WRITE);
    assert_eq!(wire.event(), b"/a\0token\0");
    // And the next one is made.
    assert_eq!(daemon.control(&["live-update", "-s"]).1, b"OK\0");
    assert_eq!(wire.ask(WRITE, 0, b"/a\0").0, WRITE);
    assert_eq!(wire.event(), b"/a\0token\0");
    let output = daemon.stop(Signal::TERM);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn depths_features_quotas_and_permissions_of_special_names_are_the_successors_too() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = Foreground::start(directory.path(), &["-E", "123"]);
    let mut wire = Wire::to(&daemon.path("socket"));
    assert_eq!(wire.ask(WATCH, 0, b"/deep\0token\x001\0").0, WATCH);
    assert_eq!(wire.ask(WATCH, 0, b"relative/path\0token\0").0, WATCH);
    assert_eq!(wire.ask(WATCH, 0, b"@releaseDomain\0token\x001\0").0, WATCH);
    for _ in 0..3 {
        wire.event();
    }
    assert_eq!(wire.ask(24, 0, b"8\x004\0").0, 24);
    for domid in ["7", "8"] {
        assert_eq!(wire.ask(INTRODUCE, 0, format!("{domid}\x001\x005\0").as_bytes()).0, INTRODUCE);
    }
    assert_eq!(wire.ask(26, 0, b"7\0nodes\x0055\0").0, 26);
    assert_eq!(wire.ask(19, 0, b"7\x008\0").0, 19);
    assert_eq!(wire.ask(14, 0, b"@releaseDomain\0n0\0r7\0").0, 14);
    for _ in 0..2 {
        assert_eq!(daemon.control(&["live-update", "-s"]).1, b"OK\0");
        assert_eq!(wire.ask(WRITE, 0, b"/deep/1/2\0").0, WRITE);
        assert_eq!(wire.ask(WRITE, 0, b"/deep/1\0").0, WRITE);
        assert_eq!(wire.event(), b"/deep/1\0token\0", "the depth holds");
        assert_eq!(wire.ask(WRITE, 0, b"relative/path/x\0").0, WRITE);
        assert_eq!(wire.event(), b"relative/path/x\0token\0");
        assert_eq!(wire.ask(23, 0, b"8\0").1, b"4\0", "features");
        assert_eq!(wire.ask(GET_QUOTA, 0, b"7\0nodes\0").1, b"55\0");
        assert_eq!(wire.ask(GET_QUOTA, 0, b"nodes\0").1, b"123\0");
        assert_eq!(wire.ask(3, 0, b"@releaseDomain\0").1, b"n0\0r7\0");
    }
    assert_eq!(wire.ask(9, 0, b"8\0").0, 9);
    assert_eq!(wire.event(), b"@releaseDomain/8\0token\0");
}

#[test]
fn a_successor_keeps_the_database_up_and_systemd_is_told_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let notified = UnixDatagram::bind(directory.path().join("notify")).unwrap();
    notified.set_read_timeout(Some(SOON)).unwrap();
    let arguments = ["--database", "store", "--sync-interval", "3600000", "--pid-file", "pid"];
    let start = || {
        Foreground::start_with(directory.path(), &arguments, |command| {
            command.env("NOTIFY_SOCKET", directory.path().join("notify"));
        })
    };
    let daemon = start();
    let ready = || {
        let mut told = [0; 64];
        let len = notified.recv(&mut told).unwrap();
        assert_eq!(told[..len].trim_ascii(), b"READY=1");
    };
    ready();
    let mut wire = Wire::to(&daemon.path("socket"));
    // Not on the disk yet when the process becomes its successor.
    assert_eq!(wire.ask(WRITE, 0, b"/before\0kept").0, WRITE);
    assert_eq!(daemon.control(&["live-update", "-s"]).1, b"OK\0");
    ready();
    assert_eq!(fs::read_to_string(daemon.path("pid")).unwrap(), format!("{}\n", daemon.pid));
    assert_eq!(wire.ask(READ, 0, b"/before\0").1, b"kept");
    assert_eq!(wire.ask(WRITE, 0, b"/after\0kept").0, WRITE);
    let output = daemon.stop(Signal::TERM);
    assert!(output.status.success(), "{output:?}");
    let daemon = start();
    ready();
    let mut wire = Wire::to(&daemon.path("socket"));
    for node in ["/before", "/after"] {
        assert_eq!(wire.ask(READ, 0, format!("{node}\0").as_bytes()).1, b"kept");
    }
}

#[test]
fn what_goes_with_serving_is_no_reason_for_a_successor_to_end() {
    let directory = tempfile::tempdir().unwrap();
    let daemon =
        Foreground::start(directory.path(), &["--pid-file", "pid", "--metrics", "metrics"]);
    let mut control = Wire::to(&daemon.path("socket"));
    for file in ["pid", "metrics"] {
        fs::remove_file(daemon.path(file)).unwrap();
        fs::create_dir(daemon.path(file)).unwrap();
    }
    fs::remove_file(daemon.path("socket")).unwrap();
    for _ in 0..2 {
        assert_eq!(control.ask(CONTROL, 0, b"live-update\0-s\0").1, b"OK\0");
        assert_eq!(control.ask(WRITE, 0, b"/a\0").1, b"OK\0");
    }
    let output = daemon.stop(Signal::TERM);
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.contains("nobody can connect") && log.contains("served all the same"), "{log}");
}

/// `xenstore-watch`, and what it has printed.
struct Watching {
    child: Child,
    lines: std::sync::mpsc::Receiver<String>,
    told: BTreeMap<String, usize>,
}

impl Watching {
    fn new(mut child: Child) -> Self {
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = std::sync::mpsc::channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines, told: BTreeMap::new() }
    }

    /// Waits for an event of this node, which is then used up.
    fn wait_for(&mut self, path: &str) {
        let deadline = Instant::now() + SOON;
        loop {
            if let Some(count) = self.told.get_mut(path).filter(|count| **count > 0) {
                *count -= 1;
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            assert!(line.is_ok(), "no event of {path}");
            let line = line.unwrap();
            *self.told.entry(line).or_default() += 1;
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Foreground {
    fn control(&self, words: &[&str]) -> (u32, Vec<u8>) {
        let payload: String = words.iter().map(|word| format!("{word}\0")).collect();
        Wire::to(&self.path("socket")).ask(CONTROL, 0, payload.as_bytes())
    }
}
