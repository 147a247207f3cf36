//! Which image each disk of a restored domain gets, and what speaks against it.

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use libxl_config::DomainConfig;
use libxl_config::model::Disk;
use serde_json::{Value, json};

use super::configuration;
use super::plan::{PlannedRestoreDisk, located};
use super::refusal::RestoreRefusal;
use super::request::{Depth, DiskRestore, RestoreMode, RestoreRequest};
use crate::disk::image::{
    Chain, ChainRules, DEPTH_DEFAULT, ImageChange, ImageFormat, ImageRef, Writers,
};
use crate::disk::{DiskAction, DiskSnapshot};
use crate::manifest::NamedImage;

/// What a disk gets.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) vdev: String,
    /// `None` for an empty drive, and for what is not a file or device of this host.
    pub(super) image: Option<NamedImage>,
    pub(super) writable: bool,
    /// The frozen image under a new overlay.
    pub(super) over: Option<ImageRef>,
    /// The configuration's own entry is left as it is.
    pub(super) as_configured: bool,
    /// The image, where there is one already.
    found: Option<ImageRef>,
}

impl Judged {
    pub(super) fn planned(&self) -> Option<PlannedRestoreDisk> {
        let Self { vdev, image, writable, over, .. } = self;
        let (vdev, image, over) = (vdev.clone(), image.clone()?, over.clone());
        Some(PlannedRestoreDisk { vdev, image, writable: *writable, over })
    }

    /// What has to be the same when the plan is carried out. Whoever may write an image may have done so meanwhile.
    pub(super) fn fingerprint(&self) -> Value {
        let found = self.found.as_ref();
        json!({
            "vdev": self.vdev,
            "image": self.image,
            "over": self.over,
            "writable": self.writable,
            "file": found.map(|image| (image.dev, image.ino)),
            "frozen": found.filter(|_| !self.writable),
        })
    }
}

/// Judges one disk after the other.
pub(super) struct Judging<'r> {
    request: &'r RestoreRequest,
    configured: Vec<Disk>,
    judged: Vec<Judged>,
    pub(super) refusals: Vec<RestoreRefusal>,
    warnings: Vec<String>,
}

impl<'r> Judging<'r> {
    pub(super) fn new(request: &'r RestoreRequest, config: &DomainConfig) -> Self {
        let configured = config.disks.clone();
        Self { request, configured, judged: Vec::new(), refusals: Vec::new(), warnings: Vec::new() }
    }

    pub(super) fn finish(mut self) -> (Vec<Judged>, Vec<RestoreRefusal>, Vec<String>) {
        self.refuse_shared();
        (self.judged, self.refusals, self.warnings)
    }

    pub(super) fn disk(&mut self, name: &str, restore: &DiskRestore) {
        let vdev = || name.to_owned();
        let entry = self.configured.iter().find(|disk| disk.vdev.as_deref() == Some(name));
        let Some(entry) = entry.cloned() else {
            self.refusals.push(RestoreRefusal::UnknownDisk { vdev: vdev() });
            return;
        };
        let writable = entry.readwrite != 0;
        let request = self.request;
        let saved = request.snapshot.disks.iter().find(|disk| disk.vdev == name);
        let saved = saved.filter(|disk| !matches!(disk.action, DiskAction::Skip { .. }));
        let judged = match (restore, saved) {
            (DiskRestore::FrozenReadOnly, Some(saved)) => {
                self.frozen(saved, 0).map(|found| Judged {
                    image: Some(named(&found)),
                    writable: false,
                    found: Some(found),
                    ..nothing(name)
                })
            }
            (DiskRestore::NewOverlay { overlay }, Some(saved)) => {
                let path = located(&format!("the overlay of disk {name}"), overlay);
                let path = path.map_err(|refusal| self.refusals.push(refusal)).ok();
                let found = self.frozen(saved, 1);
                path.zip(found).map(|(path, found)| Judged {
                    image: Some(NamedImage { path, format: ImageFormat::Qcow2 }),
                    writable,
                    over: Some(found),
                    ..nothing(name)
                })
            }
            (DiskRestore::AdoptActive, Some(saved)) => {
                let active = &saved.active;
                let judged = self.there(name, &active.path, active.format, writable);
                let found = judged.as_ref().and_then(|judged| judged.found.clone());
                if let Some(found) = found {
                    self.refuse_written(saved, &found);
                }
                judged
            }
            (DiskRestore::Image { path, format, verify }, saved) => {
                if *verify && saved.is_none_or(|saved| saved.digest.is_none()) {
                    self.refusals.push(RestoreRefusal::NoDigest { vdev: vdev() });
                }
                self.there(name, path, *format, writable)
            }
            (DiskRestore::AsConfigured, Some(_)) if writable => {
                self.refusals.push(RestoreRefusal::DiskSaved { vdev: vdev() });
                None
            }
            (DiskRestore::AsConfigured, _) => self.as_configured(name, &entry, writable),
            (_, None) => {
                self.refusals.push(RestoreRefusal::DiskNotSaved { vdev: vdev() });
                None
            }
        };
        self.judged.extend(judged);
    }

    /// The frozen image of a disk, if it is as it was frozen. Who else reads it does not matter; who has written it shows.
    fn frozen(&mut self, saved: &DiskSnapshot, overlays: usize) -> Option<ImageRef> {
        let vdev = || saved.vdev.clone();
        let frozen = &saved.frozen;
        if let DiskAction::InternalQcow2 { tag } = &saved.action {
            let (image, tag) = (frozen.path.clone(), tag.clone());
            self.refusals.push(RestoreRefusal::Internal { vdev: vdev(), image, tag });
            return None;
        }
        let depth = DEPTH_DEFAULT.max(saved.chain.len() + overlays);
        let rules = ChainRules { depth: depth - overlays, writers: Writers::Anybody };
        let found = self.chain(&saved.vdev, &frozen.path, frozen.format, rules)?;
        let timeless = frozen.path.metadata().is_ok_and(|it| it.file_type().is_block_device());
        // A digest of all of it tells better than its times.
        let digested = self.request.verify == Depth::Full && saved.digest.is_some();
        let mut changes = found.changes_since(frozen);
        changes.retain(|change| match change {
            // It may have been moved, and a file system has other numbers after a boot.
            ImageChange::OtherFile => false,
            ImageChange::Modified => !timeless && !digested,
            _ => true,
        });
        if !changes.is_empty() {
            let image = frozen.path.clone();
            self.refusals.push(RestoreRefusal::FrozenChanged { vdev: vdev(), image, changes });
            return None;
        }
        Some(found)
    }

    /// An image that is there.
    fn there(
        &mut self,
        vdev: &str,
        path: &Path,
        format: ImageFormat,
        writable: bool,
    ) -> Option<Judged> {
        let rules = ChainRules { depth: DEPTH_DEFAULT, writers: writers(self.request, writable) };
        let found = self.chain(vdev, path, format, rules)?;
        if writable && self.is_frozen(&found) {
            let (vdev, image) = (vdev.to_owned(), path.to_owned());
            self.refusals.push(RestoreRefusal::FrozenForWriting { vdev, image });
            return None;
        }
        let image = Some(NamedImage { path: absolute(path), format });
        Some(Judged { image, writable, found: Some(found), ..nothing(vdev) })
    }

    fn as_configured(&mut self, vdev: &str, entry: &Disk, writable: bool) -> Option<Judged> {
        let Some(NamedImage { path, format }) = configuration::image_of(entry) else {
            if entry.pdev_path.as_deref().is_some_and(|path| !path.is_empty()) {
                self.warnings.push(format!(
                    "disk {vdev}: what it is made of is not a file or device of this host, and was not looked at"
                ));
            }
            return Some(Judged { writable, as_configured: true, ..nothing(vdev) });
        };
        let judged = self.there(vdev, &path, format, writable)?;
        Some(Judged { as_configured: true, ..judged })
    }

    /// The image on top of a sound chain.
    fn chain(
        &mut self,
        vdev: &str,
        path: &Path,
        format: ImageFormat,
        rules: ChainRules,
    ) -> Option<ImageRef> {
        match Chain::read(path, format, rules) {
            Ok(chain) => {
                if chain.unseen() > 0 {
                    self.warnings.push(format!(
                        "disk {vdev}: {} processes may have an image open, which cannot be seen",
                        chain.unseen()
                    ));
                }
                chain.into_images().into_iter().next()
            }
            Err(refusals) => {
                self.refusals.extend(refusals.into_iter().map(|source| {
                    let vdev = vdev.to_owned();
                    RestoreRefusal::Chain { vdev, source }
                }));
                None
            }
        }
    }

    /// Whether an image is one that a frozen state is in. An image that only has a snapshot inside is its domain's to write.
    fn is_frozen(&self, image: &ImageRef) -> bool {
        let disks = self.request.snapshot.disks.iter();
        let disks = disks.filter(|disk| {
            !matches!(disk.action, DiskAction::InternalQcow2 { .. } | DiskAction::Skip { .. })
        });
        disks.flat_map(|disk| disk.chain.iter().chain([&disk.frozen])).any(|frozen| {
            // Numbers are of the boot in which they were read; the name may lead there still.
            frozen.is_same_file(image)
                || ImageRef::read(&frozen.path, frozen.format)
                    .is_ok_and(|frozen| frozen.is_same_file(image))
        })
    }

    /// A guest whose memory is of another moment than its disk destroys what is on it.
    fn refuse_written(&mut self, saved: &DiskSnapshot, found: &ImageRef) {
        let mut changes = found.changes_since(&saved.active);
        changes.retain(|change| *change != ImageChange::OtherFile);
        if self.request.snapshot.memory.is_some() && !changes.is_empty() {
            let (vdev, image) = (saved.vdev.clone(), found.path.clone());
            self.refusals.push(RestoreRefusal::ActiveChanged { vdev, image, changes });
        }
    }

    /// Two disks may share an image only for reading.
    fn refuse_shared(&mut self) {
        for (at, disk) in self.judged.iter().enumerate() {
            let Some(found) = disk.found.as_ref() else { continue };
            let shared = self.judged[..at].iter().find(|other| {
                (disk.writable || other.writable)
                    && other.found.as_ref().is_some_and(|other| other.is_same_file(found))
            });
            if let Some(other) = shared {
                let (vdev, other) = (disk.vdev.clone(), other.vdev.clone());
                let image = found.path.clone();
                self.refusals.push(RestoreRefusal::SharedImage { vdev, other, image });
            }
        }
    }
}

/// Who may have an image open when the plan is drawn: nobody, if the new domain writes it. What the replaced domain has open
/// it has no more once that is destroyed, which is looked at then.
fn writers(request: &RestoreRequest, writable: bool) -> Writers {
    match request.mode {
        RestoreMode::Replace { free_first: true, .. } => Writers::Anybody,
        _ if writable => Writers::Nobody,
        _ => Writers::Anybody,
    }
}

fn named(image: &ImageRef) -> NamedImage {
    NamedImage { path: absolute(&image.path), format: image.format }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn nothing(vdev: &str) -> Judged {
    Judged {
        vdev: vdev.to_owned(),
        image: None,
        writable: false,
        over: None,
        as_configured: false,
        found: None,
    }
}
