//! Bringing a saved domain back: as a new one, or in the place of one.

//!
//! ```text
//! plan -> verify -> overlays -> build, paused, under a temporary name -> Xenstore state -> destroy the old -> name -> run
//!         nothing was created   '----------------- undone by a failure ----------------'   commit point
//! ```

mod check;
mod configuration;
mod error;
mod images;
mod memory;
mod plan;
mod random;
mod refusal;
mod request;
mod run;
mod source;
mod undo;
mod xenstore;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::control::{DomainIdentity, DomainState};
use crate::manifest::NamedImage;

pub use error::{MemoryFailure, RestoreCause, RestoreFailure, XenstoreFailure};
pub use plan::{PlannedRestoreDisk, RestorePlan, RestoreSpace, plan_restore};
pub use refusal::{PlanRestoreError, RestoreRefusal};
pub use request::{
    Depth, DiskRestore, GenerationId, NewIdentity, NicChange, RestoreDeadlines, RestoreMode,
    RestoreRequest, Source, Start, UuidChoice,
};
pub use run::restore;

/// What came of a restore.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Restored {
    /// The restore's own id.
    pub id: Uuid,
    /// The snapshot's.
    pub snapshot: Uuid,
    /// The new domain; `None` if the snapshot has no memory, so that there is nothing to build from: then `configuration` is
    /// what the caller's toolstack creates it from.
    pub domain: Option<DomainIdentity>,
    /// The state it was found in.
    pub state: Option<DomainState>,
    /// Its name.
    pub name: String,
    /// Its configuration, as libxl-json, whose text [`DomainConfig::read`](libxl_config::DomainConfig::read) takes. Whether it is
    /// filed as the domain's template is up to [`DomainControl::build_from`](crate::control::DomainControl::build_from).
    pub configuration: serde_json::Value,
    /// The image of each disk.
    pub disks: Vec<RestoredDisk>,
    /// What was done to its Xenstore state.
    pub xenstore: Option<RestoredXenstore>,
    /// What could not be made sure, in words.
    pub warnings: Vec<String>,
}

/// The image of a restored disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredDisk {
    /// Which disk.
    pub vdev: String,
    /// Its image.
    pub image: NamedImage,
    /// Whether the guest can write it.
    pub writable: bool,
}

/// What was done to the Xenstore state of a restored domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredXenstore {
    /// Nodes that were written or removed.
    pub changes: u64,
    /// What the saved state has and the domain has not got, with why not, in words.
    pub unapplied: Vec<String>,
}
