//! The entries of PAGE_DATA.

/// Octets of a page.
pub const PAGE_LEN: usize = 4096;

const TYPE_SHIFT: u32 = 60;
const PFN_MASK: u64 = (1 << 52) - 1;

/// One page that a PAGE_DATA record tells of: its number in bits 0 to 51, its type in bits 60 to 63.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageEntry(u64);

/// Of which type a page is, as four bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageType(u8);

impl PageType {
    /// An ordinary page.
    pub const NORMAL: Self = Self(0);
    /// Not usable; it has no content.
    pub const BROKEN: Self = Self(0xd);
    /// To be allocated; it has no content.
    pub const ALLOCATE: Self = Self(0xe);
    /// Not there; it has no content.
    pub const INVALID: Self = Self(0xf);

    /// A type by its number. 1 to 4 are page tables of that level, 9 to 12 such that are pinned, 0, 13, 14 and 15 are the
    /// constants; other numbers are not in use.
    pub const fn new(number: u8) -> Option<Self> {
        match number {
            0..=4 | 9..=15 => Some(Self(number)),
            _ => None,
        }
    }

    /// The number.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Whether a page of this type has content in the stream.
    pub const fn has_content(self) -> bool {
        self.0 < Self::BROKEN.0
    }
}

impl PageEntry {
    /// An entry; `None` for a number of more than 52 bits.
    pub const fn new(pfn: u64, page_type: PageType) -> Option<Self> {
        if pfn > PFN_MASK {
            return None;
        }
        Some(Self(pfn | (page_type.0 as u64) << TYPE_SHIFT))
    }

    /// An entry as it is in a stream; `None` if it has reserved bits or a type that is not in use.
    pub const fn from_bits(bits: u64) -> Option<Self> {
        let number = (bits >> TYPE_SHIFT).to_le_bytes()[0];
        match PageType::new(number) {
            Some(page_type) => Self::new(bits & !(0xf << TYPE_SHIFT), page_type),
            None => None,
        }
    }

    /// As it is in a stream.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The page's number in the guest's memory.
    pub const fn pfn(self) -> u64 {
        self.0 & PFN_MASK
    }

    /// Of which type it is.
    pub const fn page_type(self) -> PageType {
        PageType((self.0 >> TYPE_SHIFT).to_le_bytes()[0])
    }
}

/// Whether all octets are zero.
pub(crate) fn is_zero(octets: &[u8]) -> bool {
    // In pieces that the compiler makes wide instructions of; a page that is not zero mostly shows it in the first.
    let (pieces, rest) = octets.as_chunks::<128>();
    pieces.iter().all(|piece| piece.iter().fold(0, |all, octet| all | octet) == 0)
        && rest.iter().all(|octet| *octet == 0)
}
