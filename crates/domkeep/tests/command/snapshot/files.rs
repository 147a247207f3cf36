//! `snapshot inspect`, `snapshot transcode`, and `snapshot verify` of memory images.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use super::{snapshot, text};
use crate::host::{Answer, domkeep, shipped};

#[test]
fn every_kind_of_file_is_told_by_its_first_octets() {
    let kind = |file: &str| {
        let told = snapshot(&["inspect", file, "--json"]).expect(0).json();
        told["kind"].as_str().unwrap().to_owned()
    };
    assert_eq!(kind("pv.xl"), "saved domain, as Xen's own tools write it");
    assert_eq!(kind("hvm.libxl"), "saved domain, as Xen's own tools write it");
    assert_eq!(kind("pv.xl.mapped"), "mapped memory image");
    assert_eq!(kind("pv.xl.zstd"), "packed memory image");
    assert_eq!(kind("pv.xl.side"), "side digest of a stream");
    let told = snapshot(&["inspect", "hvm.libxl.lz4"]).expect(0).stdout();
    for line in
        ["guest                 x86 HVM", "codec                 lz4", "complete              yes"]
    {
        assert!(told.contains(line), "{line:?} is not in\n{told}");
    }
}

#[test]
fn a_qcow2_header_and_a_journal_tell_what_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("image");
    let mut header = vec![0; 1 << 16];
    for (at, number) in
        [(0, 0x5146_49fb_u32), (4, 3), (20, 16), (28, 1 << 20), (36, 1), (96, 4), (100, 104)]
    {
        header[at..at + 4].copy_from_slice(&number.to_be_bytes());
    }
    header[40..48].copy_from_slice(&(3_u64 << 16).to_be_bytes());
    header[48..56].copy_from_slice(&(1_u64 << 16).to_be_bytes());
    header[56..60].copy_from_slice(&1_u32.to_be_bytes());
    fs::write(&image, &header).unwrap();
    let told = snapshot(&["inspect", text(&image), "--json"]).expect(0).json();
    assert_eq!(
        (&told["kind"], &told["virtual_octets"]),
        (&"qcow2 image".into(), &(1 << 20).into())
    );

    let journal = directory.path().join("journal");
    let begin = r#"{"record":"begin","of":{"operation":"save","id":"0c9e7f3a-55d2-4f0b-b1c4-9a8e6d7f1203"}}"#;
    fs::write(&journal, format!("00000000 {begin}\n00000000 {{\"record\":\"suspending\"}}\n0000"))
        .unwrap();
    let told = snapshot(&["inspect", text(&journal), "--json"]).expect(0).json();
    assert_eq!(
        (&told["operation"], &told["records"]),
        (&"save".into(), &"begin suspending".into())
    );
    assert_eq!(told["ended"], false);
}

#[test]
fn a_file_of_another_kind_is_bad_news_and_one_that_is_not_there_out_of_reach() {
    let directory = tempfile::tempdir().unwrap();
    let other = directory.path().join("other");
    fs::write(&other, b"something else").unwrap();
    let said = snapshot(&["inspect", text(&other)]).expect(1).stderr();
    assert!(said.contains("it cannot be told what it is"), "{said}");
    snapshot(&["inspect", "nosuch"]).expect(3);
    snapshot(&["verify", "nosuch"]).expect(3);
    snapshot(&["transcode", "nosuch", "out", "--to", "mapped"]).expect(3);
}

#[test]
fn a_domain_is_the_same_in_every_format_octet_for_octet() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["pv.xl", "hvm.libxl"] {
        let original = fs::read(shipped("../snapshot/testdata").join(name)).unwrap();
        let mut from = name.to_owned();
        // From each format into each other.
        let steps = [
            ("mapped", &[][..]),
            ("packed", &["--codec", "lz4"]),
            ("packed", &["--level", "3", "--workers", "1"]),
            ("mapped", &[]),
            ("stream", &[]),
            ("packed", &[]),
            ("stream", &[]),
        ];
        for (number, (format, options)) in steps.into_iter().enumerate() {
            let out = directory.path().join(format!("{name}-{number}"));
            let arguments = ["transcode", &from, text(&out), "--to", format, "--json"];
            let told = snapshot(&[&arguments, options].concat()).expect(0).json();
            assert_eq!(told["stream_octets"], original.len());
            snapshot(&["verify", text(&out), "--depth", "full"]).expect(0);
            if format == "stream" {
                assert_eq!(fs::read(&out).unwrap(), original, "{name} {number}");
            }
            text(&out).clone_into(&mut from);
        }
    }
}

#[test]
fn a_stream_goes_from_stdin_to_stdout_and_an_image_does_not() {
    let open = |name: &str| File::open(shipped("../snapshot/testdata").join(name)).unwrap();
    let transcode = |input: File, arguments: &[&str]| {
        let mut command = domkeep();
        Answer::of(command.args(["snapshot", "transcode"]).args(arguments).stdin(input))
    };
    let through = transcode(open("pv.xl"), &["-", "-", "--to", "stream"]).expect(0);
    let mut original = Vec::new();
    open("pv.xl").read_to_end(&mut original).unwrap();
    assert_eq!(through.0.stdout, original);
    assert_eq!(through.stderr(), "");
    transcode(open("pv.xl.mapped"), &["-", "-", "--to", "stream"]).expect(2);
    transcode(open("pv.xl"), &["-", "-", "--to", "mapped"]).expect(2);
    transcode(open("pv.xl"), &["-", "-", "--to", "stream", "--level", "1"]).expect(2);
}

#[test]
fn a_file_is_never_replaced_and_a_broken_stream_leaves_none() {
    let directory = tempfile::tempdir().unwrap();
    let (taken, out, cut) = (
        directory.path().join("taken"),
        directory.path().join("out"),
        directory.path().join("cut"),
    );
    fs::write(&taken, b"mine").unwrap();
    let said = snapshot(&["transcode", "pv.xl", text(&taken), "--to", "mapped"]).expect(1).stderr();
    assert!(said.contains("exists already"), "{said}");
    assert_eq!(fs::read(&taken).unwrap(), b"mine");

    let original = fs::read(shipped("../snapshot/testdata/pv.xl")).unwrap();
    fs::write(&cut, &original[..original.len() - 9]).unwrap();
    for format in ["stream", "mapped", "packed"] {
        let said =
            snapshot(&["transcode", text(&cut), text(&out), "--to", format]).expect(1).stderr();
        assert!(said.contains("is no saved domain"), "{said}");
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
}

#[test]
fn what_follows_a_stream_is_left_out_and_told() {
    let directory = tempfile::tempdir().unwrap();
    let (longer, out) = (directory.path().join("longer"), directory.path().join("out"));
    let original = fs::read(shipped("../snapshot/testdata/pv.xl")).unwrap();
    fs::write(&longer, [&original[..], b"more"].concat()).unwrap();
    let arguments = ["transcode", text(&longer), text(&out), "--to", "stream", "--json"];
    let told = snapshot(&arguments).expect(1).json();
    assert_eq!(told["goes_on_at"], original.len());
    assert_eq!(fs::read(&out).unwrap(), original);
}

#[test]
fn a_flipped_bit_is_found_wherever_it_is() {
    let directory = tempfile::tempdir().unwrap();
    for (name, depth) in [("pv.xl.mapped", "full"), ("pv.xl.zstd", "full"), ("pv.xl.side", "chain")]
    {
        let path = directory.path().join(name);
        fs::copy(shipped("../snapshot/testdata").join(name), &path).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let len = file.metadata().unwrap().len();
        for at in [20, 100, 5000.min(len - 3), len / 2, len - 2] {
            let mut octet = [0];
            file.read_exact_at(&mut octet, at).unwrap();
            file.write_all_at(&[octet[0] ^ 4], at).unwrap();
            snapshot(&["verify", text(&path), "--depth", depth]).expect(1);
            file.write_all_at(&octet, at).unwrap();
        }
        snapshot(&["verify", text(&path), "--depth", depth]).expect(0);
    }
}

#[test]
fn a_stream_is_compared_with_its_side_digest() {
    let directory = tempfile::tempdir().unwrap();
    let (out, side) = (directory.path().join("out"), directory.path().join("side"));
    snapshot(&[
        "transcode",
        "pv.xl.mapped",
        text(&out),
        "--to",
        "stream",
        "--side-digest",
        text(&side),
    ])
    .expect(0);
    let shipped = fs::read(shipped("../snapshot/testdata/pv.xl.side")).unwrap();
    assert_eq!(fs::read(&side).unwrap(), shipped);
    let verify =
        |status| snapshot(&["verify", text(&out), "--side-digest", text(&side)]).expect(status);
    verify(0);
    let file = File::options().read(true).write(true).open(&out).unwrap();
    // In the midst of a page, where nothing of the framing shows it.
    let at = file.metadata().unwrap().len() / 2;
    let mut octet = [0];
    file.read_exact_at(&mut octet, at).unwrap();
    file.write_all_at(&[octet[0] ^ 1], at).unwrap();
    let said = verify(1).stdout();
    assert!(said.starts_with("wrong: "), "{said}");
    snapshot(&["verify", "pv.xl.mapped", "--side-digest", text(&side)]).expect(2);
    snapshot(&["verify", "pv.xl", "--memory", "pv.xl"]).expect(2);
}

#[test]
fn a_transcoding_that_is_told_to_end_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let mut command = domkeep();
    command.args(["snapshot", "transcode", "-", text(&out), "--to", "packed"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let original = fs::read(shipped("../snapshot/testdata/pv.xl")).unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(&original[..original.len() / 2]).unwrap();
    // It has begun once its temporary file is there; it waits for the rest then.
    while fs::read_dir(directory.path()).unwrap().count() == 0 {
        std::thread::yield_now();
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let said = Answer(child.wait_with_output().unwrap()).expect(1).stderr();
    drop(input);
    assert!(said.contains("cancelled"), "{said}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}
