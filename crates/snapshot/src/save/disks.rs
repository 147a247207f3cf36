//! The disks of a domain: which of them are saved, by whom, and what speaks against it.

use std::path::{Path, PathBuf};
use std::time::Instant;

use libxl_config::model::{Disk, DiskFormat};
use uuid::Uuid;

use super::groups::{Group, Hooks, copies};
use super::targets::{Locator, Place};
use super::{DiskRequest, DiskRequestAction, Hold, SaveRefusal, SaveRequest};
use crate::disk::image::{Holders, ImageFormat, Writers};
use crate::disk::qmp::{QmpClient, QmpNode};
use crate::disk::{
    DiskFailure, ImageCopy, LiveInternal, LiveInternalSnapshot, LiveOverlay, LiveOverlays,
    PlanError, PlannedDisk, nodes_writing,
};
use crate::manifest::SkippedDisk;
use crate::{HostAccess, Located};

/// Longest name of a node that QEMU takes.
const NODE_MAX: usize = 31;

/// A disk of the domain that the request names.
#[derive(Debug)]
pub(super) struct Matched<'r> {
    request: Option<&'r DiskRequest>,
    pub(super) vdev: String,
    pub(super) path: PathBuf,
    pub(super) format: Option<ImageFormat>,
}

/// The disks, as far as they have been looked at.
pub(super) struct Looking<'r> {
    request: &'r SaveRequest,
    id: Uuid,
    deadline: Instant,
    pub(super) refusals: Vec<SaveRefusal>,
    pub(super) matched: Vec<Matched<'r>>,
    pub(super) skipped: Vec<SkippedDisk>,
    overlays: Vec<LiveOverlay>,
    internal: Vec<LiveInternalSnapshot>,
    copies: Vec<(ImageCopy, Writers)>,
    hooks: Vec<(String, Vec<String>)>,
    pub(super) ready: Vec<Group>,
    /// QEMU's nodes, once they were asked for.
    nodes: Option<Result<Vec<QmpNode>, ()>>,
}

impl<'r> Looking<'r> {
    pub(super) fn new(request: &'r SaveRequest, id: Uuid, deadline: Instant) -> Self {
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
    pub(super) fn match_disks(&mut self, disks: &[Disk]) {
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
    pub(super) fn assign(&mut self, locator: &mut Locator) {
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
    pub(super) fn groups(&mut self, access: &mut HostAccess<'_>) -> Vec<Group> {
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

    pub(super) fn plan(&mut self, groups: Vec<Group>, hooks: &mut Hooks<'_>) -> Vec<PlannedDisk> {
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
        for PlannedDisk { vdev, chain, .. } in &disks {
            let images = chain.iter().map(|image| &image.path);
            self.refusals.extend(
                images
                    .filter(|path| path.to_str().is_none())
                    .map(|path| SaveRefusal::NotUtf8 { what: vdev.clone(), path: path.clone() }),
            );
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
