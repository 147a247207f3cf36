//! What only one kind of guest has.

use super::bitmap::Bitmap;
use super::build_info::TimerMode;
use super::display::{Sdl, Spice, Vga, Vnc};
use super::enumeration::enumerations;
use super::keyed_union::keyed_union;
use super::pci::RdmReserve;
use super::scalar::{DefBool, MemKb, StringList, VmGenId};
use super::table::records;

records! {
    /// What only an HVM guest has.
    HvmInfo = "domain_build_info.hvm" {
        /// Path of the firmware.
        firmware: Option<String>,
        /// Firmware.
        bios: BiosType,
        /// Whether it sees PAE.
        pae: DefBool,
        /// Deprecated for `b_info.apic`.
        apic: DefBool,
        /// Whether it sees ACPI tables.
        acpi: DefBool,
        /// Whether it can sleep to memory.
        acpi_s3: DefBool,
        /// Whether it can sleep to disk.
        acpi_s4: DefBool,
        /// Whether ACPI says it is a laptop or slate.
        acpi_laptop_slate: DefBool,
        /// Whether it sees the no-execute bit.
        nx: DefBool,
        /// Whether it sees the default set of Hyper-V enlightenments.
        viridian: DefBool,
        /// Enlightenments it sees besides.
        viridian_enable: Bitmap,
        /// Enlightenments it does not see.
        viridian_disable: Bitmap,
        /// Offset of its clock, in seconds.
        timeoffset: Option<String>,
        /// Whether it sees a HPET.
        hpet: DefBool,
        /// Whether its timers are aligned to save power.
        vpt_align: DefBool,
        /// Size of the MMIO hole below 4 GiB.
        mmio_hole_memkb: MemKb,
        /// Deprecated for `b_info.timer_mode`.
        timer_mode: TimerMode,
        /// Deprecated for `b_info.nested_hvm`.
        nested_hvm: DefBool,
        /// Whether it may use alternate memory maps; `b_info.altp2m` has more choices.
        altp2m: DefBool,
        /// Path of system firmware for the BIOS.
        system_firmware: Option<String>,
        /// Path of SMBIOS structures.
        smbios_firmware: Option<String>,
        /// SMBIOS strings.
        @new smbios: Vec<Smbios>,
        /// Path of ACPI tables.
        acpi_firmware: Option<String>,
        /// Controller that emulated disks hang on.
        hdtype: HdType,
        /// Whether there is no emulated graphics card.
        nographic: DefBool,
        /// The emulated graphics card.
        vga: Vga,
        /// VNC server.
        vnc: Vnc,
        /// Keyboard layout.
        keymap: Option<String>,
        /// SDL window.
        sdl: Sdl,
        /// SPICE server.
        spice: Spice,
        /// Whether a graphics card of the host is its first.
        gfx_passthru: DefBool,
        /// Which kind of card that is.
        gfx_passthru_kind: GfxPassthruKind,
        /// Where its serial port goes.
        serial: Option<String>,
        /// Boot order, letters as QEMU takes them.
        boot: Option<String>,
        /// Whether there is an emulated USB bus.
        usb: DefBool,
        /// USB version of its controller.
        usbversion: i32,
        /// One emulated USB device.
        usbdevice: Option<String>,
        /// Whether libxl adds a paravirtual keyboard.
        vkb_device: DefBool,
        /// Emulated sound card.
        soundhw: Option<String>,
        /// Whether the Xen platform device is there.
        xen_platform_pci: DefBool,
        /// Whether that device's memory is uncached.
        @new xen_platform_pci_bar_uc: DefBool,
        /// Emulated USB devices.
        usbdevice_list: StringList,
        /// Vendor device.
        vendor_device: VendorDevice,
        /// Windows generation id.
        ms_vm_genid: VmGenId,
        /// Where its serial ports go.
        serial_list: StringList,
        /// Reserved device memory.
        rdm: RdmReserve,
        /// Boundary below which reserved memory conflicts matter.
        rdm_mem_boundary_memkb: MemKb,
        /// Machine check capabilities, one bit each.
        mca_caps: u64,
        /// Whether it may use physical interrupts through event channels.
        @new pirq: DefBool,
    }

    /// What only a PV guest has.
    PvInfo = "domain_build_info.pv" {
        /// Deprecated for `b_info.kernel`.
        kernel: Option<String>,
        /// Memory beyond its target.
        slack_memkb: MemKb,
        /// Deprecated for `b_info.bootloader`.
        bootloader: Option<String>,
        /// Deprecated for `b_info.bootloader_args`.
        bootloader_args: StringList,
        /// Deprecated for `b_info.cmdline`.
        cmdline: Option<String>,
        /// Deprecated for `b_info.ramdisk`.
        ramdisk: Option<String>,
        /// Whether it sees the host's memory map.
        e820_host: DefBool,
    }

    /// What only a PVH guest has.
    PvhInfo = "domain_build_info.pvh" {
        /// Whether it runs as a PV guest inside.
        pvshim: DefBool,
        /// Path of the shim.
        pvshim_path: Option<String>,
        /// Command line of the shim.
        pvshim_cmdline: Option<String>,
        /// More of that command line.
        pvshim_extra: Option<String>,
    }

    /// One SMBIOS string.
    Smbios = "smbios" {
        /// Which string.
        key: Option<SmbiosType>,
        /// The string.
        value: Option<String>,
    }
}

keyed_union! {
    /// What only one kind of guest has, under the key `type.` and its name.
    ///
    /// `c_info.type` says the kind once more, and nothing in libxl checks that the two agree.
    BuildKind = "type" of "domain_type", default (BuildKind::Invalid) {
        /// No kind has been chosen.
        Invalid = "invalid" -1,
        /// A fully virtualised guest.
        Hvm = "hvm" 1: Box<HvmInfo>,
        /// A paravirtual guest.
        Pv = "pv" 2: PvInfo,
        /// A paravirtual guest in a hardware container.
        Pvh = "pvh" 3: PvhInfo,
    }
}

enumerations! {
    /// Firmware of an HVM guest.
    BiosType = "bios_type", default Unknown {
        Unknown = "unknown" 0,
        Rombios = "rombios" 1,
        Seabios = "seabios" 2,
        Ovmf = "ovmf" 3,
    }

    /// Which SMBIOS string.
    SmbiosType = "smbios_type" {
        BiosVendor = "bios_vendor" 1,
        BiosVersion = "bios_version" 2,
        SystemManufacturer = "system_manufacturer" 3,
        SystemProductName = "system_product_name" 4,
        SystemVersion = "system_version" 5,
        SystemSerialNumber = "system_serial_number" 6,
        BaseboardManufacturer = "baseboard_manufacturer" 7,
        BaseboardProductName = "baseboard_product_name" 8,
        BaseboardVersion = "baseboard_version" 9,
        BaseboardSerialNumber = "baseboard_serial_number" 10,
        BaseboardAssetTag = "baseboard_asset_tag" 11,
        BaseboardLocationInChassis = "baseboard_location_in_chassis" 12,
        EnclosureManufacturer = "enclosure_manufacturer" 13,
        EnclosureSerialNumber = "enclosure_serial_number" 14,
        EnclosureAssetTag = "enclosure_asset_tag" 15,
        BatteryManufacturer = "battery_manufacturer" 16,
        BatteryDeviceName = "battery_device_name" 17,
        Oem = "oem" 18,
    }

    /// Controller that emulated disks hang on.
    HdType = "hdtype", default Ide {
        Ide = "ide" 1,
        Ahci = "ahci" 2,
    }

    /// Which kind of graphics card is passed through.
    GfxPassthruKind = "gfx_passthru_kind", default Default {
        Default = "default" 0,
        Igd = "igd" 1,
    }

    /// Vendor device that Windows updates look for.
    VendorDevice = "vendor_device", default None {
        None = "none" 0,
        Xenserver = "xenserver" 1,
    }
}
