//! `stream inspect`, and what no command reads.

use std::fs;

use serde_json::json;
use xenstore_migration::Peer;

use super::{NATIVE, everything, lines, node, saved, stream, streams, text, written};

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
