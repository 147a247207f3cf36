//! A mapped image to pages, or back to the stream.

use std::io::{BufReader, Read, Write};

use super::layout::{MappedLayout, Section};
use super::types::type_of;
use crate::image::digest::{CHUNK_LEN, StreamDigests, from_octets};
use crate::image::error::{Area, ImageOpenError, ImageReadError};
use crate::image::header::{HEADER_LEN, ImageFormat, ImageInfo, Layout, PAGES_OF_CHUNK};
use crate::image::limits::Limits;
use crate::image::open::{open_header, read_table};
use crate::image::read_at::{ReadAt, read_exact_at, read_sparse_at};
use crate::image::stream::{
    CheckedReader, Content, PAGE_LEN, PageContent, PageEntry, PageType, StreamReader, StreamSummary,
};

/// Reads a mapped image. Everything that it gives has been checked against its digest.
#[derive(Debug)]
pub struct MappedReader<F> {
    file: F,
    info: ImageInfo,
    layout: MappedLayout,
    limits: Limits,
    digests: Vec<u32>,
    digest_of_zeros: u32,
    pages: Chunk,
    types: Chunk,
}

/// A mebibyte that has been read last.
#[derive(Debug, Default)]
struct Chunk {
    /// Which it is, by its place in the table of digests.
    index: Option<u64>,
    octets: Vec<u8>,
}

impl<F: ReadAt> MappedReader<F> {
    /// Opens an image: reads its header and its table of digests, and checks them.
    ///
    /// # Errors
    ///
    /// If it is no mapped image, not complete, larger than the limits, or not as it was written.
    pub fn open(file: F, limits: Limits) -> Result<Self, ImageOpenError> {
        let (page, info) = open_header(&file, ImageFormat::Mapped)?;
        let Layout::Mapped { pfn_end, pages, zero_pages, records_len } = info.layout else {
            return Err(ImageOpenError::Layout);
        };
        let refuse = |what, has, max| Err(ImageOpenError::TooLarge { what, has, max });
        if pfn_end > limits.pfn_max.saturating_add(1) {
            return refuse("pages up to", pfn_end, limits.pfn_max);
        }
        if info.stream_len > limits.stream_max {
            return refuse("a stream of", info.stream_len, limits.stream_max);
        }
        let layout = MappedLayout::new(pfn_end, records_len).ok_or(ImageOpenError::Layout)?;
        let sizes_agree =
            pages.checked_mul(PAGE_LEN as u64).and_then(|len| len.checked_add(records_len))
                == Some(info.stream_len);
        if layout.file_len != info.file_len || !sizes_agree || zero_pages > pages || pages > pfn_end
        {
            return Err(ImageOpenError::Layout);
        }
        let table = read_table(&file, &page, &info, layout.table_at, layout.table_len())?;
        let digest_of_zeros = crc32c::crc32c(&vec![0; CHUNK_LEN]);
        Ok(Self {
            file,
            info,
            layout,
            limits,
            digests: from_octets(&table),
            digest_of_zeros,
            pages: Chunk::default(),
            types: Chunk::default(),
        })
    }

    /// What the header says.
    pub fn info(&self) -> &ImageInfo {
        &self.info
    }

    /// Where in the file a page is, for whoever maps it into memory. Its octets are not checked then.
    ///
    /// `None` for a page beyond the last one.
    pub fn page_offset(&self, pfn: u64) -> Option<u64> {
        let Layout::Mapped { pfn_end, .. } = self.info.layout else { return None };
        (pfn < pfn_end).then(|| HEADER_LEN as u64 + pfn * PAGE_LEN as u64)
    }

    /// The type of a page; `None` if the image does not tell of it.
    ///
    /// # Errors
    ///
    /// If the image cannot be read, or is not as it was written.
    pub fn page_type(&mut self, pfn: u64) -> Result<Option<PageType>, ImageReadError> {
        if self.page_offset(pfn).is_none() {
            return Ok(None);
        }
        let octet = pfn / 2;
        let index = octet / CHUNK_LEN as u64;
        let mut types = std::mem::take(&mut self.types);
        let read = self.chunk(&self.layout.types, index, &mut types);
        self.types = types;
        read?;
        // It is less than a chunk.
        let in_chunk = (octet % CHUNK_LEN as u64) as usize;
        let both = self.types.octets.get(in_chunk).copied().unwrap_or_default();
        Ok(type_of(both >> (pfn % 2 * 4) & 0xf))
    }

    /// Reads a page, and gives its type; `None` if the image does not tell of it. A page whose type has no content is zero.
    ///
    /// # Errors
    ///
    /// If the image cannot be read, or is not as it was written.
    pub fn page(
        &mut self,
        pfn: u64,
        page: &mut [u8; PAGE_LEN],
    ) -> Result<Option<PageType>, ImageReadError> {
        let Some(page_type) = self.page_type(pfn)? else { return Ok(None) };
        let mut pages = std::mem::take(&mut self.pages);
        let read = self.chunk(&self.layout.pages, pfn / PAGES_OF_CHUNK, &mut pages);
        self.pages = pages;
        read?;
        page.copy_from_slice(&self.pages.octets[in_chunk(pfn)..][..PAGE_LEN]);
        Ok(Some(page_type))
    }

    /// Checks every octet of the image, and that its records are a saved domain.
    ///
    /// # Errors
    ///
    /// The first part of the image that is not as it was written.
    pub fn verify(&self) -> Result<StreamSummary, ImageReadError> {
        let mut chunk = Chunk::default();
        for section in [self.layout.pages, self.layout.records, self.layout.types] {
            for index in 0..section.chunks() {
                self.chunk(&section, index, &mut chunk)?;
            }
        }
        let mut reader = CheckedReader::of(self.records(), self.limits);
        while reader.next_event()?.is_some() {}
        let Layout::Mapped { pfn_end, pages, .. } = self.info.layout else {
            return Err(ImageReadError::OtherStream);
        };
        let mut summary = reader.summary();
        summary.len += pages * PAGE_LEN as u64;
        if (summary.pfn_end, summary.pages, summary.len) != (pfn_end, pages, self.info.stream_len) {
            return Err(ImageReadError::OtherStream);
        }
        Ok(summary)
    }

    /// Writes out the stream that the image was made of, octet for octet.
    ///
    /// # Errors
    ///
    /// If the image cannot be read or is not as it was written, which may come out when part of the stream has been written:
    /// [`MappedReader::verify`] first where that matters. If the output fails.
    pub fn write_stream<W: Write>(&self, mut output: W) -> Result<(), ImageReadError> {
        let mut stream = StreamDigests::default();
        let mut reader = self.records();
        let mut chunk = Chunk::default();
        while let Some(event) = reader.next_event()? {
            stream.update(event.raw);
            put(&mut output, event.raw)?;
            let Content::PageBatch(entries) = event.content else { continue };
            self.write_pages(entries, &mut chunk, |octets| {
                stream.update(octets);
                put(&mut output, octets)
            })?;
        }
        output.flush().map_err(|source| ImageReadError::Output { source })?;
        let stream = stream.finish();
        if (stream.len, stream.digest) != (self.info.stream_len, self.info.stream_digest) {
            return Err(ImageReadError::OtherStream);
        }
        Ok(())
    }

    /// Gives the contents of a batch in its order, contiguous pages together.
    fn write_pages(
        &self,
        entries: &[PageEntry],
        chunk: &mut Chunk,
        mut give: impl FnMut(&[u8]) -> Result<(), ImageReadError>,
    ) -> Result<(), ImageReadError> {
        let mut pfns = entries
            .iter()
            .filter(|entry| entry.page_type().has_content())
            .map(|entry| entry.pfn())
            .peekable();
        while let Some(first) = pfns.next() {
            let mut end = first + 1;
            while pfns.next_if(|pfn| *pfn == end && pfn % PAGES_OF_CHUNK != 0).is_some() {
                end += 1;
            }
            if self.page_offset(first).is_none() {
                return Err(ImageReadError::OtherStream);
            }
            self.chunk(&self.layout.pages, first / PAGES_OF_CHUNK, chunk)?;
            give(&chunk.octets[in_chunk(first)..in_chunk(end - 1) + PAGE_LEN])?;
        }
        Ok(())
    }

    /// The records, without pages.
    fn records(&self) -> StreamReader<BufReader<Records<'_, F>>> {
        let records = Records { image: self, next: 0, chunk: Chunk::default(), given: 0 };
        let input = BufReader::with_capacity(1 << 16, records);
        StreamReader::with(input, self.limits, PageContent::Elsewhere)
    }

    /// Reads a mebibyte and checks it, unless it is the one that was read last.
    fn chunk(
        &self,
        section: &Section,
        index: u64,
        chunk: &mut Chunk,
    ) -> Result<(), ImageReadError> {
        let in_table = section.first + index;
        if chunk.index == Some(in_table) {
            return Ok(());
        }
        chunk.index = None;
        let (offset, len) = section.chunk(index);
        let failed = |source| ImageReadError::Io { offset, source };
        let other = || ImageReadError::Digest { area: section.area, offset };
        let digest = usize::try_from(in_table).ok().and_then(|at| self.digests.get(at));
        let digest = *digest.ok_or_else(other)?;
        chunk.octets.resize(len, 0);
        let any = if section.area == Area::Pages {
            read_sparse_at(&self.file, &mut chunk.octets, offset).map_err(failed)?
        } else {
            read_exact_at(&self.file, &mut chunk.octets, offset).map_err(failed)?;
            true
        };
        let known = !any && len == CHUNK_LEN;
        let found = if known { self.digest_of_zeros } else { crc32c::crc32c(&chunk.octets) };
        if found != digest {
            return Err(other());
        }
        chunk.index = Some(in_table);
        Ok(())
    }
}

/// The octets of the records, each mebibyte checked.
struct Records<'a, F> {
    image: &'a MappedReader<F>,
    next: u64,
    chunk: Chunk,
    given: usize,
}

impl<F: ReadAt> Read for Records<'_, F> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let section = &self.image.layout.records;
        if self.given == self.chunk.octets.len() {
            if self.next == section.chunks() {
                return Ok(0);
            }
            self.image.chunk(section, self.next, &mut self.chunk).map_err(std::io::Error::other)?;
            self.next += 1;
            self.given = 0;
        }
        let read = (&self.chunk.octets[self.given..]).read(buffer)?;
        self.given += read;
        Ok(read)
    }
}

fn put(output: &mut impl Write, octets: &[u8]) -> Result<(), ImageReadError> {
    output.write_all(octets).map_err(|source| ImageReadError::Output { source })
}

/// Where in its mebibyte a page is.
fn in_chunk(pfn: u64) -> usize {
    // It is less than a chunk.
    (pfn % PAGES_OF_CHUNK) as usize * PAGE_LEN
}
