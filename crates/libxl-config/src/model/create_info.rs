//! What a domain is.

use uuid::Uuid;

use super::enumeration::enumerations;
use super::scalar::{ConfigDomid, DefBool, KeyValueList};
use super::table::records;

records! {
    /// What a domain is: kind, name, identity.
    CreateInfo = "domain_create_info" {
        /// Kind of guest; `b_info.kind` says it once more.
        domain_type as "type": DomainType,
        /// Hardware assisted paging.
        hap: DefBool,
        /// Out-of-sync page tables with shadow paging.
        oos: DefBool,
        /// Number of its XSM label; 0 if given by `ssid_label` or not at all.
        ssidref: u32,
        /// Its XSM label.
        ssid_label: Option<String>,
        /// Its name, unique on the host.
        name: Option<String>,
        /// Which domid to create it under; never the one it got.
        domid: ConfigDomid,
        /// Its identity; nil if libxl is to choose.
        uuid: Uuid,
        /// Values written below `/vm/UUID` or the domain's `vm-data`.
        xsdata: KeyValueList,
        /// Values written below the domain's `platform`.
        platformdata: KeyValueList,
        /// Number of its CPU pool.
        poolid: u32,
        /// Name of its CPU pool.
        pool_name: Option<String>,
        /// Whether libxl runs hotplug scripts, rather than udev.
        run_hotplug_scripts: DefBool,
        /// Whether it serves backends to other domains.
        driver_domain: DefBool,
        /// How devices are passed through.
        passthrough: Passthrough,
        /// Keeps the suspend event channel as xend did.
        xend_suspend_evtchn_compat: DefBool,
    }
}

enumerations! {
    /// Kind of guest.
    DomainType = "domain_type", default Invalid {
        Invalid = "invalid" -1,
        Hvm = "hvm" 1,
        Pv = "pv" 2,
        Pvh = "pvh" 3,
    }

    /// How devices are passed through the IOMMU.
    Passthrough = "passthrough", default Default {
        Default = "default" 0,
        Disabled = "disabled" 1,
        Enabled = "enabled" 2,
        SyncPt = "sync_pt" 3,
        SharePt = "share_pt" 4,
    }
}
