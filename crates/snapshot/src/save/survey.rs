//! Looking at everything that a save depends on. Nothing is changed.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use libxl_config::DomainConfig;
use libxl_config::model::{Disk, DiskFormat};
use libxl_config::retrieve::Retriever;
use uuid::Uuid;

use super::groups::{Group, Hooks, copies};
use super::plan::{DiskFingerprint, Fingerprint, PlannedFile, SpaceNeed};
use super::targets::{Locator, Place, Targets, space};
use super::{
    After, ConfigUpdate, Consistency, DiskRequest, DiskRequestAction, Durability, Hold,
    MemoryFormat, PlanSaveError, SaveRefusal, SaveRequest,
};
use crate::control::{DomainState, DomainView};
use crate::disk::image::{Holders, ImageFormat, Writers};
use crate::disk::qmp::{QmpClient, QmpNode};
use crate::disk::{
    DiskAction, DiskFailure, ImageCopy, LiveInternal, LiveInternalSnapshot, LiveOverlay,
    LiveOverlays, PlanError, PlannedDisk, nodes_writing,
};
use crate::manifest::SkippedDisk;
use crate::{HostAccess, Located};

/// How long looking may take.
const LOOK_LIMIT: Duration = Duration::from_secs(30);
/// Longest name of a node that QEMU takes.
const NODE_MAX: usize = 31;
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

/// A disk of the domain that the request names.
#[derive(Debug)]
struct Matched<'r> {
    request: Option<&'r DiskRequest>,
    vdev: String,
    path: PathBuf,
    format: Option<ImageFormat>,
}

/// The disks, as far as they have been looked at.
struct Looking<'r> {
    request: &'r SaveRequest,
    id: Uuid,
    deadline: Instant,
    refusals: Vec<SaveRefusal>,
    matched: Vec<Matched<'r>>,
    skipped: Vec<SkippedDisk>,
    overlays: Vec<LiveOverlay>,
    internal: Vec<LiveInternalSnapshot>,
    copies: Vec<(ImageCopy, Writers)>,
    hooks: Vec<(String, Vec<String>)>,
    ready: Vec<Group>,
    /// QEMU's nodes, once they were asked for.
    nodes: Option<Result<Vec<QmpNode>, ()>>,
}

impl<'r> Looking<'r> {
    fn new(request: &'r SaveRequest, id: Uuid, deadline: Instant) -> Self {
        Self {
            request,
            id,
            deadline,
            refusals: Vec::new(),
            matched: Vec::new(),
            skipped: Vec::new(),
            overlays: Vec::new(),
            internal: Vec::new(),
            copies: Vec::new(),
            hooks: Vec::new(),
            ready: Vec::new(),
            nodes: None,
        }
    }

    /// Every disk that can be written has to be named, once, and no other.
    fn match_disks(&mut self, disks: &[Disk]) {
        for disk in disks {
            let vdev = disk.vdev.clone().unwrap_or_default();
            let mut named = self.request.disks.iter().filter(|request| request.vdev == vdev);
            let request = named.next();
            if named.next().is_some() {
                self.refusals.push(SaveRefusal::Twice { vdev: vdev.clone() });
            }
            if request.is_none() && disk.readwrite != 0 && disk.is_cdrom == 0 {
                self.refusals.push(SaveRefusal::Missing { vdev: vdev.clone() });
            }
            let format = if disk.format == DiskFormat::Raw {
                Some(ImageFormat::Raw)
            } else if disk.format == DiskFormat::Qcow2 {
                Some(ImageFormat::Qcow2)
            } else {
                None
            };
            let path = PathBuf::from(disk.pdev_path.clone().unwrap_or_default());
            self.matched.push(Matched { request, vdev, path, format });
        }
        let unknown = self.request.disks.iter().filter(|request| {
            !disks.iter().any(|disk| disk.vdev.as_deref() == Some(&*request.vdev))
        });
        self.refusals
            .extend(unknown.map(|request| SaveRefusal::Unknown { vdev: request.vdev.clone() }));
    }

    /// Says of each disk what is done with it, and by whom.
    fn assign(&mut self, locator: &mut Locator) {
        for at in 0..self.matched.len() {
            let Matched { request: Some(request), vdev, path, format } = &self.matched[at] else {
                continue;
            };
            let (vdev, path, format) = (vdev.clone(), path.clone(), *format);
            match &request.action {
                DiskRequestAction::Skip { reason } => {
                    self.skipped.push(SkippedDisk { vdev, reason: reason.clone() });
                }
                DiskRequestAction::Hook { name } => {
                    match self.hooks.iter_mut().find(|(known, _)| known == name) {
                        Some((_, vdevs)) => vdevs.push(vdev),
                        None => self.hooks.push((name.clone(), vec![vdev])),
                    }
                }
                DiskRequestAction::ExternalQcow2 {
                    overlay, node, overlay_node, backing, ..
                } => {
                    let place = locator.locate(&vdev, overlay, false);
                    let node = self.node(&vdev, node.as_deref(), &path, format);
                    let overlay_node = overlay_node.clone().unwrap_or_else(|| {
                        format!("{vdev}-{}", &self.id.simple().to_string()[..8])
                    });
                    if overlay_node.is_empty() || overlay_node.len() > NODE_MAX {
                        let (vdev, name) = (vdev.clone(), overlay_node.clone());
                        self.refusals.push(SaveRefusal::NodeName { vdev, name });
                    }
                    match (place, node) {
                        (Some(Place::Name(overlay)), Some(node)) => {
                            let mut live = LiveOverlay::new(vdev, node, overlay, overlay_node);
                            live.backing = backing.clone();
                            self.overlays.push(live);
                        }
                        (Some(Place::Descriptor(_)), _) => {
                            let what = format!("the overlay of {vdev}");
                            self.refusals.push(SaveRefusal::NeedsName { what });
                        }
                        _ => {}
                    }
                }
                DiskRequestAction::InternalQcow2 { tag, node } => {
                    if let Some(node) = self.node(&vdev, node.as_deref(), &path, format) {
                        self.internal.push(LiveInternalSnapshot { vdev, node, tag: tag.clone() });
                    }
                }
                DiskRequestAction::Copy { destination, method, digest } => {
                    let place = locator.locate(&vdev, destination, false);
                    let writers = self.writers(&vdev, &path, format);
                    let (Some(place), Some((format, writers))) = (place, writers) else { continue };
                    let destination = match place {
                        Place::Name(path) => Located::Name(path),
                        Place::Descriptor(descriptor) => Located::Descriptor(descriptor),
                    };
                    let (method, digest) = (*method, *digest);
                    let copy = ImageCopy { vdev, image: path, format, method, destination, digest };
                    self.copies.push((copy, writers));
                }
            }
        }
    }

    /// The node that writes an image: the one that the request names, or the only one that there is.
    fn node(
        &mut self,
        vdev: &str,
        named: Option<&str>,
        image: &Path,
        format: Option<ImageFormat>,
    ) -> Option<String> {
        let vdev = vdev.to_owned();
        let Some(qmp) = &self.request.qmp else {
            self.refusals.push(SaveRefusal::NoQmp { vdev });
            return None;
        };
        if let Some(named) = named {
            return Some(named.to_owned());
        }
        let format = self.format(&vdev, image, format)?;
        if self.nodes.is_none() {
            let asked = QmpClient::connect(qmp, self.deadline)
                .and_then(|mut client| client.nodes(self.deadline));
            self.nodes = Some(asked.map_err(|error| {
                let source = Box::new(DiskFailure::from(error));
                self.refusals.push(SaveRefusal::Disks { kind: "QEMU's nodes", source });
            }));
        }
        let Some(Ok(nodes)) = &self.nodes else { return None };
        match nodes_writing(nodes, image, format)[..] {
            [node] => Some(node.to_owned()),
            ref several => {
                let (count, image) = (several.len(), image.to_owned());
                self.refusals.push(SaveRefusal::Node { vdev, image, count });
                None
            }
        }
    }

    fn format(
        &mut self,
        vdev: &str,
        image: &Path,
        format: Option<ImageFormat>,
    ) -> Option<ImageFormat> {
        let reason = if format.is_none() {
            "its format is neither raw nor qcow2, or is not said"
        } else if !image.is_absolute() {
            "its image is not named by an absolute path"
        } else {
            return format;
        };
        let (vdev, reason) = (vdev.to_owned(), reason.to_owned());
        self.refusals.push(SaveRefusal::Image { vdev, reason });
        None
    }

    /// Who may have an image open while it is copied: the one process that has it open now, which is the domain's backend.
    fn writers(
        &mut self,
        vdev: &str,
        image: &Path,
        format: Option<ImageFormat>,
    ) -> Option<(ImageFormat, Writers)> {
        let format = self.format(vdev, image, format)?;
        let writing = std::fs::File::open(image).and_then(|file| Holders::of(&file));
        // What cannot be opened is refused with its chain.
        let holders = writing.unwrap_or_default();
        if format == ImageFormat::Qcow2 && (!holders.writing.is_empty() || holders.write_locked) {
            self.refusals.push(SaveRefusal::CopyOfOpenQcow2 { vdev: vdev.to_owned() });
            return None;
        }
        Some(match holders.writing[..] {
            [pid] => (format, Writers::Only(pid)),
            _ => (format, Writers::Nobody),
        })
    }

    /// What cannot be undone comes last.
    fn groups(&mut self, access: &mut HostAccess<'_>) -> Vec<Group> {
        let mut groups = copies(std::mem::take(&mut self.copies));
        let socket = self.request.qmp.clone().unwrap_or_default();
        if !self.internal.is_empty() {
            let disks = std::mem::take(&mut self.internal);
            groups.push(Group::Internal(LiveInternal::new(socket.clone(), disks)));
        }
        let mut last = Vec::new();
        for (name, requested) in std::mem::take(&mut self.hooks) {
            let Some(hook) = access.hooks.get(&name) else {
                self.refusals.push(SaveRefusal::NoHook { name });
                continue;
            };
            let description = hook.describe();
            let mut described: Vec<_> =
                description.disks.into_iter().map(|(vdev, _)| vdev).collect();
            let mut sorted = requested.clone();
            described.sort();
            sorted.sort();
            if described != sorted {
                self.refusals.push(SaveRefusal::HookDisks { name, described, requested });
            } else if description.reversible {
                groups.push(Group::Hook(name));
            } else {
                last.push(Group::Hook(name));
            }
        }
        if !self.overlays.is_empty() {
            let disks = std::mem::take(&mut self.overlays);
            let overlays = LiveOverlays::new(socket, disks).with_qemu_img(access.qemu_img.clone());
            last.push(Group::Overlays(overlays));
        }
        groups.append(&mut last);
        groups
    }

    fn plan(&mut self, groups: Vec<Group>, hooks: &mut Hooks<'_>) -> Vec<PlannedDisk> {
        let (mut disks, mut irreversible, mut atomic) = (Vec::new(), Vec::new(), true);
        let count = groups.len();
        for mut group in groups {
            if let Some(snapshotter) = group.snapshotter(hooks) {
                let description = snapshotter.describe();
                atomic &= description.atomic && description.live && count == 1;
                if !description.reversible {
                    irreversible.push(description.kind.to_owned());
                }
                match snapshotter.plan(self.deadline) {
                    Ok(plan) => disks.extend(plan.disks),
                    Err(PlanError::Refused { refusals }) => {
                        self.refusals.extend(refusals.into_iter().map(SaveRefusal::Disk));
                    }
                    Err(PlanError::Failed(failure)) => {
                        let (kind, source) = (description.kind, Box::new(failure));
                        self.refusals.push(SaveRefusal::Disks { kind, source });
                    }
                    Err(PlanError::Stage(stage)) => {
                        let (kind, source) = (description.kind, DiskFailure::Hook(stage.into()));
                        self.refusals.push(SaveRefusal::Disks { kind, source: Box::new(source) });
                    }
                }
            }
            self.ready.push(group);
        }
        if irreversible.len() > 1 {
            self.refusals.push(SaveRefusal::Irreversible { kinds: irreversible });
        }
        if self.request.hold == Hold::Running && !atomic {
            self.refusals.push(SaveRefusal::NotAtomic);
        }
        disks
    }
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
