//! The libxc image: its two headers and the types of its records.

use std::fmt;

use super::fields::{array, u16_at, u32_at};

/// The eight octets that a libxc image begins with.
pub const LIBXC_MARKER: [u8; 8] = [0xff; 8];

/// Octets of the image's header.
pub const IMAGE_HEADER_LEN: usize = 24;

/// Octets of the domain's header behind it.
pub const DOMAIN_HEADER_LEN: usize = 16;

const IDENT: [u8; 4] = *b"XENF";
const BIG_ENDIAN: u16 = 1;

/// Bits of an octet's place in a page: no image has other pages.
const PAGE_SHIFT: u16 = 12;

/// The header of a libxc image; always big-endian itself.
///
/// ```text
/// octet  0       8        12            16                                    18
///        8 x ff  "XENF"   version u32   options u16 (bit 0: big-endian)       6 zeros
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageHeader {
    /// Which version of the specification.
    pub version: ImageVersion,
}

/// A version of the libxc image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ImageVersion {
    /// Xen 4.6 to 4.13.
    V2,
    /// Since Xen 4.14: what does not change while the domain runs comes first, and its end is marked.
    V3,
}

impl ImageHeader {
    /// The octets of the header.
    pub fn to_octets(self) -> [u8; IMAGE_HEADER_LEN] {
        let version: u32 = match self.version {
            ImageVersion::V2 => 2,
            ImageVersion::V3 => 3,
        };
        let mut octets = [0; IMAGE_HEADER_LEN];
        octets[..8].copy_from_slice(&LIBXC_MARKER);
        octets[8..12].copy_from_slice(&IDENT);
        octets[12..16].copy_from_slice(&version.to_be_bytes());
        octets
    }

    /// Reads the octets of a header.
    ///
    /// # Errors
    ///
    /// If they are not those of a little-endian image of version 2 or 3.
    pub fn from_octets(octets: &[u8; IMAGE_HEADER_LEN]) -> Result<Self, LibxcHeaderError> {
        if array::<8>(octets, 0) != LIBXC_MARKER || array::<4>(octets, 8) != IDENT {
            return Err(LibxcHeaderError::Ident);
        }
        let version = match u32::from_be_bytes(array(octets, 12)) {
            2 => ImageVersion::V2,
            3 => ImageVersion::V3,
            version => return Err(LibxcHeaderError::Version { version }),
        };
        let options = u16::from_be_bytes(array(octets, 16));
        if options & !BIG_ENDIAN != 0 || array::<6>(octets, 18) != [0; 6] {
            return Err(LibxcHeaderError::Reserved { header: "image" });
        }
        if options & BIG_ENDIAN != 0 {
            return Err(LibxcHeaderError::BigEndian);
        }
        Ok(Self { version })
    }
}

/// What a libxc image says of the domain.
///
/// ```text
/// octet  0          4                6        8            12
///        type u32   page-shift u16   zero     xen-major    xen-minor
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DomainHeader {
    /// Of which kind it is.
    pub guest: GuestType,
    /// Major version of the Xen that saved it; 0 if the image was converted from an older format.
    pub xen_major: u32,
    /// Minor version of it.
    pub xen_minor: u32,
}

/// Of which kind a domain is, as far as an image says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GuestType {
    /// Paravirtualised, on x86.
    X86Pv,
    /// HVM or PVH, on x86.
    X86Hvm,
}

impl GuestType {
    /// The number of it in images.
    pub(crate) const fn number(self) -> u32 {
        match self {
            Self::X86Pv => 1,
            Self::X86Hvm => 2,
        }
    }

    pub(crate) const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::X86Pv),
            2 => Some(Self::X86Hvm),
            _ => None,
        }
    }
}

impl fmt::Display for GuestType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::X86Pv => "x86 PV",
            Self::X86Hvm => "x86 HVM",
        })
    }
}

impl DomainHeader {
    /// The octets of the header.
    pub fn to_octets(self) -> [u8; DOMAIN_HEADER_LEN] {
        let mut octets = [0; DOMAIN_HEADER_LEN];
        octets[..4].copy_from_slice(&self.guest.number().to_le_bytes());
        octets[4..6].copy_from_slice(&PAGE_SHIFT.to_le_bytes());
        octets[8..12].copy_from_slice(&self.xen_major.to_le_bytes());
        octets[12..].copy_from_slice(&self.xen_minor.to_le_bytes());
        octets
    }

    /// Reads the octets of a header.
    ///
    /// # Errors
    ///
    /// If they are not those of an x86 domain with pages of 4096 octets.
    pub fn from_octets(octets: &[u8; DOMAIN_HEADER_LEN]) -> Result<Self, LibxcHeaderError> {
        let number = u32_at(octets, 0);
        let guest = GuestType::from_number(number)
            .ok_or(LibxcHeaderError::GuestType { guest_type: number })?;
        let shift = u16_at(octets, 4);
        if shift != PAGE_SHIFT {
            return Err(LibxcHeaderError::PageShift { shift });
        }
        if u16_at(octets, 6) != 0 {
            return Err(LibxcHeaderError::Reserved { header: "domain" });
        }
        Ok(Self { guest, xen_major: u32_at(octets, 8), xen_minor: u32_at(octets, 12) })
    }
}

/// What a record of a libxc image is.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LibxcType(pub u32);

/// The names of the types in the specification.
macro_rules! types {
    ($($name:ident = $number:literal, $doc:literal;)*) => {
        impl LibxcType {
            $(#[doc = $doc] pub const $name: Self = Self($number);)*

            /// Its name in the specification; `None` if it is not in there.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

types! {
    END = 0x0, "Ends the image.";
    PAGE_DATA = 0x1, "Pages of the guest's memory.";
    X86_PV_INFO = 0x2, "How wide a PV guest is.";
    X86_PV_P2M_FRAMES = 0x3, "The frames of a PV guest's table of its memory.";
    X86_PV_VCPU_BASIC = 0x4, "A PV guest's processor.";
    X86_PV_VCPU_EXTENDED = 0x5, "More of it.";
    X86_PV_VCPU_XSAVE = 0x6, "Its XSAVE area.";
    SHARED_INFO = 0x7, "The page that a PV guest shares with Xen.";
    X86_TSC_INFO = 0x8, "The guest's clock.";
    HVM_CONTEXT = 0x9, "Xen's own state of an HVM guest.";
    HVM_PARAMS = 0xa, "Parameters of an HVM guest.";
    TOOLSTACK = 0xb, "Not written any more.";
    X86_PV_VCPU_MSRS = 0xc, "The MSRs of a PV guest's processor.";
    VERIFY = 0xd, "The pages that follow were sent before; for debugging.";
    CHECKPOINT = 0xe, "A checkpoint.";
    CHECKPOINT_DIRTY_PFN_LIST = 0xf, "What has changed since a checkpoint.";
    STATIC_DATA_END = 0x10, "Ends what does not change while the domain runs.";
    X86_CPUID_POLICY = 0x11, "What the guest sees of CPUID.";
    X86_MSR_POLICY = 0x12, "What the guest sees of MSRs.";
}

impl LibxcType {
    const OPTIONAL: u32 = 1 << 31;

    /// Whether a reader that does not know it may go on.
    pub const fn is_optional(self) -> bool {
        self.0 & Self::OPTIONAL != 0
    }
}

impl fmt::Display for LibxcType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "type {:#x}", self.0),
        }
    }
}

impl fmt::Debug for LibxcType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why octets are no header of a libxc image that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LibxcHeaderError {
    /// The first octets are others.
    #[error("the first 12 octets are not those of a libxc image")]
    Ident,
    /// Another version.
    #[error("the libxc image has version {version}, neither 2 nor 3")]
    Version {
        /// Which.
        version: u32,
    },
    /// The records are big-endian.
    #[error("the libxc image is big-endian")]
    BigEndian,
    /// Reserved octets or bits are not zero.
    #[error("reserved bits of the {header} header are set")]
    Reserved {
        /// Of the image or of the domain.
        header: &'static str,
    },
    /// Neither PV nor HVM.
    #[error("the domain is of type {guest_type}, neither 1 (PV) nor 2 (HVM)")]
    GuestType {
        /// The number.
        guest_type: u32,
    },
    /// Pages of another size.
    #[error("the domain has pages of 2^{shift} octets, not of 4096")]
    PageShift {
        /// What the header says.
        shift: u16,
    },
}
