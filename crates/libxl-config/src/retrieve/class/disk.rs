//! Disks: `vbd` and `virtio_disk`, served by `vbd` (phy), `vbd3` (tap), `qdisk` or a backend of their own.

use super::rule::{
    defbool_rule, enum_rule, expected_script, number, number_rule, script_name, set_flag_rule,
    word_rule,
};
use super::{Absence, Class, ClassInfo, Expected, Identity, Layout, Live, Rule};
use crate::DomainConfig;
use crate::model::{
    ConfigDomid, DefBool, Disk, DiskBackend, DiskFormat, DiskSpecification, DiskTransport,
};
use crate::retrieve::hypervisor::HypervisorView;
use crate::retrieve::report::{BadValue, DeviceClass};
use crate::retrieve::vdev;

/// A text that is written for COLO only.
macro_rules! colo_rule {
    ($key:literal, $field:ident) => {
        Rule {
            key: $key,
            field: stringify!($field),
            expected: |disk: &Disk, _| colo(disk, disk.$field.as_deref()),
            take: |disk, live, _| {
                disk.colo_enable = DefBool::True;
                disk.$field = Some(live.to_owned());
                Ok(())
            },
            absent: Absence::Keep,
        }
    };
}

pub(in crate::retrieve) struct Disks;

impl Class for Disks {
    type Device = Disk;

    const INFO: &'static ClassInfo = &ClassInfo {
        class: DeviceClass::Disk,
        kinds: &["vbd", "virtio_disk"],
        backend_kinds: &["vbd", "vbd3", "qdisk", "virtio_disk"],
        keys: &[
            "params",
            "type",
            "script",
            "removable",
            "mode",
            "device-type",
            "dev",
            "direct-io-safe",
            "discard-enable",
            "specification",
            "transport",
            "base",
            "irq",
            "grant_usage",
            "colo-host",
            "colo-port",
            "colo-export",
            "active-disk",
            "hidden-disk",
        ],
        frontend_keys: &[],
        layout: Layout::Flat,
        compared: true,
        scripted: &["vbd", "vbd3"],
    };

    const RULES: &'static [Rule<Disk>] = &[
        Rule {
            key: "type",
            field: "backend",
            expected: |disk, _| match backend_name(&disk.backend) {
                Some(name) => Expected::text(name),
                None => Expected::Anything,
            },
            take: |disk, live, _| {
                disk.backend = match live {
                    "phy" => DiskBackend::Phy,
                    "qdisk" => DiskBackend::Qdisk,
                    "tap" | "vbd3" => DiskBackend::Tap,
                    "standalone" => DiskBackend::Standalone,
                    _ => {
                        return Err(BadValue::not_a(
                            live,
                            "one of phy, qdisk, tap, vbd3, standalone",
                        ));
                    }
                };
                Ok(())
            },
            absent: Absence::Keep,
        },
        Rule {
            key: "params",
            field: "pdev_path",
            expected: |disk, live| {
                let path = disk.pdev_path.as_deref().unwrap_or_default();
                if is_formatted(live) {
                    Expected::text(format!("{}:{path}", format_name(&disk.format)))
                } else {
                    Expected::text(path)
                }
            },
            take: |disk, value, live| take_params(disk, value, live),
            absent: Absence::Keep,
        },
        Rule {
            key: "script",
            field: "script",
            expected: |disk, live| match live.text("type") {
                Some("phy") => expected_script(disk.script.as_deref(), "block"),
                Some("tap" | "vbd3") => expected_script(disk.script.as_deref(), "block-tap"),
                _ => disk
                    .script
                    .as_deref()
                    .map_or(Expected::Anything, |script| expected_script(Some(script), "")),
            },
            take: |disk, live, _| {
                disk.script = Some(script_name(live));
                Ok(())
            },
            absent: Absence::Keep,
        },
        word_rule!(Disk, "removable", removable, "removable", "0" or "1"),
        word_rule!(Disk, "mode", readwrite, "readwrite", "r" or "w"),
        word_rule!(Disk, "device-type", is_cdrom, "is_cdrom", "disk" or "cdrom"),
        set_flag_rule!(Disk, "direct-io-safe", direct_io_safe, "direct_io_safe"),
        // The default is to discard on whatever can be written.
        defbool_rule!(Disk, "discard-enable", discard_enable, "discard_enable", |disk: &Disk| {
            Expected::flag(disk.readwrite != 0)
        }),
        enum_rule!(
            Disk,
            "specification",
            specification,
            "specification",
            DiskSpecification { Xen = "xen", Virtio = "virtio" },
            "xen or virtio"
        ),
        enum_rule!(Disk, "transport", transport, "transport", DiskTransport { Mmio = "mmio" }, "mmio"),
        // 0 leaves the choice to libxl, which is then the domain's own and no part of a template.
        number_rule!(Disk, "irq", irq, "irq"),
        number_rule!(Disk, "base", base, "base"),
        defbool_rule!(Disk, "grant_usage", grant_usage, "grant_usage", |_| Expected::Anything),
        colo_rule!("colo-host", colo_host),
        Rule {
            key: "colo-port",
            field: "colo_port",
            expected: |disk, _| colo(disk, Some(&disk.colo_port.to_string())),
            take: |disk, live, _| {
                disk.colo_port = number(live)?;
                Ok(())
            },
            absent: Absence::Keep,
        },
        colo_rule!("colo-export", colo_export),
        colo_rule!("active-disk", active_disk),
        colo_rule!("hidden-disk", hidden_disk),
    ];

    fn list_mut(config: &mut DomainConfig) -> &mut Vec<Disk> {
        &mut config.disks
    }

    /// The vdev's number: `xvda`, `d0p0` and `51712` are one disk.
    fn identity(disk: &Disk, _position: usize) -> Identity {
        let label = disk.vdev.clone().unwrap_or_default();
        let key = vdev::number(&label).map_or_else(|| label.clone(), |number| number.to_string());
        Identity { key, label }
    }

    fn live_identity(live: &Live<'_>) -> Identity {
        let label = live.text("dev").map_or_else(|| vdev_label(live), str::to_owned);
        Identity { key: live.device.devid.clone(), label }
    }

    fn new(live: &Live<'_>, _hypervisor: Option<&dyn HypervisorView>) -> Result<Disk, BadValue> {
        let vdev = Some(Self::live_identity(live).label);
        let mut disk = Disk { vdev, format: DiskFormat::Raw, ..Disk::default() };
        // An empty drive is not what raw and no path would have been written as. Bad values are for the rule to name.
        if let Some(params) = live.text("params") {
            take_params(&mut disk, params, live).ok();
        }
        Ok(disk)
    }

    fn backend_domid(disk: &mut Disk) -> Option<(&mut ConfigDomid, bool)> {
        Some((&mut disk.backend_domid, disk.backend_domname.is_some()))
    }
}

/// The name of a disk whose `dev` cannot be read, from the number of its directory.
fn vdev_label(live: &Live<'_>) -> String {
    live.device.number().and_then(vdev::name).unwrap_or_else(|| live.device.devid.clone())
}

fn backend_name(backend: &DiskBackend) -> Option<&'static str> {
    match backend {
        DiskBackend::Phy => Some("phy"),
        DiskBackend::Qdisk => Some("qdisk"),
        DiskBackend::Tap => Some("vbd3"),
        DiskBackend::Standalone => Some("standalone"),
        _ => None,
    }
}

/// Whether `params` starts with the format: QEMU's and tap's do, a block device's and a standalone backend's do not.
fn is_formatted(live: &Live<'_>) -> bool {
    matches!(live.text("type"), Some("qdisk" | "tap" | "vbd3"))
}

/// The word before the colon: raw images and empty drives are both `aio`.
pub(in crate::retrieve) fn format_name(format: &DiskFormat) -> &'static str {
    match format {
        DiskFormat::Qcow => "qcow",
        DiskFormat::Qcow2 => "qcow2",
        DiskFormat::Vhd => "vhd",
        DiskFormat::Qed => "qed",
        _ => "aio",
    }
}

/// Cuts at the first colon only where libxl put one: a block device's path may hold colons of its own.
fn take_params(disk: &mut Disk, value: &str, live: &Live<'_>) -> Result<(), BadValue> {
    if !is_formatted(live) {
        disk.pdev_path = Some(value.to_owned());
        return Ok(());
    }
    let (format, path) = parse_params(value)?;
    disk.format = format;
    disk.pdev_path = Some(path.to_owned());
    Ok(())
}

/// Format and path of the `params` that start with a format.
pub(in crate::retrieve) fn parse_params(value: &str) -> Result<(DiskFormat, &str), BadValue> {
    let (format, path) =
        value.split_once(':').ok_or_else(|| BadValue::not_a(value, "FORMAT:PATH"))?;
    let format = match format {
        "aio" if path.is_empty() => DiskFormat::Empty,
        "aio" => DiskFormat::Raw,
        "qcow" => DiskFormat::Qcow,
        "qcow2" => DiskFormat::Qcow2,
        "vhd" => DiskFormat::Vhd,
        "qed" => DiskFormat::Qed,
        _ => return Err(BadValue::not_a(format, "one of aio, qcow, qcow2, vhd, qed")),
    };
    Ok((format, path))
}

fn colo(disk: &Disk, field: Option<&str>) -> Expected {
    if disk.colo_enable == DefBool::True { Expected::optional(field) } else { Expected::Nothing }
}

#[cfg(test)]
mod tests {
    use super::super::scene::Scene;
    use crate::retrieve::Policy;
    use crate::retrieve::report::{Attachment, DeviceNote, Presence};

    const ENTRY: &str = r#"{ "pdev_path": "/dev/vg/a", "vdev": "xvda", "format": "raw",
        "readwrite": 1 }"#;

    /// A block device, as the block script attaches it.
    fn phy() -> Scene {
        Scene::new(
            "disks",
            ENTRY,
            r#"
            /libxl/7/device/vbd/51712
                frontend = "/local/domain/7/device/vbd/51712"
                backend = "/local/domain/0/backend/vbd/7/51712"
                params = "/dev/vg/a"
                script = "/etc/xen/scripts/block"
                frontend-id = "7"
                online = "1"
                removable = "0"
                bootable = "1"
                state = "1"
                dev = "xvda"
                type = "phy"
                mode = "w"
                device-type = "disk"
                discard-enable = "1"
                specification = "xen"
            /local/domain/0/backend/vbd/7/51712
                frontend = "/local/domain/7/device/vbd/51712"
                hotplug-status = "connected"
                state = "4"
                params = "/dev/other"
            /local/domain/7/device/vbd/51712
                state = "4"
                device-type = "cdrom"
            "#,
        )
    }

    /// An image that QEMU serves.
    fn qdisk() -> Scene {
        Scene::new(
            "disks",
            r#"{ "pdev_path": "/srv/a.qcow2", "vdev": "xvdb", "backend": "qdisk",
                 "format": "qcow2", "readwrite": 1, "discard_enable": "False" }"#,
            r#"
            /libxl/7/device/vbd/51728
                backend = "/local/domain/0/backend/qdisk/7/51728"
                params = "qcow2:/srv/a.qcow2"
                removable = "0"
                dev = "xvdb"
                type = "qdisk"
                mode = "w"
                device-type = "disk"
                discard-enable = "0"
                specification = "xen"
            /local/domain/0/backend/qdisk/7/51728
                state = "4"
            "#,
        )
    }

    /// An empty drive.
    fn cdrom() -> Scene {
        Scene::new(
            "disks",
            r#"{ "pdev_path": "", "vdev": "hdc", "format": "empty", "removable": 1,
                 "is_cdrom": 1 }"#,
            r#"
            /libxl/7/device/vbd/5632
                backend = "/local/domain/0/backend/qdisk/7/5632"
                params = "aio:"
                removable = "1"
                dev = "hdc"
                type = "qdisk"
                mode = "r"
                device-type = "cdrom"
                discard-enable = "0"
                specification = "xen"
            /local/domain/0/backend/qdisk/7/5632
                state = "4"
            "#,
        )
    }

    #[test]
    fn a_disk_stays_whatever_its_backend_and_its_guest_write() {
        phy().stays();
        qdisk().stays();
        cdrom().stays();
        phy().entry(r#"{ "backend": "phy", "script": "block", "specification": "xen" }"#).stays();
        phy().entry(r#"{ "script": "/etc/xen/scripts/block", "discard_enable": "True" }"#).stays();
    }

    /// libxl cuts every path at its first colon.
    #[test]
    fn a_block_devices_path_keeps_its_colons() {
        let path = "/dev/disk/by-path/pci-0000:00:1f.2-ata-1";
        let entry = format!(r#"{{ "pdev_path": "{path}" }}"#);
        phy().entry(&entry).live("params", path).stays();
        phy().turns("params", path, "pdev_path", &entry);
        let image = r#"{ "pdev_path": "/srv/a:b.qcow2" }"#;
        qdisk().turns("params", "qcow2:/srv/a:b.qcow2", "pdev_path", image);
    }

    #[test]
    fn one_disk_has_many_names() {
        for vdev in ["xvda", "d0p0", "51712"] {
            phy().entry(&format!(r#"{{ "vdev": "{vdev}" }}"#)).stays();
            phy().live("dev", vdev).stays();
        }
        let other = phy().entry(r#"{ "vdev": "xvdb" }"#).merge();
        let met: Vec<Presence> = other.reports.iter().map(|report| report.presence).collect();
        assert_eq!(met, [Presence::TemplateOnly, Presence::XenstoreOnly]);
    }

    #[test]
    fn a_drives_medium_follows_xenstore() {
        let inserted = r#"{ "pdev_path": "/srv/cd.iso", "format": "raw" }"#;
        cdrom().turns("params", "aio:/srv/cd.iso", "pdev_path", inserted);
        let loaded = cdrom().entry(inserted).live("params", "aio:/srv/cd.iso");
        loaded.clone().stays();
        loaded.turns("params", "aio:", "pdev_path", r#"{ "pdev_path": "", "format": "empty" }"#);
        loaded.turns("params", "aio:/srv/2.iso", "pdev_path", r#"{ "pdev_path": "/srv/2.iso" }"#);
    }

    #[test]
    fn each_key_of_a_disk_changes_its_field() {
        phy().turns("script", "/opt/block-x", "script", r#"{ "script": "/opt/block-x" }"#);
        phy().turns("script", "/etc/xen/scripts/block-x", "script", r#"{ "script": "block-x" }"#);
        phy().turns("removable", "1", "removable", r#"{ "removable": 1 }"#);
        qdisk().turns("mode", "r", "readwrite", r#"{ "readwrite": null }"#);
        phy().turns("device-type", "cdrom", "is_cdrom", r#"{ "is_cdrom": 1 }"#);
        phy().turns("direct-io-safe", "1", "direct_io_safe", r#"{ "direct_io_safe": true }"#);
        phy().turns("discard-enable", "0", "discard_enable", r#"{ "discard_enable": "False" }"#);
        let safe = phy().entry(r#"{ "direct_io_safe": true }"#).live("direct-io-safe", "1");
        safe.turns_without("direct-io-safe", "direct_io_safe", r#"{ "direct_io_safe": null }"#);
        let params = r#"{ "format": "vhd" }"#;
        qdisk().turns("params", "vhd:/srv/a.qcow2", "pdev_path", params);
        let set = phy().entry(r#"{ "specification": "xen" }"#);
        set.turns("specification", "virtio", "specification", r#"{ "specification": "virtio" }"#);
        let set = phy().entry(r#"{ "backend": "phy" }"#);
        set.turns("type", "standalone", "backend", r#"{ "backend": "standalone" }"#);
    }

    #[test]
    fn each_key_of_a_virtio_disk_changes_its_field() {
        let disk = phy()
            .entry(r#"{ "transport": "mmio", "irq": 34, "base": 33554432, "grant_usage": "True" }"#)
            .live("transport", "mmio")
            .live("irq", "34")
            .live("base", "33554432")
            .live("grant_usage", "1");
        disk.clone().stays();
        disk.turns("irq", "35", "irq", r#"{ "irq": 35 }"#);
        disk.turns("base", "4096", "base", r#"{ "base": 4096 }"#);
        disk.turns("grant_usage", "0", "grant_usage", r#"{ "grant_usage": "False" }"#);
        disk.refuses("transport", &["", "pci"]);
        disk.refuses("irq", &["", "-1", "0x22"]);
    }

    #[test]
    fn a_backend_in_a_driver_domain_is_followed_by_number_or_left_by_name() {
        let driver = "/local/domain/3/backend/vbd/7/51712";
        let elsewhere = phy()
            .gone("/local/domain/0")
            .live("backend", driver)
            .live(&format!("{driver}/state"), "4")
            .live(&format!("{driver}/hotplug-status"), "connected");
        elsewhere.clone().entry(r#"{ "backend_domid": 3 }"#).stays();
        elsewhere.clone().entry(r#"{ "backend_domname": "storage" }"#).stays();
        let outcome = elsewhere.merge();
        assert_eq!(outcome.config.disks[0].backend_domid.get(), 3);
        assert_eq!(outcome.only().changes[0].field, "backend_domid");
        assert_eq!(outcome.only().attachment, Attachment::Connected);
    }

    #[test]
    fn a_disk_is_built() {
        phy().is_built_as(
            r#"{ "pdev_path": "/dev/vg/a", "vdev": "xvda", "format": "raw", "readwrite": 1,
                 "backend": "phy", "specification": "xen" }"#,
        );
        qdisk().is_built_as(
            r#"{ "pdev_path": "/srv/a.qcow2", "vdev": "xvdb", "backend": "qdisk",
                 "format": "qcow2", "readwrite": 1, "discard_enable": "False",
                 "specification": "xen" }"#,
        );
        cdrom().is_built_as(
            r#"{ "pdev_path": "", "vdev": "hdc", "backend": "qdisk", "format": "empty",
                 "removable": 1, "is_cdrom": 1, "specification": "xen" }"#,
        );
        // The number tells the name.
        phy().gone("dev").is_built_as(
            r#"{ "pdev_path": "/dev/vg/a", "vdev": "xvda", "format": "raw", "readwrite": 1,
                 "backend": "phy", "specification": "xen" }"#,
        );
    }

    #[test]
    fn what_is_no_value_of_a_disk_leaves_the_template() {
        phy().refuses("params", &[]);
        qdisk().refuses("params", &["", "/srv/a", "lzma:/srv/a"]);
        phy().refuses("script", &[]);
        phy().refuses("removable", &["", "2", "yes"]);
        phy().refuses("mode", &["", "rw", "W"]);
        phy().refuses("device-type", &["", "floppy"]);
        phy().refuses("direct-io-safe", &["", "yes"]);
        phy().refuses("discard-enable", &["", "-1"]);
        let set = phy().entry(r#"{ "backend": "phy", "specification": "xen" }"#);
        set.refuses("specification", &["", "scsi"]);
    }

    #[test]
    fn the_policy_says_what_a_disk_of_one_view_is() {
        let unplugged = phy().gone("/libxl/7/device").gone("/local/domain/0");
        let unplugged = unplugged.gone("/local/domain/7/device");
        for (policy, kept) in [(Policy::LiveWins, 0), (Policy::Union, 1), (Policy::Template, 1)] {
            let outcome = unplugged.clone().policy(policy).merge();
            assert_eq!(outcome.config.disks.len(), kept);
            assert_eq!(outcome.only().attachment, Attachment::Absent);
        }
        let plugged = phy().entries(&[]).policy(Policy::Template).merge();
        assert!(plugged.config.disks.is_empty());
        assert_eq!(plugged.only().note, Some(DeviceNote::NotAsked));
    }
}
