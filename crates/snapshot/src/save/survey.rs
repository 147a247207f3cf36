//! Looking at everything that a save depends on. Nothing is changed.

use std::time::{Duration, Instant};

use libxl_config::DomainConfig;
use libxl_config::retrieve::Retriever;
use uuid::Uuid;

use super::disks::{Looking, Matched};
use super::groups::Group;
use super::plan::{DiskFingerprint, Fingerprint, PlannedFile, SpaceNeed};
use super::targets::{Locator, Targets, space};
use super::{
    After, ConfigUpdate, Consistency, Durability, Hold, MemoryFormat, PlanSaveError, SaveRefusal,
    SaveRequest,
};
use crate::HostAccess;
use crate::control::{DomainState, DomainView};
use crate::disk::{DiskAction, PlannedDisk};
use crate::manifest::SkippedDisk;

/// How long looking may take.
const LOOK_LIMIT: Duration = Duration::from_secs(30);
/// More than what a domain has in Xenstore takes.
const XENSTORE_OCTETS: u64 = 1 << 20;
/// Tables, records and headers of a memory image beside the pages, at most: for each mebibyte.
const OVERHEAD_SHIFT: u32 = 7;

/// What was seen.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) view: DomainView,
    pub(super) fingerprint: Fingerprint,
    pub(super) groups: Vec<Group>,
    pub(super) disks: Vec<PlannedDisk>,
    pub(super) skipped: Vec<SkippedDisk>,
    pub(super) targets: Targets,
    pub(super) files: Vec<PlannedFile>,
    pub(super) space: Vec<SpaceNeed>,
    pub(super) consistency: Consistency,
    pub(super) consistency_reason: Option<String>,
    pub(super) warnings: Vec<String>,
    /// Octets of the guest's memory, as the configuration tells.
    pub(super) memory_octets: Option<u64>,
}

impl Survey {
    pub(super) fn of(
        access: &mut HostAccess<'_>,
        request: &SaveRequest,
        id: Uuid,
    ) -> Result<Self, PlanSaveError> {
        let deadline = Instant::now() + LOOK_LIMIT;
        let mut locator = Locator::default();
        let targets = locator.locate_all(request);
        let mut refusals = rules(access, request);
        let view = match find(access, request, deadline, &mut refusals)? {
            Some(view) => view,
            None => {
                refusals.append(&mut locator.refusals);
                return Err(PlanSaveError::Refused { refusals });
            }
        };
        check_state(request, &view, &mut refusals);
        let config = retrieve(access, request, deadline)?;
        if request.memory.is_some() && !config.b_info.vnuma_nodes.is_empty() {
            refusals.push(SaveRefusal::VirtualNuma);
        }
        let mut looking = Looking::new(request, id, deadline);
        looking.match_disks(&config.disks);
        looking.assign(&mut locator);
        let groups = looking.groups(access);
        let disks = looking.plan(groups, &mut access.hooks);
        let Looking { refusals: of_disks, skipped, matched, ready, .. } = looking;
        refusals.extend(of_disks);
        refusals.append(&mut locator.refusals);
        let memory_octets = config.b_info.max_memkb.get().map(|kib| kib.saturating_mul(1024));
        let files = files(&targets, &disks, memory_octets);
        let space = space(&files);
        if request.space_check {
            refusals.extend(space.iter().filter(|need| need.needed > need.free).map(|need| {
                let SpaceNeed { path, needed, free } = need.clone();
                SaveRefusal::NoSpace { path, needed, free }
            }));
        }
        let (consistency, consistency_reason) = achievable(request, &view);
        if consistency < request.min_consistency {
            let (wanted, achievable) = (request.min_consistency, consistency);
            refusals.push(SaveRefusal::Consistency { wanted, achievable });
        }
        if !refusals.is_empty() {
            return Err(PlanSaveError::Refused { refusals });
        }
        let fingerprint = fingerprint(&view, &matched, &disks);
        let warnings = warnings(access, request, &view, &disks, &skipped);
        Ok(Self {
            view,
            fingerprint,
            groups: ready,
            disks,
            skipped,
            targets,
            files,
            space,
            consistency,
            consistency_reason,
            warnings,
            memory_octets,
        })
    }
}

/// Members of the request that do not go together, whatever the host is like.
fn rules(access: &HostAccess<'_>, request: &SaveRequest) -> Vec<SaveRefusal> {
    let mut refusals = Vec::new();
    if let Some(memory) = &request.memory {
        if request.hold == Hold::Running {
            refusals.push(SaveRefusal::MemoryWhileRunning);
        }
        if memory.live && !matches!(memory.format, MemoryFormat::Stream { .. }) {
            refusals.push(SaveRefusal::LiveFormat);
        }
        if matches!(memory.format, MemoryFormat::Packed { workers: 0, .. }) {
            refusals.push(SaveRefusal::Range { what: "the number of threads that compress" });
        }
    }
    if let Some(quiesce) = &request.quiesce
        && !access.quiescers.contains_key(&quiesce.hook)
    {
        refusals.push(SaveRefusal::NoQuiescer { name: quiesce.hook.clone() });
    }
    if let Some(path) = request.qmp.clone().filter(|path| path.to_str().is_none()) {
        refusals.push(SaveRefusal::NotUtf8 { what: "QEMU's socket".to_owned(), path });
    }
    if request.after == After::Destroy && request.durability == Durability::None {
        refusals.push(SaveRefusal::DestroyUndurable);
    }
    refusals
}

fn find(
    access: &HostAccess<'_>,
    request: &SaveRequest,
    deadline: Instant,
    refusals: &mut Vec<SaveRefusal>,
) -> Result<Option<DomainView>, PlanSaveError> {
    let domid = request.domain.domid;
    match access.control.find(domid, deadline).map_err(Box::new)? {
        None => refusals.push(SaveRefusal::NoSuchDomain { domid }),
        Some(view) if view.identity != request.domain => {
            refusals.push(SaveRefusal::AnotherDomain { domid, found: view.identity.uuid });
        }
        Some(view) => return Ok(Some(view)),
    }
    Ok(None)
}

fn check_state(request: &SaveRequest, view: &DomainView, refusals: &mut Vec<SaveRefusal>) {
    let state = view.state;
    match state {
        DomainState::Running => {}
        DomainState::Paused | DomainState::Suspended if request.memory.is_none() => {}
        DomainState::Paused | DomainState::Suspended => {
            refusals.push(SaveRefusal::MemoryOfStanding { state });
        }
        _ => refusals.push(SaveRefusal::State { state }),
    }
}

fn retrieve(
    access: &HostAccess<'_>,
    request: &SaveRequest,
    deadline: Instant,
) -> Result<DomainConfig, PlanSaveError> {
    let mut client = (access.xenstore)(deadline).map_err(Box::new)?;
    let left = deadline.saturating_duration_since(Instant::now());
    let mut retriever = Retriever::new(&mut client, access.templates).timeout(left);
    if let Some(hypervisor) = access.hypervisor {
        retriever = retriever.hypervisor(hypervisor);
    }
    Ok(retriever.retrieve(request.domain.domid).map_err(Box::new)?.config)
}

fn files(targets: &Targets, disks: &[PlannedDisk], memory: Option<u64>) -> Vec<PlannedFile> {
    let memory = memory.unwrap_or(0);
    let image = memory.saturating_add(memory >> OVERHEAD_SHIFT).saturating_add(1 << 20);
    let side = (memory >> 20).saturating_mul(4).saturating_add(8192);
    let parts = [
        ("memory", &targets.memory, image),
        ("side digest", &targets.side, side),
        ("xenstore", &targets.xenstore, XENSTORE_OCTETS),
    ];
    let of_parts = parts.into_iter().filter_map(|(what, place, octets_needed)| {
        let path = place.as_ref()?.path()?.to_owned();
        Some(PlannedFile { what: what.to_owned(), path, octets_needed })
    });
    let of_disks = disks.iter().filter_map(|disk| {
        let path = match &disk.action {
            DiskAction::ExternalQcow2 { overlay } => overlay,
            DiskAction::Reflink { destination } | DiskAction::SparseCopy { destination } => {
                destination
            }
            _ => return None,
        };
        let (what, path) = (disk.vdev.clone(), path.clone());
        Some(PlannedFile { what, path, octets_needed: disk.octets_needed })
    });
    of_parts.chain(of_disks).collect()
}

/// What can be achieved, and why not more.
fn achievable(request: &SaveRequest, view: &DomainView) -> (Consistency, Option<String>) {
    match &request.quiesce {
        _ if request.memory.is_some() => (Consistency::Complete, None),
        Some(_) if view.state == DomainState::Running => {
            (Consistency::Quiesced, Some("memory is not saved".to_owned()))
        }
        Some(_) => {
            let reason = "memory is not saved, and a guest that does not run is not quiesced";
            (Consistency::CrashConsistent, Some(reason.to_owned()))
        }
        None => {
            let reason = "memory is not saved, and the guest is not quiesced";
            (Consistency::CrashConsistent, Some(reason.to_owned()))
        }
    }
}

fn fingerprint(view: &DomainView, matched: &[Matched<'_>], disks: &[PlannedDisk]) -> Fingerprint {
    let disk = |matched: &Matched<'_>| {
        let planned = disks.iter().find(|planned| planned.vdev == matched.vdev);
        let chain = planned.map(|planned| {
            planned.chain.iter().map(|image| (image.dev, image.ino)).collect::<Vec<_>>()
        });
        DiskFingerprint {
            vdev: matched.vdev.clone(),
            path: matched.path.clone(),
            format: matched.format,
            chain: chain.unwrap_or_default(),
        }
    };
    Fingerprint {
        domain: view.identity,
        state: view.state,
        paused: view.paused,
        disks: matched.iter().map(disk).collect(),
    }
}

fn warnings(
    access: &HostAccess<'_>,
    request: &SaveRequest,
    view: &DomainView,
    disks: &[PlannedDisk],
    skipped: &[SkippedDisk],
) -> Vec<String> {
    let mut warnings = Vec::new();
    if request.hold == Hold::Suspended && view.state == DomainState::Running {
        if access.guardian.is_none() {
            warnings.push("without a guardian, the guest stays suspended if the saver dies".into());
        } else if access.control.guardian(&view.identity).is_none() {
            warnings
                .push("the hypervisor's control offers a guardian nothing to resume with".into());
        }
    }
    if request.journal.is_none() {
        warnings.push("without a journal, files may be left if the saver dies".into());
    }
    let moves = disks.iter().any(|disk| matches!(disk.action, DiskAction::ExternalQcow2 { .. }));
    if moves && request.config == ConfigUpdate::Leave {
        warnings.push("the caller has to tell the configuration of the new images".into());
    }
    let unsaved = skipped.iter().map(|disk| format!("{} is not saved: {}", disk.vdev, disk.reason));
    warnings.extend(unsaved);
    for disk in disks {
        warnings.extend(disk.warnings.iter().map(|warning| format!("{}: {warning}", disk.vdev)));
    }
    warnings
}
