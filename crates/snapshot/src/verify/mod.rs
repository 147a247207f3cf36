//! Comparing what was saved with what is there. Nothing is created, and nothing is opened for writing.
//!
//! | depth | memory image | Xenstore state | each disk |
//! |---|---|---|---|
//! | [`Depth::Header`] | header, length and root digest | all of it | its frozen image: header, sizes, time |
//! | [`Depth::Chain`] | the same | all of it | and every image it rests on, and their order |
//! | [`Depth::Full`] | every octet | all of it | and every octet of the frozen image, if the save took its digest |
//!
//! What tells that an image was written to is the time of its last modification, wherever its octets were not compared: one that
//! changed is a problem. Which inode holds the octets does not matter, since file systems are mounted elsewhere and files come
//! back from a backup: another one is a [`Note`]. The time of a block device means nothing and is not looked at. A snapshot inside
//! an image that the guest goes on writing is looked for by its name.

mod disks;
mod memory;
mod problem;
mod source;
mod tags;
mod watch;
mod xenstore;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use problem::{Artifact, Problem, VerifyError};

use crate::disk::image::ImageChange;
use crate::restore::{Depth, Source};
use crate::{Observer, Phase, Snapshot};
use watch::Watch;

/// Where the files of a snapshot are, if not where it says.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The memory image; `None` for where the snapshot says.
    pub memory: Option<Source>,
    /// The Xenstore state; `None` for where the snapshot says.
    pub xenstore: Option<Source>,
}

/// What was compared, and found as it was saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Verified {
    /// The snapshot's id.
    pub snapshot: Uuid,
    /// How thoroughly it was to be.
    pub depth: Depth,
    /// What was compared.
    pub checked: Vec<Checked>,
    /// What could not be, at this depth or at all.
    pub uncovered: Vec<Uncovered>,
    /// What is different and does not matter.
    pub notes: Vec<Note>,
    /// Octets that were read for digests.
    pub octets: u64,
}

/// Something that is as it was saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// What.
    pub artifact: Artifact,
    /// How it was compared.
    pub how: How,
}

/// How something was compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum How {
    /// By its header, its length and what else is known without its content.
    Header,
    /// The same for every image that it rests on.
    Chain,
    /// The snapshot of that name is in the image.
    Tag,
    /// By a digest of every octet.
    Octets,
}

/// Something that was not compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uncovered {
    /// What.
    pub artifact: Artifact,
    /// What of it, and why, in words.
    pub reason: String,
}

/// Something that is different from when it was saved, and does not matter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// What.
    pub artifact: Artifact,
    /// The file.
    pub path: PathBuf,
    /// What is different.
    pub changes: Vec<ImageChange>,
}

/// Compares a snapshot with what is there, and tells of all that is wrong, not just the first.
///
/// A memory image takes no more than its table of digests and some mebibytes of memory, whatever its size. The observer is told
/// of octets read for digests.
///
/// # Errors
///
/// Every problem that was found, with what was found in order; or that the observer has cancelled it.
pub fn verify(
    snapshot: &Snapshot,
    sources: &Sources,
    depth: Depth,
    observer: &mut Observer<'_>,
) -> Result<Verified, VerifyError> {
    verify_parts(snapshot, sources, Parts { memory: depth, disks: depth, but: &[] }, observer)
}

/// What a restore wants to have compared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) memory: Depth,
    pub(crate) disks: Depth,
    /// Disks that are not looked at.
    pub(crate) but: &'a [&'a str],
}

/// [`verify`] with a depth for memory and one for disks.
pub(crate) fn verify_parts(
    snapshot: &Snapshot,
    sources: &Sources,
    parts: Parts<'_>,
    observer: &mut Observer<'_>,
) -> Result<Verified, VerifyError> {
    let disks: Vec<_> =
        snapshot.disks.iter().filter(|disk| !parts.but.contains(&&disk.vdev[..])).collect();
    let of_memory =
        snapshot.memory.as_ref().map_or(0, |memory| memory::octets(memory, parts.memory));
    let of_xenstore = snapshot.xenstore.as_ref().map_or(0, |xenstore| xenstore.octets);
    let of_disks = disks.iter().map(|disk| disks::octets(disk, parts.disks));
    let total = of_disks.fold(of_memory.saturating_add(of_xenstore), u64::saturating_add);
    observer.begin(Phase::Verify);
    let watch = Watch::new(observer, total);
    let mut findings = Findings::default();
    if let Some(artifact) = &snapshot.memory {
        memory::check(artifact, sources.memory.as_ref(), parts.memory, &watch, &mut findings);
        watch.done(of_memory);
    }
    if let Some(artifact) = &snapshot.xenstore {
        xenstore::check(artifact, sources.xenstore.as_ref(), &watch, &mut findings);
        watch.done(of_xenstore);
    }
    for disk in disks {
        if watch.is_cancelled() {
            break;
        }
        disks::check(disk, parts.disks, &watch, &mut findings);
        watch.done(disks::octets(disk, parts.disks));
    }
    for disk in &snapshot.skipped {
        findings.uncovered(Artifact::disk(&disk.vdev), "it was not saved");
    }
    if watch.is_cancelled() {
        return Err(VerifyError::Cancelled);
    }
    let Findings { checked, uncovered, notes, problems } = findings;
    let (snapshot, depth, octets) = (snapshot.id, parts.disks, watch.octets());
    let verified = Verified { snapshot, depth, checked, uncovered, notes, octets };
    if problems.is_empty() {
        Ok(verified)
    } else {
        Err(VerifyError::Different { problems, verified: Box::new(verified) })
    }
}

/// What was found so far.
#[derive(Debug, Default)]
struct Findings {
    checked: Vec<Checked>,
    uncovered: Vec<Uncovered>,
    notes: Vec<Note>,
    problems: Vec<Problem>,
}

impl Findings {
    fn checked(&mut self, artifact: Artifact, how: How) {
        self.checked.push(Checked { artifact, how });
    }

    fn uncovered(&mut self, artifact: Artifact, reason: impl Into<String>) {
        self.uncovered.push(Uncovered { artifact, reason: reason.into() });
    }
}
