//! `stream extract` and `apply`.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use stock_xenstore::{Kind, Packages, StartError, StockDaemon};
use xenstore_migration::{
    ByteOrder, ConnectionData, ConnectionId, ConnectionSpec, NodeData, NodePerm, NodeScope, Peer,
    PermFlags, Preamble, Record, RecordType, StreamWriter, TransactionData, UnknownData, Version,
    WatchData,
};
use xsclient::{Access, DomId, TxId};

use super::text;
use crate::host::{Answer, Host, domkeep, shipped};

const SAVED: DomId = DomId::new(7);

/// Nodes of domain 7, with who owns them.
const NODES: [(&str, &[u8], DomId); 8] = [
    ("", b"", DomId::DOM0),
    ("/attr", b"", SAVED),
    ("/attr/os", b"NetBSD 10", SAVED),
    ("/control", b"", DomId::DOM0),
    ("/control/feature-suspend", b"1", SAVED),
    ("/data", b"", SAVED),
    ("/data/report", b"ready \"\\\"\n", SAVED),
    ("/vm-data", b"given", DomId::DOM0),
];

/// A stream of domain 7, with more records behind its nodes.
fn guest(more: &[Record<'_>]) -> Vec<u8> {
    let preamble = Preamble::new(Version::V1, ByteOrder::Little);
    let mut writer = StreamWriter::create(Vec::new(), preamble, Peer::Specification).unwrap();
    let connection = ConnectionId::new(1).unwrap();
    let ring = ConnectionSpec::Ring { domid: SAVED, target: None, port: 0 };
    let head = [
        Record::Connection(ConnectionData {
            id: connection,
            spec: ring,
            input: b"",
            output_rest: 0,
            output: b"",
            unique_id: None,
        }),
        Record::Watch(WatchData { connection, path: b"control/shutdown", token: b"shutdown" }),
        Record::Transaction(TransactionData { connection, transaction: TxId(3) }),
    ];
    head.iter().for_each(|record| writer.write(record).unwrap());
    for (below, value, owner) in NODES {
        let path = format!("/local/domain/7{below}");
        let perms = [NodePerm::new(Access::None, owner), NodePerm::new(Access::Read, SAVED)];
        let perms = if owner == SAVED { &perms[..1] } else { &perms };
        let (scope, path) = (NodeScope::Committed, path.as_bytes());
        writer.write(&Record::Node(NodeData { scope, perms, path, value })).unwrap();
    }
    more.iter().for_each(|record| writer.write(record).unwrap());
    writer.finish().unwrap()
}

fn shipped_guest() -> PathBuf {
    shipped("tests/data/config/guest.stream")
}

#[test]
fn the_stream_of_the_examples_is_what_the_tests_write() {
    assert_eq!(fs::read(shipped_guest()).unwrap(), guest(&[]));
}

#[test]
fn what_a_domain_has_goes_into_a_stream_and_back_without_a_change() {
    let host = Host::demo();
    let out = host.directory.path().join("web");
    let words = host.ask(&["stream", "extract", "web", text(&out)]).expect(0).stdout();
    assert!(words.contains("without watches: the domain has no connection\n"), "{words}");
    assert!(words.contains("/web: domain 1, 59 nodes, "), "{words}");
    let verified =
        host.ask(&["stream", "verify", text(&out), "--strict", "--json"]).expect(0).json();
    assert_eq!((&verified["kind"], &verified["version"]), (&json!("domain"), &json!(2)));
    assert_eq!(verified["records"]["NODE_DATA"], 59);
    let again = host.ask(&["stream", "apply", text(&out), "web", "--json"]).expect(0).json();
    assert_eq!((&again["committed"], &again["changes"]), (&json!(false), &json!([])));
    let before = host.ask(&["xenstore", "ls", "-fp"]).expect(0).stdout();
    host.ask(&["xenstore", "write", "/local/domain/1/data/x", "1"]).expect(0);
    host.ask(&["stream", "apply", text(&out), "1"]).expect(0);
    host.ask(&["xenstore", "rm", "/local/domain/1/data/x"]).expect(0);
    assert_eq!(host.ask(&["xenstore", "ls", "-fp"]).expect(0).stdout(), before);
}

#[test]
fn a_stream_is_extracted_in_the_form_that_was_asked_for() {
    let host = Host::demo();
    let out = host.directory.path().join("db");
    let arguments = ["--for", "c-4.17", "--byte-order", "native", "--root", "/libxl/2", "--json"];
    let extract = [&["stream", "extract", "2", text(&out)], &arguments[..]].concat();
    // C xenstored takes nodes only of domains that are connected, which nobody here can tell.
    let document = host.ask(&extract).expect(1).json();
    assert_eq!((&document["peer"], &document["version"]), (&json!("c-4.17"), &json!(1)));
    assert_eq!(document["roots"][1], "/local/domain/2");
    assert_eq!(document["roots"][0], "/libxl/2");
    assert_eq!((&document["consistent"], &document["domid"]), (&json!(true), &json!(2)));
    assert!(
        document["losses"].as_array().unwrap().iter().any(|loss| {
            loss.as_str().unwrap().contains("domain 2, which owns /local/domain/2/")
        })
    );
    assert_eq!(document["octets"], fs::metadata(&out).unwrap().len());
    let verified = host.ask(&["stream", "verify", text(&out), "--json"]).expect(0).json();
    assert_eq!(verified["peer"], "c-4.17");
    let to_stdout = host.ask(&["stream", "extract", "2", "-", "--byte-order", "big"]).expect(0);
    assert!(to_stdout.0.stdout.starts_with(b"xenstore\0\0\0\x02\0\0\0\x01"));
    assert!(to_stdout.stderr().contains("-: domain 2, "), "{}", to_stdout.stderr());
}

#[test]
fn what_could_not_be_read_is_bad_news_and_leaves_no_file_where_there_is_no_domain() {
    let host = Host::demo();
    let out = host.directory.path().join("out");
    let missing = host.ask(&["stream", "extract", "web", text(&out), "--root", "/none"]).expect(1);
    assert!(missing.stdout().contains("without tree /none: there is no such node"));
    let taken = host.ask(&["stream", "extract", "web", text(&out)]).expect(1);
    assert!(taken.stderr().contains("exists already"), "{}", taken.stderr());
    let other = host.directory.path().join("other");
    for (domain, status) in [("99", 1), ("nosuch", 1), ("32752", 1)] {
        let none = host.ask(&["stream", "extract", domain, text(&other)]).expect(status);
        assert_eq!(none.stdout(), "");
    }
    host.ask(&["stream", "extract", "web", text(&other), "--root", "relative"]).expect(2);
    // The shared directories of a host are no domain's.
    let shared = host.ask(&["stream", "extract", "web", text(&other), "--root", "/vm"]).expect(1);
    assert!(shared.stderr().contains("/vm cannot be one domain's own"), "{}", shared.stderr());
    let mut nowhere = domkeep();
    nowhere.args(["--xenstore", "/nonexistent/s", "stream", "extract", "1", text(&other)]);
    Answer::of(&mut nowhere).expect(3);
    assert!(!other.exists());
    let left: Vec<_> = fs::read_dir(host.directory.path()).unwrap().collect();
    assert_eq!(left.len(), 3, "socket, templates, out: {left:?}");
}

#[test]
fn a_state_is_put_back_under_another_domid_as_far_as_the_policy_goes() {
    let host = Host::demo();
    let before = host.ask(&["xenstore", "ls", "-fp"]).expect(0).stdout();
    let apply = |more: &[&str]| {
        let guest = shipped_guest();
        host.ask(&[&["stream", "apply", text(&guest), "db"], more].concat())
    };
    let planned = apply(&["--dry-run"]).expect(0).stdout();
    assert!(
        planned.contains("create /local/domain/2/data/report = \"ready \"\\\\\"\\n\"   (n2)\n")
    );
    let left = "left, the policy does not cover it: 1 node\n    /local/domain/2/vm-data\n";
    assert!(planned.contains(left), "{planned}");
    assert!(planned.contains("not restored, the policy leaves it: 1 watch\n"), "{planned}");
    assert!(planned.ends_with(" to be made\n"), "{planned}");
    assert_eq!(host.ask(&["xenstore", "ls", "-fp"]).expect(0).stdout(), before);
    let made = apply(&[]).expect(0).stdout();
    assert_eq!(made.replace(" made\n", " to be made\n"), planned);
    let now = host.ask(&["xenstore", "ls", "-fp", "/local/domain/2"]).expect(0).stdout();
    assert!(now.contains("/local/domain/2/data/report = \"ready \"\\\\\"\\n\"   (n2)\n"), "{now}");
    assert!(!now.contains("vm-data"), "{now}");
    let again = apply(&["--json"]).expect(0).json();
    assert_eq!((&again["changes"], &again["committed"]), (&json!([]), &json!(false)));
    assert_eq!((&again["from"], &again["domid"]), (&json!(7), &json!(2)));
    let allowed = apply(&["--allow", "vm-data", "--json"]).expect(0).json();
    assert_eq!(
        allowed["changes"],
        json!([{ "change": "create", "path": "/local/domain/2/vm-data", "value": "given", "perms": "n0,r2" }])
    );
    let read = host.ask(&["xenstore", "read", "/local/domain/2/vm-data"]).expect(0);
    assert_eq!(read.stdout(), "given\n");
}

#[test]
fn an_exact_restore_says_what_a_domain_without_a_connection_does_not_get() {
    let host = Host::demo();
    let guest = shipped_guest();
    let exact = ["stream", "apply", text(&guest), "db", "--exact"];
    let words = host.ask(&[&exact[..], &["--dry-run"]].concat()).expect(1).stdout();
    assert!(words.contains("not restored, the domain has no connection: 1 watch\n"), "{words}");
    assert!(
        words.contains("not restored, the domain has no connection: 1 open transaction\n"),
        "{words}"
    );
    let document = host.ask(&[&exact[..], &["--json"]].concat()).expect(1).json();
    assert_eq!(
        document["not_restored"],
        json!([
            {
                "what": "watch", "wanted": true, "reason": "the domain has no connection", "path": "control/shutdown", "token": "shutdown",
                "depth": null,
            },
            {
                "what": "transaction", "wanted": true, "reason": "the domain has no connection",
                "transaction": 3, "nodes": 0,
            },
        ])
    );
    assert_eq!(document["committed"], true);
}

#[test]
fn the_tree_below_vm_goes_to_that_of_the_new_domain_or_nowhere() {
    let host = Host::demo();
    let out = host.directory.path().join("web");
    host.ask(&["xenstore", "write", "/vm/7d1c2a90-4b1e-4c7d-9a55-0b6f2f1d6a01/note", "n"])
        .expect(0);
    host.ask(&["stream", "extract", "web", text(&out)]).expect(0);
    let allow = |domain: &str| {
        let arguments = ["stream", "apply", text(&out), domain, "--allow", "/vm/*/note", "--json"];
        host.ask(&arguments).expect(0).json()
    };
    let created: Value = allow("db")["changes"][0]["path"].clone();
    assert_eq!(created, "/vm/e2f4b6d8-10ac-4e35-8f77-5c9d3b2a4e02/note");
    host.ask(&["xenstore", "rm", "/local/domain/2/vm"]).expect(0);
    host.ask(&["xenstore", "rm", "/vm/7d1c2a90-4b1e-4c7d-9a55-0b6f2f1d6a01/note"]).expect(0);
    let nowhere = allow("db");
    assert_eq!(nowhere["vm_left_out"], "/vm/7d1c2a90-4b1e-4c7d-9a55-0b6f2f1d6a01");
    let paths: Vec<_> = nowhere["changes"].as_array().unwrap().iter().collect();
    assert!(paths.iter().all(|change| !change["path"].as_str().unwrap().starts_with("/vm/")));
}

#[test]
fn what_is_not_understood_or_counts_no_more_is_told() {
    let host = Host::demo();
    let stale = NodePerm { access: Access::Read, flags: PermFlags::STALE, domid: DomId::new(5) };
    let perms = [NodePerm::new(Access::None, SAVED), stale];
    let (scope, path) = (NodeScope::Committed, b"/local/domain/7/data/x".as_slice());
    let more = [
        Record::Node(NodeData { scope, perms: &perms, path, value: b"" }),
        Record::Unknown(UnknownData { record_type: RecordType(0x21), body: b"12345678" }),
    ];
    let file = host.directory.path().join("stream");
    fs::write(&file, guest(&more)).unwrap();
    let words = host.ask(&["stream", "apply", text(&file), "db", "--dry-run"]).expect(1).stdout();
    assert!(words.contains("without the permission r5 of /local/domain/7/data/x"), "{words}");
    assert!(words.contains("left, its type is not known: record 12 (type 0x21)"), "{words}");
    let document = host.ask(&["stream", "apply", text(&file), "db", "--json"]).expect(1).json();
    assert_eq!(document["unknown"][0]["type"], "type 0x21");
    assert_eq!(document["stale_perms"][0]["perm"], "r5");
}

#[test]
fn a_stream_that_is_not_of_one_domain_or_a_domain_that_is_not_there_is_refused() {
    let host = Host::demo();
    let node = shipped("../xenstore-migration/testdata/one-node.bin");
    let refused = host.ask(&["stream", "apply", text(&node), "db"]).expect(1);
    assert!(refused.stderr().contains("is no stream of one domain"), "{}", refused.stderr());
    assert!(refused.stderr().contains("--kind domain"), "{}", refused.stderr());
    let guest = shipped_guest();
    let absent = host.ask(&["stream", "apply", text(&guest), "99"]).expect(1);
    assert!(absent.stderr().contains("no domain 99"), "{}", absent.stderr());
    let cut = host.directory.path().join("cut");
    fs::write(&cut, &fs::read(&guest).unwrap()[..100]).unwrap();
    let broken = host.ask(&["stream", "apply", text(&cut), "db"]).expect(1);
    assert!(broken.stderr().contains("the stream is cut"), "{}", broken.stderr());
    host.ask(&["stream", "apply", text(&guest), "db", "--allow", "a**"]).expect(2);
    for dom0 in ["0", "Domain-0"] {
        let refused = host.ask(&["stream", "apply", text(&guest), dom0, "--exact"]).expect(2);
        assert!(refused.stderr().contains("what it owns is the host's"), "{}", refused.stderr());
    }
    host.ask(&["stream", "apply", "/nonexistent/file", "db"]).expect(3);
    let mut nowhere = domkeep();
    nowhere.args(["--xenstore", "/nonexistent/s", "stream", "apply", text(&guest), "1"]);
    Answer::of(&mut nowhere).expect(3);
}

#[test]
fn a_right_that_another_domain_had_is_not_given_away_in_silence() {
    let host = Host::demo();
    let perms = [NodePerm::new(Access::None, SAVED), NodePerm::new(Access::Write, DomId::new(5))];
    let (scope, path) = (NodeScope::Committed, b"/local/domain/7/data/x".as_slice());
    let file = host.directory.path().join("stream");
    let more = [Record::Node(NodeData { scope, perms: &perms, path, value: b"" })];
    fs::write(&file, guest(&more)).unwrap();
    let apply = |options: &[&str]| {
        let apply = ["stream", "apply", text(&file), "db", "--dry-run"];
        host.ask(&[&apply[..], options].concat())
    };
    let words = apply(&[]).expect(1).stdout();
    assert!(words.contains("domain 5 would get rights"), "{words}");
    let before = host.ask(&["xenstore", "ls", "-fp"]).expect(0).stdout();
    let withheld = host.ask(&["stream", "apply", text(&file), "db"]).expect(1).stdout();
    assert!(withheld.ends_with(" changes not made\n"), "{withheld}");
    assert_eq!(host.ask(&["xenstore", "ls", "-fp"]).expect(0).stdout(), before);
    assert_eq!(apply(&["--json"]).expect(1).json()["strangers"], json!([5]));
    let same = apply(&["--domid", "5=5"]).expect(0).stdout();
    assert!(same.contains("create /local/domain/2/data/x = \"\"   (n2,w5)\n"), "{same}");
    let other = apply(&["--domid", "5=6"]).expect(0).stdout();
    assert!(other.contains("create /local/domain/2/data/x = \"\"   (n2,w6)\n"), "{other}");
    // Its right would become that of the restored domain itself.
    let clash = apply(&["--domid", "5=2"]).expect(1);
    assert!(clash.stderr().contains("would both become domain 2"), "{}", clash.stderr());
    apply(&["--domid", "7=8"]).expect(2);
    apply(&["--domid", "5=6", "--domid", "5=8"]).expect(2);
    apply(&["--domid", "7"]).expect(2);
}

#[test]
fn a_domain_moves_from_one_stock_daemon_to_another() {
    const TEST: &str = "a_domain_moves_from_one_stock_daemon_to_another";
    let packages = match Packages::of_workspace() {
        Ok(packages) => packages,
        Err(reason) => return println!("skipped: {TEST}: {reason}"),
    };
    let start = |kind| match StockDaemon::start(kind, packages) {
        Ok(daemon) => Some(daemon),
        Err(StartError::Unavailable(reason)) => {
            println!("skipped: {TEST}: {kind:?}: {reason}");
            None
        }
        Err(error) => panic!("{error}"),
    };
    let text_of_host = fs::read_to_string(shipped("demo/host/xenstore.txt")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    for (from, to) in [(Kind::C, Kind::OCaml), (Kind::OCaml, Kind::C)] {
        let (Some(from), Some(to)) = (start(from), start(to)) else { continue };
        from.fill(&text_of_host).unwrap();
        to.fill(&text_of_host).unwrap();
        let ask = |daemon: &StockDaemon, arguments: &[&str]| {
            Answer::of(domkeep().arg("--xenstore").arg(daemon.socket()).args(arguments))
        };
        // In place of the guest, which is not there to write.
        from.fill("/local/domain/1/data/report = \"from\\nafar\"   (n1,r7)\n").unwrap();
        let out = directory.path().join(format!("{}", from.socket().display()).replace('/', "_"));
        ask(&from, &["stream", "extract", "web", text(&out)]).expect(0);
        let apply = ["stream", "apply", text(&out), "db", "--json", "--domid", "7=9"];
        let document = ask(&to, &apply).expect(0).json();
        assert_eq!(
            document["changes"],
            json!([{
                "change": "create", "path": "/local/domain/2/data/report", "value": "from\nafar", "perms": "n2,r9",
            }])
        );
        let listed = ask(&to, &["xenstore", "ls", "-fp", "/local/domain/2/data"]).expect(0);
        assert_eq!(listed.stdout(), "/local/domain/2/data/report = \"from\\nafar\"   (n2,r9)\n");
        let again = ask(&to, &apply).expect(0).json();
        assert_eq!((&again["changes"], &again["committed"]), (&json!([]), &json!(false)));
    }
}
