//! The images of a disk.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};

use super::watch::{Octets, Watch};
use super::{Artifact, Findings, How, Note, Problem, tags};
use crate::disk::image::{
    Chain, ChainRefusal, ChainRules, DEPTH_DEFAULT, ImageChange, ImageError, ImageRef, Writers,
};
use crate::disk::{DiskAction, DiskSnapshot};
use crate::restore::Depth;

/// Octets that are read.
pub(super) fn octets(disk: &DiskSnapshot, depth: Depth) -> u64 {
    if depth == Depth::Full && disk.digest.is_some() { disk.frozen.size } else { 0 }
}

pub(super) fn check(
    disk: &DiskSnapshot,
    depth: Depth,
    watch: &Watch<'_, '_>,
    findings: &mut Findings,
) {
    let artifact = Artifact::disk(&disk.vdev);
    match &disk.action {
        DiskAction::Skip { reason } => {
            findings.uncovered(artifact, format!("it was not saved: {reason}"));
            return;
        }
        DiskAction::InternalQcow2 { tag } => {
            match internal(disk, tag) {
                Ok(()) => findings.checked(artifact.clone(), How::Tag),
                Err(problem) => findings.problems.push(problem),
            }
            findings
                .uncovered(artifact, "the guest goes on writing the image that the snapshot is in");
            return;
        }
        _ => {}
    }
    let before = findings.problems.len();
    let same_octets = depth == Depth::Full && digest(disk, watch, findings);
    let mut looked_at = vec![compare(disk, &disk.frozen, same_octets, findings)];
    if depth >= Depth::Chain {
        let below = disk.chain.iter().skip(1);
        looked_at.extend(below.map(|image| compare(disk, image, false, findings)));
        order(disk, looked_at, findings);
    }
    if findings.problems.len() > before {
        return;
    }
    findings
        .checked(artifact.clone(), if depth >= Depth::Chain { How::Chain } else { How::Header });
    if same_octets {
        findings.checked(artifact.clone(), How::Octets);
    }
    let reason = match (depth, disk.digest) {
        (Depth::Full, Some(_)) if disk.chain.len() > 1 => {
            "the content of the images that the frozen one rests on: there is no digest of them"
        }
        (Depth::Full, Some(_)) => return,
        (_, Some(_)) => "its content is compared at full depth only",
        (_, None) => "its content: the save took no digest of it",
    };
    findings.uncovered(artifact, reason);
}

/// Whether the octets of the frozen image are those that were saved. That they cannot be read is told of by who looks at the
/// image as a whole, if it is not there.
fn digest(disk: &DiskSnapshot, watch: &Watch<'_, '_>, findings: &mut Findings) -> bool {
    let Some(saved) = disk.digest else { return false };
    let Ok(file) = open(&disk.frozen.path) else { return false };
    let artifact = Artifact::disk(&disk.vdev);
    watch.start();
    match digest_of(&file, disk.frozen.size, watch) {
        Ok(has) if has == saved.to_string() => true,
        Ok(has) => {
            let saved = saved.to_string();
            findings.problems.push(Problem::Digest { artifact, has, saved });
            false
        }
        Err(source) => {
            findings.problems.push(Problem::Read { artifact, source });
            false
        }
    }
}

fn digest_of(file: &File, size: u64, watch: &Watch<'_, '_>) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(Octets::of(file, watch).take(size))?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// Compares an image with what it was, and gives what it is now.
fn compare(
    disk: &DiskSnapshot,
    saved: &ImageRef,
    same_octets: bool,
    findings: &mut Findings,
) -> Option<ImageRef> {
    let vdev = || disk.vdev.clone();
    let now = match ImageRef::read(&saved.path, saved.format) {
        Ok(now) => now,
        Err(source) => {
            findings.problems.push(Problem::DiskImage { vdev: vdev(), source });
            return None;
        }
    };
    let timeless = std::fs::metadata(&saved.path).is_ok_and(|it| it.file_type().is_block_device());
    let changes = now.changes_since(saved).into_iter();
    let changes = changes.filter(|change| !(timeless && *change == ImageChange::Modified));
    let (harmless, changes): (Vec<_>, Vec<_>) = changes.partition(|change| match change {
        ImageChange::OtherFile => true,
        ImageChange::Modified => same_octets,
        _ => false,
    });
    if !changes.is_empty() {
        let path = saved.path.clone();
        findings.problems.push(Problem::DiskChanged { vdev: vdev(), path, changes });
    } else if !harmless.is_empty() {
        let (artifact, path) = (Artifact::disk(&disk.vdev), saved.path.clone());
        findings.notes.push(Note { artifact, path, changes: harmless });
    }
    Some(now)
}

/// Whether the frozen image rests on the images that it did, in that order.
fn order(disk: &DiskSnapshot, saved: Vec<Option<ImageRef>>, findings: &mut Findings) {
    let frozen = &disk.frozen;
    // Who has an image open does not matter here: a domain runs on top of it.
    let depth = DEPTH_DEFAULT.max(disk.chain.len());
    let rules = ChainRules { depth, writers: Writers::Anybody };
    let vdev = || disk.vdev.clone();
    let chain = match Chain::read(&frozen.path, frozen.format, rules) {
        Ok(chain) => chain.into_images(),
        Err(refusals) => {
            // An image that is missing has been told of, unless it is another one than there was.
            let known = |error: &ImageError| {
                disk.chain
                    .iter()
                    .zip(&saved)
                    .any(|(image, now)| now.is_none() && image.path == error.path())
            };
            let news = refusals
                .into_iter()
                .filter(|refusal| !matches!(refusal, ChainRefusal::Image(error) if known(error)));
            let problems = news.map(|source| Problem::DiskChain { vdev: vdev(), source });
            findings.problems.extend(problems);
            return;
        }
    };
    let Some(saved): Option<Vec<_>> = saved.into_iter().collect() else { return };
    let same = chain.len() == saved.len()
        && chain.iter().zip(&saved).all(|(image, saved)| image.is_same_file(saved));
    if !same {
        let paths = |images: &[ImageRef]| -> Vec<PathBuf> {
            images.iter().map(|image| image.path.clone()).collect()
        };
        let (now, saved) = (paths(&chain), paths(&saved));
        findings.problems.push(Problem::DiskOrder { vdev: vdev(), now, saved });
    }
}

/// A snapshot inside an image that is written since: all that stays is its name.
fn internal(disk: &DiskSnapshot, tag: &str) -> Result<(), Problem> {
    let (vdev, path) = (disk.vdev.clone(), disk.frozen.path.clone());
    if let Err(source) = ImageRef::read(&path, disk.frozen.format) {
        return Err(Problem::DiskImage { vdev, source });
    }
    match open(&path).and_then(|file| tags::has_tag(&file, tag)) {
        Ok(Some(true)) => Ok(()),
        Ok(Some(false)) => Err(Problem::NoTag { vdev, path, tag: tag.to_owned() }),
        Ok(None) => Err(Problem::Tags { vdev, path }),
        Err(source) => Err(Problem::DiskImage { vdev, source: ImageError::Read { path, source } }),
    }
}

fn open(path: &std::path::Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}
