//! Copies of images.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use proptest::prelude::*;
use snapshot::disk::image::{Digest, ImageFormat, Writers};
use snapshot::disk::{
    CommitError, CopyMethod, DiskAction, DiskFailure, DiskSnapshotter, ImageCopies, ImageCopy,
    SnapshotFailed, snapshot,
};
use snapshot::{Located, NoLog};

use crate::programs::{available, deadline, files, qemu_img};

fn copy(image: &Path, destination: &Path, method: CopyMethod) -> ImageCopy {
    ImageCopy {
        vdev: "xvda".to_owned(),
        image: image.to_owned(),
        format: ImageFormat::Raw,
        method,
        destination: Located::Name(destination.to_owned()),
        digest: true,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn a_sparse_copy_is_equal_and_has_the_holes(
        parts in prop::collection::vec((0_u64..64, 1_usize..9000), 0..8),
        size in 0_u64..300_000,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let (image, destination) = (directory.path().join("image"), directory.path().join("copy"));
        let file = File::create_new(&image).unwrap();
        for (block, length) in parts {
            file.write_all_at(&vec![7; length], block * 4096).unwrap();
        }
        file.set_len(size).unwrap();
        drop(file);
        let mut copies = ImageCopies::new(vec![copy(&image, &destination, CopyMethod::Sparse)]);
        let done = snapshot(&mut copies, deadline()).unwrap();
        let octets = fs::read(&image).unwrap();
        prop_assert!(fs::read(&destination).unwrap() == octets);
        prop_assert_eq!(done[0].digest, Some(Digest::of(&octets)));
        let blocks = |path: &Path| path.metadata().unwrap().blocks();
        // A file system may keep some blocks more of a file that was written in other pieces.
        prop_assert!(blocks(&destination) <= blocks(&image) + 32);
    }
}

#[test]
fn a_terabyte_of_holes_is_copied_at_once_and_takes_no_room() {
    let directory = tempfile::tempdir().unwrap();
    let (image, destination) = (directory.path().join("image"), directory.path().join("copy"));
    let file = File::create_new(&image).unwrap();
    file.set_len(1 << 40).unwrap();
    file.write_all_at(b"in the middle", 1 << 39).unwrap();
    drop(file);
    let mut one = copy(&image, &destination, CopyMethod::ReflinkOrSparse);
    one.digest = false;
    let done = snapshot(&mut ImageCopies::new(vec![one]), deadline()).unwrap();
    assert_eq!(done[0].frozen.size, 1 << 40);
    assert!(destination.metadata().unwrap().blocks() < 1024);
    let mut read = [0; 13];
    File::open(&destination).unwrap().read_exact_at(&mut read, 1 << 39).unwrap();
    assert_eq!(&read, b"in the middle");
}

#[test]
fn between_file_systems_it_is_copied_as_well() {
    const TEST: &str = "between_file_systems_it_is_copied_as_well";
    let directory = tempfile::tempdir().unwrap();
    let Ok(other) = tempfile::tempdir_in("/dev/shm") else {
        println!("skipped: {TEST}: no /dev/shm");
        return;
    };
    let octets: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    let image = other.path().join("image");
    fs::write(&image, &octets).unwrap();
    let destination = directory.path().join("copy");
    let copies = vec![copy(&image, &destination, CopyMethod::ReflinkOrSparse)];
    let done = snapshot(&mut ImageCopies::new(copies), deadline()).unwrap();
    assert_eq!(done[0].action, DiskAction::SparseCopy { destination: destination.clone() });
    assert!(fs::read(&destination).unwrap() == octets);
}

#[test]
fn a_source_that_changes_during_the_copy_makes_none() {
    let directory = tempfile::tempdir().unwrap();
    let (image, destination) = (directory.path().join("image"), directory.path().join("copy"));
    // Big enough that the writer is in the middle of it.
    fs::write(&image, vec![1; 32 << 20]).unwrap();
    let stop = AtomicBool::new(false);
    let error = std::thread::scope(|scope| {
        scope.spawn(|| {
            let file = File::options().write(true).open(&image).unwrap();
            while !stop.load(Ordering::SeqCst) {
                file.write_all_at(b"x", 0).unwrap();
            }
        });
        let copies = vec![copy(&image, &destination, CopyMethod::Sparse)];
        let error =
            snapshot(&mut ImageCopies::new(copies).with_writers(Writers::Anybody), deadline());
        stop.store(true, Ordering::SeqCst);
        error.unwrap_err()
    });
    let SnapshotFailed::Commit { source, .. } = error else { panic!("{error:?}") };
    assert!(matches!(*source, CommitError::Unchanged(DiskFailure::Changed { .. })), "{source:?}");
    assert_eq!(files(directory.path()), ["image"]);
}

#[test]
fn a_copy_that_comes_too_late_or_finds_its_name_taken_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (image, destination) = (directory.path().join("image"), directory.path().join("copy"));
    fs::write(&image, vec![1; 1 << 20]).unwrap();
    let copies = || ImageCopies::new(vec![copy(&image, &destination, CopyMethod::Sparse)]);
    let mut late = copies();
    late.prepare(&mut NoLog, deadline()).unwrap();
    let error = late.commit(Instant::now()).unwrap_err();
    assert!(matches!(error, CommitError::Unchanged(DiskFailure::Deadline { .. })), "{error:?}");
    assert_eq!(files(directory.path()), ["image"]);

    let mut taken = copies();
    taken.prepare(&mut NoLog, deadline()).unwrap();
    fs::write(&destination, b"of another").unwrap();
    let error = taken.commit(deadline()).unwrap_err();
    assert!(matches!(error, CommitError::Unchanged(DiskFailure::File(_))), "{error:?}");
    assert!(taken.rollback(deadline()).removed.is_empty());
    assert_eq!(fs::read(&destination).unwrap(), b"of another");
    assert_eq!(files(directory.path()), ["copy", "image"]);
}

#[test]
fn a_qcow2_copy_that_would_rest_on_something_else_is_refused() {
    const TEST: &str = "a_qcow2_copy_that_would_rest_on_something_else_is_refused";
    if !available(TEST, &["qemu-img"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("sub")).unwrap();
    for base in ["base", "sub/base"] {
        fs::write(directory.path().join(base), [1; 4096]).unwrap();
    }
    let create = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", "base", "top"];
    qemu_img(directory.path(), &create);
    for (destination, possible) in [("sub/copy", false), ("copy", true)] {
        let (image, destination) =
            (directory.path().join("top"), directory.path().join(destination));
        let mut one = copy(&image, &destination, CopyMethod::Sparse);
        one.format = ImageFormat::Qcow2;
        let done = snapshot(&mut ImageCopies::new(vec![one]), deadline());
        assert_eq!(done.is_ok(), possible, "{done:?}");
        assert_eq!(destination.exists(), possible);
    }
}

/// A file system that can share octets, in a file of its own; `None` where this machine does not let one be mounted.
struct Mounted {
    directory: tempfile::TempDir,
}

impl Mounted {
    fn new() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let volume = directory.path().join("volume");
        File::create_new(&volume).unwrap().set_len(400 << 20).unwrap();
        let at = directory.path().join("at");
        fs::create_dir(&at).unwrap();
        let made = ["mkfs.xfs", "mkfs.btrfs"].iter().any(|mkfs| {
            let made = Command::new(mkfs).arg("-q").arg(&volume).output();
            made.is_ok_and(|output| output.status.success())
        });
        if !made {
            return None;
        }
        let mounted = Command::new("mount").args(["-o", "loop"]).arg(&volume).arg(&at).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self { directory })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("at").join(name)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.directory.path().join("at")).status();
        assert!(unmounted.unwrap().success());
    }
}

#[test]
fn a_reflink_shares_until_one_of_the_two_is_written() {
    const TEST: &str = "a_reflink_shares_until_one_of_the_two_is_written";
    let Some(mounted) = Mounted::new() else {
        println!("skipped: {TEST}: no file system that shares octets can be mounted");
        return;
    };
    let (image, destination) = (mounted.path("image"), mounted.path("copy"));
    // Two copies of that do not fit, octet by octet.
    fs::write(&image, vec![7; 200 << 20]).unwrap();
    let copies = vec![copy(&image, &destination, CopyMethod::Reflink)];
    let done = snapshot(&mut ImageCopies::new(copies), deadline()).unwrap();
    assert_eq!(done[0].action, DiskAction::Reflink { destination: destination.clone() });
    File::options().write(true).open(&image).unwrap().write_all_at(b"new", 0).unwrap();
    let mut read = [0; 3];
    File::open(&destination).unwrap().read_exact_at(&mut read, 0).unwrap();
    assert_eq!(read, [7; 3]);
}

#[test]
fn where_octets_cannot_be_shared_a_reflink_fails_and_leaves_nothing() {
    const TEST: &str = "where_octets_cannot_be_shared_a_reflink_fails_and_leaves_nothing";
    let Ok(directory) = tempfile::tempdir_in("/dev/shm") else {
        println!("skipped: {TEST}: no /dev/shm");
        return;
    };
    let (image, destination) = (directory.path().join("image"), directory.path().join("copy"));
    fs::write(&image, [1; 4096]).unwrap();
    let copies = vec![copy(&image, &destination, CopyMethod::Reflink)];
    let error = snapshot(&mut ImageCopies::new(copies), deadline()).unwrap_err();
    assert!(matches!(error, SnapshotFailed::Commit { .. }), "{error:?}");
    assert_eq!(files(directory.path()), ["image"]);
}
