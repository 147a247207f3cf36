//! Disks: `vbd` and `virtio_disk`, served by `vbd` (phy), `vbd3` (tap), `qdisk` or a backend of their own.

use super::rule::{
    defbool_rule, enum_rule, expected_script, flag, number, number_rule, script_name, set_flag_rule,
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
        Rule {
            key: "removable",
            field: "removable",
            expected: |disk, _| Expected::flag(disk.removable != 0),
            take: |disk, live, _| {
                disk.removable = i32::from(flag(live)?);
                Ok(())
            },
            absent: Absence::Keep,
        },
        Rule {
            key: "mode",
            field: "readwrite",
            expected: |disk, _| Expected::text(if disk.readwrite == 0 { "r" } else { "w" }),
            take: |disk, live, _| {
                disk.readwrite = match live {
                    "w" => 1,
                    "r" => 0,
                    _ => return Err(BadValue::not_a(live, "r or w")),
                };
                Ok(())
            },
            absent: Absence::Keep,
        },
        Rule {
            key: "device-type",
            field: "is_cdrom",
            expected: |disk, _| Expected::text(if disk.is_cdrom == 0 { "disk" } else { "cdrom" }),
            take: |disk, live, _| {
                disk.is_cdrom = match live {
                    "cdrom" => 1,
                    "disk" => 0,
                    _ => return Err(BadValue::not_a(live, "disk or cdrom")),
                };
                Ok(())
            },
            absent: Absence::Keep,
        },
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
        Ok(Disk { vdev, format: DiskFormat::Raw, ..Disk::default() })
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
fn format_name(format: &DiskFormat) -> &'static str {
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
    let (format, path) =
        value.split_once(':').ok_or_else(|| BadValue::not_a(value, "FORMAT:PATH"))?;
    disk.format = match format {
        "aio" if path.is_empty() => DiskFormat::Empty,
        "aio" => DiskFormat::Raw,
        "qcow" => DiskFormat::Qcow,
        "qcow2" => DiskFormat::Qcow2,
        "vhd" => DiskFormat::Vhd,
        "qed" => DiskFormat::Qed,
        _ => return Err(BadValue::not_a(format, "one of aio, qcow, qcow2, vhd, qed")),
    };
    disk.pdev_path = Some(path.to_owned());
    Ok(())
}

fn colo(disk: &Disk, field: Option<&str>) -> Expected {
    if disk.colo_enable == DefBool::True { Expected::optional(field) } else { Expected::Nothing }
}
