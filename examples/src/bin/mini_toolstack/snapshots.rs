//! A domain saved as a whole, and brought back.

use std::collections::BTreeMap;
use std::{env, fs};

use libxl_config::{DomainConfig, Mode};
use snapshot::control::{DomainControl, DomainIdentity};
use snapshot::disk::image::ImageFormat;
use snapshot::disk::{BackingName, CopyMethod};
use snapshot::restore::{DiskRestore, NewIdentity, RestoreRequest, Start, UuidChoice};
use snapshot::save::{DiskRequest, DiskRequestAction, MemoryFormat, MemoryRequest, SaveRequest};
use snapshot::{
    GuardianProgram, HostAccess, Observer, Snapshot, plan_restore, plan_save, restore, save,
};

use crate::{Outcome, Toolstack, connect, new_uuid, soon};

impl Toolstack {
    /// Memory, disk and configuration of one moment. The guest goes on afterwards.
    pub(crate) fn save(&self, domain: DomainIdentity) -> Outcome<Snapshot> {
        let mut request = SaveRequest::new(domain);
        let target = self.file("web.memory").into();
        request.memory = Some(MemoryRequest { target, format: MemoryFormat::Mapped, live: false });
        let action = if self.has_qemu {
            let inspection = self.hypervisor.operator().inspect(&domain, false, soon())?;
            request.qmp = inspection.qmp;
            let (overlay, backing) = (self.file("root-1.img").into(), BackingName::Absolute);
            DiskRequestAction::ExternalQcow2 {
                overlay,
                node: None,
                overlay_node: None,
                backing,
                digest: true,
            }
        } else {
            let destination = self.file("root-1.img").into();
            DiskRequestAction::Copy { destination, method: CopyMethod::Sparse, digest: true }
        };
        request.disks.push(DiskRequest { vdev: "xvda".to_owned(), action });
        // What the guest has in Xenstore can be saved too (`request.xenstore`). It is given back when a domain is built, so it is for
        // hosts where building a domain writes its nodes, as libxl does.
        request.journal = Some(self.file("save.journal").into());
        // A plan changes nothing, and names everything that speaks against it at once.
        let saved = self.with_access(|access| {
            let plan = plan_save(access, request)?;
            Ok(save(access, plan, &mut Observer::none())?)
        })?;
        // The manifest is the caller's to keep: the library has no shelf for snapshots.
        fs::write(self.file("web.snapshot"), saved.to_json()?)?;
        // It is for `recover` after a crash, and there was none.
        fs::remove_file(self.file("save.journal"))?;
        println!("saved: {:?}, the guest goes on", saved.consistency);
        self.tell_configuration(domain)?;
        Ok(saved)
    }

    pub(crate) fn restore(&self, snapshot: Snapshot, name: &str) -> Outcome<DomainIdentity> {
        let frozen = snapshot.disks.first().ok_or("the snapshot has no disk")?.frozen.path.clone();
        let image = self.file("root-2.img");
        // A frozen image is never written: the new guest has a layer over it, or a copy of it.
        let disk = if self.has_qemu {
            DiskRestore::NewOverlay { overlay: image.into() }
        } else {
            fs::copy(frozen, &image)?;
            DiskRestore::Image { path: image, format: ImageFormat::Raw, verify: true }
        };
        let mut request = RestoreRequest::new(snapshot);
        let uuid = UuidChoice::New(new_uuid()?);
        request.identity = NewIdentity { name: Some(name.to_owned()), uuid };
        request.disks.insert("xvda".to_owned(), disk);
        request.journal = Some(self.file("restore.journal").into());
        // Its nodes are written by this toolstack, and no guest may run before it has them.
        request.start = Start::Paused;
        let restored = self.with_access(|access| {
            let plan = plan_restore(access, request)?;
            Ok(restore(access, plan, &mut Observer::none())?)
        })?;
        fs::remove_file(self.file("restore.journal"))?;
        let domain = restored.domain.ok_or("the snapshot has no memory to restore from")?;
        let config = restored.configuration.to_string();
        self.publish(domain, &DomainConfig::read(config.as_bytes(), Mode::Lenient)?.config)?;
        let before = self.hypervisor.operator().inspect(&domain, true, soon())?;
        self.hypervisor.control().unpause(&domain, soon())?;
        // The guest compares what it reads with what it wrote before the save.
        let later = self.hypervisor.operator().await_tick(&domain, before.tick + 20, soon())?;
        if let Some(wrong) = before.wrong.or(later.wrong) {
            return Err(format!("the restored guest finds: {wrong}").into());
        }
        println!("restored: domain {} ({name}) runs on from where it was saved", domain.domid);
        Ok(domain)
    }

    /// What a snapshot works with, in one value.
    fn with_access<T>(&self, work: impl FnOnce(&mut HostAccess<'_>) -> Outcome<T>) -> Outcome<T> {
        work(&mut HostAccess {
            control: &self.hypervisor.control(),
            xenstore: &|_| Ok(connect(&self.xenstore)),
            templates: &self.templates,
            hypervisor: None,
            qemu_img: Default::default(),
            // If this process dies while the guest is suspended, that one resumes it.
            guardian: Some(GuardianProgram {
                program: env::current_exe()?,
                arguments: vec!["guardian".to_owned()],
            }),
            hooks: BTreeMap::new(),
            quiescers: BTreeMap::new(),
        })
    }
}
