//! A stream to a packed image.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;

use uuid::Uuid;

use super::codec::Codec;
use super::frame::{Frame, Kind};
use super::workers::Workers;
use crate::image::digest::StreamDigests;
use crate::image::error::ImageWriteError;
use crate::image::header::{HEADER_LEN, ImageInfo, Layout};
use crate::image::limits::Limits;
use crate::image::stream::{CheckedReader, Content, PAGE_LEN, StreamSummary};
use crate::image::unmarked::Unmarked;

/// Threads that compress when nothing else is said.
pub const WORKERS_DEFAULT: usize = 2;

/// How a packed image is written.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct PackedOptions {
    /// Which domain it is, for the header.
    pub uuid: Option<Uuid>,
    /// How frames are compressed.
    pub codec: Codec,
    /// Threads that compress, at least 1, besides the one that calls. Each holds up to 12 MiB.
    pub workers: usize,
    /// How much is taken.
    pub limits: Limits,
}

impl Default for PackedOptions {
    fn default() -> Self {
        let (codec, limits) = (Codec::default(), Limits::default());
        Self { uuid: None, codec, workers: WORKERS_DEFAULT, limits }
    }
}

impl PackedOptions {
    /// Puts the domain's uuid into the header.
    #[must_use]
    pub const fn uuid(mut self, uuid: Uuid) -> Self {
        self.uuid = Some(uuid);
        self
    }

    /// Compresses so.
    #[must_use]
    pub const fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// Compresses in so many threads.
    #[must_use]
    pub const fn workers(mut self, threads: usize) -> Self {
        self.workers = threads;
        self
    }

    /// Takes this much.
    #[must_use]
    pub const fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }
}

/// Writes a stream as a packed image into an empty file, all but the mark that it is complete.
///
/// The stream is read up to its END record and not an octet further; what is behind it is for whoever gave `&mut input` to see.
/// Whoever wants progress, or to cancel, gives an input that
/// counts or fails. Memory does not grow with the guest, except for 16 octets for each mebibyte of it.
///
/// # Errors
///
/// If the stream is no saved domain or larger than the limits, if there is something in the file, or if it cannot be written.
/// The file is then left as it is.
pub fn write<R: Read>(
    input: R,
    file: File,
    options: &PackedOptions,
) -> Result<Unmarked, ImageWriteError> {
    let nowhere = |source| ImageWriteError::Output { offset: 0, source };
    match file.metadata().map_err(nowhere)?.len() {
        0 => {}
        len => return Err(ImageWriteError::NotEmpty { len }),
    }
    let (codec, level) = options.codec.numbers();
    let info = ImageInfo::partial(Layout::Packed { codec, level, table_at: 0 });
    file.write_all_at(&info.to_page(), 0).map_err(nowhere)?;
    let (info, summary) = std::thread::scope(|scope| {
        let workers = Workers::start(scope, options.codec, options.workers)
            .map_err(|source| ImageWriteError::Codec { source })?;
        let mut packing = Packing::new(&file, workers);
        let mut reader = CheckedReader::new(input, options.limits);
        while let Some(event) = reader.next_event()? {
            match event.content {
                Content::Pages { octets, .. } => packing.push_pages(octets)?,
                _ => packing.push(Kind::Coded, event.raw)?,
            }
        }
        let summary = reader.summary();
        let info = packing.finish(info, options, &summary)?;
        Ok::<_, ImageWriteError>((info, summary))
    })?;
    tracing::debug!(octets = summary.len, file = info.file_len, "packed image written");
    Ok(Unmarked::new(file, info, summary))
}

/// An image that is being written.
struct Packing<'f> {
    file: &'f File,
    workers: Workers,
    filling: Frame,
    spare: Vec<Frame>,
    at: u64,
    table: Vec<u8>,
    stream: StreamDigests,
}

impl<'f> Packing<'f> {
    fn new(file: &'f File, workers: Workers) -> Self {
        Self {
            file,
            workers,
            filling: Frame::default(),
            spare: Vec::new(),
            at: HEADER_LEN as u64,
            table: Vec::new(),
            stream: StreamDigests::default(),
        }
    }

    fn push_pages(&mut self, octets: &[u8]) -> Result<(), ImageWriteError> {
        for page in octets.as_chunks::<PAGE_LEN>().0 {
            self.push(Kind::of_page(page), page)?;
        }
        Ok(())
    }

    fn push(&mut self, kind: Kind, mut octets: &[u8]) -> Result<(), ImageWriteError> {
        while !octets.is_empty() {
            let (now, later) = octets.split_at(octets.len().min(self.filling.room()));
            self.filling.push(kind, now);
            if self.filling.room() == 0 {
                self.give()?;
            }
            octets = later;
        }
        Ok(())
    }

    fn give(&mut self) -> Result<(), ImageWriteError> {
        if self.workers.is_full() {
            self.store_oldest()?;
        }
        let next = self.spare.pop().unwrap_or_default();
        let frame = std::mem::replace(&mut self.filling, next);
        self.workers.give(frame).map_err(|source| ImageWriteError::Codec { source })
    }

    /// Writes the oldest frame that is being compressed; whether there was one.
    fn store_oldest(&mut self) -> Result<bool, ImageWriteError> {
        let taken = self.workers.take().map_err(|source| ImageWriteError::Codec { source })?;
        let Some(mut frame) = taken else { return Ok(false) };
        let entry = frame.entry();
        for part in frame.stored() {
            self.file
                .write_all_at(part, self.at)
                .map_err(|source| ImageWriteError::Output { offset: self.at, source })?;
            self.at += part.len() as u64;
        }
        self.table.extend_from_slice(&entry.to_octets());
        self.stream.chunk(frame.len(), entry.content_crc);
        frame.clear();
        self.spare.push(frame);
        Ok(true)
    }

    fn finish(
        mut self,
        mut info: ImageInfo,
        options: &PackedOptions,
        summary: &StreamSummary,
    ) -> Result<ImageInfo, ImageWriteError> {
        if self.filling.len() > 0 {
            self.give()?;
        }
        while self.store_oldest()? {}
        let stream = self.stream.finish();
        let (codec, level) = options.codec.numbers();
        info.layout = Layout::Packed { codec, level, table_at: self.at };
        info.start = summary.start;
        info.guest = summary.domain.map(|domain| domain.guest);
        info.uuid = options.uuid;
        info.file_len = self.at + self.table.len() as u64;
        info.stream_len = stream.len;
        info.stream_digest = stream.digest;
        info.root = info.root_with(&self.table);
        for (octets, offset) in [(&self.table[..], self.at), (&info.to_page(), 0)] {
            self.file
                .write_all_at(octets, offset)
                .map_err(|source| ImageWriteError::Output { offset, source })?;
        }
        Ok(info)
    }
}
