//! A caller's own snapshotter, beside those of the library, behind one trait.

use std::path::{Path, PathBuf};
use std::time::Instant;

use snapshot::disk::image::{ImageFormat, ImageRef};
use snapshot::disk::{
    CommitError, CopyMethod, Description, DiskAction, DiskFailure, DiskPlan, DiskRefusal,
    DiskSnapshot, DiskSnapshotter, ImageCopies, ImageCopy, PlanError, PlannedDisk, PrepareError,
    RollbackReport, SnapshotFailed, snapshot,
};
use snapshot::{CreationLog, Located, NoLog};

use crate::programs::deadline;

/// As a volume manager would: it names the frozen volume beside the active one.
#[derive(Debug)]
struct Volumes {
    volume: PathBuf,
    fails: bool,
    rolled_back: u32,
}

impl Volumes {
    fn image(&self) -> Result<ImageRef, DiskFailure> {
        Ok(ImageRef::read(&self.volume, ImageFormat::Raw)?)
    }
}

impl DiskSnapshotter for Volumes {
    fn describe(&self) -> Description {
        let action = DiskAction::Hook { name: "volumes".to_owned() };
        let disks = vec![("xvda".to_owned(), action)];
        Description { kind: "volumes", disks, atomic: true, live: true, reversible: true }
    }

    fn plan(&mut self, _deadline: Instant) -> Result<DiskPlan, PlanError> {
        let (vdev, action) = self.describe().disks.remove(0);
        if !self.volume.exists() {
            let source = "there is no such volume".into();
            return Err(PlanError::Refused { refusals: vec![DiskRefusal::Hook { vdev, source }] });
        }
        let chain = vec![self.image()?];
        let disk = PlannedDisk { vdev, action, chain, octets_needed: 0, warnings: vec![] };
        Ok(DiskPlan { disks: vec![disk] })
    }

    fn prepare(
        &mut self,
        _log: &mut dyn CreationLog,
        deadline: Instant,
    ) -> Result<(), PrepareError> {
        Ok(self.plan(deadline).map(drop)?)
    }

    fn commit(&mut self, _deadline: Instant) -> Result<Vec<DiskSnapshot>, CommitError> {
        if self.fails {
            return Err(CommitError::Unchanged(DiskFailure::Hook("no room in the pool".into())));
        }
        let (vdev, action) = self.describe().disks.remove(0);
        let image = self.image().map_err(CommitError::Unchanged)?;
        let (frozen, chain) = (image.clone(), vec![image.clone()]);
        let warnings = vec![];
        Ok(vec![DiskSnapshot {
            vdev,
            action,
            frozen,
            active: image,
            chain,
            digest: None,
            warnings,
        }])
    }

    fn rollback(&mut self, _deadline: Instant) -> RollbackReport {
        self.rolled_back += 1;
        RollbackReport::default()
    }
}

fn copies(image: &Path, destination: &Path) -> ImageCopies {
    ImageCopies::new(vec![ImageCopy {
        vdev: "xvdb".to_owned(),
        image: image.to_owned(),
        format: ImageFormat::Raw,
        method: CopyMethod::Sparse,
        destination: Located::Name(destination.to_owned()),
        digest: false,
    }])
}

#[test]
fn hooks_and_the_librarys_own_are_the_same_to_a_caller() {
    let directory = tempfile::tempdir().unwrap();
    let volume = directory.path().join("volume");
    std::fs::write(&volume, [1; 512]).unwrap();
    let hook = Volumes { volume: volume.clone(), fails: false, rolled_back: 0 };
    let copies = copies(&volume, &directory.path().join("copy"));
    let mut all: Vec<Box<dyn DiskSnapshotter>> = vec![Box::new(hook), Box::new(copies)];
    let mut done = Vec::new();
    for snapshotter in &mut all {
        let described = snapshotter.describe();
        let disks = snapshot(&mut **snapshotter, deadline()).unwrap();
        assert_eq!(described.disks.len(), disks.len(), "{described:?}");
        done.extend(disks);
    }
    assert_eq!(done.iter().map(|disk| &disk.vdev[..]).collect::<Vec<_>>(), ["xvda", "xvdb"]);
}

#[test]
fn a_hook_that_fails_is_rolled_back_once() {
    let directory = tempfile::tempdir().unwrap();
    let volume = directory.path().join("volume");
    std::fs::write(&volume, [1; 512]).unwrap();
    let mut hook = Volumes { volume, fails: true, rolled_back: 0 };
    assert!(matches!(snapshot(&mut hook, deadline()), Err(SnapshotFailed::Commit { .. })));
    assert_eq!(hook.rolled_back, 1);
    hook.volume = directory.path().join("none");
    assert!(matches!(snapshot(&mut hook, deadline()), Err(SnapshotFailed::Prepare(_))));
    assert_eq!(hook.rolled_back, 1, "what was not prepared is not rolled back");
}

#[test]
fn steps_out_of_their_order_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("image");
    std::fs::write(&image, [1; 512]).unwrap();
    let mut copies = copies(&image, &directory.path().join("copy"));
    assert!(matches!(copies.commit(deadline()), Err(CommitError::Stage(_))));
    copies.prepare(&mut NoLog, deadline()).unwrap();
    assert!(matches!(copies.prepare(&mut NoLog, deadline()), Err(PrepareError::Stage(_))));
    copies.commit(deadline()).unwrap();
    assert!(matches!(copies.commit(deadline()), Err(CommitError::Stage(_))));
    assert_eq!(copies.rollback(deadline()).removed, [directory.path().join("copy")]);
    assert!(copies.rollback(deadline()).removed.is_empty());
}
