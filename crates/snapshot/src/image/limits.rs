//! Sizes that are limited, with where the number comes from.

/// Most octets of one record that is held whole, which is every record but the pages of PAGE_DATA.
///
/// libxc takes 128 MiB, libxl whatever the length says. What is really written: the frame list of a guest has 8 octets for 2 MiB
/// of its memory (4 MiB for one of 1 TiB), QEMU's state of devices has some mebibytes.
pub const RECORD_MAX: usize = 32 << 20;

/// Most pages of one PAGE_DATA record; libxc writes 1024, and its limit for a record leaves room for 32,703.
pub const BATCH_MAX: u32 = 1 << 16;

/// Most octets of an xl file's optional data, which hold the domain's configuration; a large one has some ten thousand.
pub const CONFIG_MAX: u32 = 4 << 20;

/// The highest page frame number taken unless told otherwise: guests of up to 1 TiB. It bounds what a stream can make an
/// image's tables be.
pub const PFN_MAX: u64 = (1 << 28) - 1;

/// Most octets of a stream that a table of digests is made for unless told otherwise: a guest of 1 TiB, and as much again for
/// pages that are sent more than once.
pub const STREAM_MAX: u64 = 1 << 41;

/// Octets by which a record's buffer grows ahead of what has arrived, so that a length field alone makes it hold no more.
pub(crate) const READ_AHEAD: usize = 64 << 10;

/// How much of a stream or an image is taken, so that nobody can make a reader hold or write without end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Most octets of one record that is held whole.
    pub record_max: usize,
    /// Most pages of one PAGE_DATA record.
    pub batch_max: u32,
    /// Most octets of an xl file's optional data.
    pub config_max: u32,
    /// The highest page frame number.
    pub pfn_max: u64,
    /// Most octets of a stream.
    pub stream_max: u64,
}

impl Limits {
    /// Takes pages with these numbers; memory for tables grows by 4 octets for 256 of them.
    #[must_use]
    pub const fn pfn_max(mut self, pfn: u64) -> Self {
        self.pfn_max = pfn;
        self
    }

    /// Takes streams of this length, in octets; memory for tables grows by up to 12 octets for each mebibyte.
    #[must_use]
    pub const fn stream_max(mut self, octets: u64) -> Self {
        self.stream_max = octets;
        self
    }

    /// Takes records of this length, in octets.
    #[must_use]
    pub const fn record_max(mut self, octets: usize) -> Self {
        self.record_max = octets;
        self
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            record_max: RECORD_MAX,
            batch_max: BATCH_MAX,
            config_max: CONFIG_MAX,
            pfn_max: PFN_MAX,
            stream_max: STREAM_MAX,
        }
    }
}
