//! The schema: every struct, enumeration and union that can be reached from a domain's configuration, as Rust types.
//!
//! Field names are libxl's, except where Rust reserves them (`type`) or libxl's say nothing (`u`); each struct's `keys`
//! remembers what was read. The tables in the modules below are the whole truth about names, types and defaults, and
//! [`structs`] and [`enums`] give them as data.

mod arch;
mod bitmap;
mod build_info;
mod config;
mod cpuid;
mod create_info;
mod disk;
mod display;
mod enumeration;
pub(crate) mod field;
mod guest;
mod keyed_union;
mod nic;
mod other_devices;
mod pci;
pub(crate) mod record;
mod scalar;
mod schema;
mod sound;
mod table;
mod usb;

pub use arch::{ArchArm, ArchX86, ArmSci, ArmSciType, GicVersion, SveType, VuartType};
pub use bitmap::Bitmap;
pub use build_info::{
    Altp2mMode, BuildInfo, DeviceModelVersion, IomemRange, IoportRange, SchedParams, Scheduler,
    TeeType, TimerMode, TscMode, VnodeInfo, XenstoreQuota, XenstoreQuotaItem,
};
pub use config::{DomainConfig, ShutdownAction};
pub use cpuid::{CpuidLeaf, CpuidPolicy, MsrPolicy};
pub use create_info::{CreateInfo, DomainType, Passthrough};
pub use disk::{Disk, DiskBackend, DiskFormat, DiskSpecification, DiskTransport};
pub use display::{Connector, Sdl, Spice, Vdispl, Vfb, Vga, VgaKind, Vkb, VkbBackend, Vnc};
pub use enumeration::OtherName;
pub use guest::{
    BiosType, BuildKind, GfxPassthruKind, HdType, HvmInfo, PvInfo, PvhInfo, Smbios, SmbiosType,
    VendorDevice,
};
pub use nic::{Nic, NicType};
pub use other_devices::{
    Channel, ChannelKind, ChannelSocket, P9, P9Type, Pvcallsif, Virtio, VirtioTransport, Vtpm,
};
pub use pci::{Dtdev, Pci, Rdm, RdmPolicy, RdmReserve, RdmStrategy};
pub use record::Keys;
pub use scalar::{ConfigDomid, DefBool, DevId, KeyValueList, Mac, MemKb, StringList, VmGenId};
pub use schema::{EnumInfo, FieldInfo, StructInfo};
pub use sound::{Vsnd, VsndFormat, VsndParams, VsndPcm, VsndStream, VsndStreamType};
pub use usb::{UsbHostdev, Usbctrl, UsbctrlType, Usbdev, UsbdevKind};

use enumeration::Enumeration;
use keyed_union::KeyedUnion;

macro_rules! infos {
    ($($record:ident),*) => { vec![ $( StructInfo::of::<$record>() ),* ] };
}

/// Every struct of the schema that JSON can hold.
pub fn structs() -> Vec<StructInfo> {
    infos![
        DomainConfig,
        CreateInfo,
        BuildInfo,
        HvmInfo,
        PvInfo,
        PvhInfo,
        ArchArm,
        ArchX86,
        VnodeInfo,
        SchedParams,
        IoportRange,
        IomemRange,
        Smbios,
        Vga,
        Vnc,
        Sdl,
        Spice,
        RdmReserve,
        ArmSci,
        XenstoreQuota,
        XenstoreQuotaItem,
        Disk,
        Nic,
        Pci,
        Rdm,
        Dtdev,
        Vfb,
        Vkb,
        Virtio,
        Vtpm,
        P9,
        Pvcallsif,
        Vdispl,
        Connector,
        Vsnd,
        VsndParams,
        VsndPcm,
        VsndStream,
        Channel,
        ChannelSocket,
        Usbctrl,
        Usbdev,
        UsbHostdev
    ]
}

macro_rules! enum_infos {
    ($($name:ident),*) => { vec![ $( $name::INFO ),* ] };
}

/// Every enumeration of the schema, those that choose the variant of a keyed union included.
pub fn enums() -> Vec<EnumInfo> {
    enum_infos![
        DomainType,
        Passthrough,
        TscMode,
        DeviceModelVersion,
        Scheduler,
        TimerMode,
        TeeType,
        BiosType,
        SmbiosType,
        HdType,
        VgaKind,
        GfxPassthruKind,
        VendorDevice,
        RdmStrategy,
        RdmPolicy,
        GicVersion,
        VuartType,
        SveType,
        ArmSciType,
        Altp2mMode,
        DiskBackend,
        DiskFormat,
        DiskSpecification,
        DiskTransport,
        NicType,
        VkbBackend,
        VirtioTransport,
        P9Type,
        VsndFormat,
        VsndStreamType,
        UsbctrlType,
        ShutdownAction,
        ChannelKind,
        UsbdevKind
    ]
}
