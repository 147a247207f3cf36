//! Copies of image files.

use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::{SeekFrom, copy_file_range, ftruncate, ioctl_ficlone, seek};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::image::{
    Chain, ChainRules, Digest, ImageChange, ImageFormat, ImageRef, OpenImage, Writers,
};
use super::target::{Unique, check_target};
use super::{
    CommitError, Description, DiskAction, DiskFailure, DiskPlan, DiskRefusal, DiskSnapshot,
    DiskSnapshotter, DiskWarning, PlanError, PlannedDisk, PrepareError, RollbackReport, WrongStage,
};
use crate::{CompleteFile, CreatedFile, CreationLog};

/// Octets that are copied between two looks at the clock: a tenth of a second on a slow disk.
const PIECE: usize = 8 << 20;

/// Copies of images that nobody writes while they are copied: the domain does not run, is suspended, or has its disks frozen.
///
/// The whole file is copied as it is, so that a qcow2 image keeps what it rests on; a name relative to its directory has to
/// lead to the same file from the copy's, and is refused otherwise. A copy has its name once it is complete and synced.
///
/// A source that changes during the copy is noticed by its times and size, and the copy is not made. A block device has
/// neither: there the caller has to make sure.
#[derive(Debug)]
pub struct ImageCopies {
    disks: Vec<ImageCopy>,
    writers: Writers,
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
    /// Where the copy is to be.
    pub destination: PathBuf,
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
    Prepared(Vec<(Chain, CompleteFile)>),
    Committed(Vec<CreatedFile>),
    Ended,
}

impl ImageCopies {
    /// Copies of these disks, which nobody may have open for writing.
    pub fn new(disks: Vec<ImageCopy>) -> Self {
        Self { disks, writers: Writers::Nobody, stage: Stage::Fresh }
    }

    /// With others who may have the images open for writing: the domain's suspended QEMU, say.
    #[must_use]
    pub fn with_writers(mut self, writers: Writers) -> Self {
        self.writers = writers;
        self
    }

    fn chains(&self) -> Result<Vec<Chain>, PlanError> {
        let (mut refusals, mut unique) = (Vec::new(), Unique::default());
        let mut chains = Vec::new();
        let rules = ChainRules { writers: self.writers, ..ChainRules::default() };
        for ImageCopy { vdev, image, format, destination, method: _, digest: _ } in &self.disks {
            unique.check(vdev, format!("the name {vdev}"), &mut refusals);
            unique.check(vdev, format!("the copy {}", destination.display()), &mut refusals);
            check_target(vdev, destination, &mut refusals);
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

    fn take(
        disk: &ImageCopy,
        chain: &Chain,
        file: CompleteFile,
        deadline: Instant,
    ) -> Result<(CreatedFile, DiskSnapshot), DiskFailure> {
        let ImageCopy { vdev, image, format, method, destination, digest } = disk;
        let failed =
            |step| move |source| DiskFailure::Io { path: destination.clone(), step, source };
        let source = OpenImage::open(image.clone(), *format)?;
        let changes = source.image.changes_since(chain.active());
        if !changes.is_empty() {
            return Err(DiskFailure::Changed { path: image.clone(), changes });
        }
        let before = source.file.metadata().map_err(failed("look at the source"))?;
        let used = copy(&source, &file, *method, destination, deadline)?;
        let after = source.file.metadata().map_err(failed("look at the source"))?;
        let changes = changed(&before, &after);
        if !changes.is_empty() {
            return Err(DiskFailure::Changed { path: image.clone(), changes });
        }
        let own = file.as_fd().try_clone_to_owned().map(File::from).map_err(failed("read it"))?;
        // Of the copy and not of the source: that is what has to be right.
        let reopened = File::open(format!("/proc/self/fd/{}", own.as_raw_fd()));
        let reopened = reopened.map_err(failed("read it"))?;
        let digest = if *digest {
            let size = source.image.size;
            Some(digest_of(&reopened, size, destination, deadline)?)
        } else {
            None
        };
        // A relative name in it has to lead to the same file from here.
        let opened = OpenImage::of(reopened, destination.clone(), *format)?;
        if let Some(base) = chain.images().get(1) {
            super::overlay::check_backing(&opened, base)?;
        }
        let created = file.created().clone();
        drop(own);
        let named = file.finish().map_err(DiskFailure::from);
        let frozen = named.and_then(|_| Ok(ImageRef::read(destination, *format)?)).and_then(|it| {
            let changes = vec![ImageChange::OtherFile];
            let other = || DiskFailure::Changed { path: destination.clone(), changes };
            if it.is_same_file(&opened.image) { Ok(it) } else { Err(other()) }
        });
        if frozen.is_err() {
            // It has its name even if only the directory could not be synced.
            RollbackReport::default().remove(&created);
        }
        let frozen = frozen?;
        let mut images = chain.images().to_vec();
        images[0] = frozen.clone();
        let count = chain.unseen();
        let unseen = (count > 0).then_some(DiskWarning::ProcessesUnseen { count });
        let snapshot = DiskSnapshot {
            vdev: vdev.clone(),
            action: used,
            frozen,
            active: source.image,
            chain: images,
            digest,
            warnings: unseen.into_iter().collect(),
        };
        Ok((created, snapshot))
    }
}

impl ImageCopy {
    /// What is asked for; the result tells what was done.
    fn action(&self) -> DiskAction {
        let destination = self.destination.clone();
        match self.method {
            CopyMethod::Reflink | CopyMethod::ReflinkOrSparse => {
                DiskAction::Reflink { destination }
            }
            CopyMethod::Sparse => DiskAction::SparseCopy { destination },
        }
    }
}

/// Copies by the method, and tells by which it was.
fn copy(
    source: &OpenImage,
    file: &CompleteFile,
    method: CopyMethod,
    destination: &Path,
    deadline: Instant,
) -> Result<DiskAction, DiskFailure> {
    let io = |step| {
        move |errno: Errno| DiskFailure::Io {
            path: destination.to_owned(),
            step,
            source: errno.into(),
        }
    };
    let named = destination.to_owned();
    if method != CopyMethod::Sparse {
        match ioctl_ficlone(file, &source.file) {
            Ok(()) => return Ok(DiskAction::Reflink { destination: named }),
            // Another file system, or one that cannot: EOPNOTSUPP, EXDEV, EINVAL; ENOTTY of those that know no clones at all.
            Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY | Errno::NOSYS)
                if method == CopyMethod::ReflinkOrSparse => {}
            Err(errno) => return Err(io("clone it")(errno)),
        }
    }
    let size = source.image.size;
    ftruncate(file, size).map_err(io("give it its size"))?;
    let mut at = 0;
    while let Some((start, end)) = next_data(&source.file, at, size).map_err(io("find holes"))? {
        copy_range(&source.file, file, start, end, destination, deadline)?;
        at = end;
    }
    Ok(DiskAction::SparseCopy { destination: named })
}

/// The next part of a file that is not a hole. A block device has no holes to tell.
fn next_data(file: &File, at: u64, size: u64) -> Result<Option<(u64, u64)>, Errno> {
    if at >= size {
        return Ok(None);
    }
    let start = match seek(file, SeekFrom::Data(at)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        Err(Errno::INVAL) => return Ok(Some((at, size))),
        Err(errno) => return Err(errno),
    };
    let end = seek(file, SeekFrom::Hole(start))?.min(size);
    Ok((start < end).then_some((start, end)))
}

fn copy_range(
    source: &File,
    file: &CompleteFile,
    start: u64,
    end: u64,
    destination: &Path,
    deadline: Instant,
) -> Result<(), DiskFailure> {
    use std::os::unix::fs::FileExt;
    let failed = |source: io::Error| DiskFailure::Io {
        path: destination.to_owned(),
        step: "copy to it",
        source,
    };
    let mut in_kernel = true;
    let mut buffer = Vec::new();
    let (mut from, mut to) = (start, start);
    while from < end {
        check_deadline(destination, "copied", deadline)?;
        let piece = usize::try_from(end - from).unwrap_or(usize::MAX).min(PIECE);
        if in_kernel {
            match copy_file_range(source, Some(&mut from), file, Some(&mut to), piece) {
                Ok(0) => in_kernel = false,
                Ok(_) => {}
                Err(Errno::INTR) => {}
                // Between file systems, from block devices, and on kernels that have no such thing.
                Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::BADF) => {
                    in_kernel = false;
                }
                Err(errno) => return Err(failed(errno.into())),
            }
            continue;
        }
        buffer.resize(PIECE.min(piece), 0);
        match source.read_at(&mut buffer[..piece], from) {
            // It became shorter; its changed size is found afterwards.
            Ok(0) => return Ok(()),
            Ok(read) => {
                let mut octets = &buffer[..read];
                while !octets.is_empty() {
                    match rustix::io::pwrite(file, octets, to) {
                        Ok(0) => return Err(failed(io::ErrorKind::WriteZero.into())),
                        Ok(written) => {
                            octets = &octets[written..];
                            to += written as u64;
                        }
                        Err(Errno::INTR) => {}
                        Err(errno) => return Err(failed(errno.into())),
                    }
                }
                from = to;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(())
}

/// The digest of a whole file. Holes are zeros, which need not be read to be known.
fn digest_of(
    mut file: &File,
    size: u64,
    path: &Path,
    deadline: Instant,
) -> Result<Digest, DiskFailure> {
    let failed =
        |source: io::Error| DiskFailure::Io { path: path.to_owned(), step: "read it", source };
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; PIECE];
    let zeros = vec![0; PIECE];
    let mut at = 0;
    while at < size {
        let (start, end) = next_data(file, at, size)
            .map_err(|errno| failed(errno.into()))?
            .unwrap_or((size, size));
        while at < start {
            check_deadline(path, "digested", deadline)?;
            let piece = usize::try_from(start - at).unwrap_or(PIECE).min(PIECE);
            hasher.write_all(&zeros[..piece]).map_err(failed)?;
            at += piece as u64;
        }
        seek(file, SeekFrom::Start(start)).map_err(|errno| failed(errno.into()))?;
        while at < end {
            check_deadline(path, "digested", deadline)?;
            let piece = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
            file.read_exact(&mut buffer[..piece]).map_err(failed)?;
            hasher.write_all(&buffer[..piece]).map_err(failed)?;
            at += piece as u64;
        }
    }
    Ok(Digest::finished(&hasher))
}

fn check_deadline(path: &Path, step: &'static str, deadline: Instant) -> Result<(), DiskFailure> {
    if Instant::now() < deadline {
        return Ok(());
    }
    Err(DiskFailure::Deadline { path: path.to_owned(), step })
}

/// The time of change cannot be set back, as that of modification can.
fn changed(before: &Metadata, after: &Metadata) -> Vec<ImageChange> {
    if before.file_type().is_block_device() {
        return Vec::new();
    }
    let times = |metadata: &Metadata| {
        (metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec())
    };
    let size = (before.len() != after.len()).then_some(ImageChange::Size);
    let written = (times(before) != times(after)).then_some(ImageChange::Modified);
    size.into_iter().chain(written).collect()
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
            match CompleteFile::create_logged(&disk.destination, log) {
                Ok(file) => prepared.push((chain, file)),
                Err(error) => {
                    let (vdev, left) = (disk.vdev.clone(), Vec::new());
                    let source = Box::new(error.into());
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
        let (mut all_created, mut done) = (Vec::new(), Vec::new());
        let mut failed = None;
        for (disk, (chain, file)) in self.disks.iter().zip(prepared) {
            match Self::take(disk, &chain, file, deadline) {
                Ok((created, snapshot)) => {
                    all_created.push(created);
                    done.push(snapshot);
                }
                Err(source) => {
                    failed = Some(source);
                    break;
                }
            }
        }
        self.stage = Stage::Committed(all_created);
        match failed {
            None => Ok(done),
            // The copies before it are just files: the disks are as they were.
            Some(source) => Err(CommitError::Unchanged(source)),
        }
    }

    fn rollback(&mut self, _deadline: Instant) -> RollbackReport {
        let mut report = RollbackReport::default();
        if let Stage::Committed(all_created) = std::mem::replace(&mut self.stage, Stage::Ended) {
            all_created.iter().for_each(|created| report.remove(created));
        }
        report
    }
}
