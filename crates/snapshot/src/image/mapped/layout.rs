//! Where everything is in a mapped image.

use crate::image::digest::{CHUNK_LEN, chunks};
use crate::image::error::Area;
use crate::image::header::HEADER_LEN;
use crate::image::stream::PAGE_LEN;

/// Where everything is; it follows from the two lengths that the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MappedLayout {
    pub(super) pages: Section,
    pub(super) records: Section,
    pub(super) types: Section,
    pub(super) table_at: u64,
    pub(super) file_len: u64,
}

/// One part of an image that the table has digests of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) area: Area,
    pub(super) at: u64,
    pub(super) len: u64,
    /// Its first digest in the table.
    pub(super) first: u64,
}

impl Section {
    /// How many digests it has.
    pub(super) fn chunks(&self) -> u64 {
        chunks(self.len)
    }

    /// Where one of its mebibytes begins, and how long it is; the last one may be shorter.
    pub(super) fn chunk(&self, index: u64) -> (u64, usize) {
        let begins = index * CHUNK_LEN as u64;
        let rest = self.len.saturating_sub(begins);
        (self.at + begins, usize::try_from(rest).map_or(CHUNK_LEN, |rest| rest.min(CHUNK_LEN)))
    }
}

impl MappedLayout {
    /// The layout; `None` if it is longer than any file.
    pub(super) fn new(pfn_end: u64, records_len: u64) -> Option<Self> {
        let pages = Section {
            area: Area::Pages,
            at: HEADER_LEN as u64,
            len: pfn_end.checked_mul(PAGE_LEN as u64)?,
            first: 0,
        };
        let records = pages.followed_by(Area::Records, records_len)?;
        let types = records.followed_by(Area::Types, pfn_end.div_ceil(2))?;
        let table_at = types.at.checked_add(types.len)?;
        let digests = types.first + types.chunks();
        let file_len = table_at.checked_add(digests.checked_mul(4)?)?;
        i64::try_from(file_len).ok()?;
        Some(Self { pages, records, types, table_at, file_len })
    }

    /// Octets of the table.
    pub(super) fn table_len(&self) -> u64 {
        self.file_len - self.table_at
    }
}

impl Section {
    fn followed_by(&self, area: Area, len: u64) -> Option<Section> {
        let at = self.at.checked_add(self.len)?;
        at.checked_add(len)?;
        Some(Section { area, at, len, first: self.first + self.chunks() })
    }
}
