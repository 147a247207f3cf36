//! A stream to a mapped image.

use std::fs::File;
use std::io::{BufReader, Read};

use uuid::Uuid;

use super::layout::MappedLayout;
use super::page_area::PageArea;
use super::records::{Records, write as write_at};
use super::seen::{Added, PIECES_MAX, SeenPages};
use super::types::{SectionReader, TypeTable};
use crate::image::digest::{StreamDigests, to_octets};
use crate::image::error::ImageWriteError;
use crate::image::header::{HEADER_LEN, ImageInfo, Layout};
use crate::image::limits::Limits;
use crate::image::stream::{
    CheckedReader, Content, PAGE_LEN, PageContent, PageEntry, Place, StreamError, StreamFailure,
    StreamReader, StreamSummary,
};
use crate::image::unmarked::Unmarked;

/// How a mapped image is written.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct MappedOptions {
    /// Which domain it is, for the header.
    pub uuid: Option<Uuid>,
    /// How much is taken.
    pub limits: Limits,
}

impl MappedOptions {
    /// Puts the domain's uuid into the header.
    #[must_use]
    pub const fn uuid(mut self, uuid: Uuid) -> Self {
        self.uuid = Some(uuid);
        self
    }

    /// Takes this much.
    #[must_use]
    pub const fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }
}

/// Writes a stream as a mapped image into an empty file, all but the mark that it is complete.
///
/// The stream is read up to its END record and not an octet further; what is behind it is for whoever gave `&mut input` to see.
/// The file has to be open for reading as well. Whoever wants progress, or to cancel, gives an input that
/// counts or fails. Memory does not grow with the guest, except for 8 octets of digests for each mebibyte of it.
///
/// # Errors
///
/// If the stream is no saved domain, tells of a page twice (a live migration; [`packed`](crate::image::packed) takes it) or is
/// larger than the limits, if there is something in the file, or if it cannot be written. The file is then left as it is.
pub fn write<R: Read>(
    input: R,
    file: File,
    options: &MappedOptions,
) -> Result<Unmarked, ImageWriteError> {
    let nowhere = |source| ImageWriteError::Output { offset: 0, source };
    match file.metadata().map_err(nowhere)?.len() {
        0 => {}
        len => return Err(ImageWriteError::NotEmpty { len }),
    }
    let layout = Layout::Mapped { pfn_end: 0, pages: 0, zero_pages: 0, records_len: 0 };
    let mut info = ImageInfo::partial(layout);
    write_at(&file, &info.to_page(), 0)?;

    let mut taking = Taking::new(&options.limits);
    let mut reader = CheckedReader::new(input, options.limits);
    while let Some(event) = reader.next_event()? {
        taking.stream.update(event.raw);
        match event.content {
            Content::Pages { pfns, octets } => taking.pages.put(&file, pfns, octets)?,
            Content::PageBatch(entries) => {
                taking.note(entries, event.place)?;
                taking.records.push(&file, event.raw)?;
            }
            _ => taking.records.push(&file, event.raw)?,
        }
    }
    let summary = reader.summary();
    taking.finish(&file, &summary, options, &mut info)?;
    tracing::debug!(octets = summary.len, pages = summary.pages, "mapped image written");
    Ok(Unmarked::new(file, info, summary))
}

/// What has been taken of a stream.
struct Taking {
    stream: StreamDigests,
    pages: PageArea,
    records: Records,
    seen: SeenPages,
}

impl Taking {
    fn new(limits: &Limits) -> Self {
        let aside_at =
            HEADER_LEN as u64 + limits.pfn_max.saturating_add(1).saturating_mul(PAGE_LEN as u64);
        Self {
            stream: StreamDigests::default(),
            pages: PageArea::new(),
            // Not before the highest mebibyte ends.
            records: Records::new(aside_at.saturating_add(crate::image::digest::CHUNK_LEN as u64)),
            seen: SeenPages::default(),
        }
    }

    fn note(&mut self, entries: &[PageEntry], place: Place) -> Result<(), ImageWriteError> {
        for entry in entries {
            let pfn = entry.pfn();
            match self.seen.add(pfn) {
                Added::New => {}
                Added::Again => return Err(ImageWriteError::Duplicate { place, pfn }),
                Added::TooMany => {
                    return Err(ImageWriteError::Scattered { place, max: PIECES_MAX });
                }
            }
        }
        Ok(())
    }

    fn finish(
        self,
        file: &File,
        summary: &StreamSummary,
        options: &MappedOptions,
        info: &mut ImageInfo,
    ) -> Result<(), ImageWriteError> {
        let Self { stream, pages, records, seen: _ } = self;
        let (mut digests, zero_pages) = pages.finish(file, summary.pfn_end)?;
        let records_len = records.len();
        // The limits of pages and of the stream keep it far below the longest file.
        let too_long = || ImageWriteError::Output {
            offset: HEADER_LEN as u64,
            source: std::io::ErrorKind::FileTooLarge.into(),
        };
        let layout = MappedLayout::new(summary.pfn_end, records_len).ok_or_else(too_long)?;
        digests.extend(records.settle(file, layout.records.at)?);
        // What was put aside goes away, and the table of types begins as zeros.
        let sized = file.set_len(layout.types.at).and_then(|()| file.set_len(layout.file_len));
        sized.map_err(|source| ImageWriteError::Output { offset: layout.types.at, source })?;
        digests.extend(type_table(file, &layout, options.limits)?);
        let table = to_octets(&digests);
        write_at(file, &table, layout.table_at)?;

        let stream = stream.finish();
        info.layout = Layout::Mapped {
            pfn_end: summary.pfn_end,
            pages: summary.pages,
            zero_pages,
            records_len,
        };
        info.start = summary.start;
        info.guest = summary.domain.map(|domain| domain.guest);
        info.uuid = options.uuid;
        info.file_len = layout.file_len;
        info.stream_len = stream.len;
        info.stream_digest = stream.digest;
        info.root = info.root_with(&table);
        write_at(file, &info.to_page(), 0)
    }
}

/// Makes the table of types out of the records, which are in the file by then.
fn type_table(
    file: &File,
    layout: &MappedLayout,
    limits: Limits,
) -> Result<Vec<u32>, ImageWriteError> {
    let records = BufReader::with_capacity(1 << 16, SectionReader::new(file, layout.records));
    let mut reader = StreamReader::with(records, limits, PageContent::Elsewhere);
    let mut types = TypeTable::new(file, layout.types);
    while let Some(event) = reader.next_event()? {
        let Content::PageBatch(entries) = event.content else { continue };
        for entry in entries {
            if entry.pfn() / 2 >= layout.types.len {
                // It was less when the records were written: somebody else writes into the file.
                let failure = StreamFailure::PfnBeyond {
                    pfn: entry.pfn(),
                    max: (layout.types.len * 2).saturating_sub(1),
                };
                return Err(StreamError { place: event.place, failure }.into());
            }
            types.set(*entry)?;
        }
    }
    types.finish()
}
