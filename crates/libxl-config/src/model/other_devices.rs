//! Channels, shares, TPMs and other small device classes.

use uuid::Uuid;

use super::enumeration::enumerations;
use super::keyed_union::keyed_union;
use super::scalar::{ConfigDomid, DefBool, DevId};
use super::table::records;

records! {
    /// One virtio device, identified by `devid`.
    Virtio = "device_virtio" {
        /// Domain that runs the backend.
        backend_domid: ConfigDomid,
        /// Name of that domain; takes precedence over the number.
        backend_domname: Option<String>,
        /// Device tree compatible string, as `virtio,device22`.
        device as "type": Option<String>,
        /// How it is reached.
        transport: VirtioTransport,
        /// Whether grants are used by a virtio device.
        grant_usage: DefBool,
        /// Number of the device; -1 if libxl is to choose.
        devid: DevId,
        /// Its interrupt.
        irq: u32,
        /// Its address.
        base: u64,
    }

    /// One virtual TPM, identified by `devid`.
    Vtpm = "device_vtpm" {
        /// Domain that runs the backend.
        backend_domid: ConfigDomid,
        /// Name of that domain; takes precedence over the number.
        backend_domname: Option<String>,
        /// Number of the device; -1 if libxl is to choose.
        devid: DevId,
        /// Identity that its state is kept under; nil if libxl is to choose.
        uuid: Uuid,
    }

    /// One 9pfs share; its `tag` identifies it, as libxl never stores a `devid`.
    P9 = "device_p9" {
        /// Domain that runs the backend.
        backend_domid: ConfigDomid,
        /// Name of that domain; takes precedence over the number.
        backend_domname: Option<String>,
        /// Name the guest mounts it by.
        tag: Option<String>,
        /// Directory on the host.
        path: Option<String>,
        /// How ownership is mapped.
        security_model: Option<String>,
        /// Number of the device; -1 if libxl is to choose.
        devid: DevId,
        /// What serves it.
        @new p9_type as "type": P9Type,
        /// Most space, in MiB.
        @new max_space: i32,
        /// Most files.
        @new max_files: i32,
        /// Most files open at once.
        @new max_open_files: i32,
        /// Whether old files are deleted when space runs out.
        @new auto_delete: bool,
    }

    /// One PV calls frontend, identified by `devid`.
    Pvcallsif = "device_pvcallsif" {
        /// Domain that runs the backend.
        backend_domid: ConfigDomid,
        /// Name of that domain; takes precedence over the number.
        backend_domname: Option<String>,
        /// Number of the device; -1 if libxl is to choose.
        devid: DevId,
    }

    /// One channel to the host, identified by `devid`.
    Channel = "device_channel" {
        /// Domain that runs the backend.
        backend_domid: ConfigDomid,
        /// Name of that domain; takes precedence over the number.
        backend_domname: Option<String>,
        /// Number of the device; -1 if libxl is to choose.
        devid: DevId,
        /// Name the guest finds it by.
        name: Option<String>,
        /// Where it ends on the host.
        kind as "connection": ChannelKind,
    }

    /// A channel that ends in a Unix socket.
    ChannelSocket = "device_channel.socket" {
        /// Path of the socket.
        path: Option<String>,
    }
}

keyed_union! {
    /// Where a channel ends on the host, under the key `connection.` and its name.
    ChannelKind = "connection" of "channel_connection", default (ChannelKind::Unknown) {
        /// Not chosen.
        Unknown = "unknown" 0,
        /// A pseudo terminal that the backend makes.
        Pty = "pty" 1,
        /// A Unix socket.
        Socket = "socket" 2: ChannelSocket,
    }
}

enumerations! {
    /// How a virtio device is reached.
    VirtioTransport = "virtio_transport", default Unknown {
        Unknown = "unknown" 0,
        Mmio = "mmio" 1,
    }

    /// What serves a 9pfs share.
    P9Type = "p9_type", default Unknown {
        Unknown = "unknown" 0,
        Qemu = "qemu" 1,
        Xen9pfsd = "xen_9pfsd" 2,
    }
}
