//! Writing pages to their places, a mebibyte at a time.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::image::digest::CHUNK_LEN;
use crate::image::error::ImageWriteError;
use crate::image::header::{HEADER_LEN, PAGES_OF_CHUNK};
use crate::image::read_at::read_exact_at;
use crate::image::stream::{PAGE_LEN, is_zero};

/// Writes pages to their places. Zero pages are left out, so that they become holes.
#[derive(Debug)]
pub(super) struct PageArea {
    chunk: Vec<u8>,
    /// Which mebibyte that is.
    index: Option<u64>,
    /// Which of its pages are not in the file yet.
    unwritten: [bool; CHUNK_LEN / PAGE_LEN],
    /// The digest of each mebibyte so far.
    digests: Vec<u32>,
    digest_of_zeros: u32,
    zero_pages: u64,
}

impl PageArea {
    pub(super) fn new() -> Self {
        let chunk = vec![0; CHUNK_LEN];
        let digest_of_zeros = crc32c::crc32c(&chunk);
        Self {
            chunk,
            index: None,
            unwritten: [false; CHUNK_LEN / PAGE_LEN],
            digests: Vec::new(),
            digest_of_zeros,
            zero_pages: 0,
        }
    }

    /// Takes the contents of pages.
    pub(super) fn put(
        &mut self,
        file: &File,
        pfns: &[u64],
        octets: &[u8],
    ) -> Result<(), ImageWriteError> {
        for (pfn, page) in pfns.iter().zip(octets.as_chunks::<PAGE_LEN>().0) {
            let index = pfn / PAGES_OF_CHUNK;
            if self.index != Some(index) {
                self.flush(file)?;
                self.load(file, index)?;
            }
            if is_zero(page) {
                self.zero_pages += 1;
                continue;
            }
            // It is less than PAGES_OF_CHUNK.
            let place = (pfn % PAGES_OF_CHUNK) as usize;
            self.chunk[place * PAGE_LEN..][..PAGE_LEN].copy_from_slice(page);
            self.unwritten[place] = true;
        }
        Ok(())
    }

    /// Writes what is left, and gives the digests of the mebibytes up to `pfn_end`, the last of which may be shorter, and how many
    /// pages are zero.
    pub(super) fn finish(
        mut self,
        file: &File,
        pfn_end: u64,
    ) -> Result<(Vec<u32>, u64), ImageWriteError> {
        self.flush(file)?;
        self.reach(pfn_end.div_ceil(PAGES_OF_CHUNK));
        // It is less than PAGES_OF_CHUNK.
        let over = (pfn_end % PAGES_OF_CHUNK) as usize;
        if over > 0 {
            let last = pfn_end / PAGES_OF_CHUNK;
            self.load(file, last)?;
            let slot = self.slot(last);
            self.digests[slot] = crc32c::crc32c(&self.chunk[..over * PAGE_LEN]);
        }
        Ok((self.digests, self.zero_pages))
    }

    fn flush(&mut self, file: &File) -> Result<(), ImageWriteError> {
        let Some(index) = self.index.take() else { return Ok(()) };
        let mut place = 0;
        let mut any = false;
        while let Some(skip) = self.unwritten[place..].iter().position(|unwritten| *unwritten) {
            let first = place + skip;
            let run = self.unwritten[first..].iter().position(|unwritten| !*unwritten);
            let end = run.map_or(self.unwritten.len(), |run| first + run);
            let offset = at(index) + (first * PAGE_LEN) as u64;
            file.write_all_at(&self.chunk[first * PAGE_LEN..end * PAGE_LEN], offset)
                .map_err(|source| ImageWriteError::Output { offset, source })?;
            place = end;
            any = true;
        }
        if any {
            let slot = self.slot(index);
            self.digests[slot] = crc32c::crc32c(&self.chunk);
            self.unwritten.fill(false);
        }
        Ok(())
    }

    fn load(&mut self, file: &File, index: u64) -> Result<(), ImageWriteError> {
        self.index = Some(index);
        if index >= self.digests.len() as u64 {
            self.reach(index + 1);
            self.chunk.fill(0);
            return Ok(());
        }
        // The pages are out of order: what this mebibyte has is in the file, which may end before it does.
        let digest = self.digests[self.slot(index)];
        let offset = at(index);
        let end = file.metadata().map(|metadata| metadata.len());
        let read = end.and_then(|end| {
            let has = usize::try_from(end.saturating_sub(offset)).unwrap_or(CHUNK_LEN);
            let (held, behind) = self.chunk.split_at_mut(has.min(CHUNK_LEN));
            behind.fill(0);
            read_exact_at(file, held, offset)
        });
        read.map_err(|source| ImageWriteError::Output { offset, source })?;
        if crc32c::crc32c(&self.chunk) != digest {
            return Err(ImageWriteError::ReadsOtherwise { offset });
        }
        Ok(())
    }

    /// Makes so many digests be there; what is not written is zero.
    fn reach(&mut self, chunks: u64) {
        let chunks = usize::try_from(chunks).unwrap_or(usize::MAX);
        if self.digests.len() < chunks {
            self.digests.resize(chunks, self.digest_of_zeros);
        }
    }

    /// Where in the table a mebibyte is that `reach` has made be there.
    fn slot(&self, index: u64) -> usize {
        usize::try_from(index).map_or(usize::MAX, |slot| slot.min(self.digests.len() - 1))
    }
}

/// Where a mebibyte of pages begins in the file.
fn at(index: u64) -> u64 {
    HEADER_LEN as u64 + index * CHUNK_LEN as u64
}
