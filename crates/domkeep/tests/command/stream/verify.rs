//! `stream verify`.

use serde_json::json;
use xenstore_migration::{
    ByteOrder, GlobalData, NodeData, NodePerm, NodeScope, Peer, Preamble, Record, Version,
};
use xsclient::{Access, DomId};

use super::{NATIVE, everything, node, ring, saved, stream, text, written};

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
