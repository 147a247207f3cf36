//! Disks.

use super::enumeration::enumerations;
use super::scalar::{ConfigDomid, DefBool};
use super::table::records;

records! {
    /// One virtual disk, identified by `vdev`.
    Disk = "device_disk" {
        /// Domain that runs the backend.
        backend_domid: ConfigDomid,
        /// Name of that domain; takes precedence over the number.
        backend_domname: Option<String>,
        /// What the disk is: a path or what `script` makes of it.
        pdev_path: Option<String>,
        /// Name of the disk in the guest, as `xvda` or `hdc`.
        vdev: Option<String>,
        /// What serves it; unknown leaves it to libxl.
        backend: DiskBackend,
        /// Format of the image.
        format: DiskFormat,
        /// Hotplug script.
        script: Option<String>,
        /// 1 if the medium can be changed.
        removable: i32,
        /// 1 if it can be written; 0, read-only, is not written down.
        readwrite: i32,
        /// 1 if it is a CD-ROM drive.
        is_cdrom: i32,
        /// Whether the image may be opened with direct I/O.
        direct_io_safe: bool,
        /// Whether discards reach the image.
        discard_enable: DefBool,
        /// Which protocol it speaks.
        specification: DiskSpecification,
        /// How a virtio disk is reached.
        transport: DiskTransport,
        /// Interrupt of a virtio disk.
        irq: u32,
        /// Address of a virtio disk.
        base: u64,
        /// COLO replication is on.
        colo_enable: DefBool,
        /// COLO replication is on at the receiver.
        colo_restore_enable: DefBool,
        /// COLO replication: host of the other side.
        colo_host: Option<String>,
        /// COLO replication: port of the other side.
        colo_port: i32,
        /// COLO replication: name of the NBD export.
        colo_export: Option<String>,
        /// COLO replication: active disk.
        active_disk: Option<String>,
        /// COLO replication: hidden disk.
        hidden_disk: Option<String>,
        /// Whether the frontend trusts the backend.
        trusted: DefBool,
        /// Whether grants are used by a virtio device.
        @new grant_usage: DefBool,
    }
}

enumerations! {
    /// What serves a disk.
    DiskBackend = "disk_backend", default Unknown {
        Unknown = "unknown" 0,
        Phy = "phy" 1,
        Tap = "tap" 2,
        Qdisk = "qdisk" 3,
        Standalone = "standalone" 4,
    }

    /// Format of a disk image.
    DiskFormat = "disk_format", default Unknown {
        Unknown = "unknown" 0,
        Qcow = "qcow" 1,
        Qcow2 = "qcow2" 2,
        Vhd = "vhd" 3,
        Raw = "raw" 4,
        Empty = "empty" 5,
        Qed = "qed" 6,
    }

    /// Which protocol a disk speaks.
    DiskSpecification = "disk_specification", default Unknown {
        Unknown = "unknown" 0,
        Xen = "xen" 1,
        Virtio = "virtio" 2,
    }

    /// How a virtio disk is reached.
    DiskTransport = "disk_transport", default Unknown {
        Unknown = "unknown" 0,
        Mmio = "mmio" 1,
    }
}
