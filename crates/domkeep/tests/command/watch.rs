//! `retrieve --watch`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use xenstored::{Embedded, Store};
use xsclient::Request;

use crate::host::{Answer, Host, domkeep, shipped};

/// A watch that runs, and its answers as they come.
struct Watching {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Watching {
    fn start(host: &Host, arguments: &[&str]) -> Self {
        let mut command = host.domkeep(&["retrieve", "--watch", "--json"]);
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    fn end(self) -> Answer {
        Answer(self.child.wait_with_output().unwrap())
    }
}

/// Far longer than anything here takes, so that a test that fails does not hang.
const AT_MOST: &str = "60";

#[test]
fn a_change_in_xenstore_is_another_answer() {
    let host = Host::demo();
    let mut watching =
        Watching::start(&host, &["web", "--watch-count", "3", "--watch-timeout", AT_MOST]);
    let first = watching.answer();
    assert_eq!(first["config"]["c_info"]["name"], "web");
    host.ask(&["xenstore", "write", "/local/domain/1/name", "www"]).expect(0);
    let second = watching.answer();
    assert_eq!(second["config"]["c_info"]["name"], "www");
    assert_ne!(first["revision"], second["revision"]);
    // What only a backend says, in a tree that is found through the toolstack's.
    let status = "/local/domain/0/backend/vbd/1/51744/hotplug-status";
    host.ask(&["xenstore", "write", status, "connected"]).expect(0);
    assert_ne!(watching.answer()["revision"], second["revision"]);
    watching.end().expect(0);
}

#[test]
fn a_device_that_is_plugged_in_while_watching_is_watched_too() {
    let host = Host::demo();
    let mut watching = Watching::start(
        &host,
        &["db", "--report", "--watch-count", "3", "--watch-timeout", AT_MOST],
    );
    watching.answer();
    let backend = "/local/domain/0/backend/vbd/2/51728";
    let path = |tree: &str, key: &str| format!("{tree}/{key}");
    let (toolstack, frontend) = ("/libxl/2/device/vbd/51728", "/local/domain/2/device/vbd/51728");
    host.ask(&[
        "xenstore",
        "write",
        &path(backend, "frontend"),
        frontend,
        &path(backend, "state"),
        "2",
        &path(backend, "online"),
        "1",
        &path(frontend, "backend"),
        backend,
        &path(frontend, "state"),
        "3",
        &path(toolstack, "backend"),
        backend,
        &path(toolstack, "frontend"),
        frontend,
        &path(toolstack, "dev"),
        "xvdb",
        &path(toolstack, "params"),
        "/srv/xen/db-import.img",
        &path(toolstack, "type"),
        "phy",
        &path(toolstack, "removable"),
        "0",
        &path(toolstack, "mode"),
        "w",
        &path(toolstack, "device-type"),
        "disk",
    ])
    .expect(0);
    let plugged = watching.answer();
    assert_eq!(plugged["config"]["disks"][1]["vdev"], "xvdb");
    assert_eq!(plugged["report"]["devices"][1]["attachment"]["is"], "half_attached");
    host.ask(&["xenstore", "write", &path(backend, "state"), "4"]).expect(0);
    assert_eq!(watching.answer()["report"]["devices"][1]["attachment"]["is"], "connected");
    watching.end().expect(0);
}

#[test]
fn a_change_of_the_template_alone_is_another_answer() {
    let host = Host::demo();
    let mut watching =
        Watching::start(&host, &["db", "--watch-count", "2", "--watch-timeout", AT_MOST]);
    let first = watching.answer();
    let name = "userdata-d.2.e2f4b6d8-10ac-4e35-8f77-5c9d3b2a4e02.libxl-json";
    let template = host.templates().join(name);
    let text =
        fs::read_to_string(&template).unwrap().replace("root=/dev/xvda ro", "root=/dev/xvda rw");
    let next = host.templates().join(name.replace("userdata-d", "userdata-n"));
    fs::write(&next, text).unwrap();
    fs::rename(next, template).unwrap();
    let second = watching.answer();
    assert_eq!(second["config"]["b_info"]["cmdline"], "root=/dev/xvda rw");
    assert_ne!(first["revision"], second["revision"]);
    watching.end().expect(0);
}

#[test]
fn a_watch_does_not_keep_others_out_of_a_sled_store() {
    let host = Host::demo();
    let store = format!("sled:{}", host.directory.path().join("store").display());
    let template = |arguments: &[&str]| {
        Answer::of(domkeep().args(["--templates", &store, "template"]).args(arguments)).expect(0)
    };
    let file = shipped("demo/host/userdata-d.1.7d1c2a90-4b1e-4c7d-9a55-0b6f2f1d6a01.libxl-json");
    template(&["import", file.to_str().unwrap(), "--domid", "1"]);
    let mut command = domkeep();
    command.arg("--xenstore").arg(host.socket()).args(["--templates", &store, "retrieve", "web"]);
    command.args(["--watch", "--watch-count", "2", "--watch-timeout", AT_MOST, "--json"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap());
    let mut watching = Watching { child, lines };
    let first = watching.answer();
    assert!(template(&["ls"]).stdout().contains("web"));
    host.ask(&["xenstore", "write", "/local/domain/1/name", "www"]).expect(0);
    assert_ne!(watching.answer()["revision"], first["revision"]);
    watching.end().expect(0);
}

#[test]
fn what_is_no_part_of_a_configuration_is_no_answer() {
    let host = Host::demo();
    let mut watching =
        Watching::start(&host, &["web", "--watch-count", "2", "--watch-timeout", "1"]);
    watching.answer();
    for key in ["data/x", "device/vbd/51712/ring-ref", "memory/meminfo"] {
        host.ask(&["xenstore", "write", &format!("/local/domain/1/{key}"), "1"]).expect(0);
    }
    assert_eq!(watching.end().expect(1).stdout(), "");
}

#[test]
fn a_watch_ends_with_its_time_and_with_its_domain() {
    let host = Host::demo();
    let words = host.ask(&["retrieve", "db", "--watch", "--watch-timeout", "0.3"]).expect(0);
    assert!(words.stdout().starts_with("# domain 2, revision "), "{}", words.stdout());
    let mut watching = Watching::start(&host, &["db", "--watch-timeout", AT_MOST]);
    watching.answer();
    host.ask(&["xenstore", "rm", "/local/domain/2"]).expect(0);
    let end = watching.end().expect(1);
    assert!(end.stderr().contains("no domain 2"), "{}", end.stderr());
}

#[test]
fn a_watch_says_in_words_what_is_new() {
    let host = Host::demo();
    let mut command = host.domkeep(&["retrieve", "web", "--watch", "--watch-count", "2"]);
    command.args(["--watch-timeout", AT_MOST]).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().starts_with("# domain 1, revision "));
    host.ask(&["xenstore", "write", "/local/domain/1/memory/target", "524288"]).expect(0);
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    let change = "# $.b_info.target_memkb: 1048576 -> 524288";
    assert!(rest.iter().any(|line| line == change), "{rest:#?}");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_watch_ends_when_nobody_reads_it_any_more() {
    let host = Host::demo();
    let mut watching = Watching::start(&host, &["web", "--watch-timeout", AT_MOST]);
    watching.answer();
    let Watching { child, lines } = watching;
    drop(lines);
    Answer(child.wait_with_output().unwrap()).expect(0);
}

#[test]
fn a_watch_ends_well_when_it_is_told_to() {
    let host = Host::demo();
    for signal in [Signal::INT, Signal::TERM] {
        let mut watching = Watching::start(&host, &["web", "--watch-timeout", AT_MOST]);
        watching.answer();
        kill_process(Pid::from_child(&watching.child), signal).unwrap();
        assert_eq!(watching.end().expect(0).stderr(), "");
    }
}

#[test]
fn a_watch_says_so_when_the_server_goes() {
    let host = Host::demo();
    let mut watching = Watching::start(&host, &["web", "--watch-timeout", AT_MOST]);
    watching.answer();
    host.stop();
    let end = watching.end().expect(3);
    assert!(end.stderr().contains("the server closed the connection"), "{}", end.stderr());
}

/// Requests that a watch of `web` for one second sends, while `meanwhile` happens over and over.
fn requests_in_a_second(meanwhile: Option<Request>) -> u64 {
    let text = fs::read_to_string(shipped("demo/host/xenstore.txt")).unwrap();
    let xenstore = Embedded::new(Store::from_text(text).unwrap());
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let _server = xenstore.serve_unix(&socket).unwrap();
    let requests = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&requests);
    xenstore.set_interceptor(Some(Box::new(move |_, _, _, _| {
        counted.fetch_add(1, Ordering::Relaxed);
    })));
    let ended = Arc::new(AtomicBool::new(false));
    let storm = meanwhile.map(|request| {
        let (xenstore, ended) = (xenstore.clone(), Arc::clone(&ended));
        std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                xenstore.apply(request.clone());
                std::thread::yield_now();
            }
        })
    });
    let mut command = domkeep();
    command.arg("--xenstore").arg(&socket).args(["--templates", "none", "retrieve", "web"]);
    let answer = Answer::of(command.args(["--watch", "--watch-timeout", "1", "--json"]));
    ended.store(true, Ordering::Relaxed);
    storm.into_iter().for_each(|storm| storm.join().unwrap());
    assert_eq!(answer.expect(0).stdout().lines().count(), 1);
    requests.load(Ordering::Relaxed)
}

#[test]
fn a_watch_is_idle_while_nothing_happens_and_bounded_while_a_guest_does_its_worst() {
    let idle = requests_in_a_second(None);
    assert!(idle < 500, "{idle} requests for an answer or two");
    let ring = "/local/domain/1/device/vbd/51712/ring-ref".parse().unwrap();
    let storm = requests_in_a_second(Some(Request::Write { path: ring, value: b"9".to_vec() }));
    // Idle is two answers: the first, and another look after the first events. A storm may cause twenty a second.
    assert!(storm < 15 * idle, "{storm} requests, against {idle} when idle");
}
