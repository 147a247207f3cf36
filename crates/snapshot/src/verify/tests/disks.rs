//! Disks: time, digests, chains, snapshots inside images.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::Duration;

use super::{DEPTHS, Saved, checked, has_qemu_img};
use crate::disk::DiskAction;
use crate::disk::image::{ChainRefusal, ImageChange, ImageFormat, ImageRef};
use crate::restore::Depth;
use crate::verify::{Artifact, How, Problem};

#[test]
fn a_write_into_a_frozen_disk_is_found_by_its_time_at_any_depth_and_by_its_digest_at_full() {
    for digest in [false, true] {
        let saved = Saved::new().with_raw_disk(digest);
        let before = saved.path("disk.raw").metadata().unwrap().modified().unwrap();
        for depth in DEPTHS {
            let verified = saved.verify(depth).unwrap();
            let octets = checked(&verified).contains(&(Artifact::disk("xvda"), How::Octets));
            assert_eq!(octets, digest && depth == Depth::Full, "{verified:?}");
            let uncovered =
                verified.uncovered.iter().any(|it| it.artifact == Artifact::disk("xvda"));
            assert_ne!(uncovered, octets, "{verified:?}");
        }
        // Behind the header.
        saved.flip("disk.raw", 1 << 20);
        saved.set_mtime("disk.raw", before + Duration::from_secs(1));
        for depth in [Depth::Header, Depth::Chain] {
            let problems = saved.problems(depth);
            let [Problem::DiskChanged { changes, .. }] = &problems[..] else {
                panic!("{problems:?}")
            };
            assert_eq!(changes, &[ImageChange::Modified]);
        }
        // Whoever hides the time is found by the digest alone.
        saved.set_mtime("disk.raw", before);
        let problems = saved.problems(Depth::Full);
        let found = matches!(&problems[..], [Problem::Digest { .. }]);
        assert_eq!(found, digest, "{problems:?}");
        assert!(saved.verify(Depth::Header).is_ok());
    }
}

#[test]
fn a_copy_in_the_place_of_a_frozen_disk_is_noted_and_its_time_is_forgiven_where_its_octets_are_the_same()
 {
    let saved = Saved::new().with_raw_disk(true);
    let time = saved.path("disk.raw").metadata().unwrap().modified().unwrap();
    fs::copy(saved.path("disk.raw"), saved.path("copy")).unwrap();
    fs::rename(saved.path("copy"), saved.path("disk.raw")).unwrap();
    saved.set_mtime("disk.raw", time);
    for depth in DEPTHS {
        let notes = saved.verify(depth).unwrap().notes;
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert_eq!(notes[0].changes, [ImageChange::OtherFile]);
    }
    saved.set_mtime("disk.raw", time + Duration::from_secs(1));
    assert_eq!(saved.problems(Depth::Chain).len(), 1);
    let notes = saved.verify(Depth::Full).unwrap().notes;
    assert_eq!(notes[0].changes, [ImageChange::OtherFile, ImageChange::Modified]);
}

#[test]
fn a_chain_is_compared_image_by_image_and_in_its_order() {
    if !has_qemu_img("a_chain_is_compared_image_by_image_and_in_its_order") {
        return;
    }
    let saved = Saved::new().with_chain();
    for depth in DEPTHS {
        let verified = saved.verify(depth).unwrap();
        let how = if depth == Depth::Header { How::Header } else { How::Chain };
        assert_eq!(checked(&verified), [(Artifact::disk("xvda"), how)]);
    }
    // A base that was written to matters from the depth of the chain on.
    let time = saved.path("disk.raw").metadata().unwrap().modified().unwrap();
    saved.set_mtime("disk.raw", time + Duration::from_secs(1));
    assert!(saved.verify(Depth::Header).is_ok());
    let problems = saved.problems(Depth::Chain);
    let [Problem::DiskChanged { path, .. }] = &problems[..] else { panic!("{problems:?}") };
    assert_eq!(*path, saved.path("disk.raw"));
    saved.set_mtime("disk.raw", time);
    // One that is missing is told of once.
    fs::rename(saved.path("middle.qcow2"), saved.path("away")).unwrap();
    assert!(saved.verify(Depth::Header).is_ok());
    let problems = saved.problems(Depth::Chain);
    assert!(matches!(&problems[..], [Problem::DiskImage { .. }]), "{problems:?}");
    // One that rests on another image than it did.
    fs::rename(saved.path("away"), saved.path("middle.qcow2")).unwrap();
    fs::write(saved.path("other.raw"), vec![1; 1 << 20]).unwrap();
    saved.qemu_img(&["rebase", "-u", "-F", "raw", "-b", "other.raw", "middle.qcow2"]);
    let problems = saved.problems(Depth::Chain);
    let found = problems.iter().map(std::mem::discriminant).collect::<Vec<_>>();
    assert_eq!(found.len(), 2, "{problems:?}");
    let ordered = problems.iter().find_map(|it| match it {
        Problem::DiskOrder { now, .. } => Some(now),
        _ => None,
    });
    assert_eq!(ordered.unwrap()[2], saved.path("other.raw"));
}

#[test]
fn a_chain_that_lost_the_recorded_format_of_a_base_breaks_a_rule() {
    if !has_qemu_img("a_chain_that_lost_the_recorded_format_of_a_base_breaks_a_rule") {
        return;
    }
    let mut saved = Saved::new().with_chain();
    // As if the save had seen it so, to have nothing but the rule.
    saved.qemu_img(&["rebase", "-u", "-F", "qcow2", "-b", "disk.raw", "middle.qcow2"]);
    saved.snapshot.disks[0].chain[1] =
        ImageRef::read(saved.path("middle.qcow2"), ImageFormat::Qcow2).unwrap();
    let problems = saved.problems(Depth::Chain);
    let [Problem::DiskChain { source: ChainRefusal::Image(error), .. }] = &problems[..] else {
        panic!("{problems:?}")
    };
    assert_eq!(error.path(), saved.path("disk.raw"));
}

#[test]
fn a_frozen_image_stays_as_it_was_while_a_program_writes_the_overlay_above_it() {
    const TEST: &str = "a_frozen_image_stays_as_it_was_while_a_program_writes_the_overlay_above_it";
    if !has_qemu_img(TEST) {
        return;
    }
    let saved = Saved::new().with_chain();
    saved.overlay("active.qcow2", "top.qcow2", "qcow2");
    let written = Command::new("qemu-io")
        .args(["-f", "qcow2", "-c", "write -P 3 0 512k", "-c", "flush", "active.qcow2"])
        .current_dir(&saved.directory)
        .output();
    let Ok(written) = written else {
        println!("skipped: {TEST}: qemu-io cannot be started");
        return;
    };
    assert!(written.status.success(), "{written:?}");
    assert_eq!(saved.verify(Depth::Full).unwrap().notes, []);
}

#[test]
fn an_internal_snapshot_is_looked_for_by_its_name_while_the_image_goes_on() {
    const TEST: &str = "an_internal_snapshot_is_looked_for_by_its_name_while_the_image_goes_on";
    if !has_qemu_img(TEST) {
        return;
    }
    let mut saved = Saved::new();
    saved.qemu_img(&["create", "-q", "-f", "qcow2", "disk.qcow2", "1M"]);
    for tag in ["first", "the second one", "third"] {
        saved.qemu_img(&["snapshot", "-c", tag, "disk.qcow2"]);
    }
    let frozen = ImageRef::read(saved.path("disk.qcow2"), ImageFormat::Qcow2).unwrap();
    saved.add_disk("xvda", &frozen, vec![frozen.clone()], None);
    saved.snapshot.disks[0].action = DiskAction::InternalQcow2 { tag: "the second one".into() };
    let is_there = |saved: &Saved| {
        let verified = saved.verify(Depth::Full).unwrap();
        assert_eq!(checked(&verified), [(Artifact::disk("xvda"), How::Tag)]);
    };
    is_there(&saved);
    saved.qemu_img(&["snapshot", "-c", "fourth", "disk.qcow2"]);
    saved.qemu_img(&["snapshot", "-d", "first", "disk.qcow2"]);
    is_there(&saved);
    saved.qemu_img(&["snapshot", "-d", "the second one", "disk.qcow2"]);
    let problems = saved.problems(Depth::Header);
    assert!(matches!(&problems[..], [Problem::NoTag { .. }]), "{problems:?}");
    // A table that leads out of the file.
    let file = File::options().write(true).open(saved.path("disk.qcow2")).unwrap();
    file.write_all_at(&[0xff; 4], 68).unwrap();
    let problems = saved.problems(Depth::Header);
    let told = matches!(&problems[..], [Problem::Tags { .. } | Problem::DiskImage { .. }]);
    assert!(told, "{problems:?}");
}
