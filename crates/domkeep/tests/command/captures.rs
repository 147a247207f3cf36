//! `list -l` beside what libxl answered for the same hosts.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use stock_xenstore::{Kind, Packages, StartError, StockDaemon};

use crate::host::{Answer, Host, domkeep, shipped};

/// The captures that are shipped, and those of real hosts where there are any.
fn captures(test: &str) -> Vec<PathBuf> {
    let mut captures = vec![shipped("demo/host")];
    let real = shipped("../../../shared/captures/xen-4.17");
    if !real.is_dir() {
        println!("skipped: {test}: no ../shared/captures, only the shipped ones are compared");
    }
    for all in [shipped("tests/data/captures"), real] {
        let Ok(entries) = fs::read_dir(all) else { continue };
        captures.extend(entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()));
    }
    captures.sort();
    captures
}

fn by_domid(list: &Value) -> BTreeMap<u64, Value> {
    let entry = |domain: &Value| {
        let mut domain = domain.clone();
        // Only the hypervisor knows these.
        if let Some(b_info) = domain["config"]["b_info"].as_object_mut() {
            b_info.remove("sched_params").unwrap();
        }
        (domain["domid"].as_u64().unwrap(), domain)
    };
    list.as_array().unwrap().iter().map(entry).collect()
}

/// Every domain but Domain-0, which libxl's retrieve is documented not to be for.
fn compare(answer: &Answer, capture: &Path) {
    let libxl: Value =
        serde_json::from_slice(&fs::read(capture.join("list-l.json")).unwrap()).unwrap();
    let (mut ours, mut theirs) = (by_domid(&answer.json()), by_domid(&libxl));
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    let (dom0, of_libxl) = (ours.remove(&0).unwrap(), theirs.remove(&0).unwrap());
    assert!(!theirs.is_empty(), "{}: nothing to compare", capture.display());
    assert_eq!(ours, theirs, "{}", capture.display());
    // And of Domain-0 all but the one value that libxl had wrong until 4.21.
    let target = |domain: &Value| domain["config"]["b_info"]["target_memkb"].as_u64().unwrap();
    assert_eq!(target(&dom0), target(&of_libxl) + 1);
}

#[test]
fn on_c_xenstored_list_l_is_what_libxl_answered() {
    const TEST: &str = "on_c_xenstored_list_l_is_what_libxl_answered";
    let packages = match Packages::of_workspace() {
        Ok(packages) => packages,
        Err(reason) => return println!("skipped: {TEST}: {reason}"),
    };
    for capture in captures(TEST) {
        let daemon = match StockDaemon::start(Kind::C, packages) {
            Ok(daemon) => daemon,
            Err(StartError::Unavailable(reason)) => return println!("skipped: {TEST}: {reason}"),
            Err(error) => panic!("{error}"),
        };
        daemon.fill(&fs::read_to_string(capture.join("xenstore.txt")).unwrap()).unwrap();
        let mut templates = std::ffi::OsString::from("userdata:");
        templates.push(&capture);
        let mut command = domkeep();
        command.arg("--xenstore").arg(daemon.socket()).arg("--templates").arg(templates);
        compare(&Answer::of(command.args(["list", "-l"])).expect(0), &capture);
    }
}

#[test]
fn on_the_embedded_xenstore_list_l_is_what_libxl_answered() {
    for capture in captures("on_the_embedded_xenstore_list_l_is_what_libxl_answered") {
        compare(&Host::of(&capture).ask(&["list", "-l"]).expect(0), &capture);
    }
}

#[test]
fn a_killed_block_attach_is_named_half_attached_in_words_and_in_json() {
    const TEST: &str = "a_killed_block_attach_is_named_half_attached_in_words_and_in_json";
    let capture = shipped("../../../shared/captures/xen-4.17/25-killed-in-block-attach");
    if !capture.is_dir() {
        return println!("skipped: {TEST}: no ../shared/captures");
    }
    let host = Host::of(&capture);
    let words = host.ask(&["retrieve", "7", "--report"]).expect(0).stdout();
    let line = words.lines().find(|line| line.contains("disk xvdd")).unwrap();
    assert!(line.contains("half attached") && line.contains("backend state 2"), "{words}");
    let answer = host.ask(&["retrieve", "7", "--report", "--json"]).expect(0).json();
    let devices = answer["report"]["devices"].as_array().unwrap();
    let xvdd = devices.iter().find(|device| device["id"] == "xvdd").unwrap();
    assert_eq!(xvdd["attachment"]["is"], "half_attached");
    assert_eq!(xvdd["attachment"]["backend_state"], 2);
    assert_eq!(xvdd["attachment"]["missing"], "script");
    assert_eq!(answer["config"]["disks"][1]["vdev"], "xvdd");
}
