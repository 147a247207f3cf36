//! `stream inspect`, `verify` and `convert`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use xenstore_migration::{
    ByteOrder, ConnectionData, ConnectionId, ConnectionSpec, DomainData, GlobalData,
    GlobalQuotaData, NodeAccess, NodeData, NodePerm, NodeScope, Peer, PermFlags, Preamble,
    QuotaTable, Record, RecordType, StreamWriter, TransactionData, UnknownData, Version, WatchData,
    WatchDepth, WatchExtendedData,
};
use xsclient::{Access, DomId, Features, TxId};

use crate::host::{Answer, domkeep, shipped};

const ONE_NODE: &str = "../xenstore-migration/testdata/one-node.bin";

fn one_node() -> PathBuf {
    shipped(ONE_NODE)
}

fn stream(arguments: &[&str]) -> Answer {
    let mut command = domkeep();
    Answer::of(command.arg("stream").args(arguments).current_dir(shipped("tests/data/config")))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The streams that are shipped, and those of stock daemons where there are any.
fn streams(test: &str) -> Vec<PathBuf> {
    let mut streams = Vec::new();
    let captures = shipped("../../../shared/captures/migration");
    if !captures.is_dir() {
        println!("skipped: {test}: no ../shared/captures, only the shipped streams are read");
    }
    for directory in [shipped("../xenstore-migration/testdata"), captures] {
        let Ok(entries) = fs::read_dir(directory) else { continue };
        let paths = entries.map(|entry| entry.unwrap().path());
        streams.extend(paths.filter(|path| path.extension().is_some_and(|end| end == "bin")));
    }
    streams.sort();
    assert!(!streams.is_empty());
    streams
}

fn written(preamble: Preamble, peer: Peer, records: &[Record<'_>]) -> Vec<u8> {
    let mut writer = StreamWriter::create(Vec::new(), preamble, peer).unwrap();
    records.iter().for_each(|record| writer.write(record).unwrap());
    writer.finish().unwrap()
}

const NATIVE: Preamble = Preamble::new(Version::V2, ByteOrder::NATIVE);

const OWNED_BY_DOM0: &[NodePerm] = &[NodePerm::new(Access::None, DomId::DOM0)];

fn node<'a>(path: &'a str, value: &'a [u8]) -> Record<'a> {
    let scope = NodeScope::Committed;
    Record::Node(NodeData { scope, perms: OWNED_BY_DOM0, path: path.as_bytes(), value })
}

fn ring<'a>(id: u32, domid: u16, target: Option<u16>) -> Record<'a> {
    Record::Connection(ConnectionData {
        id: ConnectionId::new(id).unwrap(),
        spec: ConnectionSpec::Ring {
            domid: DomId::new(domid),
            target: target.map(DomId::new),
            port: 5,
        },
        input: b"",
        output_rest: 0,
        output: b"",
        unique_id: None,
    })
}

fn saved(directory: &tempfile::TempDir, octets: &[u8]) -> PathBuf {
    let path = directory.path().join("stream");
    fs::write(&path, octets).unwrap();
    path
}

fn lines(answer: &Answer) -> Vec<Value> {
    answer.stdout().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A record of every type with everything in it that one can have.
fn everything() -> Vec<u8> {
    let connection = ConnectionId::new(7).unwrap();
    let transaction = TxId(9);
    let pending = NodeScope::Pending { connection, transaction, access: NodeAccess(3) };
    let removed = NodeScope::Pending { connection, transaction, access: NodeAccess::REMOVED };
    let stale = NodePerm { access: Access::Both, flags: PermFlags::STALE, domid: DomId::new(4) };
    let perms = [OWNED_BY_DOM0[0], NodePerm::new(Access::Read, DomId::new(3)), stale];
    let mut quotas = QuotaTable::new();
    quotas.push(b"nodes", 1000).unwrap();
    quotas.push(b"memory", 0).unwrap();
    let quotas = quotas.quotas();
    let none = xenstore_migration::Quotas::NONE;
    let records = [
        Record::Global(GlobalData { socket_fd: Some(3), event_channel_fd: None }),
        Record::GlobalQuota(GlobalQuotaData { per_domain: quotas, global: none }),
        Record::Connection(ConnectionData {
            id: connection,
            spec: ConnectionSpec::Ring {
                domid: DomId::new(3),
                target: Some(DomId::new(4)),
                port: 12,
            },
            input: b"\x02\"\x00",
            output_rest: 1,
            output: b"\xff",
            unique_id: Some(99),
        }),
        Record::Connection(ConnectionData {
            id: ConnectionId::new(8).unwrap(),
            spec: ConnectionSpec::Socket { fd: 5 },
            input: b"",
            output_rest: 0,
            output: b"",
            unique_id: None,
        }),
        Record::Watch(WatchData { connection, path: b"@releaseDomain", token: b"a token" }),
        Record::WatchExtended(WatchExtendedData {
            connection,
            depth: WatchDepth::Levels(2),
            path: b"/local",
            token: b"t",
        }),
        Record::Transaction(TransactionData { connection, transaction }),
        Record::Node(NodeData {
            scope: NodeScope::Committed,
            perms: &perms,
            path: b"/a",
            value: b"one \"two\"\n\x01",
        }),
        Record::Node(NodeData { scope: pending, perms: &perms, path: b"/a", value: b"\xfe" }),
        Record::Node(NodeData { scope: removed, perms: &[], path: b"/b", value: b"" }),
        Record::Domain(DomainData { domid: DomId::new(3), features: Some(Features(3)), quotas }),
        Record::Unknown(UnknownData { record_type: RecordType(0x21), body: b"12345678" }),
    ];
    written(NATIVE, Peer::Specification, &records)
}

#[test]
fn every_field_of_every_record_is_printed_under_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = saved(&directory, &everything());
    let words = stream(&["inspect", text(&path)]).expect(0).stdout();
    let told: Vec<_> = words
        .lines()
        .filter_map(|line| line.split_once(" @").and_then(|(_, rest)| rest.split_once(' ')))
        .map(|(_, record)| record)
        .collect();
    assert_eq!(
        told,
        [
            "GLOBAL_DATA socket_fd=3 event_channel_fd=none",
            "GLOBAL_QUOTA_DATA per_domain=nodes:1000,memory:0 global=none",
            "CONNECTION_DATA connection=7 kind=ring domid=3 target=4 port=12 unique_id=99 output_rest=1 \
             input=\"\\002\\x22\\000\" output=\"\\xff\"",
            "CONNECTION_DATA connection=8 kind=socket fd=5 unique_id=none output_rest=0 input=\"\" output=\"\"",
            "WATCH_DATA connection=7 path=@releaseDomain token=\"a token\"",
            "WATCH_DATA_EXTENDED connection=7 depth=2 path=/local token=\"t\"",
            "TRANSACTION_DATA connection=7 transaction=9",
            "NODE_DATA path=/a perms=n0,r3,b4(stale) value=\"one \"two\"\\n\\001\"",
            "NODE_DATA connection=7 transaction=9 access=read,written path=/a perms=n0,r3,b4(stale) value=\"\\xfe\"",
            "NODE_DATA connection=7 transaction=9 access=removed path=/b perms=none value=\"\"",
            "DOMAIN_DATA domid=3 features=3 quotas=nodes:1000,memory:0",
            "type 0x21 body=\"12345678\"",
        ]
    );
    let lines = lines(&stream(&["inspect", text(&path), "--json"]).expect(0));
    assert_eq!(lines[0]["version"], 2);
    let nodes = [("nodes", 1000), ("memory", 0)];
    let quotas = nodes.map(|(name, value)| json!({ "name": name, "value": value }));
    assert_eq!(
        lines[3],
        json!({
            "index": 2, "offset": lines[3]["offset"], "type": "CONNECTION_DATA", "connection": 7, "kind": "ring",
            "domid": 3, "target": 4, "port": 12, "unique_id": 99, "output_rest": 1,
            "input": "\u{2}\"\0", "output_hex": "ff",
        })
    );
    assert_eq!(lines[6]["depth"], 2);
    assert_eq!(lines[9]["value_hex"], "fe");
    assert_eq!(lines[9]["perms"], "n0,r3,b4(stale)");
    assert_eq!(lines[11]["quotas"], json!(quotas));
    assert_eq!((&lines[13]["records"], &lines[13]["peer"]), (&json!(12), &json!("specification")));
}

#[test]
fn every_stream_is_told_record_by_record_and_all_lines_are_json() {
    for path in streams("every_stream_is_told_record_by_record_and_all_lines_are_json") {
        let octets = fs::metadata(&path).unwrap().len();
        let lines = lines(&stream(&["inspect", text(&path), "--json"]).expect(0));
        let (last, records) = lines[1..].split_last().unwrap();
        assert_eq!((&last["octets"], &last["goes_on"]), (&json!(octets), &json!(false)));
        assert_eq!(last["records"], records.len());
        assert!(last["error"].is_null() && last["peer"].is_string(), "{last}");
        let mut offset = 15;
        for (index, record) in records.iter().enumerate() {
            assert_eq!(record["index"], index);
            assert!(record["offset"].as_u64().unwrap() > offset, "{record}");
            offset = record["offset"].as_u64().unwrap();
        }
        let words = stream(&["inspect", text(&path)]).expect(0).stdout();
        assert_eq!(words.lines().filter(|line| line.contains(" @")).count(), records.len());
        let verified = stream(&["verify", text(&path), "--json"]).expect(0).json();
        let counts = verified["records"].as_object().unwrap().values();
        let sum: u64 = counts.map(|count| count.as_u64().unwrap()).sum();
        assert_eq!(sum, records.len() as u64);
        assert_eq!(verified["deviations"], last["deviations"]);
    }
}

#[test]
fn a_stream_that_breaks_off_is_told_up_to_there() {
    let directory = tempfile::tempdir().unwrap();
    let records = [node("/", b""), node("/tool", b"x"), node("/tool/a", b"y")];
    let octets = written(NATIVE, Peer::Specification, &records);
    let whole = stream(&["inspect", text(&saved(&directory, &octets)), "--json"]).expect(0);
    let offset = lines(&whole)[3]["offset"].as_u64().unwrap();
    let path = saved(&directory, &octets[..usize::try_from(offset).unwrap() + 20]);
    let place = format!("record 2 (NODE_DATA) at octet {offset}");
    for command in ["inspect", "verify"] {
        let broken = stream(&[command, text(&path)]).expect(1);
        assert!(broken.stderr().contains(&place), "{}", broken.stderr());
        assert!(broken.stdout().contains("broken off"), "{}", broken.stdout());
    }
    let words = stream(&["inspect", text(&path)]).expect(1).stdout();
    assert!(words.contains("path=/tool perms=n0 value=\"x\"\n"), "{words}");
    let told = lines(&stream(&["inspect", text(&path), "--json"]).expect(1));
    let error = &told.last().unwrap()["error"];
    assert_eq!(told.len(), 4);
    assert_eq!((&error["index"], &error["offset"]), (&json!(2), &json!(offset)));
    assert_eq!(error["type"], "NODE_DATA");
    assert!(error["message"].as_str().unwrap().contains("the stream is cut"), "{error}");
    let document = stream(&["verify", text(&path), "--json"]).expect(1).json();
    assert_eq!(document["records"]["NODE_DATA"], 2);
    assert!(document["error"].as_str().unwrap().contains(&place), "{document}");
}

#[test]
fn what_is_no_stream_is_bad_news_and_what_cannot_be_read_is_out_of_reach() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    for octets in [&b""[..], b"xensto", b"{ \"version\": 2, \"flags\": 0 }"] {
        let path = saved(&directory, octets);
        for arguments in [
            &["inspect", text(&path)][..],
            &["verify", text(&path)],
            &["convert", text(&path), text(&out)],
        ] {
            let answer = stream(arguments).expect(1);
            assert!(answer.stderr().contains("is no stream of Xenstore state"));
            assert_eq!(answer.stdout(), "");
        }
    }
    let missing = directory.path().join("missing");
    for path in [text(&missing), text(directory.path())] {
        stream(&["inspect", path]).expect(3);
        stream(&["verify", path]).expect(3);
        stream(&["convert", path, text(&out)]).expect(3);
    }
    assert!(!out.exists());
    for nonsense in [
        &["inspect"][..],
        &["verify", "x", "--for", "nobody"],
        &["verify", "x", "--kind", "odd"],
        &["convert", "x"],
        &["convert", "x", "y", "--version", "3"],
    ] {
        stream(nonsense).expect(2);
    }
}

#[test]
fn violations_are_named_with_their_places() {
    let directory = tempfile::tempdir().unwrap();
    let octets = written(
        NATIVE,
        Peer::Specification,
        &[node("/", b""), node("/tool/a", b"x"), node("/", b"")],
    );
    let path = saved(&directory, &octets);
    let words = stream(&["verify", text(&path)]).expect(1).stdout();
    let words: Vec<_> = words.lines().map(|line| line.strip_prefix(text(&path)).unwrap()).collect();
    assert!(words[0].starts_with(": record 1 (NODE_DATA) at octet "), "{words:?}");
    assert!(words[0].ends_with(": node /tool/a comes before its parent, or without one"));
    assert!(words[1].ends_with(": a second record of node /"), "{words:?}");
    assert_eq!(
        words[2],
        format!(
            ": all of a server (assumed), version 2, {}, written as specified; 3 NODE_DATA; 2 violations",
            ByteOrder::NATIVE
        )
    );
    let document = stream(&["verify", text(&path), "--json"]).expect(1).json();
    assert_eq!(document["violation_count"], 2);
    assert_eq!(document["violations"][1]["index"], 2);
    assert_eq!(document["violations"][1]["message"], "a second record of node /");
}

#[test]
fn the_kind_is_given_or_follows_from_what_only_a_server_has() {
    let directory = tempfile::tempdir().unwrap();
    let kind = |records: &[Record<'_>], options: &[&str]| {
        let path = saved(&directory, &written(NATIVE, Peer::Specification, records));
        let answer = stream(&[&["verify", text(&path), "--json"], options].concat());
        let document = answer.json();
        assert_eq!(document["kind_assumed"], options.is_empty());
        (document["kind"].as_str().unwrap().to_owned(), answer.status())
    };
    let global = Record::Global(GlobalData { socket_fd: None, event_channel_fd: None });
    let (live, domain) = ("live-update".to_owned(), "domain".to_owned());
    assert_eq!(kind(&[ring(1, 3, None), node("/local/domain/3", b"")], &[]), (domain.clone(), 0));
    assert_eq!(kind(&[], &[]), (domain.clone(), 0));
    assert_eq!(kind(&[global], &[]), (live.clone(), 0));
    assert_eq!(kind(&[ring(1, 3, None), ring(2, 4, None)], &[]), (live.clone(), 0));
    assert_eq!(kind(&[node("/", b"")], &[]), (live.clone(), 0));
    // What came before it was known is checked all the same.
    assert_eq!(kind(&[node("/tool", b""), global], &[]), (live.clone(), 1));
    assert_eq!(kind(&[node("/tool", b"")], &["--kind", "live-update"]), (live, 1));
    assert_eq!(kind(&[global], &["--kind", "domain"]), (domain, 1));
}

#[test]
fn a_thousand_findings_are_counted_and_the_first_hundred_listed() {
    let directory = tempfile::tempdir().unwrap();
    let records = vec![node("/tool", b""); 1001];
    let path = saved(&directory, &written(NATIVE, Peer::Specification, &records));
    let words = stream(&["verify", text(&path)]).expect(1).stdout();
    assert_eq!(words.lines().count(), 102);
    assert!(words.contains(": and 900 more violations\n"), "{words}");
    assert!(words.ends_with("; 1000 violations\n"), "{words}");
    let document = stream(&["verify", text(&path), "--json"]).expect(1).json();
    assert_eq!(document["violation_count"], 1000);
    assert_eq!(document["violations"].as_array().unwrap().len(), 100);
}

#[test]
fn deviations_are_told_and_are_bad_news_only_when_asked() {
    let directory = tempfile::tempdir().unwrap();
    let octets = written(NATIVE, Peer::C2026, &[node("/", b"a")]);
    let path = saved(&directory, &octets);
    let words = stream(&["verify", text(&path)]).expect(0).stdout();
    assert!(words.contains(": not as specified: the length of the record counts the padding"));
    assert!(words.contains("written as c-2026 does"), "{words}");
    assert_eq!(stream(&["verify", text(&path), "--strict"]).expect(1).stdout(), words);
    let path = saved(&directory, &[everything(), b"more".to_vec()].concat());
    let words = stream(&["inspect", text(&path)]).expect(0).stdout();
    assert!(words.contains("the file goes on behind octet "), "{words}");
    let good = written(NATIVE, Peer::Specification, &[node("/", b"a")]);
    let path = saved(&directory, &[good, b"more".to_vec()].concat());
    stream(&["verify", text(&path)]).expect(0);
    stream(&["verify", text(&path), "--strict"]).expect(1);
}

#[test]
fn what_a_deployed_server_would_make_of_it_is_told_apart_from_violations() {
    let directory = tempfile::tempdir().unwrap();
    let owned = [NodePerm::new(Access::None, DomId::new(9))];
    let (scope, path) = (NodeScope::Committed, b"/a".as_slice());
    let of_another = Record::Node(NodeData { scope, perms: &owned, path, value: b"" });
    let records = [ring(1, 3, Some(4)), ring(2, 4, None), node("/", b""), of_another];
    let preamble = Preamble::new(Version::V1, ByteOrder::NATIVE);
    let path = saved(&directory, &written(preamble, Peer::Specification, &records));
    stream(&["verify", text(&path)]).expect(0);
    stream(&["verify", text(&path), "--for", "specification"]).expect(0);
    let words = stream(&["verify", text(&path), "--for", "c-4.17"]).expect(1).stdout();
    assert!(words.contains(": for c-4.17: record 3 (NODE_DATA) at octet "), "{words}");
    assert!(words.ends_with("; 0 violations; for c-4.17 1 refusal and 1 loss\n"), "{words}");
    let document = stream(&["verify", text(&path), "--for", "c-4.17", "--json"]).expect(1).json();
    let peer = &document["for"];
    assert_eq!((&peer["refusal_count"], &peer["loss_count"]), (&json!(1), &json!(1)));
    assert_eq!(
        (&peer["refusals"][0]["index"], &peer["losses"][0]["index"]),
        (&json!(3), &json!(0))
    );
    let path = saved(&directory, &written(NATIVE, Peer::Specification, &[]));
    let document = stream(&["verify", text(&path), "--for", "c-4.17", "--json"]).expect(1).json();
    // About the stream as such.
    assert_eq!(document["for"]["refusals"][0].as_object().unwrap().len(), 1);
}

#[test]
fn streams_go_there_and_back_octet_for_octet() {
    let directory = tempfile::tempdir().unwrap();
    let streams = streams("streams_go_there_and_back_octet_for_octet");
    for (number, path) in streams.iter().enumerate() {
        let original = fs::read(path).unwrap();
        let out = |name: &str| directory.path().join(format!("{number}-{name}"));
        let document = stream(&["verify", text(path), "--json"]).expect(0).json();
        let (peer, order) = (document["peer"].as_str().unwrap(), &document["byte_order"]);
        let other = if order == "little" { "big" } else { "little" };
        let (same, turned, back) = (out("same"), out("turned"), out("back"));
        stream(&["convert", text(path), text(&same), "--for", peer]).expect(0);
        assert_eq!(fs::read(&same).unwrap(), original, "{}", path.display());
        stream(&["convert", text(path), text(&turned), "--byte-order", other]).expect(0);
        assert_ne!(fs::read(&turned).unwrap(), original);
        stream(&["verify", text(&turned), "--strict"]).expect(0);
        let order = order.as_str().unwrap();
        stream(&["convert", text(&turned), text(&back), "--byte-order", order, "--for", peer])
            .expect(0);
        assert_eq!(fs::read(&back).unwrap(), original, "{}", path.display());
    }
}

#[test]
fn a_stream_can_come_from_stdin_and_go_to_stdout() {
    let mut command = domkeep();
    command.args(["stream", "convert", "-", "-", "--byte-order", "big"]);
    let file = fs::File::open(one_node()).unwrap();
    let big = Answer::of(command.stdin(Stdio::from(file))).expect(0);
    assert_eq!(big.stderr(), "");
    let mut command = domkeep();
    command.args(["stream", "convert", "-", "-", "--byte-order", "little"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&big.0.stdout).unwrap();
    let little = Answer(child.wait_with_output().unwrap()).expect(0);
    assert_eq!(little.0.stdout, fs::read(one_node()).unwrap());
}

#[test]
fn what_is_lost_is_told_and_the_stream_is_written_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let (path, out) = (saved(&directory, &everything()), directory.path().join("out"));
    let convert = |out: &str, more: &[&str]| {
        stream(&[&["convert", text(&path), out, "--version", "1"], more].concat())
    };
    let words = convert(text(&out), &[]).expect(1);
    assert_eq!(words.stderr(), "");
    let told: Vec<_> = words.stdout().lines().map(str::to_owned).collect();
    assert!(told[0].starts_with("lost: record 5 (WATCH_DATA_EXTENDED) at octet "), "{told:?}");
    assert!(told[1].contains("domain 3 loses its features, 0x3"), "{told:?}");
    assert!(told[2].ends_with(", for specification; 2 losses"), "{told:?}");
    let written = fs::read(&out).unwrap();
    let to_stdout = convert("-", &[]).expect(1);
    assert_eq!(to_stdout.0.stdout, written);
    assert!(to_stdout.stderr().starts_with(&told[..2].join("\n")), "{}", to_stdout.stderr());
    fs::remove_file(&out).unwrap();
    let documents = lines(&convert(text(&out), &["--json"]).expect(1));
    assert_eq!(documents[0]["type"], "WATCH_DATA_EXTENDED");
    assert_eq!(documents[2]["losses"], 2);
    assert_eq!(documents[2]["octets"], written.len());
    let to_stdout = convert("-", &["--json"]).expect(1);
    assert_eq!(to_stdout.0.stdout, written);
    for line in to_stdout.stderr().lines() {
        serde_json::from_str::<Value>(line).unwrap();
    }
    let path = saved(&directory, &[&fs::read(one_node()).unwrap()[..], b"more"].concat());
    fs::remove_file(&out).unwrap();
    let cut = stream(&["convert", text(&path), text(&out)]).expect(1);
    assert!(cut.stdout().starts_with("lost: what follows the stream at octet 64 is left out\n"));
    assert_eq!(fs::read(&out).unwrap(), fs::read(one_node()).unwrap());
}

#[test]
fn an_existing_file_is_refused_and_untouched() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    fs::write(&out, b"mine").unwrap();
    let refused = stream(&["convert", text(&one_node()), text(&out)]).expect(1);
    assert!(refused.stderr().contains("exists already"), "{}", refused.stderr());
    assert!(refused.stderr().contains("what to do: "), "{}", refused.stderr());
    assert_eq!(fs::read(&out).unwrap(), b"mine");
    let itself = saved(&directory, &fs::read(one_node()).unwrap());
    stream(&["convert", text(&itself), text(&itself), "--byte-order", "big"]).expect(1);
    assert_eq!(fs::read(&itself).unwrap(), fs::read(one_node()).unwrap());
    stream(&["convert", text(&one_node()), &format!("{}/", text(directory.path()))]).expect(2);
    stream(&["convert", text(&one_node()), text(&directory.path().join("none/out"))]).expect(3);
}

#[test]
fn a_conversion_that_fails_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let whole = everything();
    let path = saved(&directory, &whole[..whole.len() - 8]);
    let cut = stream(&["convert", text(&path), text(&out)]).expect(1);
    assert!(cut.stderr().contains("cannot be read to its end"), "{}", cut.stderr());
    let path = saved(&directory, &whole);
    let unknown = stream(&["convert", text(&path), text(&out), "--unknown", "refuse"]).expect(1);
    assert!(unknown.stderr().contains("(type 0x21)"), "{}", unknown.stderr());
    let version = stream(&["convert", text(&path), text(&out), "--for", "c-4.17"]).expect(1);
    assert!(version.stderr().contains("does not know version 2"), "{}", version.stderr());
    let left: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = domkeep();
    command.args(["stream", "convert", text(&path), "-"]);
    Answer::of(command.stdout(full)).expect(3);
}
