//! A whole domain.

use super::build_info::BuildInfo;
use super::create_info::CreateInfo;
use super::disk::Disk;
use super::display::{Vdispl, Vfb, Vkb};
use super::enumeration::enumerations;
use super::nic::Nic;
use super::other_devices::{Channel, P9, Pvcallsif, Virtio, Vtpm};
use super::pci::{Dtdev, Pci, Rdm};
use super::sound::Vsnd;
use super::table::records;
use super::usb::{Usbctrl, Usbdev};

records! {
    /// A whole domain: what it is, what it is built from, its devices, and what happens when it stops.
    DomainConfig = "domain_config" {
        /// What it is.
        c_info: CreateInfo,
        /// What it is built from.
        b_info: BuildInfo,
        /// Disks.
        disks: Vec<Disk>,
        /// Network cards.
        nics: Vec<Nic>,
        /// PCI functions passed through.
        pcidevs: Vec<Pci>,
        /// Ranges of reserved device memory.
        rdms: Vec<Rdm>,
        /// Device tree devices passed through.
        dtdevs: Vec<Dtdev>,
        /// Paravirtual screens.
        vfbs: Vec<Vfb>,
        /// Paravirtual keyboards and pointers.
        vkbs: Vec<Vkb>,
        /// Virtio devices.
        @new virtios: Vec<Virtio>,
        /// Virtual TPMs.
        vtpms: Vec<Vtpm>,
        /// 9pfs shares.
        p9s: Vec<P9>,
        /// PV calls frontends.
        pvcallsifs: Vec<Pvcallsif>,
        /// Paravirtual displays.
        vdispls: Vec<Vdispl>,
        /// Paravirtual sound cards.
        vsnds: Vec<Vsnd>,
        /// Channels to the host.
        channels: Vec<Channel>,
        /// USB controllers.
        usbctrls: Vec<Usbctrl>,
        /// USB devices.
        usbdevs: Vec<Usbdev>,
        /// When it shuts itself down.
        on_poweroff: ShutdownAction,
        /// When it reboots.
        on_reboot: ShutdownAction,
        /// When its watchdog fires.
        on_watchdog: ShutdownAction,
        /// When it crashes.
        on_crash: ShutdownAction,
        /// When it asks for a soft reset.
        on_soft_reset: ShutdownAction,
    }
}

enumerations! {
    /// What happens when a domain stops.
    ShutdownAction = "action_on_shutdown", default Destroy {
        Destroy = "destroy" 1,
        Restart = "restart" 2,
        RestartRename = "restart_rename" 3,
        Preserve = "preserve" 4,
        CoredumpDestroy = "coredump_destroy" 5,
        CoredumpRestart = "coredump_restart" 6,
        SoftReset = "soft_reset" 7,
    }
}
