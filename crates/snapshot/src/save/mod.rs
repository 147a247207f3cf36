//! Saving a domain as a whole: memory, disks, configuration and Xenstore state of one moment.
//!
//! ```text
//! plan -> prepare -> (freeze) -> suspend+memory -> capture -> sync -> name -> pivot -> configure -> resume -> (thaw) -> digest
//!         |----- what fails up to here is undone, and the domain goes on ------|  |--- the snapshot is whole ---|
//! ```
//!
//! [`plan_save`] changes nothing, and tells every reason against. [`save()`] looks again, and does it only if what the plan depends
//! on is as it was.

mod capture;
mod disks;
mod engine;
mod error;
mod finish;
mod groups;
mod memory;
mod pivot;
mod plan;
mod refusal;
mod request;
mod survey;
mod targets;
mod undo;

use std::io::Read;
use std::time::Instant;

use uuid::Uuid;

use crate::manifest::SavedDomain;
use crate::{HostAccess, Observer, Phase, Snapshot};
use engine::Run;
use survey::Survey;

pub use error::{DiskAfter, ImageAfter, SaveCause, SaveFailure};
pub(crate) use finish::DIGEST_LIMIT;
pub use plan::{DiskFingerprint, Fingerprint, PlannedFile, SavePlan, SpaceNeed};
pub use refusal::{PlanSaveError, SaveRefusal};
pub(crate) use request::milliseconds;
pub use request::{
    After, ConfigUpdate, Consistency, DiskRequest, DiskRequestAction, Durability, Hold,
    MemoryFormat, MemoryRequest, OnQuiesceFailure, QuiesceRequest, SaveDeadlines, SaveRequest,
};

/// Looks whether a domain can be saved, and what that would do. Nothing is changed.
///
/// # Errors
///
/// All reasons against, or what kept it from looking.
pub fn plan_save(
    access: &mut HostAccess<'_>,
    request: SaveRequest,
) -> Result<SavePlan, PlanSaveError> {
    let id = random_id().map_err(PlanSaveError::Id)?;
    let survey = Survey::of(access, &request, id)?;
    let Survey { view, fingerprint, disks, skipped, files, space, .. } = survey;
    let domain = SavedDomain { identity: view.identity, name: view.name, kind: view.kind };
    Ok(SavePlan {
        id,
        domain,
        disks,
        skipped,
        files,
        space,
        consistency: survey.consistency,
        consistency_reason: survey.consistency_reason,
        warnings: survey.warnings,
        fingerprint,
        request,
    })
}

/// Saves a domain as it was planned.
///
/// # Errors
///
/// What failed, and how domain, disks and files are then. Up to the pivot everything is undone; what fails later leaves a whole
/// snapshot, which is in the error.
pub fn save(
    access: &mut HostAccess<'_>,
    plan: SavePlan,
    observer: &mut Observer<'_>,
) -> Result<Snapshot, Box<SaveFailure>> {
    let began = Instant::now();
    observer.begin(Phase::Plan);
    let SavePlan { id, request, fingerprint, .. } = plan;
    let untouched = |access: &HostAccess<'_>, cause| {
        let state = access.control.state(&request.domain, Instant::now() + undo::QUERY_LIMIT);
        Box::new(SaveFailure {
            phase: Phase::Plan,
            cause,
            domain: state.ok(),
            disks: undo::all_old(&request),
            removed: Vec::new(),
            left: Vec::new(),
            thaw: None,
            snapshot: None,
            journal: None,
        })
    };
    let survey = match Survey::of(access, &request, id) {
        Ok(survey) => survey,
        Err(error) => return Err(untouched(access, SaveCause::Plan(error))),
    };
    if let Some(what) = survey.fingerprint.changed_since(&fingerprint) {
        return Err(untouched(access, SaveCause::StalePlan { what }));
    }
    if observer.is_cancelled() {
        return Err(untouched(access, SaveCause::Cancelled));
    }
    let mut run = match Run::begin(access, &request, id, survey, observer, began) {
        Ok(run) => run,
        Err((access, cause)) => return Err(untouched(access, cause)),
    };
    match run.up_to_the_pivot() {
        Ok(snapshot) => run.complete(snapshot),
        Err(cause) => Err(run.undo(cause)),
    }
}

fn random_id() -> std::io::Result<Uuid> {
    let mut octets = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut octets)?;
    Ok(uuid::Builder::from_random_bytes(octets).into_uuid())
}
