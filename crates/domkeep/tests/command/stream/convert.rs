//! `stream convert`.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use serde_json::Value;

use super::{everything, lines, one_node, saved, stream, streams, text};
use crate::host::{Answer, domkeep};

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
        let order = order.as_str().unwrap();
        let turn_back =
            ["convert", text(&turned), text(&back), "--byte-order", order, "--for", peer];
        stream(&turn_back).expect(0);
        assert_eq!(fs::read(&back).unwrap(), original, "{}", path.display());
        stream(&["verify", text(&turned), "--strict"]).expect(0);
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
