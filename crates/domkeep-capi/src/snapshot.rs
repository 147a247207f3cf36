//! Domains saved, compared, restored and recovered as a whole.

use std::error::Error as StdError;
use std::ffi::{c_char, c_int};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::Arc;
use std::time::Instant;

use ::snapshot::disk::qemu_img::QemuImg;
use ::snapshot::manifest::ManifestError;
use ::snapshot::recover::{RecoverError, Recovered};
use ::snapshot::request_json::{REQUEST_MAX, RequestError};
use ::snapshot::restore::{
    Depth as Thoroughly, PlanRestoreError, RestoreCause, RestoreFailure, RestoreRequest, Source,
};
use ::snapshot::save::{PlanSaveError, SaveCause, SaveFailure, SaveRequest};
use ::snapshot::verify::{Sources, VerifyError};
use ::snapshot::{HostAccess, JournalError, Snapshot, plan_restore, plan_save};
use libxl_config::retrieve::HypervisorView;
use serde_json::{Map, Value, json};

use crate::arguments::{descriptor, descriptors, empty, required, text};
use crate::boundary::call;
use crate::context::Ctx;
use crate::control::Control;
use crate::observer::{Observer, observed};
use crate::outcome::{give_json, give_text};
use crate::problem::{Error, Problem, as_one, status_of};
use crate::status::Status;

/// How thoroughly what was saved is compared with what is there.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Headers: of the memory image, and of each frozen image.
    Header = 0,
    /// Headers of every image in every chain.
    Chain = 1,
    /// Every octet that there is a digest of.
    Full = 2,
}

/// Looks whether a domain can be saved, and what that would do. Nothing is changed.
///
/// `request` is the JSON of docs/snapshot-schema.md. Descriptors that it names by their index are in `fds`, `fd_count` of them; they
/// stay the caller's. `*plan` becomes a JSON object: files that would be created, space, warnings, the consistency to be had. It
/// is freed with free().
///
/// DK_STATUS_REFUSED: dk_error_details() has a JSON array of every reason against.
///
/// # Safety
///
/// `request` ends with a NUL; `fds` has `fd_count` descriptors. `plan` can be written; `error` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dk_snapshot_plan_save(
    ctx: Option<&Ctx>,
    control: Option<&Control>,
    request: *const c_char,
    fds: *const c_int,
    fd_count: usize,
    plan: Option<&mut MaybeUninit<*mut c_char>>,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_snapshot_plan_save", error, || {
        let place = empty(plan, "plan")?;
        // SAFETY: as this function's own contract.
        let (request, fds) =
            unsafe { (text(request, "request")?, descriptors(fds, fd_count, "fds")?) };
        let request = SaveRequest::from_json(request, &fds)?;
        with_host(ctx, control, |access| give_json(place, &plan_save(access, request)?))
    })
}

/// Saves a domain as a whole: memory, disks, configuration and Xenstore state of one moment.
///
/// `request`, `fds` and `fd_count` are as for dk_snapshot_plan_save(), which this begins with. `observer` may be NULL.
///
/// `*manifest` becomes what was saved, as JSON, to be kept octet for octet: dk_snapshot_verify() and dk_snapshot_restore() take it. It
/// is freed with free(). **It may be there although the call fails**, when what failed came after the disks were moved: then the
/// snapshot is whole, and nothing else tells where the domain's disks are now. Otherwise everything was undone.
///
/// dk_error_details() of a failed save is a JSON object: "phase", "domain" (its state), "disks" (in which image each is), "removed",
/// "left", "still_frozen" (why the guest's file systems may be), "journal" (if there is something for dk_snapshot_recover() to do),
/// "reasons" (every one, if it was refused).
///
/// # Safety
///
/// As dk_snapshot_plan_save(); `observer` is NULL or a dk_observer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dk_snapshot_save(
    ctx: Option<&Ctx>,
    control: Option<&Control>,
    request: *const c_char,
    fds: *const c_int,
    fd_count: usize,
    observer: *const Observer,
    manifest: Option<&mut MaybeUninit<*mut c_char>>,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_snapshot_save", error, || {
        let place = empty(manifest, "manifest")?;
        // SAFETY: as this function's own contract.
        let (request, fds) =
            unsafe { (text(request, "request")?, descriptors(fds, fd_count, "fds")?) };
        let request = SaveRequest::from_json(request, &fds)?;
        let domid = request.domain.domid;
        let save = |observer: &mut snapshot::Observer<'_>| {
            with_host(ctx, control, |access| {
                let plan = plan_save(access, request)?;
                match snapshot::save(access, plan, observer) {
                    Ok(snapshot) => give_text(place, &snapshot.to_json()?),
                    Err(failure) => {
                        if let Some(snapshot) = &failure.snapshot {
                            give_text(place, &snapshot.to_json()?)?;
                        }
                        Err(Problem::from(*failure))
                    }
                }
            })
        };
        // SAFETY: as this function's own contract.
        unsafe { observed(observer, save) }.map_err(|problem| problem.about(domid))
    })
}

/// Compares a snapshot with what is there. Nothing is created, and nothing is opened for writing.
///
/// `depth` is one of DK_DEPTH_HEADER, DK_DEPTH_CHAIN and DK_DEPTH_FULL. `memory_fd` and `xenstore_fd` are where the memory image and the
/// Xenstore state are, or -1 for where the manifest says. `observer` may be NULL. `*report`, which may be left out, becomes a JSON
/// object: "checked", "uncovered", "notes" and "octets". It is freed with free().
///
/// DK_STATUS_DIFFERENT: dk_error_details() has a JSON array of everything that is wrong.
///
/// # Safety
///
/// `manifest` ends with a NUL; `observer` is NULL or a dk_observer. `report` and `error` are NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dk_snapshot_verify(
    manifest: *const c_char,
    depth: c_int,
    memory_fd: c_int,
    xenstore_fd: c_int,
    observer: *const Observer,
    report: Option<&mut MaybeUninit<*mut c_char>>,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_snapshot_verify", error, || {
        let report = report.map(|report| report.write(ptr::null_mut()));
        // SAFETY: as this function's own contract.
        let snapshot = Snapshot::from_json(unsafe { text(manifest, "manifest") }?)?;
        let depth = chosen!(depth, "dk_depth", {
            Depth::Header => Thoroughly::Header,
            Depth::Chain => Thoroughly::Chain,
            Depth::Full => Thoroughly::Full,
        })?;
        let source = |fd: c_int, name: &str| -> Result<Option<Source>, Problem> {
            if fd == -1 {
                return Ok(None);
            }
            Ok(Some(Source::Descriptor(Arc::new(descriptor(fd, name)?))))
        };
        let sources = Sources {
            memory: source(memory_fd, "memory_fd")?,
            xenstore: source(xenstore_fd, "xenstore_fd")?,
        };
        let verify = |observer: &mut snapshot::Observer<'_>| {
            snapshot::verify(&snapshot, &sources, depth, observer).map_err(Problem::from)
        };
        // SAFETY: as this function's own contract.
        let verified = unsafe { observed(observer, verify) }?;
        report.map_or(Ok(()), |place| give_json(place, &verified))
    })
}

/// Looks whether a snapshot can be restored, and what that would do. Nothing is changed.
///
/// `manifest` is what dk_snapshot_save() gave, octet for octet. `request` is the JSON of docs/snapshot-schema.md but for its member
/// "snapshot", which is the manifest; `fds` and `fd_count` are as for dk_snapshot_plan_save(). `*plan` becomes a JSON object. It is freed
/// with free().
///
/// # Safety
///
/// As dk_snapshot_plan_save().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dk_snapshot_plan_restore(
    ctx: Option<&Ctx>,
    control: Option<&Control>,
    manifest: *const c_char,
    request: *const c_char,
    fds: *const c_int,
    fd_count: usize,
    plan: Option<&mut MaybeUninit<*mut c_char>>,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_snapshot_plan_restore", error, || {
        let place = empty(plan, "plan")?;
        // SAFETY: as this function's own contract.
        let request = unsafe { restore_request(manifest, request, fds, fd_count) }?;
        with_host(ctx, control, |access| give_json(place, &plan_restore(access, request)?))
    })
}

/// Brings a saved domain back: beside others, or in the place of one.
///
/// What is asked is as for dk_snapshot_plan_restore(), which this begins with. `observer` may be NULL. `*restored` becomes a JSON object:
/// "domain", "state", "name", "configuration", "disks", "xenstore" and "warnings". It is freed with free(). **It may be there although the
/// call fails**, when the domain is built and only its name or its start is missing. Otherwise everything was undone.
///
/// dk_error_details() of a failed restore is a JSON object: "phase", "domain", "state", "replaced" (the state of the domain that was to
/// be replaced), "removed", "left", "journal", "reasons" (every one, if it was refused, and every difference from what was saved).
///
/// # Safety
///
/// As dk_snapshot_save().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dk_snapshot_restore(
    ctx: Option<&Ctx>,
    control: Option<&Control>,
    manifest: *const c_char,
    request: *const c_char,
    fds: *const c_int,
    fd_count: usize,
    observer: *const Observer,
    restored: Option<&mut MaybeUninit<*mut c_char>>,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_snapshot_restore", error, || {
        let place = empty(restored, "restored")?;
        // SAFETY: as this function's own contract.
        let request = unsafe { restore_request(manifest, request, fds, fd_count) }?;
        let restore = |observer: &mut snapshot::Observer<'_>| {
            with_host(ctx, control, |access| {
                let plan = plan_restore(access, request)?;
                match snapshot::restore(access, plan, observer) {
                    Ok(restored) => give_json(place, &restored),
                    Err(failure) => {
                        if let Some(restored) = &failure.restored {
                            give_json(place, restored)?;
                        }
                        Err(Problem::from(failure))
                    }
                }
            })
        };
        // SAFETY: as this function's own contract.
        unsafe { observed(observer, restore) }
    })
}

/// Finds out from its journal what became of a save or restore whose process died, and undoes or completes it. It may be repeated.
/// The journal is the caller's to remove afterwards.
///
/// `*recovered` becomes a JSON object: "recovered" is "nothing-done", "rolled-back", "saved" or "restored", and "rolled_back", "snapshot"
/// or "restored" tell the rest. `*manifest`, which may be left out, becomes what dk_snapshot_save() would have given if the save is
/// complete now, else NULL. Both are freed with free(). `observer` may be NULL.
///
/// DK_STATUS_BUSY: what the journal is of is still going on, or its guardian is at work. DK_STATUS_INVALID_DATA: the journal is none,
/// or is broken. After any failure the call can be made again.
///
/// # Safety
///
/// `journal` ends with a NUL; `observer` is NULL or a dk_observer. `recovered` can be written; `manifest` and `error` are NULL or can
/// be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dk_snapshot_recover(
    ctx: Option<&Ctx>,
    control: Option<&Control>,
    journal: *const c_char,
    observer: *const Observer,
    recovered: Option<&mut MaybeUninit<*mut c_char>>,
    manifest: Option<&mut MaybeUninit<*mut c_char>>,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_snapshot_recover", error, || {
        let manifest = manifest.map(|manifest| manifest.write(ptr::null_mut()));
        let place = empty(recovered, "recovered")?;
        // SAFETY: as this function's own contract.
        let journal = unsafe { text(journal, "journal") }?;
        let recover = |observer: &mut snapshot::Observer<'_>| {
            with_host(ctx, control, |access| {
                let recovered = snapshot::recover(access, journal.as_ref(), observer)?;
                if let (Recovered::Saved(snapshot), Some(manifest)) = (&recovered, manifest) {
                    give_text(manifest, &snapshot.to_json()?)?;
                }
                give_json(place, &recovered)
            })
        };
        // SAFETY: as this function's own contract.
        unsafe { observed(observer, recover) }.map_err(|problem| problem.at(journal))
    })
}

/// A request and the manifest that belongs into it.
///
/// # Safety
///
/// As dk_snapshot_plan_restore().
unsafe fn restore_request(
    manifest: *const c_char,
    request: *const c_char,
    fds: *const c_int,
    fd_count: usize,
) -> Result<RestoreRequest, Problem> {
    // SAFETY: as this function's own contract.
    let (manifest, request, fds) = unsafe {
        (text(manifest, "manifest")?, text(request, "request")?, descriptors(fds, fd_count, "fds")?)
    };
    if request.len() > REQUEST_MAX {
        return Err(RequestError::TooLong { octets: request.len() }.into());
    }
    let mut document: Map<String, Value> = serde_json::from_str(request)
        .map_err(|error| Problem::of(Status::InvalidData, &error).at("."))?;
    if document.insert("snapshot".into(), manifest.into()).is_some() {
        let message = "`snapshot` is passed as `manifest`, and must not be in the request";
        return Err(Problem::new(Status::InvalidData, message).at("snapshot"));
    }
    Ok(RestoreRequest::from_json(&Value::from(document).to_string(), &fds)?)
}

/// The host as the library takes it.
fn with_host<T>(
    ctx: Option<&Ctx>,
    control: Option<&Control>,
    act: impl FnOnce(&mut HostAccess<'_>) -> Result<T, Problem>,
) -> Result<T, Problem> {
    let ctx = required(ctx, "ctx")?;
    let control = required(control, "control")?;
    let xenctrl = ctx.hypervisor()?;
    let connect =
        |deadline: Instant| ctx.connect(deadline.saturating_duration_since(Instant::now()));
    act(&mut HostAccess {
        control: control.0.as_ref(),
        xenstore: &connect,
        templates: ctx.templates().as_ref(),
        hypervisor: xenctrl.as_deref().map(|xenctrl| xenctrl as &dyn HypervisorView),
        qemu_img: QemuImg::default(),
        guardian: ctx.guardian(),
        hooks: Default::default(),
        quiescers: Default::default(),
    })
}

/// Each with its cause, unless that is in its text already.
fn in_words<E: StdError + 'static>(errors: &[E]) -> Vec<String> {
    let words = |error: &E| {
        let text = error.to_string();
        let told = error.source().is_some_and(|cause| text.contains(&cause.to_string()));
        if told { text } else { Problem::of(Status::Failed, error).in_words() }
    };
    errors.iter().map(words).collect()
}

impl From<RequestError> for Problem {
    fn from(error: RequestError) -> Self {
        let problem = Self::of(Status::InvalidData, &error);
        match &error {
            RequestError::Field { at, .. }
            | RequestError::NoDescriptor { at, .. }
            | RequestError::NotText { at, .. } => problem.at(at),
            _ => problem,
        }
    }
}

impl From<ManifestError> for Problem {
    fn from(error: ManifestError) -> Self {
        Self::of(Status::InvalidData, &error)
    }
}

impl From<PlanSaveError> for Problem {
    fn from(error: PlanSaveError) -> Self {
        match &error {
            PlanSaveError::Refused { refusals } => {
                Self::of(Status::Refused, &error).details(&in_words(refusals))
            }
            _ => Self::of(status_of(&error).unwrap_or(Status::Unreachable), &error),
        }
    }
}

impl From<PlanRestoreError> for Problem {
    fn from(error: PlanRestoreError) -> Self {
        match &error {
            PlanRestoreError::Refused { refusals } => {
                Self::of(Status::Refused, &error).details(&in_words(refusals))
            }
            _ => Self::of(status_of(&error).unwrap_or(Status::Unreachable), &error),
        }
    }
}

impl From<VerifyError> for Problem {
    fn from(error: VerifyError) -> Self {
        match &error {
            VerifyError::Different { problems, .. } => {
                Self::of(Status::Different, &error).details(&in_words(problems))
            }
            _ => Self::of(Status::Cancelled, &error),
        }
    }
}

impl From<SaveFailure> for Problem {
    fn from(failure: SaveFailure) -> Self {
        let mut reasons = Vec::new();
        let status = match &failure.cause {
            SaveCause::Cancelled => Status::Cancelled,
            SaveCause::DeadlinePassed => Status::TimedOut,
            SaveCause::StalePlan { .. } => Status::Busy,
            SaveCause::Plan(PlanSaveError::Refused { refusals }) => {
                reasons = in_words(refusals);
                Status::Refused
            }
            SaveCause::Suspend(error) => by_cause(error),
            SaveCause::Query(error) => by_cause(error),
            SaveCause::Resume(error) => by_cause(error),
            SaveCause::Change(error) => by_cause(error),
            cause => by_cause(cause),
        };
        let details = json!({
            "phase": failure.phase,
            "domain": failure.domain,
            "disks": failure.disks,
            "removed": failure.removed,
            "left": in_words(&failure.left),
            "still_frozen": failure.thaw.as_ref().map(ToString::to_string),
            "journal": failure.journal,
            "reasons": reasons,
        });
        Self::of(status, &failure).details(&details)
    }
}

impl From<RestoreFailure> for Problem {
    fn from(failure: RestoreFailure) -> Self {
        let mut reasons = Vec::new();
        let status = match failure.cause.as_ref() {
            RestoreCause::Cancelled => Status::Cancelled,
            RestoreCause::DeadlinePassed => Status::TimedOut,
            RestoreCause::StalePlan => Status::Busy,
            RestoreCause::Refused { source: PlanRestoreError::Refused { refusals } } => {
                reasons = in_words(refusals);
                Status::Refused
            }
            RestoreCause::Verify { source: VerifyError::Cancelled } => Status::Cancelled,
            RestoreCause::Verify { source } => {
                reasons = in_words(source.problems());
                Status::Different
            }
            RestoreCause::OtherContent { .. } => Status::Different,
            RestoreCause::Build(error) => by_cause(error),
            cause => by_cause(cause),
        };
        let details = json!({
            "phase": failure.phase,
            "domain": failure.domain.as_ref().map(|(domain, _)| domain),
            "state": failure.domain.as_ref().and_then(|(_, state)| *state),
            "replaced": failure.replaced,
            "removed": failure.removed,
            "left": in_words(&failure.left),
            "journal": failure.journal,
            "reasons": reasons,
        });
        Self::of(status, &failure).details(&details)
    }
}

impl From<RecoverError> for Problem {
    fn from(error: RecoverError) -> Self {
        let status = match &error {
            RecoverError::Cancelled => Status::Cancelled,
            RecoverError::Journal(error) => by_cause(error),
            RecoverError::Query(error) => by_cause(error),
            RecoverError::Resume(error) => by_cause(error),
            RecoverError::Change(error) => by_cause(error),
            RecoverError::Rename(error) => by_cause(error),
            error => by_cause(error),
        };
        Self::of(status, &error)
    }
}

/// A cause's own status, or what its causes tell. What is transparent is not among them, and is passed itself.
fn by_cause(error: &(dyn StdError + 'static)) -> Status {
    status_of(error).unwrap_or(Status::Failed)
}

/// The way in which a journal cannot be used, if that is what failed.
pub(crate) fn of_journal(error: &(dyn StdError + 'static)) -> Option<Status> {
    match as_one::<JournalError>(error)? {
        JournalError::InUse { .. } => Some(Status::Busy),
        JournalError::Io { .. } => None,
        _ => Some(Status::InvalidData),
    }
}
