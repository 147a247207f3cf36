//! Copies into descriptors of the caller's.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use snapshot::disk::image::{Digest, ImageFormat};
use snapshot::disk::{
    CopyMethod, DiskRefusal, DiskSnapshotter, ImageCopies, ImageCopy, LeftReason, PlanError,
    snapshot,
};
use snapshot::{Located, NoLog};

use crate::programs::{deadline, files};

fn copy(vdev: &str, image: &Path, descriptor: &Arc<OwnedFd>) -> ImageCopy {
    ImageCopy {
        vdev: vdev.to_owned(),
        image: image.to_owned(),
        format: ImageFormat::Raw,
        method: CopyMethod::ReflinkOrSparse,
        destination: Located::Descriptor(Arc::clone(descriptor)),
        digest: true,
    }
}

fn descriptor(file: File) -> Arc<OwnedFd> {
    Arc::new(file.into())
}

#[test]
fn a_copy_into_a_descriptor_is_equal_and_the_file_stays_the_callers() {
    let directory = tempfile::tempdir().unwrap();
    let (image, own) = (directory.path().join("image"), directory.path().join("own"));
    let octets: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(&image, &octets).unwrap();
    let file = File::create_new(&own).unwrap();
    let mut position = file.try_clone().unwrap();
    let mut copies = ImageCopies::new(vec![copy("xvda", &image, &descriptor(file))]);
    let done = snapshot(&mut copies, deadline()).unwrap();
    assert_eq!(done[0].frozen.path, own);
    assert_eq!(done[0].digest, Some(Digest::of(&octets)));
    assert_eq!(position.stream_position().unwrap(), octets.len() as u64);
    let report = copies.rollback(deadline());
    assert!(matches!(report.left[..], [ref left] if matches!(left.reason, LeftReason::CallersOwn)));
    assert!(fs::read(&own).unwrap() == octets, "a rollback touched the caller's file");
    assert_eq!(files(directory.path()), ["image", "own"]);
}

#[test]
fn a_copy_that_fails_leaves_the_callers_file_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let (image, own) = (directory.path().join("image"), directory.path().join("own"));
    fs::write(&image, vec![1; 1 << 20]).unwrap();
    let file = File::create_new(&own).unwrap();
    let mut one = copy("xvda", &image, &descriptor(file));
    one.method = CopyMethod::Sparse;
    let mut copies = ImageCopies::new(vec![one]);
    copies.prepare(&mut NoLog, deadline()).unwrap();
    copies.commit(Instant::now()).unwrap_err();
    let report = copies.rollback(deadline());
    assert!(report.removed.is_empty());
    assert!(matches!(report.left[..], [ref left] if matches!(left.reason, LeftReason::CallersOwn)));
    assert!(own.exists());
}

#[test]
fn a_file_that_is_filled_after_the_plan_is_not_written() {
    let directory = tempfile::tempdir().unwrap();
    let (image, own) = (directory.path().join("image"), directory.path().join("own"));
    fs::write(&image, vec![1; 4096]).unwrap();
    let file = File::create_new(&own).unwrap();
    let mut copies = ImageCopies::new(vec![copy("xvda", &image, &descriptor(file))]);
    copies.prepare(&mut NoLog, deadline()).unwrap();
    fs::write(&own, b"precious").unwrap();
    copies.commit(deadline()).unwrap_err();
    assert_eq!(fs::read(&own).unwrap(), b"precious");
}

#[test]
fn descriptors_that_no_image_can_be_written_to_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("image");
    fs::write(&image, vec![1; 4096]).unwrap();
    let path = |name: &str| directory.path().join(name);
    let filled = || {
        fs::write(path("filled"), b"precious").unwrap();
        OpenOptions::new().write(true).open(path("filled")).unwrap()
    };
    let behind = || {
        let mut file = File::create(path("behind")).unwrap();
        file.seek(SeekFrom::Start(512)).unwrap();
        file
    };
    let read_only = || {
        File::create(path("read-only")).unwrap();
        File::open(path("read-only")).unwrap()
    };
    let append = || OpenOptions::new().append(true).create(true).open(path("append")).unwrap();
    let pipe = || {
        let (_, writer) = std::io::pipe().unwrap();
        File::from(OwnedFd::from(writer))
    };
    let cases: [(&dyn Fn() -> File, &str); 5] = [
        (&filled, "not empty"),
        (&behind, "beginning"),
        (&read_only, "writing"),
        (&append, "appended"),
        (&pipe, "regular"),
    ];
    for (open, expected) in cases {
        let mut copies = ImageCopies::new(vec![copy("xvda", &image, &descriptor(open()))]);
        let PlanError::Refused { refusals } = copies.plan(deadline()).unwrap_err() else {
            panic!("{expected}: not refused");
        };
        let [DiskRefusal::Descriptor { reason, .. }] = refusals[..] else {
            panic!("{expected}: {refusals:?}");
        };
        assert!(reason.contains(expected), "{reason}");
    }
    assert_eq!(fs::read(path("filled")).unwrap(), b"precious");
}

#[test]
fn two_disks_into_one_file_are_refused_whatever_the_descriptors_are() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("image");
    fs::write(&image, vec![1; 4096]).unwrap();
    let file = File::create_new(directory.path().join("own")).unwrap();
    let again = format!("/proc/self/fd/{}", file.as_raw_fd());
    let again = OpenOptions::new().write(true).open(again).unwrap();
    let disks =
        vec![copy("xvda", &image, &descriptor(file)), copy("xvdb", &image, &descriptor(again))];
    let PlanError::Refused { refusals } = ImageCopies::new(disks).plan(deadline()).unwrap_err()
    else {
        panic!("not refused");
    };
    assert!(matches!(refusals[..], [DiskRefusal::Twice { .. }]), "{refusals:?}");
}

/// What has no name any more is a file as well.
#[test]
fn a_file_without_a_name_takes_a_copy() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("image");
    fs::write(&image, vec![7; 10_000]).unwrap();
    let mut own = tempfile::tempfile().unwrap();
    let into = descriptor(own.try_clone().unwrap());
    let done = snapshot(&mut ImageCopies::new(vec![copy("xvda", &image, &into)]), deadline());
    let digest = done.unwrap()[0].digest.unwrap();
    assert_eq!(digest, Digest::of(&[7; 10_000]));
    own.write_all(b"at its end").unwrap();
    assert_eq!(own.metadata().unwrap().len(), 10_010);
}
