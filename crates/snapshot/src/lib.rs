//! Saves and restores Xen domains: mechanism only, the caller supplies every path and name.
//!
//! A [`SaveRequest`](save::SaveRequest) says what is wanted; a [`Snapshot`] says what came of it, and is the caller's to keep. What
//! is worked with, a hypervisor, Xenstore, templates, comes in one [`HostAccess`].
//!
//! ```no_run
//! use libxl_config::template::UserdataDir;
//! use snapshot::control::DomainIdentity;
//! use snapshot::restore::{DiskRestore, RestoreRequest};
//! use snapshot::save::{DiskRequest, DiskRequestAction, MemoryFormat, MemoryRequest, SaveRequest};
//! use snapshot::{HostAccess, Observer, Target, plan_restore, plan_save, restore, save};
//! use xsclient::{Client, Endpoint, Options};
//!
//! # fn example(control: &dyn snapshot::control::DomainControl, domain: DomainIdentity) -> Result<(), Box<dyn std::error::Error>> {
//! let templates = UserdataDir::open(UserdataDir::HOST_PATH)?;
//! let xenstore = |_| Client::open(Endpoint::Search, Options::default());
//! let mut access = HostAccess {
//!     control,
//!     xenstore: &xenstore,
//!     templates: &templates,
//!     hypervisor: None,
//!     qemu_img: snapshot::disk::qemu_img::QemuImg::default(),
//!     guardian: None,
//!     hooks: Default::default(),
//!     quiescers: Default::default(),
//! };
//! let mut request = SaveRequest::new(domain);
//! request.qmp = Some("/var/run/xen/qmp-libxl-7".into());
//! request.memory = Some(MemoryRequest {
//!     target: Target::Path("/srv/web.mem".into()),
//!     format: MemoryFormat::Mapped,
//!     live: false,
//! });
//! request.disks.push(DiskRequest {
//!     vdev: "xvda".into(),
//!     action: DiskRequestAction::Skip { reason: "can be made again".into() },
//! });
//! request.journal = Some(Target::Path("/srv/web.journal".into()));
//! let plan = plan_save(&mut access, request)?;
//! let saved = save(&mut access, plan, &mut Observer::none())?;
//!
//! let mut request = RestoreRequest::new(saved);
//! request.identity.name = Some("web-2".into());
//! request.disks.insert("xvda".into(), DiskRestore::AsConfigured);
//! let plan = plan_restore(&mut access, request)?;
//! let restored = restore(&mut access, plan, &mut Observer::none())?;
//! println!("{:?} runs", restored.domain);
//! # Ok(())
//! # }
//! ```
//!
//! | what | where |
//! |---|---|
//! | saving a domain | [`plan_save`], [`save()`], [`mod@save`] |
//! | what was saved, and its manifest | [`Snapshot`], [`manifest`] |
//! | comparing what was saved with what is there | [`verify()`], [`mod@verify`] |
//! | bringing a saved domain back | [`plan_restore`], [`restore()`], [`mod@restore`] |
//! | undoing or completing what a killed process began | [`recover()`], [`mod@recover`] |
//! | resuming the domain of a killed saver | [`guard`] |
//! | how far a call is, and ending it early | [`Observer`] |
//! | requests as JSON | [`request_json`] |
//! | the parts: memory images, disks, Xenstore state | [`image`], [`disk`], [`xenstore_state`] |
//! | what is asked of a hypervisor | [`control`] |
//! | a domain to test against, without a hypervisor | [`simulated`] |
//! | new files: where they are to be, and complete or not there | [`Target`], [`CreationLog`], [`CompleteFile`] |
//!
//! States, commit points and what is promised after every failure are in `docs/snapshot.md`.

#![forbid(unsafe_code)]

mod access;
mod complete_file;
pub mod control;
mod creation;
mod descriptor;
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
