//! The exporter: what it keeps of a host, what it does not take for the truth, and what it notices.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod readme;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path as FilePath, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use xenstored::{Embedded, Store, UnixServer};
use xsclient::{Reply, Request};

const DOM0: &str = "Domain-0-00000000-0000-0000-0000-000000000000";
const WEB: &str = "web-7d1c2a90-4b1e-4c7d-9a55-0b6f2f1d6a01";
const DB: &str = "db-e2f4b6d8-10ac-4e35-8f77-5c9d3b2a4e02";

/// How long the exporter may take to notice something: far more than it ever needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A captured host, served by this process, and where its configurations go.
struct Host {
    directory: TempDir,
    xenstore: Embedded,
    _served: UnixServer,
}

impl Host {
    fn of(capture: &FilePath) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["templates", "output"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        for entry in fs::read_dir(capture).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap();
            if name.to_string_lossy().starts_with("userdata-") {
                fs::copy(&path, directory.path().join("templates").join(name)).unwrap();
            }
        }
        let nodes = fs::read(capture.join("xenstore.txt")).unwrap();
        let xenstore = Embedded::new(Store::from_text(nodes).unwrap());
        let served = xenstore.serve_unix(directory.path().join("socket")).unwrap();
        Self { directory, xenstore, _served: served }
    }

    /// Domains 0, `web` and `db`.
    fn demo() -> Self {
        Self::of(&FilePath::new(env!("CARGO_MANIFEST_DIR")).join("../crates/domkeep/demo/host"))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_config_exporter"));
        for name in ["templates", "output"] {
            command.arg(format!("--{name}")).arg(self.directory.path().join(name));
        }
        command.arg("--xenstore").arg(self.directory.path().join("socket"));
        command.stdin(Stdio::null());
        command
    }

    /// Runs the exporter once; its exit status and what it told.
    fn export(&self) -> (Option<i32>, String) {
        let Output { status, stdout, stderr } = self.command().output().unwrap();
        (status.code(), String::from_utf8([stdout, stderr].concat()).unwrap())
    }

    fn kept(&self, name: &str) -> PathBuf {
        self.directory.path().join("output").join(name)
    }

    fn read(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.kept(name)).unwrap()).unwrap()
    }

    /// All files in a directory of the output, with what they hold.
    fn files(&self, below: &str) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(self.kept(below)).unwrap().map(|entry| entry.unwrap());
        let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
        files
            .map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap()))
            .collect()
    }

    fn names(&self, below: &str) -> Vec<String> {
        self.files(below).into_keys().collect()
    }

    fn write(&self, path: &str, value: &str) {
        let request =
            Request::Write { path: path.parse().unwrap(), value: value.as_bytes().to_vec() };
        assert_eq!(self.xenstore.apply(request), Reply::Ok);
    }

    fn template(&self, domid: u16) -> PathBuf {
        let prefix = format!("userdata-d.{domid}.");
        let entries = fs::read_dir(self.directory.path().join("templates")).unwrap();
        let mut paths = entries.map(|entry| entry.unwrap().path());
        paths.find(|path| path.file_name().unwrap().to_string_lossy().starts_with(&prefix)).unwrap()
    }

    fn remove_db(&self) {
        fs::remove_file(self.template(2)).unwrap();
        for path in ["/local/domain/2", "/libxl/2"] {
            assert_eq!(self.xenstore.apply(Request::Rm(path.parse().unwrap())), Reply::Ok);
        }
    }
}

fn pair(stem: &str) -> [String; 2] {
    [format!("{stem}.json"), format!("{stem}.report.json")]
}

#[test]
fn every_domain_is_kept_with_a_report_beside_it() {
    let host = Host::demo();
    fs::write(host.kept("notes.json"), "the operator's own").unwrap();
    let (status, told) = host.export();
    let expected = format!("kept: {DOM0}\nkept: {WEB}\nkept: {DB}\n3 of 3 domains seen whole\n");
    assert_eq!(expected, readme::shown_of("config_exporter"));
    assert_eq!((status, told), (Some(0), expected));

    let mut names = [DOM0, DB, WEB].map(pair).concat();
    names.push("notes.json".to_owned());
    names.sort();
    assert_eq!(host.names("."), names);
    assert_eq!(host.names("gone"), Vec::<String>::new());

    let libxl: Value = serde_json::from_slice(
        &fs::read(
            FilePath::new(env!("CARGO_MANIFEST_DIR"))
                .join("../crates/domkeep/demo/host/list-l.json"),
        )
        .unwrap(),
    )
    .unwrap();
    for (stem, domid) in [(WEB, 1), (DB, 2)] {
        let mut expected = libxl[domid]["config"].clone();
        // Only the hypervisor knows these, and it is not asked.
        expected["b_info"].as_object_mut().unwrap().remove("sched_params").unwrap();
        let mut kept = host.read(&format!("{stem}.json"));
        kept["b_info"].as_object_mut().unwrap().remove("sched_params");
        assert_eq!(kept, expected, "{stem}");
    }
    let report = host.read(&format!("{WEB}.report.json"));
    let half = report["devices"].as_array().unwrap().iter().find(|device| device["id"] == "xvdc");
    assert_eq!(half.unwrap()["attachment"]["is"], "half_attached");

    let before = host.files(".");
    assert_eq!(host.export(), (Some(0), "3 of 3 domains seen whole\n".to_owned()));
    assert_eq!(host.files("."), before);
}

#[test]
fn captured_hosts_are_exported_whole() {
    const TEST: &str = "captured_hosts_are_exported_whole";
    let captures = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/captures/xen-4.17");
    let Ok(entries) = fs::read_dir(&captures) else {
        println!("skipped: {TEST}: no ../shared/captures");
        return;
    };
    let mut seen = 0;
    for capture in entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
        let host = Host::of(&capture);
        let (status, told) = host.export();
        assert_eq!(status, Some(0), "{}: {told}", capture.display());
        let libxl: Value =
            serde_json::from_slice(&fs::read(capture.join("list-l.json")).unwrap()).unwrap();
        assert_eq!(host.names(".").len(), 2 * libxl.as_array().unwrap().len(), "{told}");
        seen += 1;
    }
    assert!(seen > 0);
}

#[test]
fn files_of_a_domain_that_is_gone_are_moved_and_those_of_a_renamed_one_too() {
    let host = Host::demo();
    host.export();
    let before = host.files(".");
    host.remove_db();
    host.write("/local/domain/1/name", "web/../shop");
    let (status, told) = host.export();
    assert_eq!(status, Some(0), "{told}");
    let shop = WEB.replace("web", "web_.._shop");
    let mut names = [DOM0, &shop].map(pair).concat();
    names.sort();
    assert_eq!(host.names("."), names, "{told}");
    for name in [DB, WEB].map(pair).concat() {
        assert!(told.contains(&format!("gone: {name}\n")), "{told}");
        assert_eq!(fs::read(host.kept("gone").join(&name)).unwrap(), before[&name]);
    }
}

#[test]
fn a_partial_answer_takes_the_place_of_no_good_one() {
    let host = Host::demo();
    host.export();
    let good = host.files(".");
    let template = fs::read(host.template(1)).unwrap();
    fs::write(host.template(1), "{ torn").unwrap();
    let (status, told) = host.export();
    assert_eq!(status, Some(1), "{told}");
    assert!(told.contains(&format!("partial: {WEB}: template: ")), "{told}");
    assert!(told.ends_with("2 of 3 domains seen whole\n"), "{told}");
    let mut now = host.files(".");
    for ending in ["partial.json", "partial.report.json"] {
        now.remove(&format!("{WEB}.{ending}")).unwrap();
    }
    assert_eq!(now, good);

    fs::write(host.template(1), template).unwrap();
    assert_eq!(host.export().0, Some(0));
    assert_eq!(host.files("."), good, "what was partial is gone once all was seen");
}

#[test]
fn a_xenstore_that_knows_no_domain_is_not_believed() {
    let host = Host::demo();
    host.export();
    let before = host.files(".");
    let gone = Request::Rm("/local".parse().unwrap());
    assert_eq!(host.xenstore.apply(gone), Reply::Ok);
    let (status, told) = host.export();
    assert_eq!(status, Some(2), "{told}");
    assert_eq!(host.files("."), before);
}

#[test]
fn without_a_xenstore_or_an_output_nothing_is_done_and_the_place_is_named() {
    let host = Host::demo();
    for missing in ["socket", "output", "templates"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_config_exporter"));
        for (option, name) in
            [("--xenstore", "socket"), ("--templates", "templates"), ("--output", "output")]
        {
            let name = if name == missing { "nowhere" } else { name };
            command.arg(option).arg(host.directory.path().join(name));
        }
        let output = command.output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains("/nowhere"), "{missing}: {told}");
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "");
    }
    assert_eq!(host.names("."), Vec::<String>::new());
}

/// An exporter that goes on, and its lines.
struct Watching {
    child: Child,
    lines: Receiver<String>,
}

impl Watching {
    fn start(host: &Host) -> Self {
        let mut child = host.command().arg("--watch").stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    #[track_caller]
    fn await_line(&self, wanted: &str) {
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            assert!(line.is_ok(), "it does not tell {wanted:?}");
            if line.is_ok_and(|line| line == wanted) {
                return;
            }
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_change_in_xenstore_or_in_a_template_is_noticed() {
    let host = Host::demo();
    let watching = Watching::start(&host);
    watching.await_line("3 of 3 domains seen whole");
    let memory = |host: &Host| host.read(&format!("{DB}.json"))["b_info"]["target_memkb"].clone();
    let before = memory(&host);

    host.write("/local/domain/2/memory/target", "655360");
    watching.await_line(&format!("kept: {DB}"));
    assert_ne!(memory(&host), before);
    assert_eq!(memory(&host), 655_360);

    // As libxl does it: a new file in the place of the old one.
    let template = host.template(1);
    let text = String::from_utf8(fs::read(&template).unwrap()).unwrap();
    let changed = text.replace("root=/dev/xvda ro", "root=/dev/xvda rw");
    assert_ne!(changed, text);
    let new = host.directory.path().join("new");
    fs::write(&new, changed).unwrap();
    fs::rename(new, template).unwrap();
    watching.await_line(&format!("kept: {WEB}"));
    assert_eq!(host.read(&format!("{WEB}.json"))["b_info"]["cmdline"], "root=/dev/xvda rw");

    host.remove_db();
    watching.await_line(&format!("gone: {DB}.json"));
    assert!(host.kept("gone").join(format!("{DB}.json")).is_file());
}

#[test]
fn an_exporter_whose_xenstore_ends_does_not_go_on_as_if_it_saw() {
    let host = Host::demo();
    let mut watching = Watching::start(&host);
    watching.await_line("3 of 3 domains seen whole");
    let Host { directory, _served, .. } = host;
    drop(_served);
    // Its last line is followed by the end of its output.
    let end = loop {
        match watching.lines.recv_timeout(PATIENCE) {
            Ok(_) => {}
            Err(end) => break end,
        }
    };
    assert_eq!(end, RecvTimeoutError::Disconnected, "it goes on");
    assert_eq!(watching.child.wait().unwrap().code(), Some(2));
    drop(directory);
}
