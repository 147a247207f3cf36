//! Everything of a stream that is not a page, until it is known where in the image it goes.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::image::digest::CHUNK_LEN;
use crate::image::error::ImageWriteError;
use crate::image::read_at::read_exact_at;

/// Octets that are held before they are put aside in the file itself: enough for a guest of 4 GiB.
const HELD_MAX: usize = 8 << 20;

/// Everything of a stream that is not a page, in order. It goes behind the last page, and which that is comes out last; until
/// then what is too much to be held is in the same file, behind the highest page that there can be.
#[derive(Debug)]
pub(super) struct Records {
    aside_at: u64,
    aside: u64,
    held: Vec<u8>,
}

impl Records {
    pub(super) fn new(aside_at: u64) -> Self {
        Self { aside_at, aside: 0, held: Vec::new() }
    }

    pub(super) fn push(&mut self, file: &File, raw: &[u8]) -> Result<(), ImageWriteError> {
        self.held.extend_from_slice(raw);
        if self.held.len() >= HELD_MAX { self.put_aside(file) } else { Ok(()) }
    }

    /// How many octets there are.
    pub(super) fn len(&self) -> u64 {
        self.aside + self.held.len() as u64
    }

    /// Writes all to where it belongs, and gives the digest of each mebibyte.
    pub(super) fn settle(mut self, file: &File, at: u64) -> Result<Vec<u32>, ImageWriteError> {
        if self.aside == 0 {
            write(file, &self.held, at)?;
            return Ok(self.held.chunks(CHUNK_LEN).map(crc32c::crc32c).collect());
        }
        self.put_aside(file)?;
        let mut digests = Vec::new();
        let mut moved = 0;
        while moved < self.aside {
            let rest = usize::try_from(self.aside - moved).unwrap_or(CHUNK_LEN);
            self.held.resize(rest.min(CHUNK_LEN), 0);
            let from = self.aside_at + moved;
            read_exact_at(file, &mut self.held, from)
                .map_err(|source| ImageWriteError::Output { offset: from, source })?;
            // Where it belongs is before where it is, so that nothing is overwritten that is still to be moved.
            write(file, &self.held, at + moved)?;
            digests.push(crc32c::crc32c(&self.held));
            moved += self.held.len() as u64;
        }
        Ok(digests)
    }

    fn put_aside(&mut self, file: &File) -> Result<(), ImageWriteError> {
        write(file, &self.held, self.aside_at + self.aside)?;
        self.aside += self.held.len() as u64;
        self.held.clear();
        Ok(())
    }
}

pub(super) fn write(file: &File, octets: &[u8], offset: u64) -> Result<(), ImageWriteError> {
    file.write_all_at(octets, offset).map_err(|source| ImageWriteError::Output { offset, source })
}
