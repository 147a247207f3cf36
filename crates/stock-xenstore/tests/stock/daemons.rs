//! Starting, answering, stopping.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use stock_xenstore::{Client, Kind, StartError, StockDaemon};

use crate::started::{KINDS, output, packages, start};

#[test]
fn a_daemon_answers_the_stock_tools() {
    const TEST: &str = "a_daemon_answers_the_stock_tools";
    let Some(packages) = packages(TEST) else { return };
    for kind in KINDS {
        let Some(daemon) = start(TEST, kind, packages) else { continue };
        assert_eq!(daemon.kind(), kind);
        output(daemon.client(Client::Write).args(["/a/b", "value"]));
        output(daemon.client(Client::Chmod).args(["/a/b", "n7", "r9"]));
        assert_eq!(output(daemon.client(Client::Read).arg("/a/b")), "value\n");
        assert_eq!(output(daemon.client(Client::List).arg("/a")), "b\n");
        assert_eq!(output(daemon.client(Client::Ls).args(["-fp", "/a"])), {
            "/a/b = \"value\"   (n7,r9)\n"
        });
        output(daemon.client(Client::Exists).arg("/a/b"));
        output(daemon.client(Client::Rm).arg("/a"));
        assert_eq!(daemon.client(Client::Exists).arg("/a").status().unwrap().code(), Some(1));
        let first = output(daemon.client(Client::Watch).args(["-n", "1", "/a"]));
        assert_eq!(first, "/a\n");
    }
}

#[test]
fn the_c_daemon_answers_xenstore_control() {
    const TEST: &str = "the_c_daemon_answers_xenstore_control";
    let Some(packages) = packages(TEST) else { return };
    let Some(daemon) = start(TEST, Kind::C, packages) else { return };
    assert_eq!(output(daemon.client(Client::Control).arg("check")), "OK\n");
}

#[test]
fn upstreams_own_test_passes_against_the_c_daemon() {
    const TEST: &str = "upstreams_own_test_passes_against_the_c_daemon";
    let Some(packages) = packages(TEST) else { return };
    let Some(daemon) = start(TEST, Kind::C, packages) else { return };
    let printed = output(&mut daemon.client(Client::Test));
    for measured in ["read 2000", "write 2000", "dir", "rm dir", "ta empty", "ta rmw", "ta err"] {
        assert!(printed.contains(measured), "{measured} is not in:\n{printed}");
    }
}

#[test]
fn several_daemons_have_several_stores() {
    const TEST: &str = "several_daemons_have_several_stores";
    let Some(packages) = packages(TEST) else { return };
    thread::scope(|scope| {
        let started = [KINDS, KINDS, KINDS].concat();
        let started: Vec<_> = started
            .into_iter()
            .map(|kind| scope.spawn(move || start(TEST, kind, packages)))
            .collect();
        let daemons: Vec<_> =
            started.into_iter().filter_map(|daemon| daemon.join().unwrap()).collect();
        for daemon in &daemons {
            output(daemon.client(Client::Write).args(["/pid", &daemon.pid().to_string()]));
        }
        for daemon in &daemons {
            let read = output(daemon.client(Client::Read).arg("/pid"));
            assert_eq!(read.trim_end(), daemon.pid().to_string());
        }
    });
}

#[test]
fn a_daemon_outlives_the_thread_that_started_it() {
    const TEST: &str = "a_daemon_outlives_the_thread_that_started_it";
    let Some(packages) = packages(TEST) else { return };
    for kind in KINDS {
        let Some(daemon) = thread::spawn(move || start(TEST, kind, packages)).join().unwrap()
        else {
            continue;
        };
        output(daemon.client(Client::Ls).arg("/"));
    }
}

#[test]
fn a_dropped_daemon_leaves_no_process_and_no_directory() {
    const TEST: &str = "a_dropped_daemon_leaves_no_process_and_no_directory";
    let Some(packages) = packages(TEST) else { return };
    for kind in KINDS {
        let Some(daemon) = start(TEST, kind, packages) else { continue };
        let (process, directory) = (process(daemon.pid()), daemon.directory().to_owned());
        assert!(process.exists() && directory.exists());
        drop(daemon);
        assert!(!process.exists() && !directory.exists());
    }
}

#[test]
fn a_daemon_that_ends_at_once_is_quoted() {
    const TEST: &str = "a_daemon_that_ends_at_once_is_quoted";
    let Some(packages) = packages(TEST) else { return };
    let error = StockDaemon::start_with(Kind::C, packages, ["one-argument-too-many"]).unwrap_err();
    let StartError::Ended { log, .. } = &error else { panic!("{error}") };
    assert!(log.contains("arguments"), "{log}");
}

#[test]
fn a_domain_comes_and_goes_and_the_nodes_of_others_stay() {
    const TEST: &str = "a_domain_comes_and_goes_and_the_nodes_of_others_stay";
    let Some(packages) = packages(TEST) else { return };
    for kind in KINDS {
        let Some(daemon) = start(TEST, kind, packages) else { continue };
        daemon.fill("/of-7 = \"\"   (n7)\n/of-5 = \"\"   (n5,r7)\n").unwrap();
        let mut connection = UnixStream::connect(daemon.socket()).unwrap();
        connection.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut ask = |operation: u32, payload: &[u8]| {
            let length = u32::try_from(payload.len()).unwrap();
            let header = [operation, 0, 0, length].map(u32::to_ne_bytes).concat();
            connection.write_all(&[&header, payload].concat()).unwrap();
            let mut header = [0; 16];
            connection.read_exact(&mut header).unwrap();
            let mut reply = vec![0; header[12].into()]; // all of them are short
            connection.read_exact(&mut reply).unwrap();
            String::from_utf8(reply).unwrap()
        };
        const INTRODUCE: u32 = 8;
        const RELEASE: u32 = 9;
        const IS_DOMAIN_INTRODUCED: u32 = 17;
        assert_eq!(ask(IS_DOMAIN_INTRODUCED, b"7\0"), "F\0", "{kind:?}");
        assert_eq!(ask(INTRODUCE, b"7\x001\x002\x00"), "OK\0", "{kind:?}");
        assert_eq!(ask(IS_DOMAIN_INTRODUCED, b"7\0"), "T\0", "{kind:?}");
        output(daemon.client(Client::Exists).args(["/of-7", "/of-5"]));
        assert_eq!(ask(RELEASE, b"7\0"), "OK\0", "{kind:?}");
        assert_eq!(ask(IS_DOMAIN_INTRODUCED, b"7\0"), "F\0", "{kind:?}");
        assert_eq!(daemon.client(Client::Exists).arg("/of-7").status().unwrap().code(), Some(1));
        output(daemon.client(Client::Exists).arg("/of-5"));
    }
}

#[test]
fn the_c_daemon_updates_itself_live() {
    const TEST: &str = "the_c_daemon_updates_itself_live";
    let Some(packages) = packages(TEST) else { return };
    let Some(daemon) = start(TEST, Kind::C, packages) else { return };
    output(daemon.client(Client::Write).args(["/kept", "value"]));
    // A script in place of the new daemon keeps what the old one left for it.
    let directory = daemon.directory();
    let script = directory.join("new-xenstored");
    let kept = directory.join("kept_state_dump");
    let lines = format!(
        "#!/bin/sh\ncp {}/state_dump {} && exec {}/usr/lib/xen-4.17/bin/xenstored \"$@\"\n",
        directory.display(),
        kept.display(),
        packages.root().display()
    );
    fs::write(&script, lines).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let update = ["live-update", "-c", "-N -I", "-t", "2", "-F"];
    output(daemon.client(Client::Control).args(update).arg(&script));
    assert_eq!(output(daemon.client(Client::Read).arg("/kept")), "value\n");
    assert!(fs::read(&kept).unwrap().windows(5).any(|part| part == b"/kept"));
}

/// The variable by which the test below, run in a process of its own, knows that it is the one to be killed.
const VICTIM: &str = "STOCK_XENSTORE_TEST_VICTIM";

#[test]
fn a_killed_process_takes_its_daemons_along() {
    const TEST: &str = "a_killed_process_takes_its_daemons_along";
    let Some(packages) = packages(TEST) else { return };
    if env::var_os(VICTIM).is_some() {
        let daemons: Vec<_> =
            KINDS.iter().filter_map(|kind| start(TEST, *kind, packages)).collect();
        for daemon in &daemons {
            println!("\ndaemon {} {}", daemon.pid(), daemon.directory().display());
        }
        println!("\nready");
        loop {
            thread::park(); // until killed
        }
    }
    let mut victim = Command::new(env::current_exe().unwrap())
        .args(["--exact", "--nocapture", &format!("daemons::{TEST}")])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let printed = BufReader::new(victim.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut daemons: Vec<(PathBuf, PathBuf)> = Vec::new();
    for line in printed.take_while(|line| line != "ready") {
        if let Some((pid, directory)) =
            line.strip_prefix("daemon ").and_then(|rest| rest.split_once(' '))
        {
            daemons.push((process(pid.parse().unwrap()), directory.into()));
        }
    }
    assert!(daemons.iter().all(|(process, _)| process.exists()));
    victim.kill().unwrap();
    victim.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    for (process, directory) in &daemons {
        // Not children of this process: there is nothing to wait on but their entries in /proc.
        while process.exists() && !is_zombie(process) {
            assert!(Instant::now() < deadline, "{} is still there", process.display());
            thread::sleep(Duration::from_millis(5));
        }
        fs::remove_dir_all(directory).unwrap();
    }
}

fn process(pid: u32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}

/// Dead; who inherited it (in a container without init, nobody) has not reaped it.
fn is_zombie(process: &Path) -> bool {
    fs::read_to_string(process.join("stat")).is_ok_and(|stat| stat.contains(") Z "))
}
