use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use uuid::Uuid;
use xsclient::DomId;

use super::text::{self, parse};
use super::*;
use crate::control::{DomainIdentity, DomainState};
use crate::disk::TagIntent;
use crate::manifest::sample;
use crate::save::{After, ConfigUpdate};

fn path() -> &'static Path {
    Path::new("/journals/7")
}

fn begin() -> Record {
    Record::Begin(Box::new(Operation::Save(BeginSave {
        id: Uuid::from_u128(5),
        domain: DomainIdentity::new(DomId::new(7), sample::DOMAIN),
        state_before: DomainState::Running,
        targets: vec!["/saved/memory".into()],
        qmp: Some("/run/qmp".into()),
        after: After::Resume,
        config: ConfigUpdate::Apply,
        hooks: vec!["lvm".into()],
        quiescer: Some("agent".into()),
        digests: vec!["xvda".into()],
    })))
}

fn line(record: &Record) -> String {
    text::line(record).unwrap()
}

/// A file whose name no JSON can hold.
fn unwritable() -> CreatedFile {
    let name = std::ffi::OsString::from_vec(b"/saved/\xff".to_vec());
    CreatedFile { path: name.into(), ..file() }
}

#[test]
fn a_path_that_is_not_utf8_is_not_written_and_the_journal_stays_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let mut journal = Journal::create(Some(&path), Uuid::from_u128(5), true, &begin()).unwrap();
    let error = CreationLog::created(&mut journal, &unwritable()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(journal.created().is_empty());
    journal.write(&Record::RolledBack).unwrap();
    drop(journal);
    let expected = format!("{}{}", line(&begin()), line(&Record::RolledBack));
    assert_eq!(std::fs::read_to_string(path).unwrap(), expected);
}

#[test]
fn a_journal_that_cannot_begin_is_not_left() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let begin = Record::Created(unwritable());
    Journal::create(Some(&path), Uuid::from_u128(5), true, &begin).unwrap_err();
    assert!(!path.exists());
}

fn created() -> Record {
    Record::Created(file())
}

fn file() -> CreatedFile {
    CreatedFile {
        path: "/saved/memory".into(),
        dev: 7,
        ino: 99,
        born_ns: Some(1_795_264_875_000_000_001),
    }
}

/// The lines of a save, from its first to its last.
fn lines() -> Vec<String> {
    let records = [
        begin(),
        created(),
        Record::Opening(vec![OverlayIntent {
            vdev: "xvda".into(),
            node: "xvda-qcow2".into(),
            overlay: sample::snapshot().disks[0].active.clone(),
            overlay_node: "xvda-1".into(),
            base: sample::snapshot().disks[0].frozen.clone(),
        }]),
        Record::Suspending,
        Record::Naming,
        Record::Tagging(vec![TagIntent {
            vdev: "xvdb".into(),
            node: "xvdb-qcow2".into(),
            image: sample::snapshot().disks[1].active.clone(),
            tag: "before".into(),
        }]),
        Record::Committed(sample::snapshot().disks),
        Record::Pivoted(Box::new(sample::snapshot())),
        Record::Saved(Box::new(sample::snapshot())),
        Record::RolledBack,
    ];
    records.iter().map(line).collect()
}

fn read_back(octets: &[u8]) -> Vec<String> {
    let read = parse(path(), octets).unwrap().unwrap();
    let first = Record::Begin(Box::new(read.operation));
    std::iter::once(&first).chain(&read.records).map(line).collect()
}

#[test]
fn records_are_read_as_they_were_written() {
    let lines = lines();
    let whole = lines.concat();
    assert_eq!(read_back(whole.as_bytes()), lines);
    let read = parse(path(), whole.as_bytes()).unwrap().unwrap();
    assert_eq!(read.intact, whole.len() as u64);
}

#[test]
fn a_journal_that_ends_anywhere_has_all_lines_that_are_whole() {
    let lines = lines();
    let whole = lines.concat();
    let mut ends = 0;
    let mut complete = 0;
    for len in 0..=whole.len() {
        if complete < lines.len() && len == ends + lines[complete].len() {
            ends = len;
            complete += 1;
        }
        let read = parse(path(), &whole.as_bytes()[..len]).unwrap();
        match read {
            None => assert_eq!(complete, 0, "{len}"),
            Some(read) => {
                assert_eq!(read.records.len() + 1, complete, "{len}");
                assert_eq!(read.intact, ends as u64, "{len}");
            }
        }
    }
    assert_eq!(complete, lines.len());
}

#[test]
fn a_torn_last_line_is_cut_off_and_what_is_written_then_follows_the_whole_ones() {
    let directory = tempfile::tempdir().unwrap();
    let journal = directory.path().join("journal");
    let lines = lines();
    std::fs::write(&journal, format!("{}{}", lines[..3].concat(), &lines[5][..20])).unwrap();
    let (mut again, found) = Journal::find(&journal).unwrap().unwrap();
    assert_eq!(found.records.len(), 2);
    assert_eq!(again.created(), [file()]);
    again.write(&Record::RolledBack).unwrap();
    let expected = format!("{}{}", lines[..3].concat(), line(&Record::RolledBack));
    assert_eq!(std::fs::read_to_string(&journal).unwrap(), expected);
}

#[test]
fn every_flipped_bit_before_the_last_line_makes_a_journal_unreadable() {
    let text = format!("{}{}{}", line(&begin()), line(&created()), line(&Record::Naming));
    let last = text.len() - line(&Record::Naming).len();

    let mut octets = text.into_bytes();
    for at in 0..last {
        for bit in 0..8 {
            octets[at] ^= 1 << bit;
            let read = parse(path(), &octets);
            assert!(read.is_err(), "bit {bit} of octet {at}: {read:?}");
            octets[at] ^= 1 << bit;
        }
    }
    assert!(parse(path(), &octets).is_ok());
}

#[test]
fn a_flipped_bit_in_the_last_line_makes_it_as_if_it_had_not_been_written() {
    let before = format!("{}{}", line(&begin()), line(&created()));
    let mut octets = format!("{before}{}", line(&Record::Naming)).into_bytes();
    for at in before.len()..octets.len() {
        for bit in 0..8 {
            octets[at] ^= 1 << bit;
            let read = parse(path(), &octets);
            let read = read.unwrap_or_else(|error| panic!("bit {bit} of octet {at}: {error}"));
            assert_eq!(read.unwrap().intact, before.len() as u64, "bit {bit} of octet {at}");
            octets[at] ^= 1 << bit;
        }
    }
}

#[test]
fn a_broken_line_is_named_by_its_number() {
    let lines = lines();
    for broken in 0..lines.len() - 1 {
        let mut text = lines.clone();
        text[broken] = text[broken].replacen('"', "'", 1);
        let error = parse(path(), text.concat().as_bytes()).unwrap_err();
        let JournalError::Broken { line, .. } = error else { panic!("{error:?}") };
        assert_eq!(line, broken + 1);
    }
}

fn with_crc(json: &str) -> String {
    format!("{:08x} {json}\n", crc32c::crc32c(json.as_bytes()))
}

#[test]
fn a_record_of_another_version_is_refused_wherever_it_is() {
    for json in [r#"{"record":"telepathy"}"#, "7", "{}", "", r#"{"record":"created","of":{}}"#] {
        for place in [1, 2] {
            let mut text = vec![line(&begin()), line(&Record::Suspending)];
            text.insert(place, with_crc(json));
            let error = parse(path(), text.concat().as_bytes()).unwrap_err();
            assert!(matches!(error, JournalError::Record { .. }), "{json}: {error:?}");
        }
    }
}

#[test]
fn a_journal_begins_with_what_it_is_of() {
    let text = format!("{}{}", line(&Record::Suspending), line(&begin()));
    let error = parse(path(), text.as_bytes()).unwrap_err();
    assert!(matches!(error, JournalError::NoBegin { .. }), "{error:?}");
}

#[test]
fn a_first_line_that_was_torn_says_that_nothing_was_done_and_another_file_is_refused() {
    let first = line(&begin());
    let mut never_written = first.clone().into_bytes();
    never_written[20..].fill(0);
    for octets in [&b""[..], &[0; 4096], &first.as_bytes()[..5], &never_written] {
        assert!(parse(path(), octets).unwrap().is_none(), "{octets:?}");
    }
    for octets in [&b"\n"[..], b"nonsense", b"nonsense\n", b"#!/bin/sh\n", b"00000000 {\"re\":"] {
        let error = parse(path(), octets).unwrap_err();
        assert!(matches!(error, JournalError::NoBegin { .. }), "{octets:?}: {error:?}");
    }
}

#[test]
fn a_digest_written_in_another_way_is_no_digest() {
    let text = line(&Record::Naming);
    let (digits, rest) = text.split_at(8);
    let spaced = format!(" {}{rest}", &digits[1..]);
    for other in [format!("+{}{rest}", &digits[1..]), digits.to_uppercase() + rest, spaced] {
        if other == text {
            continue;
        }
        let text = format!("{}{other}{}", line(&begin()), line(&Record::RolledBack));
        let read = parse(path(), text.as_bytes());
        assert!(matches!(read, Err(JournalError::Broken { line: 2, .. })), "{other}: {read:?}");
    }
}

#[test]
fn nobody_recovers_what_is_still_being_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let id = Uuid::from_u128(5);
    let mut journal = Journal::create(Some(&path), id, true, &begin()).unwrap();
    journal.write(&Record::Suspending).unwrap();
    let error = Journal::find(&path).unwrap_err();
    assert!(matches!(&error, JournalError::InUse { path: named } if *named == path), "{error:?}");
    drop(journal);
    let (recovering, found) = Journal::find(&path).unwrap().unwrap();
    assert_eq!(found.records.len(), 1);
    assert!(matches!(Journal::find(&path), Err(JournalError::InUse { .. })), "two at once");
    drop(recovering);
    Journal::find(&path).unwrap().unwrap();
}

#[test]
fn a_journal_never_replaces_a_file_nor_follows_a_link() {
    let directory = tempfile::tempdir().unwrap();
    let (path, link) = (directory.path().join("journal"), directory.path().join("link"));
    std::fs::write(&path, "of another").unwrap();
    let id = Uuid::from_u128(5);
    assert!(Journal::create(Some(&path), id, true, &begin()).is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "of another");
    std::fs::write(&path, line(&begin())).unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(Journal::find(&link).is_err());
    Journal::find(&path).unwrap().unwrap();
}

#[test]
fn every_record_that_is_written_is_two_steps_with_the_name_that_the_journal_has() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let told = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let tells = std::rc::Rc::clone(&told);
    steps::at_every_step(move |step| tells.borrow_mut().push(step.to_owned()));
    let mut journal = Journal::create(Some(&path), Uuid::from_u128(5), true, &begin()).unwrap();
    journal.write(&Record::RolledBack).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let names = ["begin", "rolled-back"];
    for (line, name) in text.lines().zip(names) {
        assert!(line.contains(&format!(r#""record":"{name}""#)), "{line}");
    }
    let steps = names.iter().flat_map(|name| [format!("before {name}"), format!("after {name}")]);
    assert_eq!(*told.borrow(), steps.collect::<Vec<_>>());
}
