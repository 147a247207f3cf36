//! Internal snapshots for a domain that does not run.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::check_tag;
use crate::CreationLog;
use crate::disk::image::{Chain, ChainRules, ImageFormat, ImageRef, Writers};
use crate::disk::qemu_img::{QemuImg, QemuImgError};
use crate::disk::target::Unique;
use crate::disk::{
    CommitError, Description, DiskAction, DiskFailure, DiskPlan, DiskRefusal, DiskSnapshot,
    DiskSnapshotter, DiskWarning, LeftReason, PlanError, PlannedDisk, PrepareError, RollbackReport,
    WrongStage,
};

/// Snapshots inside the qcow2 images of a domain that does not run, made by `qemu-img` one after another.
///
/// If one fails, those that were made are deleted by a rollback. The images are written, so none of them may be what another rests on:
/// that is the caller's to know.
#[derive(Debug)]
pub struct OfflineInternal {
    disks: Vec<OfflineInternalSnapshot>,
    qemu_img: QemuImg,
    stage: Stage,
}

/// One disk of [`OfflineInternal`].
#[derive(Clone, Debug)]
pub struct OfflineInternalSnapshot {
    /// The disk as the domain has it, as `xvda`.
    pub vdev: String,
    /// The active image: qcow2.
    pub image: PathBuf,
    /// What the snapshot is to be called.
    pub tag: String,
}

#[derive(Debug)]
enum Stage {
    Fresh,
    Prepared(Vec<Chain>),
    /// Image and id of each snapshot that was made.
    Committed(Vec<Made>),
    Ended,
}

#[derive(Debug)]
struct Made {
    image: PathBuf,
    id: String,
    tag: String,
}

impl OfflineInternal {
    /// Snapshots of these disks, made by the `qemu-img` in `PATH`.
    pub fn new(disks: Vec<OfflineInternalSnapshot>) -> Self {
        Self { disks, qemu_img: QemuImg::default(), stage: Stage::Fresh }
    }

    /// With another `qemu-img`.
    #[must_use]
    pub fn with_qemu_img(mut self, qemu_img: QemuImg) -> Self {
        self.qemu_img = qemu_img;
        self
    }

    fn chains(&self, deadline: Instant) -> Result<Vec<Chain>, PlanError> {
        let (mut refusals, mut unique) = (Vec::new(), Unique::default());
        let mut chains = Vec::new();
        let rules = ChainRules { writers: Writers::Nobody, ..ChainRules::default() };
        for OfflineInternalSnapshot { vdev, image, tag } in &self.disks {
            unique.check(vdev, format!("the name {vdev}"), &mut refusals);
            match Chain::read(image, ImageFormat::Qcow2, rules) {
                Ok(chain) => {
                    let active = chain.active();
                    let inode = format!("the image {}:{}", active.dev, active.ino);
                    unique.check(vdev, inode, &mut refusals);
                    let info = self.qemu_img.info(image, ImageFormat::Qcow2, false, deadline);
                    let snapshots = info.map_err(DiskFailure::from)?.snapshots;
                    let taken = snapshots.iter().map(|taken| (&taken.id[..], &taken.name[..]));
                    check_tag(vdev, tag, taken, &mut refusals);
                    chains.push(chain);
                }
                Err(broken) => refusals.extend(
                    broken
                        .into_iter()
                        .map(|source| DiskRefusal::Chain { vdev: vdev.clone(), source }),
                ),
            }
        }
        if refusals.is_empty() { Ok(chains) } else { Err(PlanError::Refused { refusals }) }
    }

    fn take(
        &self,
        disk: &OfflineInternalSnapshot,
        chain: &Chain,
        deadline: Instant,
    ) -> Result<(Made, DiskSnapshot), DiskFailure> {
        let OfflineInternalSnapshot { vdev, image, tag } = disk;
        let now = ImageRef::read(image, ImageFormat::Qcow2)?;
        let changes = now.changes_since(chain.active());
        if !changes.is_empty() {
            return Err(DiskFailure::Changed { path: image.clone(), changes });
        }
        self.qemu_img.snapshot(image, tag, deadline)?;
        let id = self.id_of(image, tag, deadline)?;
        let Some(id) = id else {
            return Err(DiskFailure::NoSnapshot { path: image.clone(), tag: tag.clone() });
        };
        sync(image)?;
        let frozen = ImageRef::read(image, ImageFormat::Qcow2)?;
        let mut images = chain.images().to_vec();
        images[0] = frozen.clone();
        let count = chain.unseen();
        let unseen = (count > 0).then_some(DiskWarning::ProcessesUnseen { count });
        let snapshot = DiskSnapshot {
            vdev: vdev.clone(),
            action: disk.action(),
            active: frozen.clone(),
            frozen,
            chain: images,
            digest: None,
            warnings: unseen.into_iter().collect(),
        };
        Ok((Made { image: image.clone(), id, tag: tag.clone() }, snapshot))
    }

    fn id_of(
        &self,
        image: &Path,
        tag: &str,
        deadline: Instant,
    ) -> Result<Option<String>, QemuImgError> {
        let info = self.qemu_img.info(image, ImageFormat::Qcow2, false, deadline)?;
        Ok(info.snapshots.into_iter().find(|made| made.name == tag).map(|made| made.id))
    }

    /// Deletes by tag: that it is the one that was made, its id tells.
    fn delete(&self, made: &Made, deadline: Instant) -> Result<(), LeftReason> {
        let refused = |error: QemuImgError| LeftReason::Refused(error.to_string());
        match self.id_of(&made.image, &made.tag, deadline).map_err(refused)? {
            Some(id) if id == made.id => {
                self.qemu_img.delete_snapshot(&made.image, &made.tag, deadline).map_err(refused)
            }
            _ => Err(LeftReason::Written),
        }
    }
}

impl OfflineInternalSnapshot {
    fn action(&self) -> DiskAction {
        DiskAction::InternalQcow2 { tag: self.tag.clone() }
    }
}

/// What `qemu-img` wrote it has told the system to write; that it is on the disk before anybody relies on it costs little.
fn sync(image: &Path) -> Result<(), DiskFailure> {
    let failed = |source| DiskFailure::Io { path: image.to_owned(), step: "sync it", source };
    // Syncing does not need a descriptor for writing.
    std::fs::File::open(image).and_then(|file| file.sync_all()).map_err(failed)
}

impl Stage {
    fn name(&self) -> &'static str {
        match self {
            Self::Fresh => "not prepared",
            Self::Prepared(_) => "prepared",
            Self::Committed(_) => "committed",
            Self::Ended => "ended",
        }
    }
}

impl DiskSnapshotter for OfflineInternal {
    fn describe(&self) -> Description {
        let disks = self.disks.iter().map(|disk| (disk.vdev.clone(), disk.action())).collect();
        let kind = "internal qcow2 snapshots, offline";
        Description { kind, disks, atomic: false, live: false, reversible: true }
    }

    fn plan(&mut self, deadline: Instant) -> Result<DiskPlan, PlanError> {
        let planned = |(disk, chain): (&OfflineInternalSnapshot, Chain)| PlannedDisk {
            vdev: disk.vdev.clone(),
            action: disk.action(),
            // Copies of the tables that map the content, and the reference counts for them.
            octets_needed: chain.active().virtual_size.div_ceil(8192) + (256 << 10),
            warnings: Vec::new(),
            chain: chain.into_images(),
        };
        let disks = self.disks.iter().zip(self.chains(deadline)?).map(planned).collect();
        Ok(DiskPlan { disks })
    }

    fn prepare(
        &mut self,
        _log: &mut dyn CreationLog,
        deadline: Instant,
    ) -> Result<(), PrepareError> {
        let Stage::Fresh = self.stage else {
            return Err(WrongStage { wanted: "prepare", is: self.stage.name() }.into());
        };
        self.stage = Stage::Prepared(self.chains(deadline)?);
        Ok(())
    }

    fn commit(&mut self, deadline: Instant) -> Result<Vec<DiskSnapshot>, CommitError> {
        let Stage::Prepared(chains) = &self.stage else {
            return Err(WrongStage { wanted: "commit", is: self.stage.name() }.into());
        };
        let (mut done, mut all_made) = (Vec::new(), Vec::new());
        let mut failed = None;
        for (disk, chain) in self.disks.iter().zip(chains) {
            match self.take(disk, chain, deadline) {
                Ok((made, snapshot)) => {
                    all_made.push(made);
                    done.push(snapshot);
                }
                Err(source) => {
                    failed = Some(source);
                    break;
                }
            }
        }
        self.stage = Stage::Committed(all_made);
        match failed {
            None => Ok(done),
            Some(source) if done.is_empty() => Err(CommitError::Unchanged(source)),
            Some(source) => Err(CommitError::Partly { done, source }),
        }
    }

    fn rollback(&mut self, deadline: Instant) -> RollbackReport {
        let mut report = RollbackReport::default();
        if let Stage::Committed(all_made) = std::mem::replace(&mut self.stage, Stage::Ended) {
            for made in &all_made {
                if let Err(reason) = self.delete(made, deadline) {
                    report.leave(&made.image, reason);
                }
            }
        }
        report
    }
}
