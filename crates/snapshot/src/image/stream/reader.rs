//! Octets to headers, records and pages.

use std::io::{self, Read};

use super::fields::{array, u32_at};
use super::libxc::{DOMAIN_HEADER_LEN, IMAGE_HEADER_LEN, LIBXC_MARKER};
use super::libxl::{LIBXL_HEADER_LEN, LIBXL_IDENT};
use super::pages::{PAGE_LEN, PageEntry};
use super::record::{BodyError, RECORD_HEADER_LEN};
use super::xl::{XL_HEADER_LEN, XL_MAGIC, XlFixed, XlHeader, XlHeaderError};
use super::{
    DomainHeader, ImageHeader, LibxcRecord, LibxcType, LibxlHeader, LibxlRecord, LibxlType, Part,
    Place, StreamError, StreamFailure,
};
use crate::image::limits::{Limits, READ_AHEAD};

/// Pages that are given at a time: so few that they are still in a processor's cache when they are looked at and copied.
pub(crate) const PAGES_AT_ONCE: usize = 32;

/// Octets that tell which of the three beginnings a stream has.
const IDENT_LEN: usize = 8;

/// Reads a saved domain piece by piece from any [`Read`], whichever of the nested formats it starts with: an `xl save` file, the
/// libxl stream that libxl itself writes, or a bare libxc image.
///
/// It looks at framing only; whether records make sense and go together is what [`CheckedReader`](super::CheckedReader) adds. It
/// reads up to the last END record and not an octet further, holds one record or 128 KiB of pages at a time, and
/// every octet of the stream is in [`Event::raw`] of exactly one event.
#[derive(Debug)]
pub struct StreamReader<R> {
    input: R,
    limits: Limits,
    content: PageContent,
    next: Next,
    start: Option<Start>,
    /// Octets of the stream that belong to events already given.
    offset: u64,
    libxl_index: u64,
    libxc_index: u64,
    raw: Vec<u8>,
    entries: Vec<PageEntry>,
    /// The pages of the current batch that have content, and how many of them have been given.
    carried: Vec<u64>,
    given: usize,
    pages: Vec<u8>,
}

/// What a stream starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Start {
    /// The header of an `xl save` file.
    Xl,
    /// A libxl stream.
    Libxl,
    /// A libxc image.
    Libxc,
}

/// Where the contents of pages are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PageContent {
    /// In the stream, where they belong.
    Inline,
    /// Somewhere else: the stream has all but them.
    Elsewhere,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Start,
    LibxlHeader,
    LibxlRecord,
    ImageHeader,
    DomainHeader,
    LibxcRecord,
    /// Of the record at this octet.
    Pages(u64),
    Ended,
    Broken,
}

/// A piece of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// Where it is. Pages are at the place of the record that they belong to.
    pub place: Place,
    /// All of its octets as they are in the stream, with length and padding.
    pub raw: &'a [u8],
    /// What it is.
    pub content: Content<'a>,
}

/// What a piece of a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Content<'a> {
    /// What an `xl save` file begins with.
    XlHeader(XlHeader<'a>),
    /// The header of a libxl stream.
    LibxlHeader(LibxlHeader),
    /// A record of it.
    LibxlRecord(LibxlRecord<'a>),
    /// The header of a libxc image.
    ImageHeader(ImageHeader),
    /// What the image says of the domain.
    DomainHeader(DomainHeader),
    /// A record of the image other than PAGE_DATA.
    LibxcRecord(LibxcRecord<'a>),
    /// The beginning of a PAGE_DATA record. The pages that have content follow as [`Content::Pages`].
    PageBatch(&'a [PageEntry]),
    /// Some pages of the batch.
    Pages {
        /// Their numbers.
        pfns: &'a [u64],
        /// 4096 octets for each.
        octets: &'a [u8],
    },
}

impl<R: Read> StreamReader<R> {
    /// A reader; nothing is read yet.
    pub fn new(input: R, limits: Limits) -> Self {
        Self::with(input, limits, PageContent::Inline)
    }

    pub(crate) fn with(input: R, limits: Limits, content: PageContent) -> Self {
        Self {
            input,
            limits,
            content,
            next: Next::Start,
            start: None,
            offset: 0,
            libxl_index: 0,
            libxc_index: 0,
            raw: Vec::new(),
            entries: Vec::new(),
            carried: Vec::new(),
            given: 0,
            pages: Vec::new(),
        }
    }

    /// What the stream starts with; `None` until its first event.
    pub fn start(&self) -> Option<Start> {
        self.start
    }

    /// Octets of the stream in the events given so far.
    pub fn position(&self) -> u64 {
        self.offset
    }

    /// The input, which stands behind the stream if all events have been read.
    pub fn into_inner(self) -> R {
        self.input
    }

    /// The next piece; `None` behind the end.
    ///
    /// # Errors
    ///
    /// If the stream is cut or its framing is broken. After that there is nothing more to be had from the reader.
    pub fn next_event(&mut self) -> Result<Option<Event<'_>>, StreamError> {
        let next = std::mem::replace(&mut self.next, Next::Broken);
        self.raw.clear();
        let offset = self.offset;
        let event = match next {
            Next::Start => return self.start_event().map(Some),
            Next::LibxlHeader => self.libxl_header()?,
            Next::LibxlRecord => self.libxl_record()?,
            Next::ImageHeader => self.image_header()?,
            Next::DomainHeader => self.domain_header()?,
            Next::LibxcRecord => return self.libxc_record().map(Some),
            Next::Pages(record) => return self.some_pages(record).map(Some),
            Next::Ended => {
                self.next = Next::Ended;
                return Ok(None);
            }
            Next::Broken => {
                let place = Place { part: Part::Start, offset };
                return Err(StreamError::new(place, StreamFailure::AfterError));
            }
        };
        Ok(Some(event))
    }

    fn start_event(&mut self) -> Result<Event<'_>, StreamError> {
        let place = Place { part: Part::Start, offset: 0 };
        self.fill_to(IDENT_LEN, place)?;
        let ident = array::<IDENT_LEN>(&self.raw, 0);
        if ident == LIBXL_IDENT {
            self.start = Some(Start::Libxl);
            self.libxl_header()
        } else if ident == LIBXC_MARKER {
            self.start = Some(Start::Libxc);
            self.image_header()
        } else if XL_MAGIC.starts_with(&ident) {
            self.start = Some(Start::Xl);
            self.xl_header()
        } else {
            Err(StreamError::new(place, StreamFailure::Unknown))
        }
    }

    fn xl_header(&mut self) -> Result<Event<'_>, StreamError> {
        let place = Place { part: Part::XlHeader, offset: self.offset };
        self.fill_to(XL_HEADER_LEN, place)?;
        let fixed =
            XlFixed::from_octets(&array(&self.raw, 0)).map_err(|e| StreamError::new(place, e))?;
        let (len, max) = (fixed.optional_len, self.limits.config_max);
        if len > max {
            return Err(StreamError::new(place, XlHeaderError::OptionalLength { len, max }));
        }
        self.fill_to(XL_HEADER_LEN + len as usize, place)?;
        self.next = Next::LibxlHeader;
        self.offset += self.raw.len() as u64;
        let header = fixed.with(&self.raw[XL_HEADER_LEN..]);
        Ok(Event { place, raw: &self.raw, content: Content::XlHeader(header) })
    }

    fn libxl_header(&mut self) -> Result<Event<'_>, StreamError> {
        let place = Place { part: Part::LibxlHeader, offset: self.offset };
        self.fill_to(LIBXL_HEADER_LEN, place)?;
        let header = LibxlHeader::from_octets(&array(&self.raw, 0))
            .map_err(|error| StreamError::new(place, error))?;
        self.next = Next::LibxlRecord;
        self.offset += LIBXL_HEADER_LEN as u64;
        Ok(Event { place, raw: &self.raw, content: Content::LibxlHeader(header) })
    }

    fn libxl_record(&mut self) -> Result<Event<'_>, StreamError> {
        let index = self.libxl_index;
        let mut place =
            Place { part: Part::LibxlRecord { index, record_type: None }, offset: self.offset };
        self.fill_to(RECORD_HEADER_LEN, place)?;
        let record_type = LibxlType(u32_at(&self.raw, 0));
        place.part = Part::LibxlRecord { index, record_type: Some(record_type) };
        if record_type.name().is_none() && !record_type.is_optional() {
            return Err(StreamError::new(place, StreamFailure::UnknownMandatory));
        }
        let len = self.body(place)?;
        self.libxl_index += 1;
        self.next = match record_type {
            LibxlType::END => Next::Ended,
            LibxlType::LIBXC_CONTEXT => Next::ImageHeader,
            _ => Next::LibxlRecord,
        };
        let body = &self.raw[RECORD_HEADER_LEN..RECORD_HEADER_LEN + len];
        let content = Content::LibxlRecord(LibxlRecord { record_type, body });
        Ok(Event { place, raw: &self.raw, content })
    }

    fn image_header(&mut self) -> Result<Event<'_>, StreamError> {
        let place = Place { part: Part::ImageHeader, offset: self.offset };
        self.fill_to(IMAGE_HEADER_LEN, place)?;
        let header = ImageHeader::from_octets(&array(&self.raw, 0))
            .map_err(|error| StreamError::new(place, error))?;
        self.next = Next::DomainHeader;
        self.offset += IMAGE_HEADER_LEN as u64;
        Ok(Event { place, raw: &self.raw, content: Content::ImageHeader(header) })
    }

    fn domain_header(&mut self) -> Result<Event<'_>, StreamError> {
        let place = Place { part: Part::DomainHeader, offset: self.offset };
        self.fill_to(DOMAIN_HEADER_LEN, place)?;
        let header = DomainHeader::from_octets(&array(&self.raw, 0))
            .map_err(|error| StreamError::new(place, error))?;
        self.next = Next::LibxcRecord;
        self.libxc_index = 0;
        self.offset += DOMAIN_HEADER_LEN as u64;
        Ok(Event { place, raw: &self.raw, content: Content::DomainHeader(header) })
    }

    fn libxc_record(&mut self) -> Result<Event<'_>, StreamError> {
        let index = self.libxc_index;
        let mut place =
            Place { part: Part::LibxcRecord { index, record_type: None }, offset: self.offset };
        self.fill_to(RECORD_HEADER_LEN, place)?;
        let record_type = LibxcType(u32_at(&self.raw, 0));
        place.part = Part::LibxcRecord { index, record_type: Some(record_type) };
        if record_type.name().is_none() && !record_type.is_optional() {
            return Err(StreamError::new(place, StreamFailure::UnknownMandatory));
        }
        self.libxc_index += 1;
        if record_type == LibxcType::PAGE_DATA {
            return self.page_batch(place);
        }
        let len = self.body(place)?;
        self.next = match (record_type, self.start) {
            (LibxcType::END, Some(Start::Libxc)) => Next::Ended,
            (LibxcType::END, _) => Next::LibxlRecord,
            _ => Next::LibxcRecord,
        };
        let body = &self.raw[RECORD_HEADER_LEN..RECORD_HEADER_LEN + len];
        let content = Content::LibxcRecord(LibxcRecord { record_type, body });
        Ok(Event { place, raw: &self.raw, content })
    }

    fn page_batch(&mut self, place: Place) -> Result<Event<'_>, StreamError> {
        let len = u32_at(&self.raw, 4) as usize;
        let refuse = |failure: BodyError| Err(StreamError::new(place, failure));
        if len < 8 {
            return refuse(BodyError::Short { len, needs: 8 });
        }
        self.fill_to(RECORD_HEADER_LEN + 8, place)?;
        let (count, max) = (u32_at(&self.raw, 8), self.limits.batch_max);
        if u32_at(&self.raw, 12) != 0 {
            return refuse(BodyError::Reserved);
        }
        if count == 0 {
            return refuse(BodyError::NoPages);
        }
        if count > max {
            return Err(StreamError::new(place, StreamFailure::TooManyPages { count, max }));
        }
        let listed = 8 + count as usize * 8;
        if len < listed {
            return refuse(BodyError::Count { count: count.into(), len });
        }
        self.fill_to(RECORD_HEADER_LEN + listed, place)?;
        self.entries.clear();
        self.carried.clear();
        let (words, _) = self.raw[RECORD_HEADER_LEN + 8..].as_chunks::<8>();
        for (index, word) in words.iter().enumerate() {
            let bits = u64::from_le_bytes(*word);
            let Some(entry) = PageEntry::from_bits(bits) else {
                return refuse(BodyError::PageEntry { index, bits });
            };
            self.entries.push(entry);
            if entry.page_type().has_content() {
                self.carried.push(entry.pfn());
            }
        }
        if len != listed + self.carried.len() * PAGE_LEN {
            return refuse(BodyError::Count { count: count.into(), len });
        }
        self.given = 0;
        self.next = match self.content {
            PageContent::Inline if !self.carried.is_empty() => Next::Pages(self.offset),
            _ => Next::LibxcRecord,
        };
        self.offset += self.raw.len() as u64;
        Ok(Event { place, raw: &self.raw, content: Content::PageBatch(&self.entries) })
    }

    fn some_pages(&mut self, record: u64) -> Result<Event<'_>, StreamError> {
        let part = Part::LibxcRecord {
            index: self.libxc_index - 1,
            record_type: Some(LibxcType::PAGE_DATA),
        };
        let place = Place { part, offset: record };
        let until = self.carried.len().min(self.given + PAGES_AT_ONCE);
        let pfns = &self.carried[self.given..until];
        let len = pfns.len() * PAGE_LEN;
        if self.pages.len() < len {
            self.pages.resize(PAGES_AT_ONCE * PAGE_LEN, 0);
        }
        let octets = &mut self.pages[..len];
        let read = fill(&mut self.input, octets)
            .map_err(|source| StreamError::new(place, StreamFailure::Io { source }))?;
        if read < len {
            let before = self.offset - record;
            let needs = before + ((self.carried.len() - self.given) * PAGE_LEN) as u64;
            let failure = StreamFailure::Cut { needs, has: before + read as u64 };
            return Err(StreamError::new(place, failure));
        }
        self.given = until;
        self.next =
            if until == self.carried.len() { Next::LibxcRecord } else { Next::Pages(record) };
        self.offset += len as u64;
        let octets = &self.pages[..len];
        Ok(Event { place, raw: octets, content: Content::Pages { pfns, octets } })
    }

    /// Reads the body of the record whose header has been read, and its padding; gives the body's length.
    fn body(&mut self, place: Place) -> Result<usize, StreamError> {
        let (len, max) = (u32_at(&self.raw, 4), self.limits.record_max);
        if len as usize > max {
            return Err(StreamError::new(place, StreamFailure::TooLong { len, max }));
        }
        // It is no more than record_max and 7, and that fits.
        let whole = (len as usize).next_multiple_of(8);
        self.fill_to(RECORD_HEADER_LEN + whole, place)?;
        self.offset += self.raw.len() as u64;
        Ok(len as usize)
    }

    /// Reads until there are so many octets of the current piece.
    fn fill_to(&mut self, len: usize, place: Place) -> Result<(), StreamError> {
        while self.raw.len() < len {
            let has = self.raw.len();
            let wanted = len.min(has + READ_AHEAD);
            self.raw.resize(wanted, 0);
            let read = fill(&mut self.input, &mut self.raw[has..])
                .map_err(|source| StreamError::new(place, StreamFailure::Io { source }))?;
            if has + read < wanted {
                let failure = StreamFailure::Cut { needs: len as u64, has: (has + read) as u64 };
                return Err(StreamError::new(place, failure));
            }
        }
        Ok(())
    }
}

/// Reads until `buffer` is full or the input ends, and gives how much was read.
pub(crate) fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut has = 0;
    while has < buffer.len() {
        match input.read(&mut buffer[has..]) {
            Ok(0) => break,
            Ok(read) => has += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(has)
}
