//! Digests of images that rest, below a QEMU that reads them.

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use snapshot::disk::image::{Digest, ImageChange, ImageFormat, ImageRef};
use snapshot::disk::{DiskFailure, LiveOverlay, LiveOverlays, digest_image, snapshot};

use crate::nbd::NbdDisk;
use crate::programs::{StorageDaemon, available, deadline};

fn raw(path: &Path) -> ImageRef {
    ImageRef::read(path, ImageFormat::Raw).unwrap()
}

fn on(_: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn a_frozen_image_is_digested_while_the_guest_writes_the_overlay() {
    const TEST: &str = "a_frozen_image_is_digested_while_the_guest_writes_the_overlay";
    if !available(TEST, &["qemu-img", "qemu-storage-daemon"]) {
        return;
    }
    let daemon = StorageDaemon::start(&["a"]);
    let mut guest = NbdDisk::open(&daemon.nbd(), "a");
    guest.write(0, &[1; 4096]).unwrap();
    let overlay = LiveOverlay::new("a", "a-qcow2", daemon.path("a-1.qcow2"), "a-1");
    let done = snapshot(&mut LiveOverlays::new(daemon.qmp(), vec![overlay]), deadline()).unwrap();
    let frozen = &done[0].frozen;
    let mut told = Vec::new();
    let digest = digest_image(&frozen.path, frozen, deadline(), &mut |octets| {
        guest.write(4096, &[2; 512]).unwrap();
        told.push(octets);
        ControlFlow::Continue(())
    });
    assert_eq!(digest.unwrap(), Digest::of(&fs::read(&frozen.path).unwrap()));
    assert_eq!(told.last(), Some(&frozen.size));
}

#[test]
fn an_image_that_is_another_or_is_written_to_has_no_digest() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("image");
    fs::write(&image, vec![1; 1 << 20]).unwrap();
    let expected = raw(&image);
    let write = |octet: u8| {
        // Times are no finer than a tick of the kernel's clock.
        let later = expected.mtime_ns;
        let file = File::options().write(true).open(&image).unwrap();
        while raw(&image).mtime_ns == later {
            file.write_all_at(&[octet], 1 << 19).unwrap();
        }
    };
    let during = digest_image(&image, &expected, deadline(), &mut |_| {
        write(2);
        ControlFlow::Continue(())
    });
    let Err(DiskFailure::Changed { changes, .. }) = during else { panic!("{during:?}") };
    assert!(changes.contains(&ImageChange::Modified));
    let before = digest_image(&image, &expected, deadline(), &mut on);
    assert!(matches!(before, Err(DiskFailure::Changed { .. })), "{before:?}");

    let other = directory.path().join("other");
    fs::copy(&image, &other).unwrap();
    let other = digest_image(&other, &raw(&image), deadline(), &mut on);
    let Err(DiskFailure::Changed { changes, .. }) = other else { panic!("{other:?}") };
    assert!(changes.contains(&ImageChange::OtherFile));
}

#[test]
fn a_digest_ends_at_the_deadline_and_when_it_is_broken_off() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("image");
    // So many holes that reading them to the end takes minutes.
    File::create_new(&image).unwrap().set_len(1 << 40).unwrap();
    let expected = raw(&image);
    let mut calls = 0;
    let stopped = digest_image(&image, &expected, deadline(), &mut |_| {
        calls += 1;
        if calls == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(stopped, Err(DiskFailure::Stopped { .. })), "{stopped:?}");
    assert_eq!(calls, 3);
    let late = digest_image(&image, &expected, Instant::now() + Duration::from_millis(20), &mut on);
    assert!(matches!(late, Err(DiskFailure::Deadline { .. })), "{late:?}");
}
