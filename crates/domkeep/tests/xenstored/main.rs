//! The daemon `xenstored`: its options, its environment, and its end.
#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in what it is built of as well"
)]

mod floods;
mod live_update;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

const SOON: Duration = Duration::from_secs(20);

/// Header of a message: four words in the machine's order.
const HEADER: usize = 16;
const READ: u32 = 2;
const WRITE: u32 = 11;
const GET_QUOTA: u32 = 25;

fn daemon(run_directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xenstored"));
    command.env_remove("XENSTORED_PATH").env_remove("XENSTORED_TRACE");
    command.env("XENSTORED_RUNDIR", run_directory).stdin(Stdio::null());
    command
}

/// A daemon in the foreground that prints its process id once it serves.
struct Foreground {
    /// Until it is stopped.
    child: Option<Child>,
    pid: Pid,
    directory: PathBuf,
}

impl Drop for Foreground {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Foreground {
    fn start(directory: &Path, arguments: &[&str]) -> Self {
        Self::start_with(directory, arguments, |_| {})
    }

    fn start_with(directory: &Path, arguments: &[&str], set: impl FnOnce(&mut Command)) -> Self {
        let mut command = daemon(directory);
        set(&mut command);
        command.args(["--no-fork", "--output-pid"]).args(arguments).current_dir(directory);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let output = child.stdout.as_mut().unwrap();
        BufReader::new(output).read_line(&mut line).unwrap();
        assert_eq!(line, format!("{}\n", child.id()));
        let pid = Pid::from_child(&child);
        Self { child: Some(child), pid, directory: directory.to_owned() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn connect(&self) -> UnixStream {
        connect(&self.path("socket"))
    }

    /// Ends it, and gives what it logged.
    fn stop(mut self, signal: Signal) -> Output {
        kill_process(self.pid, signal).unwrap();
        self.child.take().unwrap().wait_with_output().unwrap()
    }
}

fn connect(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

fn ask(stream: &mut UnixStream, ty: u32, payload: &[u8]) -> (u32, Vec<u8>) {
    let len = u32::try_from(payload.len()).unwrap();
    let mut message: Vec<u8> = [ty, 1, 0, len].into_iter().flat_map(u32::to_ne_bytes).collect();
    message.extend_from_slice(payload);
    stream.write_all(&message).unwrap();
    let mut header = [0; HEADER];
    stream.read_exact(&mut header).unwrap();
    let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap());
    let mut reply = vec![0; usize::try_from(word(12)).unwrap()];
    stream.read_exact(&mut reply).unwrap();
    (word(0), reply)
}

#[test]
fn it_serves_until_it_is_told_to_stop_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = Foreground::start(directory.path(), &["--pid-file", "xenstored.pid", "-V"]);
    let pid = fs::read_to_string(daemon.path("xenstored.pid")).unwrap();
    assert_eq!(pid, format!("{}\n", daemon.pid));
    let mut client = daemon.connect();
    assert_eq!(ask(&mut client, WRITE, b"/a\0value"), (WRITE, b"OK\0".to_vec()));
    assert_eq!(ask(&mut daemon.connect(), READ, b"/a\0"), (READ, b"value".to_vec()));
    let output = daemon.stop(Signal::TERM);
    assert!(output.status.success(), "{output:?}");
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.contains("serving socket=") && log.contains("stopping signal=15"), "{log}");
    assert!(log.contains("client connected pid="), "{log}");
    assert_eq!(client.read(&mut [0]).unwrap(), 0, "the connection is closed");
    let left: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_hangup_does_not_end_it_and_an_interrupt_does() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = Foreground::start(directory.path(), &[]);
    kill_process(daemon.pid, Signal::HUP).unwrap();
    let mut client = daemon.connect();
    assert_eq!(ask(&mut client, WRITE, b"/a\0"), (WRITE, b"OK\0".to_vec()));
    let output = daemon.stop(Signal::INT);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn the_stock_options_set_quotas() {
    let options = ["-E", "11", "-W", "12", "-t", "13", "-A", "14", "-S", "15", "-M", "16"];
    let more =
        ["-Q", "memory=17", "-Q", "transaction-nodes=18", "-q", "memory=19", "-D", "-R", "-I"];
    let directory = tempfile::tempdir().unwrap();
    let daemon = Foreground::start(directory.path(), &[&options[..], &more].concat());
    let mut client = daemon.connect();
    for (name, value) in [
        ("nodes", "11"),
        ("watches", "12"),
        ("transactions", "13"),
        ("node-permissions", "14"),
        ("node-size", "15"),
        ("path-max", "16"),
        ("memory", "17"),
        ("transaction-nodes", "18"),
        ("soft-memory", "19"),
    ] {
        let (ty, reply) = ask(&mut client, GET_QUOTA, format!("{name}\0").as_bytes());
        assert_eq!((ty, reply), (GET_QUOTA, format!("{value}\0").into_bytes()), "{name}");
    }
}

#[test]
fn a_database_outlives_a_daemon_that_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    for (options, value) in
        [(&["--database", "db"][..], "first"), (&["--database", "db"], "second")]
    {
        let daemon = Foreground::start(directory.path(), options);
        let mut client = daemon.connect();
        if value == "second" {
            assert_eq!(ask(&mut client, READ, b"/a\0"), (READ, b"first".to_vec()));
        }
        let payload = format!("/a\0{value}");
        assert_eq!(ask(&mut client, WRITE, payload.as_bytes()), (WRITE, b"OK\0".to_vec()));
        daemon.stop(Signal::KILL);
    }
    let options = ["--database", "db", "--sync-interval", "1000"];
    let daemon = Foreground::start(directory.path(), &options);
    assert_eq!(ask(&mut daemon.connect(), READ, b"/a\0"), (READ, b"second".to_vec()));
}

#[test]
fn what_is_no_option_or_no_quota_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    for arguments in [
        &["--nonsense"][..],
        &["-Q", "nonsense=1"],
        &["-Q", "nodes"],
        &["-E", "x"],
        &["--sync-interval", "5"],
    ] {
        let output = daemon(directory.path()).arg("-N").args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
    }
}

#[test]
fn a_chinese_wall_stands_where_its_file_says() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("wall.json");
    let company = |name: &str, path: &str, domain: u32| serde_json::json!({ "name": name, "paths": [path], "domains": [domain] });
    let banks = |south: &str| {
        let companies = [company("north", "/banks/north", 3), company("south", south, 4)];
        serde_json::json!([{ "name": "banks", "companies": companies }]).to_string()
    };
    fs::write(&file, banks("/banks/south")).unwrap();
    let daemon = Foreground::start(directory.path(), &["--chinese-wall", "wall.json"]);
    let output = daemon.stop(Signal::TERM);
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.contains("a Chinese wall stands file=wall.json"), "{log}");
    for (text, why) in [
        (banks("/banks/north/lobby"), "path /banks/north/lobby is shared by competitors"),
        (banks("banks/south"), "path banks/south of a company does not start with /"),
        (banks("/banks//south"), "at line 1 column"),
        (banks("/banks/south").replace("domains", "domians"), "unknown field `domians`"),
        ("{}".to_owned(), "expected a sequence"),
    ] {
        fs::write(&file, text).unwrap();
        let output = daemon_with_wall(&file);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains("wall.json") && told.contains(why), "{told}");
    }
    fs::remove_file(&file).unwrap();
    let told = String::from_utf8(daemon_with_wall(&file).stderr).unwrap();
    assert!(told.contains("cannot read") && told.contains("No such file"), "{told}");
}

/// One that does not start.
fn daemon_with_wall(file: &Path) -> Output {
    let mut command = daemon(file.parent().unwrap());
    command.arg("-N").arg("--chinese-wall").arg(file).output().unwrap()
}

#[test]
fn a_second_daemon_on_the_same_socket_does_not_start() {
    let directory = tempfile::tempdir().unwrap();
    let first = Foreground::start(directory.path(), &[]);
    for background in [false, true] {
        let mut second = daemon(directory.path());
        if !background {
            second.arg("-N");
        }
        let output = second.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains("is in use by another server"), "{told}");
    }
    assert_eq!(ask(&mut first.connect(), WRITE, b"/a\0"), (WRITE, b"OK\0".to_vec()));
}

#[test]
fn in_the_background_it_serves_by_the_time_its_starter_ends() {
    let directory = tempfile::tempdir().unwrap();
    let trace = directory.path().join("trace.log");
    let output = daemon(directory.path())
        .args(["--output-pid", "--trace-file"])
        .arg(&trace)
        .current_dir(directory.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let pid: i32 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    let pid = Pid::from_raw(pid).unwrap();
    let mut client = connect(&directory.path().join("socket"));
    assert_eq!(ask(&mut client, WRITE, b"/a\0"), (WRITE, b"OK\0".to_vec()));
    assert_eq!(rustix::process::getsid(Some(pid)).unwrap(), pid, "a session of its own");
    kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    let log = fs::read_to_string(trace).unwrap();
    assert!(log.contains("serving socket="), "{log}");
}

#[test]
fn metrics_are_served_to_browsers_and_to_plain_readers() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = Foreground::start(directory.path(), &["--metrics", "metrics"]);
    let mut client = daemon.connect();
    ask(&mut client, WRITE, b"/a\0value");
    ask(&mut client, READ, b"/none\0");
    let fetch = |request: &[u8]| {
        let mut stream = connect(&daemon.path("metrics"));
        stream.write_all(request).unwrap();
        if request.is_empty() {
            stream.shutdown(Shutdown::Write).unwrap();
        }
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    let text = fetch(b"");
    for line in [
        "xenstored_requests_total{operation=\"WRITE\"} 1",
        "xenstored_requests_total{operation=\"READ\"} 1",
        "xenstored_errors_total{errno=\"ENOENT\"} 1",
        "xenstored_connections 1",
        "xenstored_nodes 2",
        "xenstored_domain_nodes{domid=\"0\"} 2",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
    }
    for line in text.lines() {
        let name = line.strip_prefix("# HELP ").or(line.strip_prefix("# TYPE ")).unwrap_or(line);
        assert!(name.starts_with("xenstored_"), "{line}");
    }
    let response = fetch(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
    assert_eq!(body, text);
    assert!(daemon.stop(Signal::TERM).status.success());
    assert!(!directory.path().join("metrics").exists());
}
