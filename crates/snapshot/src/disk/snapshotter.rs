//! Anything that takes snapshots of disks.

use std::fmt;
use std::time::{Duration, Instant};

use crate::{CreationLog, NoLog};

use super::{
    CommitError, DiskAction, DiskPlan, DiskSnapshot, PlanError, PrepareError, RollbackReport,
};

/// Takes a snapshot of a group of disks, once.
///
/// The steps are called in the order `plan`, `prepare`, `commit`; `plan` may be left out, since `prepare` plans again in any case.
/// `approach` may come right before `commit`, and `rollback` may follow any of them. An implementation of the caller's own (LVM, ZFS, a storage array) keeps these promises:
///
/// - `plan` changes nothing, and tells all reasons against.
/// - `prepare` changes nothing that the domain or its other snapshots use. When it fails, nothing is left.
/// - `commit` is the one step that changes a disk of the domain. Its error says how the disks are.
/// - `rollback` removes only what this object created, and says what is left.
/// - Everything has ended by the deadline, or soon after it.
pub trait DiskSnapshotter: fmt::Debug {
    /// What it is for.
    fn describe(&self) -> Description;

    /// Looks whether the snapshot can be taken.
    ///
    /// # Errors
    ///
    /// All reasons against, or what kept it from looking.
    fn plan(&mut self, deadline: Instant) -> Result<DiskPlan, PlanError>;

    /// Makes what can be made without touching the disks. Each new file is told to `log` before it has content, and what QEMU is to open
    /// before it is asked.
    ///
    /// # Errors
    ///
    /// Why nothing was made.
    fn prepare(&mut self, log: &mut dyn CreationLog, deadline: Instant)
    -> Result<(), PrepareError>;

    /// The guest stands still, and the commit comes next: what can be asked ahead of it may be asked now. Nothing is changed by it, and
    /// what fails is for the commit to tell. It may be left out.
    fn approach(&mut self, _deadline: Instant) {}

    /// Takes the snapshot.
    ///
    /// # Errors
    ///
    /// Why not, and how the disks are now.
    fn commit(&mut self, deadline: Instant) -> Result<Vec<DiskSnapshot>, CommitError>;

    /// Removes what was made so far, as far as nothing depends on it.
    fn rollback(&mut self, deadline: Instant) -> RollbackReport;
}

/// What a snapshotter is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// What it is, in a few words.
    pub kind: &'static str,
    /// The disks, and what is done with each.
    pub disks: Vec<(String, DiskAction)>,
    /// All disks change at one moment, or none does.
    pub atomic: bool,
    /// It may be taken while the guest writes.
    pub live: bool,
    /// A rollback after the commit brings the disks back to how they were.
    pub reversible: bool,
}

/// A rollback has at least this long, also if the deadline is what it is for: deleting a snapshot in an image takes milliseconds.
const ROLLBACK_MIN: Duration = Duration::from_secs(10);

/// Prepares and commits, and rolls back if that fails. No log is kept of what is created: what a killed process leaves stays.
///
/// # Errors
///
/// What failed, and what the rollback did.
pub fn snapshot(
    snapshotter: &mut dyn DiskSnapshotter,
    deadline: Instant,
) -> Result<Vec<DiskSnapshot>, SnapshotFailed> {
    snapshotter.prepare(&mut NoLog, deadline).map_err(SnapshotFailed::Prepare)?;
    snapshotter.commit(deadline).map_err(|source| {
        let rollback = snapshotter.rollback(deadline.max(Instant::now() + ROLLBACK_MIN));
        SnapshotFailed::Commit { source: Box::new(source), rollback }
    })
}

/// Why [`snapshot()`] took none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotFailed {
    /// Nothing was changed.
    #[error("the snapshot is not possible")]
    Prepare(#[source] PrepareError),
    /// It failed at the last step.
    #[error("the snapshot failed")]
    Commit {
        /// Why, and how the disks were then.
        source: Box<CommitError>,
        /// What was undone.
        rollback: RollbackReport,
    },
}
