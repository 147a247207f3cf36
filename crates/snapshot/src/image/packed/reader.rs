//! A packed image back to the stream, or to any frame of it.

use std::fmt;
use std::io::{Read, Write};

use super::codec::{Codec, Decoder};
use super::pieces::Pieces;
use super::table::{ENTRY_LEN, Form, FrameTable};
use crate::image::digest::{StreamDigests, chunks};
use crate::image::error::{Area, ImageOpenError, ImageReadError};
use crate::image::header::{ImageFormat, ImageInfo, Layout};
use crate::image::limits::Limits;
use crate::image::open::{open_header, read_table};
use crate::image::read_at::{ReadAt, read_exact_at};
use crate::image::stream::{CheckedReader, StreamSummary};

/// Reads a packed image. Everything that it gives has been checked against its digest.
#[derive(Debug)]
pub struct PackedReader<F> {
    file: F,
    info: ImageInfo,
    codec: Codec,
    limits: Limits,
    table: FrameTable,
}

impl<F: ReadAt> PackedReader<F> {
    /// Opens an image: reads its header and its table of frames, and checks them.
    ///
    /// # Errors
    ///
    /// If it is no packed image, not complete, larger than the limits, or not as it was written.
    pub fn open(file: F, limits: Limits) -> Result<Self, ImageOpenError> {
        let (page, info) = open_header(&file, ImageFormat::Packed)?;
        let Layout::Packed { codec, level, table_at } = info.layout else {
            return Err(ImageOpenError::Layout);
        };
        let codec = Codec::from_numbers(codec, level).ok_or(ImageOpenError::Layout)?;
        let (has, max) = (info.stream_len, limits.stream_max);
        if has > max {
            return Err(ImageOpenError::TooLarge { what: "a stream of", has, max });
        }
        let table_len = chunks(info.stream_len) * ENTRY_LEN as u64;
        if table_at.checked_add(table_len) != Some(info.file_len) {
            return Err(ImageOpenError::Layout);
        }
        let table = read_table(&file, &page, &info, table_at, table_len)?;
        let table =
            FrameTable::new(table, info.stream_len, table_at).ok_or(ImageOpenError::Layout)?;
        Ok(Self { file, info, codec, limits, table })
    }

    /// What the header says.
    pub fn info(&self) -> &ImageInfo {
        &self.info
    }

    /// How frames are compressed.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// How many frames there are. Frame `i` is what the stream has from octet `i` * [`CHUNK_LEN`](crate::image::CHUNK_LEN) on.
    pub fn frames(&self) -> u64 {
        self.table.len() as u64
    }

    /// Reads one frame.
    ///
    /// # Errors
    ///
    /// If there is none with that index, it cannot be read, or is not as it was written.
    pub fn frame(&self, index: u64) -> Result<Vec<u8>, ImageReadError> {
        let mut frames = Frames::new(self);
        frames.load(index)?;
        Ok(frames.content)
    }

    /// The stream, from its beginning. An error in it is an [`ImageReadError`] inside an [`std::io::Error`].
    pub fn stream(&self) -> PackedStream<'_, F> {
        PackedStream { frames: Frames::new(self), next: 0, given: 0 }
    }

    /// Checks every octet of the image, and that it holds a saved domain.
    ///
    /// # Errors
    ///
    /// The first part of the image that is not as it was written.
    pub fn verify(&self) -> Result<StreamSummary, ImageReadError> {
        let mut digests = StreamDigests::default();
        for index in 0..self.table.len() {
            let crc = self.table.entry(index).map_or(0, |entry| entry.content_crc);
            digests.chunk(self.table.content_len(index), crc);
        }
        let digests = digests.finish();
        if (digests.len, digests.digest) != (self.info.stream_len, self.info.stream_digest) {
            return Err(ImageReadError::OtherStream);
        }
        let mut reader = CheckedReader::new(self.stream(), self.limits);
        while reader.next_event()?.is_some() {}
        let summary = reader.summary();
        if summary.len != self.info.stream_len {
            return Err(ImageReadError::OtherStream);
        }
        Ok(summary)
    }

    /// Writes out the stream that the image was made of, octet for octet.
    ///
    /// # Errors
    ///
    /// If the image cannot be read or is not as it was written, which may come out when part of the stream has been written:
    /// [`PackedReader::verify`] first where that matters. If the output fails.
    pub fn write_stream<W: Write>(&self, mut output: W) -> Result<(), ImageReadError> {
        let mut frames = Frames::new(self);
        for index in 0..self.frames() {
            frames.load(index)?;
            output
                .write_all(&frames.content)
                .map_err(|source| ImageReadError::Output { source })?;
        }
        output.flush().map_err(|source| ImageReadError::Output { source })
    }
}

/// Decodes frames, one after the other into the same buffers.
struct Frames<'a, F> {
    image: &'a PackedReader<F>,
    decoder: Option<Decoder>,
    stored: Vec<u8>,
    pieces: Pieces,
    coded: Vec<u8>,
    content: Vec<u8>,
}

impl<'a, F: ReadAt> Frames<'a, F> {
    fn new(image: &'a PackedReader<F>) -> Self {
        let (stored, coded, content) = (Vec::new(), Vec::new(), Vec::new());
        Self { image, decoder: None, stored, pieces: Pieces::default(), coded, content }
    }

    fn load(&mut self, index: u64) -> Result<(), ImageReadError> {
        let image = self.image;
        let no_frame = || ImageReadError::NoFrame { index, frames: image.frames() };
        let at = usize::try_from(index).map_err(|_| no_frame())?;
        let entry = image.table.entry(at).ok_or_else(no_frame)?;
        let offset = image.table.offset(at).ok_or_else(no_frame)?;
        let io = |source| ImageReadError::Io { offset, source };
        self.stored.resize(entry.stored_len as usize, 0);
        read_exact_at(&image.file, &mut self.stored, offset).map_err(io)?;
        if crc32c::crc32c(&self.stored) != entry.stored_crc {
            return Err(ImageReadError::Digest { area: Area::Frames, offset });
        }
        if self.decoder.is_none() {
            self.decoder = Some(Decoder::new(image.codec).map_err(io)?);
        }
        self.decode(entry.form, image.table.content_len(at))
            .filter(|crc| *crc == entry.content_crc)
            .map(|_| ())
            .ok_or(ImageReadError::Frame { offset })
    }

    /// Makes the content out of what is stored, and gives its CRC32C; `None` if that cannot be.
    fn decode(&mut self, form: Form, len: usize) -> Option<u32> {
        let Self { decoder, stored, pieces, coded, content, .. } = self;
        match form {
            Form::Whole if stored.is_empty() => {
                content.clear();
                content.resize(len, 0);
            }
            Form::Whole => {
                content.resize(len, 0);
                decoder.as_mut()?.decode(stored, content).then_some(())?;
            }
            Form::Plain => {
                content.clear();
                content.extend_from_slice(stored);
            }
            Form::Pieces => {
                let rest = pieces.read(stored, len)?;
                let (coded_len, plain_len) = pieces.coded_and_plain();
                let (plain, encoded) = rest.split_at_checked(plain_len)?;
                coded.resize(coded_len, 0);
                if coded_len == 0 {
                    encoded.is_empty().then_some(())?;
                } else {
                    decoder.as_mut()?.decode(encoded, coded).then_some(())?;
                }
                return Some(pieces.join(coded, plain, content));
            }
        }
        Some(crc32c::crc32c(content))
    }
}

/// The stream in a packed image.
pub struct PackedStream<'a, F> {
    frames: Frames<'a, F>,
    next: u64,
    given: usize,
}

impl<F: ReadAt> Read for PackedStream<'_, F> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.given == self.frames.content.len() {
            if self.next == self.frames.image.frames() {
                return Ok(0);
            }
            self.frames.load(self.next).map_err(std::io::Error::other)?;
            self.next += 1;
            self.given = 0;
        }
        let read = (&self.frames.content[self.given..]).read(buffer)?;
        self.given += read;
        Ok(read)
    }
}

impl<F> fmt::Debug for PackedStream<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackedStream").field("frame", &self.next).finish_non_exhaustive()
    }
}
