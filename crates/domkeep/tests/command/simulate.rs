//! `simulate`: a host of simulated domains, and that the other commands work on it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::host::{Answer, domkeep};

/// `domkeep simulate serve`.
pub(crate) struct Simulated {
    child: Child,
    told: Value,
    pub(crate) directory: TempDir,
}

impl Simulated {
    pub(crate) fn start(directory: TempDir) -> Self {
        let mut command = domkeep();
        command.args(["simulate", "serve", "--json"]).arg(directory.path());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, told: serde_json::from_str(&line).unwrap(), directory }
    }

    pub(crate) fn told(&self, what: &str) -> &str {
        self.told[what].as_str().unwrap()
    }

    pub(crate) fn ask(&self, command: &str, arguments: &[&str]) -> Answer {
        Answer::of(domkeep().args(["simulate", command, self.told("host")]).args(arguments))
    }

    /// An empty raw image, as an argument.
    pub(crate) fn disk(&self, vdev: &str) -> String {
        let path = self.directory.path().join(vdev);
        File::create_new(&path).unwrap();
        format!("{vdev}={}:raw", path.display())
    }

    /// An empty qcow2 image, as an argument.
    pub(crate) fn qcow2_disk(&self, vdev: &str) -> String {
        let image = self.directory.path().join(format!("{vdev}.qcow2"));
        let mut create = Command::new("qemu-img");
        create.args(["create", "-q", "-f", "qcow2"]).arg(&image).arg("8M");
        assert!(create.status().unwrap().success());
        format!("{vdev}={}:qcow2", image.display())
    }

    fn stop(mut self) -> (i32, TempDir) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let status = self.child.wait().unwrap().code().unwrap();
        (status, std::mem::replace(&mut self.directory, tempfile::tempdir().unwrap()))
    }
}

impl Drop for Simulated {
    fn drop(&mut self) {
        // It may have been stopped already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether QEMU's programs are there; says what is missing.
pub(crate) fn has_qemu(test: &str) -> bool {
    for program in ["qemu-img", "qemu-storage-daemon", "setpriv"] {
        let started = Command::new(program).arg("--version").stdout(Stdio::null()).status();
        if !started.is_ok_and(|status| status.success()) {
            println!("skipped: {test}: {program} cannot be started");
            return false;
        }
    }
    true
}

pub(crate) fn start() -> Simulated {
    Simulated::start(tempfile::tempdir().unwrap())
}

#[test]
fn a_simulated_domain_is_made_listed_retrieved_and_destroyed() {
    let host = start();
    let disks = [host.disk("xvda"), host.disk("xvdb")];
    let uuid = "0c9e7f3a-55d2-4f0b-b1c4-9a8e6d7f1203";
    let made = host.ask(
        "create",
        &[
            "--name",
            "web",
            "--uuid",
            uuid,
            "--memory-mib",
            "4",
            "--disk",
            &disks[0],
            "--disk",
            &disks[1],
            "--start",
            "--json",
        ],
    );
    let made = made.expect(0).json();
    assert_eq!((&made["domid"], &made["uuid"]), (&1.into(), &uuid.into()));
    assert_eq!((&made["name"], &made["state"]), (&"web".into(), &"running".into()));
    host.ask("create", &["--name", "mail"]).expect(0);

    let listed = host.ask("list", &["--json"]).expect(0).json();
    let names: Vec<_> = listed.as_array().unwrap().iter().map(|row| &row["name"]).collect();
    assert_eq!(names, ["web", "mail"]);
    assert_eq!((&listed[1]["state"], &listed[1]["tick"]), (&"paused".into(), &0.into()));
    assert_ne!(listed[0]["uuid"], listed[1]["uuid"]);

    let templates = format!("userdata:{}", host.told("templates"));
    let retrieve = |domain: &str| {
        let places = ["--xenstore", host.told("xenstore"), "--templates", &templates];
        Answer::of(domkeep().args(places).args(["retrieve", domain]))
    };
    let config = retrieve("web").expect(0).json();
    assert_eq!(config["c_info"]["uuid"], uuid);
    assert_eq!(config["disks"][1]["vdev"], "xvdb");

    host.ask("destroy", &["web"]).expect(0);
    retrieve("web").expect(1);
    let table = host.ask("list", &[]).expect(0).stdout();
    assert!(table.lines().count() == 2 && table.ends_with(" mail\n"), "{table}");
    host.ask("destroy", &["2", "--json"]).expect(0);
    assert_eq!(host.ask("list", &["--json"]).expect(0).json(), Value::Array(Vec::new()));
}

#[test]
fn a_host_that_is_told_to_stop_leaves_its_directory_ready_for_the_next() {
    let host = start();
    let uuid = "0c9e7f3a-55d2-4f0b-b1c4-9a8e6d7f1203";
    host.ask("create", &["--name", "web", "--uuid", uuid, "--start"]).expect(0);
    let (status, directory) = host.stop();
    assert_eq!(status, 0);
    assert!(!directory.path().join("host").exists());
    let host = Simulated::start(directory);
    assert_eq!(host.ask("list", &["--json"]).expect(0).json(), Value::Array(Vec::new()));
    // The same domid and uuid once more.
    host.ask("create", &["--name", "web", "--uuid", uuid]).expect(0);
}

#[test]
fn a_second_host_in_the_same_directory_is_refused_and_one_after_a_killed_one_is_not() {
    let mut host = start();
    let second =
        Answer::of(domkeep().args(["simulate", "serve"]).arg(host.directory.path())).expect(3);
    assert!(
        second.stderr().contains("another simulated host listens there"),
        "{}",
        second.stderr()
    );
    host.ask("list", &[]).expect(0);
    host.child.kill().unwrap();
    host.child.wait().unwrap();
    let directory = std::mem::replace(&mut host.directory, tempfile::tempdir().unwrap());
    Simulated::start(directory).ask("list", &[]).expect(0);
}

#[test]
fn what_the_host_refuses_is_bad_news_and_no_host_is_out_of_reach() {
    let host = start();
    let taken = |answer: Answer| answer.expect(1).stderr();
    host.ask("create", &["--name", "web"]).expect(0);
    let text = taken(host.ask("create", &["--name", "web"]));
    assert!(text.contains("web"), "{text}");
    let text = taken(host.ask("create", &["--name", "a", "--disk", "xvda=/nosuch/image:raw"]));
    assert!(text.contains("No such file"), "{text}");
    let text = taken(host.ask("destroy", &["nobody"]));
    assert!(text.contains("no simulated domain is nobody"), "{text}");
    host.ask("create", &["--name", "a", "--disk", "xvda=/a:vhd"]).expect(2);
    let nowhere = host.directory.path().join("nowhere");
    let nowhere = nowhere.to_str().unwrap();
    for arguments in [&["list", nowhere][..], &["create", nowhere, "--name", "a"]] {
        let text = Answer::of(domkeep().arg("simulate").args(arguments)).expect(3).stderr();
        assert!(text.contains("domkeep simulate serve"), "{text}");
    }
}

#[test]
fn a_qcow2_disk_has_a_qmp_socket() {
    const TEST: &str = "a_qcow2_disk_has_a_qmp_socket";
    if !has_qemu(TEST) {
        return;
    }
    let host = start();
    let disk = host.qcow2_disk("xvda");
    let made = host.ask("create", &["--name", "web", "--disk", &disk, "--json"]).expect(0).json();
    assert!(Path::new(made["qmp"].as_str().unwrap()).exists(), "{made}");
}
