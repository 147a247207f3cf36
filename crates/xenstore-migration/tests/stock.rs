//! The stream between this crate and stock C xenstored 4.17, both ways.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path as FilePath;
use std::time::Duration;

use stock_xenstore::{Client as Tool, Kind, Packages, StartError, StockDaemon};
use xenstore_migration::{
    NodePerm, OrderChecker, Peer, PeerChecker, PeerTrouble, PermFlags, ReadOptions, Record,
    StreamKind, StreamReader, StreamWriter, convert,
};
use xsclient::{Client, DomId, Endpoint, Options};

fn packages(test: &str) -> Option<&'static Packages> {
    match Packages::of_workspace() {
        Ok(packages) => Some(packages),
        Err(reason) => {
            println!("skipped: {test}: {reason}");
            None
        }
    }
}

fn start(test: &str, packages: &Packages) -> Option<StockDaemon> {
    match StockDaemon::start(Kind::C, packages) {
        Ok(daemon) => Some(daemon),
        Err(StartError::Unavailable(reason)) => {
            println!("skipped: {test}: {reason}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn client(socket: &FilePath) -> Client {
    let options = Options::with_timeout(Duration::from_secs(60));
    Client::open(Endpoint::UnixSocket(socket.to_owned()), options).unwrap()
}

/// 20,000 nodes of four owners in directories of 100, with values of any kind.
fn host() -> String {
    let mut text = String::new();
    for directory in 0..198 {
        let owner = directory % 4;
        writeln!(text, "/local/domain/{owner}/d{directory} = \"\"   (n{owner})").unwrap();
        for node in 0..100 {
            let value =
                ["", "\\000\\377\\n", "/local/domain/0", "a value with \\\\ in it"][node % 4];
            let perms = ["", ",r9", ",b1,w2"][node % 3];
            writeln!(
                text,
                "/local/domain/{owner}/d{directory}/node-{node} = \"{value}\"   (n{owner}{perms})"
            )
            .unwrap();
        }
    }
    text
}

type Nodes = BTreeMap<Vec<u8>, (Vec<u8>, Vec<NodePerm>)>;

fn nodes(stream: &[u8]) -> Nodes {
    let mut reader = StreamReader::open(stream, ReadOptions::default()).unwrap();
    let mut nodes = Nodes::new();
    while let Some(placed) = reader.next_record().unwrap() {
        if let Record::Node(node) = placed.record {
            nodes.insert(node.path.to_vec(), (node.value.to_vec(), node.perms.to_vec()));
        }
    }
    nodes
}

/// The stream read and written again, in the form that the reader reports.
fn rewritten(stream: &[u8]) -> Vec<u8> {
    let mut reader = StreamReader::open(stream, ReadOptions::default()).unwrap();
    let mut order = OrderChecker::new(reader.preamble(), StreamKind::LiveUpdate);
    let mut peers = PeerChecker::new(reader.preamble(), Peer::C417);
    while let Some(placed) = reader.next_record().unwrap() {
        assert_eq!(order.check(&placed.record), [], "{}", placed.place);
        // Domain 9 is not known to anybody.
        let mut troubles = peers.check(&placed.record);
        troubles.retain(
            |it| !matches!(it, PeerTrouble::RightLost { domid, .. } if *domid == DomId::new(9)),
        );
        assert_eq!(troubles, [], "{}", placed.place);
    }
    let peer = reader.peer().unwrap();
    assert_eq!(peer, Peer::C417);
    let mut reader = StreamReader::open(stream, ReadOptions::default()).unwrap();
    let mut writer = StreamWriter::create(Vec::new(), reader.preamble(), peer).unwrap();
    while let Some(placed) = reader.next_record().unwrap() {
        writer.write(&placed.record).unwrap();
    }
    writer.finish().unwrap()
}

fn listed(daemon: &StockDaemon) -> String {
    let output = daemon.client(Tool::Ls).arg("-fp").output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_stock_daemon_started_on_our_stream_holds_the_20_000_nodes_of_the_one_that_wrote_it() {
    const TEST: &str =
        "a_stock_daemon_started_on_our_stream_holds_the_20_000_nodes_of_the_one_that_wrote_it";
    let Some(packages) = packages(TEST) else { return };
    let Some(mut daemon) = start(TEST, packages) else { return };
    let mut toolstack = client(daemon.socket());
    for domid in 1..4 {
        toolstack.introduce(DomId::new(domid), 1, u32::from(domid)).unwrap();
    }
    daemon.fill(&host()).unwrap();
    let watch: xsclient::Path = "/local/domain/1".parse().unwrap();
    toolstack.watch(watch, None).unwrap();

    let dump = daemon.live_update_dump().unwrap();
    let ours = rewritten(&dump);
    assert!(ours == dump, "written again it has other octets");
    let (mut other, _clients) = StockDaemon::start_on(packages, &ours).unwrap();
    let held = nodes(&other.live_update_dump().unwrap());
    let mut dumped = nodes(&dump);
    assert!(dumped.len() > 20_000, "{}", dumped.len());
    // A server that is told of a domain it does not know takes it for gone.
    for perm in dumped.values_mut().flat_map(|(_, perms)| perms) {
        if perm.domid == DomId::new(9) {
            assert_eq!(perm.flags, PermFlags::NONE);
            perm.flags = PermFlags::STALE;
        }
    }
    assert!(held == dumped, "the daemon on our stream holds another store");
    assert_eq!(listed(&other), listed(&daemon));
}

#[test]
fn a_stock_daemon_takes_what_is_converted_for_it_and_not_what_is_as_specified() {
    const TEST: &str = "a_stock_daemon_takes_what_is_converted_for_it_and_not_what_is_as_specified";
    let Some(packages) = packages(TEST) else { return };
    let Some(mut daemon) = start(TEST, packages) else { return };
    daemon.fill("/a = \"1\"   (n0)\n/a/b = \"22\"   (n0)\n/a/b/c = \"333\"   (n0)\n").unwrap();
    let dump = daemon.live_update_dump().unwrap();
    let mut reader = StreamReader::open(&*dump, ReadOptions::default()).unwrap();
    let preamble = reader.preamble();
    let mut writer = StreamWriter::create(Vec::new(), preamble, Peer::Specification).unwrap();
    convert(&mut reader, &mut writer, |loss| panic!("{loss}")).unwrap();
    let specified = writer.finish().unwrap();
    assert_ne!(specified, dump);

    let mut reader = StreamReader::open(&*specified, ReadOptions::default().strict()).unwrap();
    let mut writer = StreamWriter::create(Vec::new(), preamble, Peer::C417).unwrap();
    convert(&mut reader, &mut writer, |loss| panic!("{loss}")).unwrap();
    let for_c = writer.finish().unwrap();
    assert_eq!(for_c, dump);
    let (taken, _clients) = StockDaemon::start_on(packages, &for_c).unwrap();
    assert_eq!(listed(&taken), listed(&daemon));

    // It takes the stream for ended after the first record whose length is no multiple of 8.
    if let Ok((lost, _clients)) = StockDaemon::start_on(packages, &specified) {
        assert_ne!(listed(&lost), listed(&daemon), "a stock daemon reads what is as specified");
    }
}
