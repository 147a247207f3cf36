//! What a restore would do, and what speaks against it.

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use libxl_config::DomainConfig;
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::configuration;
use super::images::{Judged, Judging};
use super::refusal::{PlanRestoreError, RestoreRefusal};
use super::request::{DiskRestore, GenerationId, RestoreMode, RestoreRequest, UuidChoice};
use super::source;
use crate::control::{DomainIdentity, DomainView, SETTLE_LIMIT};
use crate::disk::image::{Digest, ImageRef};
use crate::manifest::NamedImage;
use crate::target::{Located, free_space};
use crate::{HostAccess, Target};

/// Octets that a new overlay takes at most: header, reference counts, and a table for some terabytes.
const OVERLAY_OCTETS: u64 = 256 << 10;

/// Octets that a journal takes at most, beside the configuration that is in it twice.
const JOURNAL_OCTETS: u64 = 64 << 10;

/// What a restore would do. Nothing was changed to know it.
///
/// As JSON it is for people and programs that look at it; what [`restore`](super::restore) takes is this value.
#[derive(Clone, Serialize)]
#[non_exhaustive]
pub struct RestorePlan {
    /// The snapshot's id.
    pub snapshot: Uuid,
    /// Whether a domain is built: not if the snapshot has no memory.
    pub builds: bool,
    /// The domain's name.
    pub name: String,
    /// The domain's uuid.
    pub uuid: Uuid,
    /// Beside other domains, or in the place of one.
    pub mode: RestoreMode,
    /// The domain's configuration, as libxl-json.
    pub configuration: Value,
    /// The image of each disk that is one of this host's files or devices.
    pub disks: Vec<PlannedRestoreDisk>,
    /// Files that are created: overlays, and the journal.
    pub creates: Vec<PathBuf>,
    /// What they take at once, at most. What the guest writes later comes on top of that.
    pub space: Vec<RestoreSpace>,
    /// What could not be made sure, in words.
    pub warnings: Vec<String>,
    /// Digest of what the plan rests on. A restore looks again, and refuses a plan that does not hold any more.
    pub fingerprint: Digest,
    #[serde(skip)]
    pub(super) request: RestoreRequest,
    #[serde(skip)]
    pub(super) config: DomainConfig,
    #[serde(skip)]
    pub(super) generation_id: Option<Uuid>,
    #[serde(skip)]
    pub(super) journal: Option<PathBuf>,
}

impl fmt::Debug for RestorePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RestorePlan")
            .field("snapshot", &self.snapshot)
            .field("name", &self.name)
            .field("uuid", &self.uuid)
            .field("mode", &self.mode)
            .field("disks", &self.disks)
            .field("creates", &self.creates)
            .field("warnings", &self.warnings)
            .finish_non_exhaustive()
    }
}

/// The image that a disk would get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedRestoreDisk {
    /// Which disk.
    pub vdev: String,
    /// Its image.
    pub image: NamedImage,
    /// Whether the guest can write it.
    pub writable: bool,
    /// The frozen image that the new overlay `image` rests on; `None` if the image is there already.
    pub over: Option<ImageRef>,
}

/// What new files take on one file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RestoreSpace {
    /// One of the files.
    pub path: PathBuf,
    /// Octets that all of them take.
    pub needed: u64,
    /// Octets that are free.
    pub free: u64,
}

/// Says what a restore would do, or everything that speaks against it. Changes nothing.
///
/// # Errors
///
/// [`PlanRestoreError::Refused`] with every refusal, not just the first.
pub fn plan_restore(
    access: &mut HostAccess<'_>,
    request: RestoreRequest,
) -> Result<RestorePlan, PlanRestoreError> {
    draw(access, request, None)
}

/// A plan, with the generation id of an earlier one.
pub(super) fn draw(
    access: &HostAccess<'_>,
    request: RestoreRequest,
    generation_id: Option<Uuid>,
) -> Result<RestorePlan, PlanRestoreError> {
    let domains = access
        .control
        .list(Instant::now() + SETTLE_LIMIT)
        .map_err(|source| PlanRestoreError::Domains { source })?;
    let mut drawing = Drawing::new(&request);
    let mut config = drawing.configuration();
    let builds = request.snapshot.memory.is_some();
    let (name, uuid) = drawing.identity(config.as_ref(), &domains, builds);
    let mut judged = Vec::new();
    let mut new_id = None;
    if let Some(config) = &mut config {
        configuration::set_identity(config, &name, uuid);
        judged = drawing.disks(config);
        for (devid, change) in &request.nics {
            if !configuration::change_nic(config, *devid, change) {
                drawing.refusals.push(RestoreRefusal::UnknownNic { devid: *devid });
            }
        }
        if request.generation_id == GenerationId::New && configuration::has_generation_id(config) {
            let id = match generation_id {
                Some(id) => id,
                None => {
                    super::random::uuid().map_err(|source| PlanRestoreError::Random { source })?
                }
            };
            configuration::set_generation_id(config, id);
            new_id = Some(id);
        }
    }
    let config = config.unwrap_or_default();
    let configuration = configuration::value(&config);
    let journal = drawing.journal();
    let creates = drawing.creates(&judged, journal.as_deref());
    let space = drawing.space(&creates, journal.as_deref(), &configuration);
    let files = drawing.sources();
    drawing.warn_of_xenstore();
    let manifest = drawing.manifest();
    let Drawing { refusals, warnings, .. } = drawing;
    if !refusals.is_empty() {
        return Err(PlanRestoreError::Refused { refusals });
    }
    let disks: Vec<_> = judged.iter().filter_map(Judged::planned).collect();
    let fingerprint = Digest::of(
        json!({
            "snapshot": Digest::of(manifest.as_bytes()),
            "configuration": configuration,
            "mode": request.mode,
            "images": judged.iter().map(Judged::fingerprint).collect::<Vec<_>>(),
            "files": files,
            "creates": creates.keys().collect::<Vec<_>>(),
        })
        .to_string()
        .as_bytes(),
    );
    Ok(RestorePlan {
        snapshot: request.snapshot.id,
        builds,
        name,
        uuid,
        mode: request.mode,
        configuration,
        disks,
        creates: creates.into_keys().collect(),
        space,
        warnings,
        fingerprint,
        request,
        config,
        generation_id: new_id,
        journal,
    })
}

/// A plan that is being drawn.
struct Drawing<'r> {
    request: &'r RestoreRequest,
    refusals: Vec<RestoreRefusal>,
    warnings: Vec<String>,
}

impl<'r> Drawing<'r> {
    fn new(request: &'r RestoreRequest) -> Self {
        Self { request, refusals: Vec::new(), warnings: Vec::new() }
    }

    fn configuration(&mut self) -> Option<DomainConfig> {
        match configuration::read(&self.request.snapshot.configuration) {
            Ok(config) => Some(config),
            Err(source) => {
                self.refusals.push(RestoreRefusal::Configuration { source });
                None
            }
        }
    }

    /// Name and uuid, and whether both are free. Without memory no domain is built that could be in the way of another.
    fn identity(
        &mut self,
        config: Option<&DomainConfig>,
        domains: &[DomainView],
        builds: bool,
    ) -> (String, Uuid) {
        let RestoreRequest { snapshot, mode, identity, .. } = self.request;
        let replaced = match mode {
            RestoreMode::New => None,
            RestoreMode::Replace { domain, .. } => {
                self.replaced(*domain, domains, builds);
                Some(*domain)
            }
        };
        let saved = snapshot.domain.name.as_ref();
        let saved = saved.or_else(|| config.and_then(|config| config.c_info.name.as_ref()));
        let name = identity.name.as_ref().or(saved).filter(|name| !name.is_empty());
        let uuid = match identity.uuid {
            UuidChoice::Keep => snapshot.domain.identity.uuid,
            UuidChoice::New(uuid) => uuid,
        };
        if uuid.is_nil() {
            self.refusals.push(RestoreRefusal::NilUuid);
        }
        if name.is_none() {
            self.refusals.push(RestoreRefusal::NoName);
        }
        let others = domains.iter().filter(|view| builds && Some(view.identity) != replaced);
        for DomainView { identity: domain, name: has, .. } in others {
            if let Some(name) = name.filter(|name| has.as_ref() == Some(*name)) {
                let (name, domain) = (name.clone(), *domain);
                self.refusals.push(RestoreRefusal::NameTaken { name, domain });
            }
            if domain.uuid == uuid {
                self.refusals.push(RestoreRefusal::UuidTaken { domain: *domain });
            }
        }
        (name.cloned().unwrap_or_default(), uuid)
    }

    fn replaced(&mut self, domain: DomainIdentity, domains: &[DomainView], builds: bool) {
        let found = domains.iter().find(|view| view.identity.domid == domain.domid);
        match found.map(|view| view.identity.uuid) {
            None => self.refusals.push(RestoreRefusal::ReplacedMissing { domain }),
            Some(found) if found != domain.uuid => {
                self.refusals.push(RestoreRefusal::ReplacedIsAnother { domain, found });
            }
            Some(_) => {}
        }
        if !builds {
            self.refusals.push(RestoreRefusal::NothingToReplaceWith);
        }
    }

    /// What each disk gets; the configuration is changed to that.
    fn disks(&mut self, config: &mut DomainConfig) -> Vec<Judged> {
        let request = self.request;
        let mut judging = Judging::new(request, config);
        for (vdev, restore) in &request.disks {
            judging.disk(vdev, restore);
        }
        let snapshot = &request.snapshot;
        let saved = snapshot.disks.iter().map(|disk| &disk.vdev);
        let skipped = snapshot.skipped.iter().map(|disk| &disk.vdev);
        let mut known: Vec<String> = saved.chain(skipped).cloned().collect();
        let writable = config.disks.iter().filter(|disk| disk.readwrite != 0);
        known.extend(writable.filter_map(|disk| disk.vdev.clone()));
        known.sort_unstable();
        known.dedup();
        for vdev in known.into_iter().filter(|vdev| !request.disks.contains_key(vdev)) {
            judging.refusals.push(RestoreRefusal::DiskNotNamed { vdev });
        }
        let (judged, refusals, warnings) = judging.finish();
        self.refusals.extend(refusals);
        self.warnings.extend(warnings);
        for disk in &judged {
            let Some(image) = &disk.image else { continue };
            let (Some(entry), Some(text)) =
                (configuration::disk_mut(config, &disk.vdev), configuration::text_of(&image.path))
            else {
                let (vdev, path) = (disk.vdev.clone(), image.path.clone());
                self.refusals.push(RestoreRefusal::NotUtf8 { vdev, path });
                continue;
            };
            if !disk.as_configured {
                configuration::set_image(entry, &text, image.format, disk.writable);
            }
        }
        judged
    }

    fn journal(&mut self) -> Option<PathBuf> {
        self.name_of("the journal", self.request.journal.as_ref()?)
    }

    /// The name that something new is to have.
    fn name_of(&mut self, what: &str, target: &Target) -> Option<PathBuf> {
        match located(what, target) {
            Ok(path) => Some(path),
            Err(refusal) => {
                self.refusals.push(refusal);
                None
            }
        }
    }

    /// Files that are created, with what each is.
    fn creates(&mut self, judged: &[Judged], journal: Option<&Path>) -> BTreeMap<PathBuf, String> {
        let mut creates = BTreeMap::new();
        let overlays = judged.iter().filter(|disk| disk.over.is_some()).filter_map(|disk| {
            Some((format!("the overlay of disk {}", disk.vdev), disk.image.as_ref()?.path.clone()))
        });
        let journal = journal.map(|path| ("the journal".to_owned(), path.to_owned()));
        for (what, path) in overlays.chain(journal) {
            // A name that leads nowhere is taken as well.
            if path.symlink_metadata().is_ok() {
                let (what, path) = (what.clone(), path.clone());
                self.refusals.push(RestoreRefusal::TargetExists { what, path });
            }
            if creates.insert(path.clone(), what.clone()).is_some() {
                self.refusals.push(RestoreRefusal::TargetTwice { what, path });
            }
        }
        creates
    }

    fn space(
        &mut self,
        creates: &BTreeMap<PathBuf, String>,
        journal: Option<&Path>,
        configuration: &Value,
    ) -> Vec<RestoreSpace> {
        let journal_octets = JOURNAL_OCTETS + 4 * configuration.to_string().len() as u64;
        let mut space: BTreeMap<u64, RestoreSpace> = BTreeMap::new();
        for path in creates.keys() {
            match free_space(path) {
                Ok(free) => {
                    let there = space.entry(free.dev).or_insert_with(|| RestoreSpace {
                        path: path.clone(),
                        needed: 0,
                        free: free.octets,
                    });
                    let is_journal = journal == Some(path.as_path());
                    there.needed += if is_journal { journal_octets } else { OVERLAY_OCTETS };
                }
                Err(source) => {
                    let path = path.clone();
                    self.refusals.push(RestoreRefusal::Space { path, source });
                }
            }
        }
        let space: Vec<_> = space.into_values().collect();
        for RestoreSpace { path, needed, free } in &space {
            if needed > free {
                let (path, needed, free) = (path.clone(), *needed, *free);
                self.refusals.push(RestoreRefusal::NoSpace { path, needed, free });
            }
        }
        space
    }

    /// The files that are read, as they are now.
    fn sources(&mut self) -> Value {
        let RestoreRequest { snapshot, memory, xenstore, .. } = self.request;
        let memory_at = snapshot.memory.as_ref().map(|artifact| &artifact.location);
        // Compared even if nothing of it is wanted: a snapshot that is damaged is none.
        let xenstore_at = snapshot.xenstore.as_ref().map(|artifact| &artifact.location);
        let files = [
            ("memory image", memory.as_ref(), memory_at),
            ("Xenstore state", xenstore.as_ref(), xenstore_at),
        ];
        let mut looked = Vec::new();
        for (what, given, location) in files {
            let Some(location) = location else { continue };
            let metadata = source::open(what, given, location)
                .map(|file| file.metadata().map(|it| (it.dev(), it.ino(), it.size(), it.mtime())));
            match metadata {
                Ok(metadata) => looked.push(metadata.ok()),
                Err(refusal) => self.refusals.push(refusal),
            }
        }
        json!(looked)
    }

    /// The snapshot as text.
    fn manifest(&mut self) -> String {
        self.request.snapshot.to_json().unwrap_or_else(|source| {
            self.refusals.push(RestoreRefusal::Manifest { source });
            String::new()
        })
    }

    fn warn_of_xenstore(&mut self) {
        if self.request.policy.is_some() && self.request.snapshot.xenstore.is_none() {
            let warning = "the snapshot has no Xenstore state: what the guest had there is lost";
            self.warnings.push(warning.to_owned());
        }
    }
}

pub(super) fn located(what: &str, target: &Target) -> Result<PathBuf, RestoreRefusal> {
    let what = || what.to_owned();
    match target.locate() {
        Ok(Located::Name(path)) if path.to_str().is_none() => {
            Err(RestoreRefusal::TargetNotUtf8 { what: what(), path })
        }
        Ok(Located::Name(path)) => Ok(path),
        Ok(Located::Descriptor(_)) => Err(RestoreRefusal::Descriptor { what: what() }),
        Err(source) => Err(RestoreRefusal::Target { what: what(), source }),
    }
}

/// The disks whose frozen images are used.
pub(super) fn rests_on_frozen(restore: Option<&DiskRestore>) -> bool {
    matches!(restore, Some(DiskRestore::FrozenReadOnly | DiskRestore::NewOverlay { .. }))
}
