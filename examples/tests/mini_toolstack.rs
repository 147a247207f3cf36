//! The mini toolstack: a domain's whole life, as it is told and as it is left behind.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod readme;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use libxl_config::{DomainConfig, Mode};
use snapshot::Snapshot;

const TOLD: &str = "\
started: a Xenstore, a template store, a simulated hypervisor
created: domain 1 (web) runs, with a template and its nodes
retrieved: web, template and Xenstore agree
    disk xvda: connected, root.img
plug xvdb by hand: begun and aborted, nothing changed
plug xvdb by hand: connected, template is now REVISION
retrieved: web, template and Xenstore agree
    disk xvda: connected, root.img
    disk xvdb: connected, data.img
attach xvdc: refused, image more.img: entity not found
attach disk xvdc: connected
retrieved: web, template and Xenstore agree
    disk xvda: connected, root.img
    disk xvdb: connected, data.img
    disk xvdc: connected, more.img
detach disk xvdc: gone from Xenstore and template
detach disk xvdb: gone from Xenstore and template
saved: Complete, the guest goes on
retrieved: web, template and Xenstore agree
    disk xvda: connected, IMAGE
destroyed: domain 1, its nodes and its template
restored: domain 2 (web-2) runs on from where it was saved
retrieved: web-2, template and Xenstore agree
    disk xvda: connected, root-2.img
";

fn run(directory: &Path, search: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mini_toolstack"));
    command.arg(directory).stdin(Stdio::null());
    if let Some(search) = search {
        command.env("PATH", search);
    }
    command.output().unwrap()
}

/// Without what is another one each time.
fn normalised(told: &[u8]) -> String {
    let lines = str::from_utf8(told).unwrap().lines().map(|line| {
        match line.split_once("template is now ") {
            Some((before, revision)) => {
                assert!(revision.len() >= 16, "{line}");
                format!("{before}template is now REVISION\n")
            }
            None => format!("{line}\n"),
        }
    });
    lines.collect()
}

fn assert_lived(directory: &Path, output: &Output, image_after_save: &str) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(normalised(&output.stdout), TOLD.replace("IMAGE", image_after_save));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");

    // Nothing is left to be undone or completed.
    assert!(
        !directory.join("save.journal").exists() && !directory.join("restore.journal").exists()
    );
    let manifest = fs::read_to_string(directory.join("web.snapshot")).unwrap();
    let snapshot = Snapshot::from_json(&manifest).unwrap();
    assert!(snapshot.memory.unwrap().location.path().unwrap().is_file());
    assert_eq!(snapshot.disks[0].vdev, "xvda");

    // The host has ended with the toolstack, as if it had crashed: the last domain's template is there, and no other.
    let templates: Vec<_> = fs::read_dir(directory.join("templates"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "libxl-json"))
        .collect();
    assert_eq!(templates.len(), 1, "{templates:?}");
    let text = fs::read(&templates[0]).unwrap();
    let config =
        DomainConfig::read(text.strip_suffix(b"\0").unwrap(), Mode::Lenient).unwrap().config;
    assert_eq!(config.c_info.name.as_deref(), Some("web-2"));
    assert_eq!(config.disks.len(), 1);
    let image = directory.canonicalize().unwrap().join("root-2.img");
    assert_eq!(config.disks[0].pdev_path.as_deref(), image.to_str());

    let xenstore = fs::read_to_string(directory.join("xenstore.txt")).unwrap();
    assert!(xenstore.contains("/local/domain/2/name = \"web-2\""), "{xenstore}");
    for gone in ["/local/domain/1 ", "/local/domain/1/", "/libxl/1", "/qdisk/1 ", "51728", "51744"]
    {
        assert!(!xenstore.contains(gone), "{gone}: {xenstore}");
    }
}

#[test]
fn a_domain_lives_through_hotplug_snapshot_and_restore_on_qcow2_disks() {
    for program in ["qemu-img", "qemu-storage-daemon", "setpriv"] {
        let mut asked = Command::new(program);
        asked.arg("--version").stdin(Stdio::null()).stdout(Stdio::null());
        if !asked.status().is_ok_and(|status| status.success()) {
            println!(
                "skipped: a_domain_lives_through_hotplug_snapshot_and_restore_on_qcow2_disks: {program} cannot be started"
            );
            return;
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let output = run(directory.path(), None);
    // The guest writes to the overlay from the save on.
    assert_lived(directory.path(), &output, "root-1.img");
}

#[test]
fn the_readme_shows_what_is_told() {
    let shown = readme::shown_of("mini_toolstack");
    assert_eq!(normalised(shown.as_bytes()), TOLD.replace("IMAGE", "root-1.img"));
}

#[test]
fn without_qemu_the_same_is_done_with_raw_disks() {
    let directory = tempfile::tempdir().unwrap();
    let output = run(directory.path(), Some("/nonexistent"));
    assert_lived(directory.path(), &output, "root.img");
}

#[test]
fn a_directory_that_is_not_there_is_named_and_nothing_is_started() {
    let directory = tempfile::tempdir().unwrap();
    let output = run(&directory.path().join("missing"), None);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(str::from_utf8(&output.stdout).unwrap(), "");
    let told = String::from_utf8(output.stderr).unwrap();
    let expected =
        format!("mini_toolstack: directory {}/missing: No such file", directory.path().display());
    assert!(told.starts_with(&expected), "{told}");
}

#[test]
fn a_step_that_fails_ends_the_program_with_what_failed_and_why() {
    let directory = tempfile::tempdir().unwrap();
    // The place of the memory image is taken, and nothing is ever overwritten.
    fs::write(directory.path().join("web.memory"), "somebody's").unwrap();
    let output = run(directory.path(), Some("/nonexistent"));
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("web.memory"), "{told}");
    assert_eq!(fs::read(directory.path().join("web.memory")).unwrap(), b"somebody's");
    assert!(!normalised(&output.stdout).contains("saved"));
}
