//! Copies of image files.

use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use self::destination::{Destination, Made, check_destination, shown};
use self::octets::copy;
use super::digest::{changed, digest_of};
use super::image::{Chain, ChainRules, ImageChange, ImageFormat, OpenImage, Writers};
use super::target::Unique;
use super::{
    CommitError, Description, DiskAction, DiskFailure, DiskPlan, DiskRefusal, DiskSnapshot,
    DiskSnapshotter, DiskWarning, PlanError, PlannedDisk, PrepareError, RollbackReport, WrongStage,
};
use crate::{CreationLog, Located};

mod destination;
pub(super) mod octets;

/// Copies of images that nobody writes while they are copied: the domain does not run, is suspended, or has its disks frozen.
///
/// The whole file is copied as it is, so that a qcow2 image keeps what it rests on; a name relative to its directory has to
/// lead to the same file from the copy's, and is refused otherwise. A copy has its name once it is complete and synced.
///
/// A copy may also be made into a descriptor of the caller's: that of an empty regular file, at its beginning. Such a file is only
/// ever added to. If the snapshot fails, what is in it by then stays, and a rollback tells so:
/// [`LeftReason::CallersOwn`](super::LeftReason::CallersOwn).
///
/// A source that changes during the copy is noticed by its times and size, and the copy is not made. A block device has
/// neither: there the caller has to make sure.
#[derive(Debug)]
pub struct ImageCopies {
    disks: Vec<ImageCopy>,
    writers: Writers,
    written_until_commit: bool,
    stage: Stage,
}

/// One disk of [`ImageCopies`].
#[derive(Clone, Debug)]
pub struct ImageCopy {
    /// The disk as the domain has it, as `xvda`.
    pub vdev: String,
    /// The image, which stays the domain's active one. It is opened for reading only.
    pub image: PathBuf,
    /// Its format.
    pub format: ImageFormat,
    /// How it is to be copied.
    pub method: CopyMethod,
    /// Where the copy is to be. Results name a descriptor by the path that the kernel has for it.
    pub destination: Located,
    /// Whether a digest of the copy is wanted. It is read again for that.
    pub digest: bool,
}

/// How an image is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CopyMethod {
    /// By sharing the octets until one of the two is written: btrfs and XFS can, within one file system.
    Reflink,
    /// Octet by octet, with holes where the image has them.
    Sparse,
    /// By sharing where that is possible, else octet by octet.
    ReflinkOrSparse,
}

#[derive(Debug)]
enum Stage {
    Fresh,
    Prepared(Vec<(Chain, Destination)>),
    Committed(Vec<Made>),
    Ended,
}

impl ImageCopies {
    /// Copies of these disks, which nobody may have open for writing.
    pub fn new(disks: Vec<ImageCopy>) -> Self {
        Self { disks, writers: Writers::Nobody, written_until_commit: false, stage: Stage::Fresh }
    }

    /// With others who may have the images open for writing: the domain's suspended QEMU, say.
    #[must_use]
    pub fn with_writers(mut self, writers: Writers) -> Self {
        self.writers = writers;
        self
    }

    /// The images are at rest from the commit on only: until then the guest runs, whoever writes for it.
    #[must_use]
    pub fn written_until_commit(mut self) -> Self {
        self.written_until_commit = true;
        self
    }

    fn chains(&self) -> Result<Vec<Chain>, PlanError> {
        let (mut refusals, mut unique) = (Vec::new(), Unique::default());
        let mut chains = Vec::new();
        let rules = ChainRules { writers: self.writers, ..ChainRules::default() };
        for ImageCopy { vdev, image, format, destination, method: _, digest: _ } in &self.disks {
            unique.check(vdev, format!("the name {vdev}"), &mut refusals);
            check_destination(vdev, destination, &mut unique, &mut refusals);
            match Chain::read(image, *format, rules) {
                Ok(chain) => chains.push(chain),
                Err(broken) => refusals.extend(
                    broken
                        .into_iter()
                        .map(|source| DiskRefusal::Chain { vdev: vdev.clone(), source }),
                ),
            }
        }
        if refusals.is_empty() { Ok(chains) } else { Err(PlanError::Refused { refusals }) }
    }

    /// Copies one disk. What is made is told in any case, unless it is gone again.
    fn take(
        (disk, may_be_written): (&ImageCopy, bool),
        chain: &Chain,
        destination: Destination,
        deadline: Instant,
        all_made: &mut Vec<Made>,
    ) -> Result<DiskSnapshot, DiskFailure> {
        let ImageCopy { vdev, image, format, method, destination: _, digest } = disk;
        all_made.extend(destination.is_callers());
        let path = destination.path().to_owned();
        let failed = |step| {
            let path = path.clone();
            move |source| DiskFailure::Io { path, step, source }
        };
        let source = OpenImage::open(image.clone(), *format)?;
        let mut changes = source.image.changes_since(chain.active());
        if may_be_written {
            // Who may write it has done so until it stood still: only that it is the same image counts.
            changes.retain(|change| matches!(change, ImageChange::OtherFile | ImageChange::Format));
        }
        if !changes.is_empty() {
            return Err(DiskFailure::Changed { path: image.clone(), changes });
        }
        let before = source.file.metadata().map_err(failed("look at the source"))?;
        destination.check_empty().map_err(failed("begin to write it"))?;
        let used = copy(&source, destination.as_fd(), *method, &path, deadline)?;
        let after = source.file.metadata().map_err(failed("look at the source"))?;
        let changes = changed(&before, &after);
        if !changes.is_empty() {
            return Err(DiskFailure::Changed { path: image.clone(), changes });
        }
        let reopened = || destination.reopened().map_err(failed("read it"));
        // Of the copy and not of the source: that is what has to be right.
        let digest = if *digest {
            let (size, quiet) = (source.image.size, &mut |_| ControlFlow::Continue(()));
            Some(digest_of(&reopened()?, size, &path, deadline, quiet)?)
        } else {
            None
        };
        // A relative name in it has to lead to the same file from here.
        let opened = OpenImage::of(reopened()?, path.clone(), *format)?;
        if let Some(base) = chain.images().get(1) {
            super::overlay::check_backing(&opened, base)?;
        }
        let frozen = destination.finish(&opened, all_made)?;
        let mut images = chain.images().to_vec();
        images[0] = frozen.clone();
        let count = chain.unseen();
        let unseen = (count > 0).then_some(DiskWarning::ProcessesUnseen { count });
        Ok(DiskSnapshot {
            vdev: vdev.clone(),
            action: used,
            frozen,
            active: source.image,
            chain: images,
            digest,
            warnings: unseen.into_iter().collect(),
        })
    }
}

impl ImageCopy {
    /// What is asked for; the result tells what was done.
    fn action(&self) -> DiskAction {
        let destination = shown(&self.destination);
        match self.method {
            CopyMethod::Reflink | CopyMethod::ReflinkOrSparse => {
                DiskAction::Reflink { destination }
            }
            CopyMethod::Sparse => DiskAction::SparseCopy { destination },
        }
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

impl DiskSnapshotter for ImageCopies {
    fn describe(&self) -> Description {
        let disks = self.disks.iter().map(|disk| (disk.vdev.clone(), disk.action())).collect();
        Description { kind: "copies", disks, atomic: false, live: false, reversible: true }
    }

    fn plan(&mut self, _deadline: Instant) -> Result<DiskPlan, PlanError> {
        let planned = |(disk, chain): (&ImageCopy, Chain)| {
            let count = chain.unseen();
            let unseen = (count > 0).then_some(DiskWarning::ProcessesUnseen { count });
            PlannedDisk {
                vdev: disk.vdev.clone(),
                action: disk.action(),
                octets_needed: match disk.method {
                    CopyMethod::Reflink => 0,
                    CopyMethod::Sparse | CopyMethod::ReflinkOrSparse => chain.active().size,
                },
                warnings: unseen.into_iter().collect(),
                chain: chain.into_images(),
            }
        };
        let disks = self.disks.iter().zip(self.chains()?).map(planned).collect();
        Ok(DiskPlan { disks })
    }

    /// Creates the files, still without their names. The copying itself is the commit: the images have to be at rest only for that.
    fn prepare(
        &mut self,
        log: &mut dyn CreationLog,
        _deadline: Instant,
    ) -> Result<(), PrepareError> {
        let Stage::Fresh = self.stage else {
            return Err(WrongStage { wanted: "prepare", is: self.stage.name() }.into());
        };
        let mut prepared = Vec::new();
        for (disk, chain) in self.disks.iter().zip(self.chains()?) {
            match Destination::prepare(&disk.destination, log) {
                Ok(file) => prepared.push((chain, file)),
                Err(error) => {
                    let (vdev, left) = (disk.vdev.clone(), Vec::new());
                    let source = Box::new(error);
                    return Err(PrepareError::Failed { vdev, source, left });
                }
            }
        }
        self.stage = Stage::Prepared(prepared);
        Ok(())
    }

    fn commit(&mut self, deadline: Instant) -> Result<Vec<DiskSnapshot>, CommitError> {
        let prepared = match std::mem::replace(&mut self.stage, Stage::Ended) {
            Stage::Prepared(prepared) => prepared,
            other => {
                let is = other.name();
                self.stage = other;
                return Err(WrongStage { wanted: "commit", is }.into());
            }
        };
        let (mut all_made, mut done) = (Vec::new(), Vec::new());
        let mut failed = None;
        for (disk, (chain, destination)) in self.disks.iter().zip(prepared) {
            match Self::take(
                (disk, self.written_until_commit),
                &chain,
                destination,
                deadline,
                &mut all_made,
            ) {
                Ok(snapshot) => done.push(snapshot),
                Err(source) => {
                    failed = Some(source);
                    break;
                }
            }
        }
        self.stage = Stage::Committed(all_made);
        match failed {
            None => Ok(done),
            // The copies before it are just files: the disks are as they were.
            Some(source) => Err(CommitError::Unchanged(source)),
        }
    }

    fn rollback(&mut self, _deadline: Instant) -> RollbackReport {
        let mut report = RollbackReport::default();
        if let Stage::Committed(all_made) = std::mem::replace(&mut self.stage, Stage::Ended) {
            all_made.iter().for_each(|made| made.remove(&mut report));
        }
        report
    }
}
