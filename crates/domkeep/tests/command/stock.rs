//! Beside the stock command line tools of Xenstore: each on the other's server.

use std::fs;

use stock_xenstore::{Client, Kind, Packages, StartError, StockDaemon};
use xsclient::{Endpoint, MessageType, Nodes, Options, Request};

use crate::host::{Answer, Host, domkeep, shipped};

/// `None` with a line that says so where the tools cannot be had.
fn packages(test: &str) -> Option<&'static Packages> {
    match Packages::of_workspace() {
        Ok(packages) => Some(packages),
        Err(reason) => {
            println!("skipped: {test}: {reason}");
            None
        }
    }
}

#[test]
fn the_stock_tools_and_ours_print_the_same_of_the_embedded_xenstore() {
    const TEST: &str = "the_stock_tools_and_ours_print_the_same_of_the_embedded_xenstore";
    let Some(packages) = packages(TEST) else { return };
    let host = Host::demo();
    host.ask(&["xenstore", "write", "/tool/odd", "a\\b\t\"c\"\r\n\u{1}\u{7f}é"]).expect(0);
    let stock = |client: Client, arguments: &[&str]| {
        Answer::of(packages.client(client, &host.socket()).args(arguments)).expect(0).stdout()
    };
    for (options, path) in [("-fp", "/"), ("-f", "/"), ("-fp", "/local/domain/1"), ("-f", "/vm")] {
        let ours = host.ask(&["xenstore", "ls", options, path]).expect(0).stdout();
        assert_eq!(ours, stock(Client::Ls, &[options, path]), "{options} {path}");
    }
    assert_eq!(host.ask(&["xenstore", "ls"]).expect(0).stdout(), stock(Client::Ls, &[]));
    stock(Client::Write, &["/tool/a", "1", "/tool/b", "2"]);
    assert_eq!(host.ask(&["xenstore", "read", "/tool/a", "/tool/b"]).expect(0).stdout(), "1\n2\n");
    host.ask(&["xenstore", "write", "/tool/a", "3", "/tool/c", "4"]).expect(0);
    assert_eq!(stock(Client::Read, &["/tool/a", "/tool/c"]), "3\n4\n");
}

#[test]
fn the_stock_tools_and_ours_print_the_same_of_each_stock_daemon() {
    const TEST: &str = "the_stock_tools_and_ours_print_the_same_of_each_stock_daemon";
    let Some(packages) = packages(TEST) else { return };
    let text = fs::read_to_string(shipped("demo/host/xenstore.txt")).unwrap();
    for kind in [Kind::C, Kind::OCaml] {
        let daemon = match StockDaemon::start(kind, packages) {
            Ok(daemon) => daemon,
            Err(StartError::Unavailable(reason)) => {
                println!("skipped: {TEST}: {kind:?}: {reason}");
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        daemon.fill(&text).unwrap();
        let stock = Answer::of(daemon.client(Client::Ls).arg("-fp")).expect(0).stdout();
        let ours = |arguments: &[&str]| {
            Answer::of(domkeep().arg("--xenstore").arg(daemon.socket()).args(arguments)).expect(0)
        };
        assert_eq!(ours(&["xenstore", "ls", "-fp"]).stdout(), stock);
        ours(&["xenstore", "write", "/tool/a", "1", "/tool/b", "2"]);
        ours(&["xenstore", "rm", "/tool/a"]);
        assert_eq!(ours(&["xenstore", "read", "/tool/b"]).stdout(), "2\n");
        let events = ours(&["xenstore", "watch", "/tool/b", "-n", "1", "--timeout", "10"]);
        assert_eq!(events.stdout(), "/tool/b\n");
    }
}

#[test]
fn permissions_that_a_guest_made_up_hide_their_node_and_no_other() {
    const TEST: &str = "permissions_that_a_guest_made_up_hide_their_node_and_no_other";
    let Some(packages) = packages(TEST) else { return };
    let daemon = match StockDaemon::start(Kind::OCaml, packages) {
        Err(StartError::Unavailable(reason)) => return println!("skipped: {TEST}: {reason}"),
        daemon => daemon.unwrap(),
    };
    daemon.fill("/a = \"1\"   (n0)\n/b = \"2\"   (n0)\n/c = \"3\"   (n0)\n").unwrap();
    let endpoint = Endpoint::UnixSocket(daemon.socket().to_owned());
    let mut client = xsclient::Client::open(endpoint, Options::default()).unwrap();
    let payload = b"/b\0n99999\0".to_vec();
    client.request(&Request::Unknown { ty: MessageType::SET_PERMS, payload }).unwrap();
    let answer = Answer::of(
        domkeep().arg("--xenstore").arg(daemon.socket()).args(["xenstore", "ls", "-fp"]),
    )
    .expect(1);
    assert!(answer.stdout().contains("/a = \"1\"") && answer.stdout().contains("/c = \"3\""));
    assert!(answer.stderr().contains("/b and what is below is not shown"), "{}", answer.stderr());
}
