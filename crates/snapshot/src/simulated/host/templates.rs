//! The configurations of a host's domains, as libxl keeps them: the template of each domain, from its creation to its end.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use libxl_config::model::{BuildKind, Disk, DiskBackend, DiskFormat, DomainType, MemKb};
use libxl_config::template::{
    CreateError, ForgetError, OpenDirError, TemplateKey, TemplateText, UserdataDir, create, forget,
};
use libxl_config::{DomainConfig, Layout};
use uuid::Uuid;

use crate::control::DomainIdentity;
use crate::simulated::spec::{DiskImage, DiskSpec, GuestSpec};

/// How long somebody else may hold a template's lock.
const LOCK_LIMIT: Duration = Duration::from_secs(10);

/// A directory as libxl keeps templates in.
#[derive(Debug)]
pub(super) struct Templates(UserdataDir);

impl Templates {
    pub(super) fn open(directory: &Path) -> Result<Self, OpenDirError> {
        UserdataDir::open(directory).map(Self)
    }

    pub(super) fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    pub(super) fn create(
        &self,
        identity: DomainIdentity,
        config: &DomainConfig,
    ) -> Result<(), String> {
        let text = TemplateText::new(config.to_json(Layout::Yajl));
        let text = text.map_err(|error| error.to_string())?;
        create(&self.0, &key(identity), &text, Instant::now() + LOCK_LIMIT)
            .map(drop)
            .map_err(|error: CreateError| error.to_string())
    }

    pub(super) fn forget(&self, identity: DomainIdentity) -> Result<(), ForgetError> {
        forget(&self.0, &key(identity), Instant::now() + LOCK_LIMIT).map(drop)
    }
}

fn key(identity: DomainIdentity) -> TemplateKey {
    TemplateKey::new(identity.domid, identity.uuid)
}

/// The configuration that a domain would have been created with.
pub(super) fn created(
    name: &str,
    uuid: Uuid,
    guest: &GuestSpec,
    disks: &[DiskSpec],
) -> DomainConfig {
    let mut config = DomainConfig::default();
    config.c_info.domain_type = DomainType::Pv;
    config.c_info.name = Some(name.to_owned());
    config.c_info.uuid = uuid;
    config.b_info.max_memkb = MemKb::new(guest.pages_max() * 4);
    config.disks = disks.iter().map(disk).collect();
    filled(config, guest)
}

/// With what libxl finds out when it creates a domain and the configuration does not say.
pub(super) fn filled(mut config: DomainConfig, guest: &GuestSpec) -> DomainConfig {
    let DomainConfig { b_info, .. } = &mut config;
    if !matches!(b_info.kind, BuildKind::Pv(_)) {
        b_info.kind = BuildKind::Pv(Default::default());
    }
    if b_info.target_memkb.get().is_none() {
        b_info.target_memkb = MemKb::new(guest.pages * 4);
    }
    if b_info.max_vcpus == 0 {
        b_info.max_vcpus = i32::try_from(guest.vcpus).unwrap_or(i32::MAX);
    }
    if b_info.avail_vcpus.is_empty() {
        b_info.avail_vcpus = (0..guest.vcpus).collect();
    }
    config
}

fn disk(disk: &DiskSpec) -> Disk {
    Disk {
        vdev: Some(disk.vdev.clone()),
        // What is no UTF-8 cannot be told: neither JSON nor the host's own protocol holds it.
        pdev_path: Some(disk.image.path().to_string_lossy().into_owned()),
        backend: DiskBackend::Qdisk,
        format: match disk.image {
            DiskImage::Raw { .. } => DiskFormat::Raw,
            DiskImage::Qcow2 { .. } => DiskFormat::Qcow2,
        },
        readwrite: i32::from(!disk.read_only),
        ..Disk::default()
    }
}
