//! Chains that break rules, and images that change.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::symlink;
use std::path::Path;

use snapshot::disk::image::{
    Chain, ChainRefusal, ChainRule, ChainRules, ImageChange, ImageFormat, ImageRef, Writers,
};

use crate::programs::{available, qemu_img};

const RULES: ChainRules = ChainRules { depth: 8, writers: Writers::Nobody };

fn overlay(directory: &Path, name: &str, backing: &str, format: &str) {
    let create = ["create", "-q", "-u", "-f", "qcow2", "-F", format, "-b", backing, name, "8M"];
    qemu_img(directory, &create);
}

fn broken(image: &Path) -> Vec<ChainRule> {
    let refusals = Chain::read(image, ImageFormat::Qcow2, RULES).unwrap_err();
    refusals.iter().map(ChainRefusal::rule).collect()
}

#[test]
fn a_sound_chain_is_read_from_top_to_bottom() {
    const TEST: &str = "a_sound_chain_is_read_from_top_to_bottom";
    if !available(TEST, &["qemu-img"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::create_dir(path("sub")).unwrap();
    fs::write(path("base.raw"), [7; 1000]).unwrap();
    overlay(directory.path(), "middle.qcow2", "base.raw", "raw");
    symlink(path("middle.qcow2"), path("sub/link")).unwrap();
    // Relative to where it is named, not to where the program runs.
    overlay(directory.path(), "sub/top.qcow2", "link", "qcow2");
    // A link's backing file is looked for beside the link, as QEMU does it.
    symlink(path("base.raw"), path("sub/base.raw")).unwrap();
    let chain = Chain::read(&path("sub/top.qcow2"), ImageFormat::Qcow2, RULES).unwrap();
    let read: Vec<_> =
        chain.images().iter().map(|image| (image.format, image.virtual_size)).collect();
    let expected =
        [(ImageFormat::Qcow2, 8 << 20), (ImageFormat::Qcow2, 8 << 20), (ImageFormat::Raw, 1024)];
    assert_eq!(read, expected);
    let middle = ImageRef::read(path("middle.qcow2"), ImageFormat::Qcow2).unwrap();
    assert!(chain.images()[1].is_same_file(&middle));
}

#[test]
fn a_broken_rule_has_its_name() {
    const TEST: &str = "a_broken_rule_has_its_name";
    if !available(TEST, &["qemu-img"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    overlay(directory.path(), "missing", "no-such-base", "raw");
    assert_eq!(broken(&path("missing")), [ChainRule::Present]);
    overlay(directory.path(), "one", "two", "qcow2");
    overlay(directory.path(), "two", "one", "qcow2");
    assert_eq!(broken(&path("one")), [ChainRule::Acyclic]);
    overlay(directory.path(), "vmdk", "base", "vmdk");
    assert_eq!(broken(&path("vmdk")), [ChainRule::FormatExplicit]);
    overlay(directory.path(), "json", "json:{\"driver\":\"null-co\"}", "raw");
    assert_eq!(broken(&path("json")), [ChainRule::BackingIsAPath]);
    overlay(directory.path(), "nbd", "nbd://localhost/x", "raw");
    assert_eq!(broken(&path("nbd")), [ChainRule::BackingIsAPath]);
    fs::write(path("raw"), [0; 4096]).unwrap();
    overlay(directory.path(), "not-qcow2", "raw", "qcow2");
    assert_eq!(broken(&path("not-qcow2")), [ChainRule::Header]);
    for number in 0..9 {
        overlay(directory.path(), &format!("d{number}"), &format!("d{}", number + 1), "qcow2");
    }
    assert_eq!(broken(&path("d0")), [ChainRule::Depth]);
    let data_file = ["create", "-q", "-f", "qcow2", "-o", "data_file=data", "with-data", "8M"];
    qemu_img(directory.path(), &data_file);
    assert_eq!(broken(&path("with-data")), [ChainRule::OneFile]);
    let fifo = path("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).unwrap();
    assert_eq!(broken(&fifo), [ChainRule::Present]);
    // All that is wrong with one image is told.
    let mut marked = OpenOptions::new().write(true).open(path("json")).unwrap();
    marked.seek(SeekFrom::Start(79)).unwrap();
    marked.write_all(&[2]).unwrap();
    let rules = [ChainRule::NoOtherWriter, ChainRule::NotCorrupt, ChainRule::BackingIsAPath];
    assert_eq!(broken(&path("json")), rules);
}

/// A raw image whose guest has written a qcow2 header into it: who guesses opens what the guest wants.
#[test]
fn a_backing_format_that_is_not_recorded_is_not_guessed() {
    const TEST: &str = "a_backing_format_that_is_not_recorded_is_not_guessed";
    if !available(TEST, &["qemu-img"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    overlay(directory.path(), "guests.raw", "/etc/passwd", "raw");
    overlay(directory.path(), "top", "guests.raw", "raw");
    let chain = Chain::read(&path("top"), ImageFormat::Qcow2, RULES).unwrap();
    assert_eq!(chain.images().len(), 2);
    // qemu-img itself does not write such a header any more: the extension's type becomes another.
    let mut octets = fs::read(path("top")).unwrap();
    let at = octets.windows(4).position(|word| word == [0xe2, 0x79, 0x2a, 0xca]).unwrap();
    octets[at] = 0x12;
    fs::write(path("top"), octets).unwrap();
    assert_eq!(broken(&path("top")), [ChainRule::FormatExplicit]);
}

#[test]
fn a_base_that_is_modified_under_an_overlay_is_noticed() {
    const TEST: &str = "a_base_that_is_modified_under_an_overlay_is_noticed";
    if !available(TEST, &["qemu-img"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().join("base.qcow2");
    qemu_img(directory.path(), &["create", "-q", "-f", "qcow2", "base.qcow2", "8M"]);
    let before = ImageRef::read(&base, ImageFormat::Qcow2).unwrap();
    assert_eq!(ImageRef::read(&base, ImageFormat::Qcow2).unwrap().changes_since(&before), []);
    // In place, in an entry of the reference counts: its time tells.
    let mut file = OpenOptions::new().write(true).open(&base).unwrap();
    file.seek(SeekFrom::Start(before.size - 1)).unwrap();
    file.write_all(&[0]).unwrap();
    let touched = ImageRef::read(&base, ImageFormat::Qcow2).unwrap();
    assert_eq!(touched.changes_since(&before), [ImageChange::Modified]);
    // With the time set back, as a copying tool may do it, the header tells of a snapshot inside.
    qemu_img(directory.path(), &["snapshot", "-c", "inside", "base.qcow2"]);
    let time = std::time::UNIX_EPOCH
        + std::time::Duration::from_nanos(before.mtime_ns.try_into().unwrap());
    File::options().write(true).open(&base).unwrap().set_modified(time).unwrap();
    let changes = ImageRef::read(&base, ImageFormat::Qcow2).unwrap().changes_since(&before);
    assert!(
        changes.contains(&ImageChange::Header) && !changes.contains(&ImageChange::Modified),
        "{changes:?}"
    );
    // A copy in its place is another file.
    fs::copy(&base, directory.path().join("copy")).unwrap();
    fs::rename(directory.path().join("copy"), &base).unwrap();
    let changes = ImageRef::read(&base, ImageFormat::Qcow2).unwrap().changes_since(&before);
    assert!(changes.contains(&ImageChange::OtherFile), "{changes:?}");
}
