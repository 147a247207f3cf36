//! An overlay for a disk that is restored.

use std::fs;
use std::path::Path;

use snapshot::disk::image::{ImageFormat, ImageRef};
use snapshot::disk::qemu_img::QemuImg;
use snapshot::disk::{DiskFailure, OverlayIntent, create_overlay};
use snapshot::{CreatedFile, CreationLog, NoLog};

use crate::programs::{available, content, deadline, files, qemu_img};

/// Remembers what it is told.
#[derive(Default)]
struct Log(Vec<CreatedFile>);

impl CreationLog for Log {
    fn prefix(&self) -> &str {
        ".partial-restore-"
    }

    fn created(&mut self, file: &CreatedFile) -> std::io::Result<()> {
        self.0.push(file.clone());
        Ok(())
    }

    fn opening(&mut self, overlays: &[OverlayIntent]) -> std::io::Result<()> {
        unreachable!("no QEMU takes part: {overlays:?}")
    }
}

#[test]
fn an_overlay_shows_what_it_was_made_over_and_its_log_knows_it() {
    const TEST: &str = "an_overlay_shows_what_it_was_made_over_and_its_log_knows_it";
    if !available(TEST, &["qemu-img"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (raw, qcow2) = (directory.path().join("raw"), directory.path().join("qcow2"));
    fs::write(&raw, [7; 10_000]).unwrap();
    qemu_img(directory.path(), &["convert", "-f", "raw", "-O", "qcow2", "raw", "qcow2"]);
    for (base, format) in [(&raw, ImageFormat::Raw), (&qcow2, ImageFormat::Qcow2)] {
        let before = fs::read(base).unwrap();
        let base = ImageRef::read(base, format).unwrap();
        let target = directory.path().join(format!("over-{format}"));
        let mut log = Log::default();
        let overlay =
            create_overlay(&QemuImg::default(), &target, &base, &mut log, deadline()).unwrap();
        assert_eq!(overlay.virtual_size, 10_240);
        assert_eq!(content(&target, "qcow2", 10_000), [7; 10_000]);
        assert_eq!(log.0, [CreatedFile::new(&target, &fs::File::open(&target).unwrap()).unwrap()]);
        assert!(fs::read(&base.path).unwrap() == before);
        let again = create_overlay(&QemuImg::default(), &overlay.path, &base, &mut log, deadline());
        assert!(matches!(again, Err(DiskFailure::File(_))), "{again:?}");
    }
    assert_eq!(files(directory.path()), ["over-qcow2", "over-raw", "qcow2", "raw"]);
}

#[test]
fn over_an_image_that_has_changed_none_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("base");
    fs::write(&path, [7; 4096]).unwrap();
    let base = ImageRef::read(&path, ImageFormat::Raw).unwrap();
    fs::write(&path, [8; 8192]).unwrap();
    // A program that is not there: it is not even started.
    let none = QemuImg::new(Path::new("/nonexistent/qemu-img"));
    let target = directory.path().join("overlay");
    let made = create_overlay(&none, &target, &base, &mut NoLog, deadline());
    assert!(matches!(made, Err(DiskFailure::Changed { .. })), "{made:?}");
    assert_eq!(files(directory.path()), ["base"]);
}
