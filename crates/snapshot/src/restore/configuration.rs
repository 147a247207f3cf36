//! The saved configuration, as the restored domain has it.

use std::path::{Path, PathBuf};

use libxl_config::model::{BuildKind, ConfigDomid, Disk, DiskBackend, DiskFormat, Mac, VmGenId};
use libxl_config::{DomainConfig, Layout, Mode, ReadError};
use serde_json::Value;
use uuid::Uuid;

use super::request::NicChange;
use crate::disk::image::ImageFormat;
use crate::manifest::NamedImage;

/// Reads the configuration of a snapshot.
pub(super) fn read(configuration: &Value) -> Result<DomainConfig, ReadError> {
    let text = configuration.to_string();
    Ok(DomainConfig::read(text.as_bytes(), Mode::Lenient)?.config)
}

/// As it is told in results.
pub(super) fn value(config: &DomainConfig) -> Value {
    // What this library writes is JSON.
    serde_json::from_str(&config.to_json(Layout::Yajl)).unwrap_or_default()
}

/// The disk of that name.
pub(super) fn disk_mut<'c>(config: &'c mut DomainConfig, vdev: &str) -> Option<&'c mut Disk> {
    config.disks.iter_mut().find(|disk| disk.vdev.as_deref() == Some(vdev))
}

/// The file or device that a disk is configured with; `None` for an empty drive, and where a script or another domain makes
/// something of the name.
pub(super) fn image_of(disk: &Disk) -> Option<NamedImage> {
    let is_elsewhere = disk.backend_domid != ConfigDomid::DOM0
        || disk.backend_domname.is_some()
        || disk.script.is_some();
    let format = match disk.format {
        DiskFormat::Unknown | DiskFormat::Raw => ImageFormat::Raw,
        DiskFormat::Qcow2 => ImageFormat::Qcow2,
        _ => return None,
    };
    let path = disk.pdev_path.as_deref().filter(|path| !path.is_empty())?;
    (!is_elsewhere).then(|| NamedImage { path: PathBuf::from(path), format })
}

/// Moves a disk to an image. `text` is its path.
pub(super) fn set_image(disk: &mut Disk, text: &str, format: ImageFormat, writable: bool) {
    disk.pdev_path = Some(text.to_owned());
    disk.format = match format {
        ImageFormat::Raw => DiskFormat::Raw,
        ImageFormat::Qcow2 => DiskFormat::Qcow2,
    };
    // What made the old image a device has nothing to do with the new one, and only QEMU reads qcow2.
    disk.script = None;
    if format == ImageFormat::Qcow2 && disk.backend != DiskBackend::Unknown {
        disk.backend = DiskBackend::Qdisk;
    }
    disk.readwrite = i32::from(writable);
}

/// Gives the configuration another identity. Whatever domid it was created under is another domain's, perhaps.
pub(super) fn set_identity(config: &mut DomainConfig, name: &str, uuid: Uuid) {
    config.c_info.name = Some(name.to_owned());
    config.c_info.uuid = uuid;
    config.c_info.domid = ConfigDomid::default();
}

/// Changes a network interface; whether there is such a one.
pub(super) fn change_nic(config: &mut DomainConfig, devid: u32, change: &NicChange) -> bool {
    let of_this = |(at, nic): &(usize, &mut libxl_config::model::Nic)| {
        // libxl numbers those that have no number in their order.
        let number =
            nic.devid.get().map_or_else(|| u32::try_from(*at).ok(), |it| it.try_into().ok());
        number == Some(devid)
    };
    let Some((_, nic)) = config.nics.iter_mut().enumerate().find(of_this) else { return false };
    if let Some(mac) = change.mac {
        nic.mac = Mac::new(mac);
    }
    if let Some(bridge) = &change.bridge {
        nic.bridge = Some(bridge.clone());
    }
    true
}

/// Whether an HVM guest has a generation id, by which it could tell that it is a copy.
pub(super) fn has_generation_id(config: &DomainConfig) -> bool {
    matches!(&config.b_info.kind, BuildKind::Hvm(hvm) if hvm.ms_vm_genid != VmGenId::default())
}

/// Gives it another.
pub(super) fn set_generation_id(config: &mut DomainConfig, id: Uuid) {
    if let BuildKind::Hvm(hvm) = &mut config.b_info.kind {
        hvm.ms_vm_genid = VmGenId(id.into_bytes());
    }
}

/// The path as a configuration holds it: absolute.
pub(super) fn text_of(path: &Path) -> Option<String> {
    std::path::absolute(path).ok()?.to_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use libxl_config::model::{DevId, Nic};

    use super::*;

    fn config(text: &str) -> DomainConfig {
        read(&serde_json::from_str(text).unwrap()).unwrap()
    }

    #[test]
    fn interfaces_are_found_by_number_and_without_one_by_their_place() {
        let nics = vec![
            Nic { devid: DevId::new(3), ..Nic::default() },
            Nic { bridge: Some("old".into()), ..Nic::default() },
        ];
        let mut config = DomainConfig { nics, ..DomainConfig::default() };
        let change = NicChange { mac: Some([0, 22, 62, 1, 2, 3]), bridge: Some("new".into()) };
        assert!(change_nic(&mut config, 3, &change) && change_nic(&mut config, 1, &change));
        assert!(!change_nic(&mut config, 0, &change) && !change_nic(&mut config, 2, &change));
        for nic in &config.nics {
            assert_eq!(nic.mac, Mac::new([0, 22, 62, 1, 2, 3]));
            assert_eq!(nic.bridge.as_deref(), Some("new"));
        }
        let nothing = NicChange::default();
        assert!(change_nic(&mut config, 3, &nothing));
        assert_eq!(config.nics[0].bridge.as_deref(), Some("new"));
    }

    #[test]
    fn a_phy_disk_that_moves_to_an_overlay_is_served_by_qemu() {
        let mut config = config(
            r#"{"disks": [{"vdev": "xvda", "pdev_path": "/dev/vg/root", "backend": "phy",
                "format": "raw", "script": "block-x", "readwrite": 1, "tier": "fast"}]}"#,
        );
        let disk = disk_mut(&mut config, "xvda").unwrap();
        assert_eq!(image_of(disk), None, "what the script makes of the name is not known");
        set_image(disk, "/srv/overlay", ImageFormat::Qcow2, true);
        assert_eq!(
            image_of(disk),
            Some(NamedImage { path: "/srv/overlay".into(), format: ImageFormat::Qcow2 })
        );
        let written = value(&config);
        assert_eq!(written["disks"][0]["backend"], "qdisk");
        assert_eq!(written["disks"][0]["tier"], "fast", "what is unknown stays");
        set_image(disk_mut(&mut config, "xvda").unwrap(), "/srv/frozen", ImageFormat::Raw, false);
        assert_eq!(config.disks[0].readwrite, 0);
        assert!(disk_mut(&mut config, "xvdb").is_none());
    }

    #[test]
    fn only_a_guest_that_has_a_generation_id_gets_another() {
        let mut config = config(r#"{"c_info": {"type": "pv"}, "b_info": {"type.pv": {}}}"#);
        assert!(!has_generation_id(&config));
        config.b_info.kind = BuildKind::Hvm(Box::default());
        assert!(!has_generation_id(&config));
        set_generation_id(&mut config, Uuid::from_u128(7));
        assert!(has_generation_id(&config));
        assert_eq!(value(&config)["b_info"]["type.hvm"]["ms_vm_genid"][15], 7);
    }

    #[test]
    fn another_identity_does_not_ask_for_the_old_domid() {
        let mut config = config(r#"{"c_info": {"name": "web", "domid": 7}}"#);
        set_identity(&mut config, "copy", Uuid::from_u128(9));
        let value = value(&config);
        assert_eq!(value["c_info"]["name"], "copy");
        assert!(value["c_info"].get("domid").is_none_or(|domid| domid != 7), "{value}");
    }
}
