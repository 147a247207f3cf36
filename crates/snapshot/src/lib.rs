//! Saves and restores Xen domains: mechanism only, the caller supplies every path and name.
//!
//! So far these are the parts: a domain's Xenstore state out of one Xenstore and into another, memory images, snapshots of
//! disks, and what is asked of a hypervisor. Nothing puts them together yet into saving a domain as a whole.
//!
//! | what | where |
//! |---|---|
//! | the Xenstore state of one domain, out of any Xenstore and into any other | [`xenstore_state`] |
//! | memory images: the stream libxl writes, mapped, packed | [`image`] |
//! | snapshots of disks: overlays, internal snapshots, copies | [`disk`] |
//! | what saving and restoring ask of a hypervisor | [`control`] |
//! | a domain to test against, without a hypervisor | [`simulated`] |
//! | comparing what was saved with what is there | [`verify()`] |
//! | requests as JSON | [`request_json`] |
//! | a new file that has its name only once it is complete | [`CompleteFile`] |
//! | where new files are to be, and who knows of them | [`Target`], [`CreationLog`] |

#![forbid(unsafe_code)]

mod access;
mod complete_file;
pub mod control;
mod creation;
pub mod disk;
#[doc(hidden)]
pub mod fuzzing;
pub mod guard;
pub mod image;
mod journal;
pub mod manifest;
mod progress;
pub mod recover;
pub mod request_json;
pub mod restore;
pub mod save;
pub mod simulated;
mod target;
pub mod verify;
pub mod xenstore_state;

pub use access::{GuardianProgram, HostAccess, Quiescer};
pub use complete_file::{CompleteFile, CompleteFileError, CompleteFileStep};
pub use creation::{
    CreatedFile, CreationLog, LeftBehind, LeftReason, NoLog, RollbackReport, temporary_name,
};
pub use journal::JournalError;
#[doc(hidden)]
pub use journal::steps as crash_steps;
pub use manifest::Snapshot;
pub use progress::{Observer, Phase, Progress};
pub use recover::recover;
pub use restore::{RestorePlan, plan_restore, restore};
pub use save::{SavePlan, plan_save, save};
pub use target::{FreeSpace, Located, Target, TargetError, free_space};
pub use verify::verify;
