//! Writing a listing into a daemon and reading it back with the stock tool.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use stock_xenstore::{Client, FillError, Kind, ListedNode, Listing, StockDaemon};

use crate::started::{KINDS, output, packages, start};

#[test]
fn a_filled_daemon_lists_what_the_real_host_listed() {
    const TEST: &str = "a_filled_daemon_lists_what_the_real_host_listed";
    let captures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/captures/xen-4.17");
    let Ok(moments) = fs::read_dir(&captures) else {
        println!("skipped: {TEST}: no captures of a real host beside the repository");
        return;
    };
    let Some(packages) = packages(TEST) else { return };
    let mut compared = 0;
    for moment in moments {
        let text = fs::read_to_string(moment.unwrap().path().join("xenstore.txt")).unwrap();
        for kind in KINDS {
            let Some(daemon) = start(TEST, kind, packages) else { continue };
            daemon.fill(&text).unwrap();
            assert_lists(&daemon, &text);
            compared += 1;
        }
    }
    println!("{TEST}: {compared} stores compared");
}

#[test]
fn any_octet_and_many_nodes_of_one_guest_arrive() {
    const TEST: &str = "any_octet_and_many_nodes_of_one_guest_arrive";
    let Some(packages) = packages(TEST) else { return };
    let octets: String = (0..=255_u8).map(|octet| format!("\\x{octet:02x}")).collect();
    let long = "v".repeat(2000); // the protocol's default quota is 2048
    let mut text = format!("/octets = \"{octets}\"   (n0)\n/long = \"{long}\"   (n0)\n");
    text += "/guest = \"\"   (n5,r6,w7,b8)\n";
    // In directories of 100: oxenstored 4.17 sends a bigger listing than the stock tools accept.
    for node in 0..3000 {
        if node % 100 == 0 {
            text += &format!("/guest/{} = \"\"   (n5)\n", node / 100);
        }
        text += &format!("/guest/{}/{node} = \"{node}\"   (n5,r0)\n", node / 100);
    }
    for kind in KINDS {
        let Some(daemon) = start(TEST, kind, packages) else { continue };
        daemon.fill(&text).unwrap();
        assert_lists(&daemon, &text);
    }
}

#[test]
fn a_refused_node_is_named() {
    const TEST: &str = "a_refused_node_is_named";
    let Some(packages) = packages(TEST) else { return };
    for kind in KINDS {
        let Some(daemon) = start(TEST, kind, packages) else { continue };
        let error = daemon.fill("/good = \"\"   (n0)\n/b?d = \"\"   (n0)\n").unwrap_err();
        let FillError::Refused { path, errno, .. } = &error else { panic!("{error}") };
        assert_eq!((path.as_str(), errno.as_str()), ("/b?d", "EINVAL"));
    }
}

/// The daemon lists the nodes of `text`, with values and permissions, and those it made by itself; no others.
fn assert_lists(daemon: &StockDaemon, text: &str) {
    let listed = Listing::parse(&output(daemon.client(Client::Ls).args(["-f", "-p"]))).unwrap();
    let expected = Listing::parse(text).unwrap();
    let (mut listed, expected) = (by_path(&listed), by_path(&expected));
    for own in daemon.kind().own_nodes() {
        if !expected.contains_key(own) {
            assert!(listed.remove(own).is_some(), "{:?} makes no {own}", daemon.kind());
        }
    }
    for (path, node) in &expected {
        assert_eq!(listed.get(path), Some(node), "{:?}", daemon.kind());
    }
    let more: Vec<_> = listed.keys().filter(|path| !expected.contains_key(*path)).collect();
    assert!(more.is_empty(), "{:?} lists also {more:?}", daemon.kind());
}

fn by_path(listing: &Listing) -> BTreeMap<&str, &ListedNode> {
    listing.nodes().iter().map(|node| (node.path(), node)).collect()
}

#[test]
fn the_nodes_that_a_daemon_makes_are_known() {
    const TEST: &str = "the_nodes_that_a_daemon_makes_are_known";
    let Some(packages) = packages(TEST) else { return };
    for kind in [Kind::C, Kind::OCaml] {
        let Some(daemon) = start(TEST, kind, packages) else { continue };
        assert_lists(&daemon, "");
    }
}
