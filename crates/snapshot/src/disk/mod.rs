//! Snapshots of disks: mechanism only, the caller supplies every path, node name and tag.
//!
//! ```text
//! plan -----> prepare -----> commit -----> Vec<DiskSnapshot>
//! reads only  new files only  the one step that a running domain notices
//!                |              |
//!                '--> rollback <'   removes what this snapshot created, and nothing else
//! ```
//!
//! A [`DiskSnapshotter`] does this for a group of disks that succeed or fail together. [`snapshot()`] runs one from beginning to end.
//!
//! | how | which |
//! |---|---|
//! | an empty qcow2 overlay over each image, the domain not running | [`OfflineOverlays`] |
//! | the same on a running QEMU, all disks in one transaction | [`LiveOverlays`] |
//! | snapshots inside the qcow2 images, the domain not running | [`OfflineInternal`] |
//! | the same on a running QEMU, in one transaction | [`LiveInternal`] |
//! | copies of images that nobody writes meanwhile | [`ImageCopies`] |
//! | LVM, ZFS, a storage array | the caller's own [`DiskSnapshotter`] |
//!
//! What a call that died has left is found by what its caller kept of it:
//!
//! | of what | kept beforehand | afterwards |
//! |---|---|---|
//! | new files | what a [`CreationLog`](crate::CreationLog) is told | [`CreatedFile::remove`](crate::CreatedFile::remove) |
//! | overlays on a running QEMU | [`LiveOverlays::intents`] | [`recover_overlays`], before any file is removed |
//! | snapshots in images on a running QEMU | [`LiveInternal::intents`] | [`recover_internal`] |
//!
//! ```no_run
//! use std::time::{Duration, Instant};
//! use snapshot::disk::{LiveOverlay, LiveOverlays, snapshot};
//!
//! let disks = vec![
//!     LiveOverlay::new("xvda", "xvda-qcow2", "/images/root-1.qcow2", "xvda-1"),
//!     LiveOverlay::new("xvdb", "xvdb-qcow2", "/images/data-1.qcow2", "xvdb-1"),
//! ];
//! let mut overlays = LiveOverlays::new("/var/run/xen/qmp-libxl-7", disks);
//! let done = snapshot(&mut overlays, Instant::now() + Duration::from_secs(10))?;
//! for disk in &done {
//!     println!("{}: {} is frozen, {} is written", disk.vdev, disk.frozen.path.display(), disk.active.path.display());
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What holds for all of them:
//!
//! - No file is overwritten, truncated or removed but those that the call created. A name appears once its file is complete and synced.
//! - An image's format is said or recorded, never guessed; what it rests on is checked by device and inode number.
//! - No image that another rests on is opened for writing.
//! - A plan tells every reason against, not just the first.
//!
//! After [`LiveOverlays`] have been committed the guest writes into other images than the domain's configuration names.
//! `DiskSnapshot::active` says which; a caller that does not tell the configuration loses what the guest writes from then on.

mod action;
mod copy;
mod digest;
mod error;
#[doc(hidden)]
pub mod fuzzing;
pub mod image;
mod internal;
mod overlay;
pub mod qemu_img;
pub mod qmp;
mod snapshotter;
mod target;

pub use crate::creation::{LeftBehind, LeftReason, RollbackReport};

pub use action::{DiskAction, DiskPlan, DiskSnapshot, DiskWarning, PlannedDisk};
pub use copy::{CopyMethod, ImageCopies, ImageCopy};
pub use digest::digest_image;
pub use error::{CommitError, DiskFailure, DiskRefusal, PlanError, PrepareError, WrongStage};
pub use internal::{
    LiveInternal, LiveInternalSnapshot, OfflineInternal, OfflineInternalSnapshot, TagIntent,
    recover_internal,
};
pub use overlay::{
    BackingName, LiveOverlay, LiveOverlays, OfflineOverlay, OfflineOverlays, OverlayIntent,
    OverlaysAre, PivotState, create_overlay, pivot_state, recover_overlays,
};
pub(crate) use overlay::{close_overlays, nodes_writing};
pub use snapshotter::{Description, DiskSnapshotter, SnapshotFailed, snapshot};
