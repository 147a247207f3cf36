//! What a domain is built from.

use super::arch::{ArchArm, ArchX86};
use super::bitmap::Bitmap;
use super::cpuid::CpuidPolicy;
use super::enumeration::enumerations;
use super::guest::BuildKind;
use super::scalar::{DefBool, MemKb, StringList};
use super::table::records;

records! {
    /// What a domain is built from: processors, memory, kernel, firmware.
    BuildInfo = "domain_build_info" {
        /// How many virtual CPUs there can be.
        max_vcpus: i32,
        /// Which of them are online at start.
        avail_vcpus: Bitmap,
        /// Which host CPUs it may run on (unused by current libxl).
        cpumap: Bitmap,
        /// Which host NUMA nodes its memory comes from.
        nodemap: Bitmap,
        /// For each virtual CPU, the host CPUs it may run on.
        vcpu_hard_affinity: Vec<Bitmap>,
        /// For each virtual CPU, the host CPUs it should run on.
        vcpu_soft_affinity: Vec<Bitmap>,
        /// Whether libxl chooses NUMA nodes.
        numa_placement: DefBool,
        /// How the time stamp counter is given to it.
        tsc_mode: TscMode,
        /// Most memory it can have.
        max_memkb: MemKb,
        /// Memory it has at start, video memory included.
        target_memkb: MemKb,
        /// Video memory; 0 is written, unlike unset.
        video_memkb: MemKb,
        /// Memory for shadow or HAP page tables.
        shadow_memkb: MemKb,
        /// Memory for IOMMU page tables.
        iommu_memkb: MemKb,
        /// Offset of its clock from the host's, in seconds.
        rtc_timeoffset: u32,
        /// Number of the XSM label after the build.
        exec_ssidref: u32,
        /// XSM label after the build.
        exec_ssid_label: Option<String>,
        /// Whether its clock starts in the host's time zone.
        localtime: DefBool,
        /// Whether migration is refused.
        disable_migrate: DefBool,
        /// Which CPU features it sees.
        cpuid: CpuidPolicy,
        /// First vdev libxl takes for disks it adds itself.
        blkdev_start: Option<String>,
        /// Virtual NUMA nodes.
        vnuma_nodes: Vec<VnodeInfo>,
        /// Most grant table frames; ~0 leaves it to libxl.
        max_grant_frames: u32 = u32::MAX,
        /// Most maptrack frames; ~0 leaves it to libxl.
        max_maptrack_frames: u32 = u32::MAX,
        /// Highest grant table version; -1 leaves it to libxl.
        max_grant_version: i32 = -1,
        /// Which QEMU emulates the platform.
        device_model_version: DeviceModelVersion,
        /// Whether QEMU runs in a domain of its own.
        device_model_stubdomain: DefBool,
        /// Memory of that domain.
        stubdomain_memkb: MemKb,
        /// Kernel of that domain.
        stubdomain_kernel: Option<String>,
        /// Kernel command line of that domain.
        stubdomain_cmdline: Option<String>,
        /// Ramdisk of that domain.
        stubdomain_ramdisk: Option<String>,
        /// Path of the QEMU binary.
        device_model: Option<String>,
        /// Number of the XSM label of QEMU's domain.
        device_model_ssidref: u32,
        /// XSM label of QEMU's domain.
        device_model_ssid_label: Option<String>,
        /// Host user that QEMU runs as.
        device_model_user: Option<String>,
        /// More arguments for QEMU.
        extra: StringList,
        /// More arguments for QEMU if it only serves backends.
        extra_pv: StringList,
        /// More arguments for QEMU if it emulates the platform.
        extra_hvm: StringList,
        /// Scheduler parameters.
        sched_params: SchedParams,
        /// I/O ports passed through.
        ioports: Vec<IoportRange>,
        /// Physical interrupts passed through.
        irqs: Vec<u32>,
        /// I/O memory passed through.
        iomem: Vec<IomemRange>,
        /// Colours of the last level cache its memory may have.
        @new llc_colors: Vec<u32>,
        /// Whether memory is claimed before the build.
        claim_mode: DefBool,
        /// How many event channels it may have; 0 leaves it to libxl.
        event_channels: u32,
        /// Path of the kernel on the host.
        kernel: Option<String>,
        /// Kernel command line.
        cmdline: Option<String>,
        /// Path of the ramdisk on the host.
        ramdisk: Option<String>,
        /// Path of a partial device tree.
        device_tree: Option<String>,
        /// Whether it sees ACPI tables.
        acpi: DefBool,
        /// Program that finds kernel and ramdisk.
        bootloader: Option<String>,
        /// Arguments for that program.
        bootloader_args: StringList,
        /// Whether that program runs confined.
        @new bootloader_restrict: DefBool,
        /// Host user that program runs as.
        @new bootloader_user: Option<String>,
        /// What happens to timer ticks it missed.
        timer_mode: TimerMode,
        /// Whether it can run guests itself.
        nested_hvm: DefBool,
        /// Whether it sees an APIC.
        apic: DefBool,
        /// Whether QEMU runs confined.
        dm_restrict: DefBool,
        /// Trusted execution environment.
        tee: TeeType,
        /// What only its kind of guest has.
        kind as "type": BuildKind,
        /// What only Arm has.
        arch_arm: ArchArm,
        /// What only x86 has.
        arch_x86: ArchX86,
        /// Who may use alternate physical memory maps.
        altp2m: Altp2mMode,
        /// How many alternate maps there are; ~0 leaves it to libxl.
        @new altp2m_count: u32 = u32::MAX,
        /// Size of the processor trace buffer, in KiB.
        vmtrace_buf_kb: i32,
        /// Whether it sees performance counters.
        vpmu: DefBool,
        /// Whether accesses to unmapped memory trap.
        @new trap_unmapped_accesses: DefBool,
        /// Xenstore features it may see; ~0 is all.
        @new xenstore_feature_mask: u32 = u32::MAX,
        /// Xenstore quotas.
        @new xenstore_quota: XenstoreQuota,
    }

    /// One virtual NUMA node.
    VnodeInfo = "vnode_info" {
        /// Its memory.
        memkb: MemKb,
        /// Distances to each virtual node, itself included.
        distances: Vec<u32>,
        /// Host node it lies on.
        pnode: u32,
        /// Its virtual CPUs.
        vcpus: Bitmap,
    }

    /// Scheduler parameters; -1 leaves one to the scheduler.
    SchedParams = "domain_sched_params" {
        /// The scheduler these parameters are for.
        sched: Scheduler,
        /// Share of CPU time against others.
        weight: i32 = -1,
        /// Most CPU time, in percent of one CPU.
        cap: i32 = -1,
        /// Period, in microseconds.
        period: i32 = -1,
        /// Budget in each period, in microseconds.
        budget: i32 = -1,
        /// Whether it may use CPU time nobody else wants.
        extratime: i32 = -1,
        /// Length of a slice (SEDF).
        slice: i32 = -1,
        /// Latency (SEDF).
        latency: i32 = -1,
    }

    /// A range of I/O ports passed through.
    IoportRange = "ioport_range" {
        /// First port.
        first: u32,
        /// How many ports.
        number: u32,
    }

    /// A range of I/O memory passed through, in pages.
    IomemRange = "iomem_range" {
        /// First page on the host.
        start: u64,
        /// How many pages.
        number: u64,
        /// First page in the guest; ~0 is the same as on the host.
        gfn: u64 = u64::MAX,
    }

    /// Xenstore quotas of the domain.
    XenstoreQuota = "xs_quota_list" {
        /// The quotas.
        quota: Vec<XenstoreQuotaItem>,
    }

    /// One Xenstore quota.
    XenstoreQuotaItem = "xs_quota_item" {
        /// Name of the quota.
        name: Option<String>,
        /// Its value.
        val: u32,
    }
}

enumerations! {
    /// How the time stamp counter is given to the guest.
    TscMode = "tsc_mode", default Default {
        Default = "default" 0,
        AlwaysEmulate = "always_emulate" 1,
        Native = "native" 2,
        NativeParavirt = "native_paravirt" 3,
    }

    /// Which QEMU emulates the platform.
    DeviceModelVersion = "device_model_version", default Unknown {
        Unknown = "unknown" 0,
        QemuXenTraditional = "qemu_xen_traditional" 1,
        QemuXen = "qemu_xen" 2,
    }

    /// CPU scheduler of the hypervisor.
    Scheduler = "scheduler", default Unknown {
        Unknown = "unknown" 0,
        Sedf = "sedf" 4,
        Credit = "credit" 5,
        Credit2 = "credit2" 6,
        Arinc653 = "arinc653" 7,
        Rtds = "rtds" 8,
        Null = "null" 9,
    }

    /// What happens to timer ticks a guest missed.
    TimerMode = "timer_mode", default Unknown {
        Unknown = "unknown" -1,
        DelayForMissedTicks = "delay_for_missed_ticks" 0,
        NoDelayForMissedTicks = "no_delay_for_missed_ticks" 1,
        NoMissedTicksPending = "no_missed_ticks_pending" 2,
        OneMissedTickPending = "one_missed_tick_pending" 3,
    }

    /// Trusted execution environment.
    TeeType = "tee_type", default None {
        None = "none" 0,
        Optee = "optee" 1,
        Ffa = "ffa" 2,
    }

    /// Who may use alternate physical memory maps.
    Altp2mMode = "altp2m_mode", default Disabled {
        Disabled = "disabled" 0,
        Mixed = "mixed" 1,
        External = "external" 2,
        Limited = "limited" 3,
    }
}
