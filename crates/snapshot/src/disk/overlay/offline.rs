//! Overlays for a domain that does not run.

use std::path::PathBuf;
use std::time::Instant;

use super::BackingName;
use super::prepared::{OCTETS_NEEDED, PreparedOverlay};
use crate::CreationLog;
use crate::disk::image::{Chain, ChainRules, ImageFormat, ImageRef, Writers};
use crate::disk::qemu_img::QemuImg;
use crate::disk::target::{Unique, check_target};
use crate::disk::{
    CommitError, Description, DiskAction, DiskFailure, DiskPlan, DiskRefusal, DiskSnapshot,
    DiskSnapshotter, DiskWarning, PlanError, PlannedDisk, PrepareError, RollbackReport, WrongStage,
};

/// New qcow2 overlays over the images of a domain that does not run.
///
/// Making the overlays is all there is to do: from the commit on the caller has to start the domain with
/// [`DiskSnapshot::active`]. Until somebody has written to an overlay, a rollback removes it also after the commit.
#[derive(Debug)]
pub struct OfflineOverlays {
    disks: Vec<OfflineOverlay>,
    qemu_img: QemuImg,
    depth: usize,
    stage: Stage,
}

/// One disk of [`OfflineOverlays`].
#[derive(Clone, Debug)]
pub struct OfflineOverlay {
    /// The disk as the domain has it, as `xvda`.
    pub vdev: String,
    /// The active image.
    pub image: PathBuf,
    /// Its format.
    pub format: ImageFormat,
    /// Where the overlay is to be.
    pub overlay: PathBuf,
    /// How the overlay names the image.
    pub backing: BackingName,
}

#[derive(Debug)]
enum Stage {
    Fresh,
    Prepared(Vec<(Chain, PreparedOverlay)>),
    Committed(Vec<PreparedOverlay>),
    Ended,
}

impl OfflineOverlays {
    /// Overlays for these disks, made by the `qemu-img` in `PATH`.
    pub fn new(disks: Vec<OfflineOverlay>) -> Self {
        let depth = ChainRules::default().depth;
        Self { disks, qemu_img: QemuImg::default(), depth, stage: Stage::Fresh }
    }

    /// With another `qemu-img`.
    #[must_use]
    pub fn with_qemu_img(mut self, qemu_img: QemuImg) -> Self {
        self.qemu_img = qemu_img;
        self
    }

    /// With chains of at most this many images, the overlay included.
    #[must_use]
    pub fn with_depth(mut self, depth: usize) -> Self {
        self.depth = depth;
        self
    }

    fn chains(&self) -> Result<Vec<Chain>, PlanError> {
        let (mut refusals, mut unique) = (Vec::new(), Unique::default());
        let mut chains = Vec::new();
        let rules = ChainRules { depth: self.depth.saturating_sub(1), writers: Writers::Nobody };
        for OfflineOverlay { vdev, image, format, overlay, backing: _ } in &self.disks {
            unique.check(vdev, format!("the name {vdev}"), &mut refusals);
            unique.check(vdev, format!("the overlay {}", overlay.display()), &mut refusals);
            check_target(vdev, overlay, &mut refusals);
            match Chain::read(image, *format, rules) {
                Ok(chain) => {
                    let active = chain.active();
                    let inode = format!("the image {}:{}", active.dev, active.ino);
                    unique.check(vdev, inode, &mut refusals);
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

    fn action(disk: &OfflineOverlay) -> DiskAction {
        DiskAction::ExternalQcow2 { overlay: disk.overlay.clone() }
    }
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

fn warnings(chain: &Chain) -> Vec<DiskWarning> {
    let count = chain.unseen();
    if count == 0 { Vec::new() } else { vec![DiskWarning::ProcessesUnseen { count }] }
}

impl DiskSnapshotter for OfflineOverlays {
    fn describe(&self) -> Description {
        Description {
            kind: "qcow2 overlays, offline",
            disks: self.disks.iter().map(|disk| (disk.vdev.clone(), Self::action(disk))).collect(),
            atomic: true,
            live: false,
            reversible: true,
        }
    }

    fn plan(&mut self, _deadline: Instant) -> Result<DiskPlan, PlanError> {
        let planned = |(disk, chain): (&OfflineOverlay, Chain)| PlannedDisk {
            vdev: disk.vdev.clone(),
            action: Self::action(disk),
            octets_needed: OCTETS_NEEDED,
            warnings: warnings(&chain),
            chain: chain.into_images(),
        };
        let disks = self.disks.iter().zip(self.chains()?).map(planned).collect();
        Ok(DiskPlan { disks })
    }

    fn prepare(
        &mut self,
        log: &mut dyn CreationLog,
        deadline: Instant,
    ) -> Result<(), PrepareError> {
        let Stage::Fresh = self.stage else {
            return Err(WrongStage { wanted: "prepare", is: self.stage.name() }.into());
        };
        let mut prepared: Vec<(Chain, PreparedOverlay)> = Vec::new();
        for (disk, chain) in self.disks.iter().zip(self.chains()?) {
            let base = chain.active();
            let OfflineOverlay { overlay, backing, .. } = disk;
            let size = base.virtual_size;
            match PreparedOverlay::create(
                &self.qemu_img,
                overlay,
                backing,
                base,
                size,
                log,
                deadline,
            ) {
                Ok(overlay) => prepared.push((chain, overlay)),
                Err(source) => {
                    let mut report = RollbackReport::default();
                    prepared.iter().for_each(|(_, overlay)| overlay.remove(&mut report));
                    let (vdev, left) = (disk.vdev.clone(), report.left);
                    let source = Box::new(source);
                    return Err(PrepareError::Failed { vdev, source, left });
                }
            }
        }
        self.stage = Stage::Prepared(prepared);
        Ok(())
    }

    fn commit(&mut self, _deadline: Instant) -> Result<Vec<DiskSnapshot>, CommitError> {
        let Stage::Prepared(prepared) = &self.stage else {
            return Err(WrongStage { wanted: "commit", is: self.stage.name() }.into());
        };
        let mut done = Vec::new();
        for (disk, (chain, overlay)) in self.disks.iter().zip(prepared) {
            let base = chain.active();
            overlay.verify(base).map_err(CommitError::Unchanged)?;
            let frozen = ImageRef::read(&base.path, base.format)
                .map_err(|error| CommitError::Unchanged(error.into()))?;
            let changes = frozen.changes_since(base);
            if !changes.is_empty() {
                let path = base.path.clone();
                return Err(CommitError::Unchanged(DiskFailure::Changed { path, changes }));
            }
            done.push(DiskSnapshot {
                vdev: disk.vdev.clone(),
                action: Self::action(disk),
                frozen,
                active: overlay.image.clone(),
                chain: chain.images().to_vec(),
                digest: None,
                warnings: warnings(chain),
            });
        }
        if let Stage::Prepared(prepared) = std::mem::replace(&mut self.stage, Stage::Ended) {
            self.stage =
                Stage::Committed(prepared.into_iter().map(|(_, overlay)| overlay).collect());
        }
        Ok(done)
    }

    fn rollback(&mut self, _deadline: Instant) -> RollbackReport {
        let mut report = RollbackReport::default();
        match std::mem::replace(&mut self.stage, Stage::Ended) {
            Stage::Fresh | Stage::Ended => {}
            Stage::Prepared(prepared) => {
                prepared.iter().for_each(|(_, overlay)| overlay.remove(&mut report));
            }
            Stage::Committed(overlays) => {
                overlays.iter().for_each(|overlay| overlay.remove(&mut report));
            }
        }
        report
    }
}
