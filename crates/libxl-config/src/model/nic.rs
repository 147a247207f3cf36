//! Network cards.

use super::enumeration::enumerations;
use super::scalar::{ConfigDomid, DefBool, DevId, Mac};
use super::table::records;

records! {
    /// One network card, identified by `devid`.
    Nic = "device_nic" {
        /// Domain that runs the backend.
        backend_domid: ConfigDomid,
        /// Name of that domain; takes precedence over the number.
        backend_domname: Option<String>,
        /// Number of the device; -1 if libxl is to choose.
        devid: DevId,
        /// MTU; 0 leaves it to the bridge.
        mtu: i32,
        /// VLAN specification for the bridge.
        @new vlan: Option<String>,
        /// Model of the emulated card.
        model: Option<String>,
        /// MAC address; all zero if libxl is to choose.
        mac: Mac,
        /// IP addresses for routing scripts.
        ip: Option<String>,
        /// Bridge on the host.
        bridge: Option<String>,
        /// Name of the interface on the host.
        ifname: Option<String>,
        /// Hotplug script.
        script: Option<String>,
        /// Whether there is an emulated card as well.
        nictype: NicType,
        /// Rate limit: octets in each interval; 0 is no limit.
        rate_bytes_per_interval: u64,
        /// Rate limit: length of the interval, in microseconds.
        rate_interval_usecs: u32,
        /// Device towards the gateway, for routing scripts.
        gatewaydev: Option<String>,
        /// COLO replication: forward device.
        coloft_forwarddev: Option<String>,
        /// COLO replication: sock mirror id.
        colo_sock_mirror_id: Option<String>,
        /// COLO replication: sock mirror ip.
        colo_sock_mirror_ip: Option<String>,
        /// COLO replication: sock mirror port.
        colo_sock_mirror_port: Option<String>,
        /// COLO replication: sock compare pri in id.
        colo_sock_compare_pri_in_id: Option<String>,
        /// COLO replication: sock compare pri in ip.
        colo_sock_compare_pri_in_ip: Option<String>,
        /// COLO replication: sock compare pri in port.
        colo_sock_compare_pri_in_port: Option<String>,
        /// COLO replication: sock compare sec in id.
        colo_sock_compare_sec_in_id: Option<String>,
        /// COLO replication: sock compare sec in ip.
        colo_sock_compare_sec_in_ip: Option<String>,
        /// COLO replication: sock compare sec in port.
        colo_sock_compare_sec_in_port: Option<String>,
        /// COLO replication: sock compare notify id.
        colo_sock_compare_notify_id: Option<String>,
        /// COLO replication: sock compare notify ip.
        colo_sock_compare_notify_ip: Option<String>,
        /// COLO replication: sock compare notify port.
        colo_sock_compare_notify_port: Option<String>,
        /// COLO replication: sock redirector0 id.
        colo_sock_redirector0_id: Option<String>,
        /// COLO replication: sock redirector0 ip.
        colo_sock_redirector0_ip: Option<String>,
        /// COLO replication: sock redirector0 port.
        colo_sock_redirector0_port: Option<String>,
        /// COLO replication: sock redirector1 id.
        colo_sock_redirector1_id: Option<String>,
        /// COLO replication: sock redirector1 ip.
        colo_sock_redirector1_ip: Option<String>,
        /// COLO replication: sock redirector1 port.
        colo_sock_redirector1_port: Option<String>,
        /// COLO replication: sock redirector2 id.
        colo_sock_redirector2_id: Option<String>,
        /// COLO replication: sock redirector2 ip.
        colo_sock_redirector2_ip: Option<String>,
        /// COLO replication: sock redirector2 port.
        colo_sock_redirector2_port: Option<String>,
        /// COLO replication: filter mirror queue.
        colo_filter_mirror_queue: Option<String>,
        /// COLO replication: filter mirror outdev.
        colo_filter_mirror_outdev: Option<String>,
        /// COLO replication: filter redirector0 queue.
        colo_filter_redirector0_queue: Option<String>,
        /// COLO replication: filter redirector0 indev.
        colo_filter_redirector0_indev: Option<String>,
        /// COLO replication: filter redirector0 outdev.
        colo_filter_redirector0_outdev: Option<String>,
        /// COLO replication: filter redirector1 queue.
        colo_filter_redirector1_queue: Option<String>,
        /// COLO replication: filter redirector1 indev.
        colo_filter_redirector1_indev: Option<String>,
        /// COLO replication: filter redirector1 outdev.
        colo_filter_redirector1_outdev: Option<String>,
        /// COLO replication: compare pri in.
        colo_compare_pri_in: Option<String>,
        /// COLO replication: compare sec in.
        colo_compare_sec_in: Option<String>,
        /// COLO replication: compare out.
        colo_compare_out: Option<String>,
        /// COLO replication: compare notify dev.
        colo_compare_notify_dev: Option<String>,
        /// COLO replication: sock sec redirector0 id.
        colo_sock_sec_redirector0_id: Option<String>,
        /// COLO replication: sock sec redirector0 ip.
        colo_sock_sec_redirector0_ip: Option<String>,
        /// COLO replication: sock sec redirector0 port.
        colo_sock_sec_redirector0_port: Option<String>,
        /// COLO replication: sock sec redirector1 id.
        colo_sock_sec_redirector1_id: Option<String>,
        /// COLO replication: sock sec redirector1 ip.
        colo_sock_sec_redirector1_ip: Option<String>,
        /// COLO replication: sock sec redirector1 port.
        colo_sock_sec_redirector1_port: Option<String>,
        /// COLO replication: filter sec redirector0 queue.
        colo_filter_sec_redirector0_queue: Option<String>,
        /// COLO replication: filter sec redirector0 indev.
        colo_filter_sec_redirector0_indev: Option<String>,
        /// COLO replication: filter sec redirector0 outdev.
        colo_filter_sec_redirector0_outdev: Option<String>,
        /// COLO replication: filter sec redirector1 queue.
        colo_filter_sec_redirector1_queue: Option<String>,
        /// COLO replication: filter sec redirector1 indev.
        colo_filter_sec_redirector1_indev: Option<String>,
        /// COLO replication: filter sec redirector1 outdev.
        colo_filter_sec_redirector1_outdev: Option<String>,
        /// COLO replication: filter sec rewriter0 queue.
        colo_filter_sec_rewriter0_queue: Option<String>,
        /// COLO replication: checkpoint host.
        colo_checkpoint_host: Option<String>,
        /// COLO replication: checkpoint port.
        colo_checkpoint_port: Option<String>,
        /// Whether the frontend trusts the backend.
        trusted: DefBool,
    }
}

enumerations! {
    /// Emulated and paravirtual network card, or the latter only.
    NicType = "nic_type", default Unknown {
        Unknown = "unknown" 0,
        VifIoemu = "vif_ioemu" 1,
        Vif = "vif" 2,
    }
}
