//! Headers, records and pages to octets.

use std::io::{self, Write};

use super::pages::{PAGE_LEN, PageEntry};
use super::{
    Content, DomainHeader, ImageHeader, LibxcRecord, LibxcType, LibxlHeader, LibxlRecord, XlHeader,
    XlHeaderError,
};

/// Writes a saved domain piece by piece. It sees to lengths and padding, not to the order of things.
///
/// [`StreamWriter::content`] writes what a reader gives, so that a stream whose padding is zero is copied octet for octet.
#[derive(Debug)]
pub struct StreamWriter<W> {
    output: W,
}

impl<W: Write> StreamWriter<W> {
    /// A writer; nothing is written yet.
    pub fn new(output: W) -> Self {
        Self { output }
    }

    /// Writes any piece.
    ///
    /// # Errors
    ///
    /// As the method for that piece. A batch of pages must have all its pages behind it.
    pub fn content(&mut self, content: &Content<'_>) -> Result<(), StreamWriteError> {
        match content {
            Content::XlHeader(header) => self.xl_header(header),
            Content::LibxlHeader(header) => self.libxl_header(*header),
            Content::LibxlRecord(record) => self.libxl_record(record),
            Content::ImageHeader(header) => self.image_header(*header),
            Content::DomainHeader(header) => self.domain_header(*header),
            Content::LibxcRecord(record) => self.libxc_record(record),
            Content::PageBatch(entries) => self.page_batch(entries),
            Content::Pages { octets, .. } => self.pages(octets),
        }
    }

    /// Writes what an `xl save` file begins with.
    ///
    /// # Errors
    ///
    /// If the optional data are too long, or the output fails.
    pub fn xl_header(&mut self, header: &XlHeader<'_>) -> Result<(), StreamWriteError> {
        let octets = header.to_octets().map_err(|source| StreamWriteError::XlHeader { source })?;
        self.put(&octets)
    }

    /// Writes the header of a libxl stream.
    ///
    /// # Errors
    ///
    /// If the output fails.
    pub fn libxl_header(&mut self, header: LibxlHeader) -> Result<(), StreamWriteError> {
        self.put(&header.to_octets())
    }

    /// Writes a record of a libxl stream.
    ///
    /// # Errors
    ///
    /// If the body is longer than the format can say, or the output fails.
    pub fn libxl_record(&mut self, record: &LibxlRecord<'_>) -> Result<(), StreamWriteError> {
        self.record(record.record_type.0, record.body)
    }

    /// Writes the header of a libxc image.
    ///
    /// # Errors
    ///
    /// If the output fails.
    pub fn image_header(&mut self, header: ImageHeader) -> Result<(), StreamWriteError> {
        self.put(&header.to_octets())
    }

    /// Writes what a libxc image says of the domain.
    ///
    /// # Errors
    ///
    /// If the output fails.
    pub fn domain_header(&mut self, header: DomainHeader) -> Result<(), StreamWriteError> {
        self.put(&header.to_octets())
    }

    /// Writes a record of a libxc image.
    ///
    /// # Errors
    ///
    /// If the body is longer than the format can say, or the output fails.
    pub fn libxc_record(&mut self, record: &LibxcRecord<'_>) -> Result<(), StreamWriteError> {
        self.record(record.record_type.0, record.body)
    }

    /// Writes the beginning of a PAGE_DATA record. The pages that have content follow, 4096 octets each, through
    /// [`StreamWriter::pages`].
    ///
    /// # Errors
    ///
    /// If there are more pages than the format can say, or the output fails.
    pub fn page_batch(&mut self, entries: &[PageEntry]) -> Result<(), StreamWriteError> {
        let carried = entries.iter().filter(|entry| entry.page_type().has_content()).count();
        let len = 8 + entries.len() * 8 + carried * PAGE_LEN;
        let too_long = StreamWriteError::TooLong { len };
        let Ok(len) = u32::try_from(len) else { return Err(too_long) };
        let Ok(count) = u32::try_from(entries.len()) else { return Err(too_long) };
        let mut octets = Vec::with_capacity(16 + entries.len() * 8);
        for number in [LibxcType::PAGE_DATA.0, len, count, 0] {
            octets.extend_from_slice(&number.to_le_bytes());
        }
        octets.extend(entries.iter().flat_map(|entry| entry.bits().to_le_bytes()));
        self.put(&octets)
    }

    /// Writes contents of pages.
    ///
    /// # Errors
    ///
    /// If the output fails.
    pub fn pages(&mut self, octets: &[u8]) -> Result<(), StreamWriteError> {
        self.put(octets)
    }

    /// The output.
    pub fn into_inner(self) -> W {
        self.output
    }

    fn record(&mut self, record_type: u32, body: &[u8]) -> Result<(), StreamWriteError> {
        let len =
            u32::try_from(body.len()).map_err(|_| StreamWriteError::TooLong { len: body.len() })?;
        let padding = body.len().next_multiple_of(8) - body.len();
        self.put(&[record_type.to_le_bytes(), len.to_le_bytes()].concat())?;
        self.put(body)?;
        self.put(&[0; 8][..padding])
    }

    fn put(&mut self, octets: &[u8]) -> Result<(), StreamWriteError> {
        self.output.write_all(octets).map_err(|source| StreamWriteError::Io { source })
    }
}

/// Why a piece of a stream was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamWriteError {
    /// More octets than a length field can say.
    #[error("a record of {len} octets is longer than the format can say")]
    TooLong {
        /// How many.
        len: usize,
    },
    /// The xl header cannot be written.
    #[error("the xl header cannot be written")]
    XlHeader {
        /// Why not.
        source: XlHeaderError,
    },
    /// The output failed.
    #[error("the stream cannot be written")]
    Io {
        /// How.
        source: io::Error,
    },
}
