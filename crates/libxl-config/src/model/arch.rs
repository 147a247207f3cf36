//! What only one processor architecture has.

use super::enumeration::enumerations;
use super::scalar::DefBool;
use super::table::records;

records! {
    /// What only a guest on Arm has.
    ArchArm = "domain_build_info.arch_arm" {
        /// Version of the interrupt controller.
        gic_version: GicVersion,
        /// Emulated serial port.
        vuart: VuartType,
        /// Length of SVE vectors.
        @new sve_vl: SveType,
        /// How many shared peripheral interrupts; ~0 leaves it to libxl.
        @new nr_spis: u32 = u32::MAX,
        /// System control interface.
        @new arm_sci: ArmSci,
    }

    /// What only a guest on x86 has.
    ArchX86 = "domain_build_info.arch_x86" {
        /// Whether reads of unknown MSRs are forgiven.
        msr_relaxed: DefBool,
    }

    /// Arm system control interface.
    ArmSci = "arm_sci" {
        /// Which interface.
        sci_type as "type": ArmSciType,
    }
}

enumerations! {
    /// Version of the Arm interrupt controller.
    GicVersion = "gic_version", default Default {
        Default = "default" 0,
        V2 = "v2" 32,
        V3 = "v3" 48,
    }

    /// Emulated Arm serial port.
    VuartType = "vuart_type", default Unknown {
        Unknown = "unknown" 0,
        SbsaUart = "sbsa_uart" 1,
    }

    /// Length of Arm SVE vectors, in bits.
    SveType = "sve_type", default Disabled {
        Hw = "hw" -1,
        Disabled = "disabled" 0,
        Bits128 = "128" 128,
        Bits256 = "256" 256,
        Bits384 = "384" 384,
        Bits512 = "512" 512,
        Bits640 = "640" 640,
        Bits768 = "768" 768,
        Bits896 = "896" 896,
        Bits1024 = "1024" 1024,
        Bits1152 = "1152" 1152,
        Bits1280 = "1280" 1280,
        Bits1408 = "1408" 1408,
        Bits1536 = "1536" 1536,
        Bits1664 = "1664" 1664,
        Bits1792 = "1792" 1792,
        Bits1920 = "1920" 1920,
        Bits2048 = "2048" 2048,
    }

    /// Arm system control interface.
    ArmSciType = "arm_sci_type", default None {
        None = "none" 0,
        ScmiSmc = "scmi_smc" 1,
    }
}
