//! The table of pages' types: four bits a page.

use std::fs::File;
use std::io::Read;

use super::layout::Section;
use super::records::write;
use crate::image::digest::CHUNK_LEN;
use crate::image::error::ImageWriteError;
use crate::image::read_at::{ReadAt, read_exact_at};
use crate::image::stream::{PageEntry, PageType};

/// What the table says of a page that the stream does not tell of.
const ABSENT: u8 = 0;
/// What it says of an ordinary page, whose type is 0 in streams; 5 is no type there.
const NORMAL: u8 = 5;

/// Octets of the table that are held at a time: those of 512 MiB of memory.
const WINDOW_LEN: usize = 64 << 10;

pub(super) const fn code_of(page_type: PageType) -> u8 {
    match page_type {
        PageType::NORMAL => NORMAL,
        page_type => page_type.number(),
    }
}

/// The type that a code stands for; `None` for a page that the stream does not tell of, and for what is no code.
pub(super) const fn type_of(code: u8) -> Option<PageType> {
    match code {
        ABSENT => None,
        NORMAL => Some(PageType::NORMAL),
        code => PageType::new(code),
    }
}

/// Writes the table, holding a part of it.
#[derive(Debug)]
pub(super) struct TypeTable<'f> {
    file: &'f File,
    section: Section,
    window: Vec<u8>,
    /// Where in the table the window begins.
    begins: Option<u64>,
}

impl<'f> TypeTable<'f> {
    pub(super) fn new(file: &'f File, section: Section) -> Self {
        Self { file, section, window: Vec::new(), begins: None }
    }

    pub(super) fn set(&mut self, entry: PageEntry) -> Result<(), ImageWriteError> {
        let octet = entry.pfn() / 2;
        let in_window = octet % WINDOW_LEN as u64;
        let begins = octet - in_window;
        if self.begins != Some(begins) {
            self.flush()?;
            let rest = usize::try_from(self.section.len - begins).unwrap_or(WINDOW_LEN);
            self.window.resize(rest.min(WINDOW_LEN), 0);
            let offset = self.section.at + begins;
            read_exact_at(self.file, &mut self.window, offset)
                .map_err(|source| ImageWriteError::Output { offset, source })?;
            self.begins = Some(begins);
        }
        // It is less than the window's length.
        let place = &mut self.window[in_window as usize];
        *place |= code_of(entry.page_type()) << (entry.pfn() % 2 * 4);
        Ok(())
    }

    /// Writes what is left, and gives the digest of each mebibyte.
    pub(super) fn finish(mut self) -> Result<Vec<u32>, ImageWriteError> {
        self.flush()?;
        let mut chunk = vec![0; CHUNK_LEN];
        let mut digests = Vec::new();
        for index in 0..self.section.chunks() {
            let (offset, len) = self.section.chunk(index);
            read_exact_at(self.file, &mut chunk[..len], offset)
                .map_err(|source| ImageWriteError::Output { offset, source })?;
            digests.push(crc32c::crc32c(&chunk[..len]));
        }
        Ok(digests)
    }

    fn flush(&mut self) -> Result<(), ImageWriteError> {
        let Some(begins) = self.begins.take() else { return Ok(()) };
        write(self.file, &self.window, self.section.at + begins)
    }
}

/// The octets of a part of a file, in order.
#[derive(Debug)]
pub(super) struct SectionReader<'f, F: ?Sized> {
    file: &'f F,
    at: u64,
    left: u64,
}

impl<'f, F: ReadAt + ?Sized> SectionReader<'f, F> {
    pub(super) fn new(file: &'f F, section: Section) -> Self {
        Self { file, at: section.at, left: section.len }
    }
}

impl<F: ReadAt + ?Sized> Read for SectionReader<'_, F> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let read = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}
