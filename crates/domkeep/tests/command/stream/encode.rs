//! `stream encode`.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use serde_json::{Value, json};
use xenstore_migration::{ReadOptions, json as document};

use super::{NATIVE, everything, lines, node, one_node, saved, stream, streams, text, written};
use crate::host::{Answer, domkeep};
use xenstore_migration::Peer;

#[test]
fn what_inspect_prints_becomes_the_same_stream_octet_for_octet() {
    let directory = tempfile::tempdir().unwrap();
    let (told, out) = (directory.path().join("told"), directory.path().join("out"));
    for path in streams("what_inspect_prints_becomes_the_same_stream_octet_for_octet") {
        let original = fs::read(&path).unwrap();
        let printed = stream(&["inspect", text(&path), "--json"]).expect(0);
        let document = document::decode(&*original, ReadOptions::default()).unwrap();
        for json in [printed.stdout(), document] {
            fs::write(&told, json).unwrap();
            let words = stream(&["encode", text(&told), text(&out)]).expect(0).stdout();
            assert_eq!(fs::read(&out).unwrap(), original, "{}", path.display());
            assert!(words.contains(&format!(" {} octets, version ", original.len())), "{words}");
            fs::remove_file(&out).unwrap();
        }
    }
}

#[test]
fn json_can_come_from_stdin_and_the_stream_go_to_stdout() {
    let inspected = stream(&["inspect", text(&one_node()), "--json"]).expect(0);
    for more in [&[][..], &["--json"]] {
        let mut command = domkeep();
        command.args(["stream", "encode", "-", "-"]).args(more);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(inspected.stdout().as_bytes()).unwrap();
        let encoded = Answer(child.wait_with_output().unwrap()).expect(0);
        assert_eq!(encoded.0.stdout, fs::read(one_node()).unwrap());
        if more.is_empty() {
            assert_eq!(encoded.stderr(), "");
        } else {
            let told: Value = serde_json::from_str(&encoded.stderr()).unwrap();
            let expected = json!({
                "out": "-", "version": 1, "byte_order": "little", "peer": "specification",
                "octets": encoded.0.stdout.len(), "records": 1,
            });
            assert_eq!(told, expected);
        }
    }
}

#[test]
fn what_the_specification_forbids_is_refused_unless_it_is_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let doubled = written(NATIVE, Peer::Specification, &[node("/a", b""), node("/a", b"")]);
    for (octets, options, place, advice) in [
        (doubled, &[][..], "records[1]: a second record of node /a", "--unchecked"),
        (
            everything(),
            &["--unknown", "refuse", "--unchecked"][..],
            "records[11]: records of type 0x21 are not known",
            "--unknown keep",
        ),
    ] {
        let told = stream(&["inspect", text(&saved(&directory, &octets)), "--json"]).expect(0);
        let path = saved(&directory, told.stdout().as_bytes());
        let encode =
            |options: &[&str]| stream(&[&["encode", text(&path), text(&out)], options].concat());
        let refused = encode(options).expect(1).stderr();
        assert!(refused.contains(place) && refused.contains(advice), "{refused}");
        assert!(!out.exists());
        encode(&["--unchecked"]).expect(0);
        assert_eq!(fs::read(&out).unwrap(), octets);
        fs::remove_file(&out).unwrap();
    }
}

#[test]
fn what_is_wrong_with_json_is_said_with_its_place_and_nothing_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let whole = stream(&["inspect", text(&one_node()), "--json"]).expect(0).stdout();
    for (json, said) in [
        (
            whole.replace("\"perms\":\"n0", "\"perms\":\"x0"),
            "records[0].perms[0]: is no permission",
        ),
        (whole.replace("\"path\"", "\"pth\""), "records[0].pth: unknown field `pth`"),
        (whole.lines().take(2).collect::<Vec<_>>().join("\n"), "the lines end without the one"),
        (String::new(), "EOF while parsing"),
        ("xenstore".to_owned(), "expected value"),
    ] {
        let path = saved(&directory, json.as_bytes());
        let answer = stream(&["encode", text(&path), text(&out)]).expect(1);
        assert!(answer.stderr().contains(said), "{}", answer.stderr());
        assert!(!out.exists());
    }
    let broken = fs::read(one_node()).unwrap();
    let path = saved(&directory, &broken[..broken.len() - 3]);
    let told = stream(&["inspect", text(&path), "--json"]).expect(1);
    assert!(lines(&told).last().unwrap()["error"].is_object());
    let path = saved(&directory, told.stdout().as_bytes());
    let answer = stream(&["encode", text(&path), text(&out)]).expect(1);
    assert!(answer.stderr().contains("a stream that broke off"), "{}", answer.stderr());
    stream(&["encode", text(&directory.path().join("missing")), text(&out)]).expect(3);
    let path = saved(&directory, whole.as_bytes());
    fs::write(&out, "mine").unwrap();
    stream(&["encode", text(&path), text(&out)]).expect(1);
    assert_eq!(fs::read(&out).unwrap(), b"mine");
    stream(&["encode", text(&path), "x", "--unchecked", "--kind", "domain"]).expect(2);
    stream(&["encode", text(&path)]).expect(2);
}
