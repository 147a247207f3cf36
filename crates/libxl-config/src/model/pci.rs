//! Devices of the host passed through, and the memory they reserve.

use super::enumeration::enumerations;
use super::table::records;

records! {
    /// One PCI function passed through, identified by its address on the host.
    Pci = "device_pci" {
        /// Function number on the host.
        func: u8,
        /// Device number on the host.
        dev: u8,
        /// Bus number on the host.
        bus: u8,
        /// Segment number on the host.
        domain: i32,
        /// Device and function in the guest; 0 if it does not matter.
        vdevfn: u32,
        /// Which functions of the device; one bit each.
        vfunc_mask: u32,
        /// Whether MSI is translated to INTx.
        msitranslate: bool,
        /// Whether the guest may manage its power.
        power_mgmt: bool,
        /// Whether all of its configuration space can be written.
        permissive: bool,
        /// Whether it is taken from the host's driver.
        seize: bool,
        /// What a conflict of its reserved memory means.
        rdm_policy: RdmPolicy,
        /// Its name in the list of assignable devices.
        name: Option<String>,
    }

    /// One range of reserved device memory.
    Rdm = "device_rdm" {
        /// First address.
        start: u64,
        /// Length in octets.
        size: u64,
        /// What a conflict means.
        policy: RdmPolicy,
    }

    /// What to do about reserved device memory.
    RdmReserve = "rdm_reserve" {
        /// Which memory is set aside.
        strategy: RdmStrategy,
        /// What a conflict means.
        policy: RdmPolicy,
    }

    /// One device of the device tree passed through, identified by `path`.
    Dtdev = "device_dtdev" {
        /// Its path in the host's device tree.
        path: Option<String>,
    }
}

enumerations! {
    /// Which reserved device memory is set aside.
    RdmStrategy = "rdm_reserve_strategy", default Ignore {
        Ignore = "ignore" 0,
        Host = "host" 1,
    }

    /// What a conflict with reserved device memory means.
    RdmPolicy = "rdm_reserve_policy", default Invalid {
        Invalid = "invalid" -1,
        Strict = "strict" 0,
        Relaxed = "relaxed" 1,
    }
}
