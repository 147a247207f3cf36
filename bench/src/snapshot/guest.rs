//! Saved domains that are made while they are read, so that a guest of any size takes no memory and no disk.

use std::io::{self, Read};

use snapshot::image::stream::{
    DomainHeader, GuestType, ImageHeader, ImageVersion, LibxcRecord, LibxcType, PAGE_LEN,
    PageEntry, PageType, StreamWriteError, StreamWriter,
};
use snapshot::simulated::Population;

/// Pages of one record, as libxc writes them.
const BATCH: u64 = 1024;

/// Pages that exist several times are one of so many.
const DUPLICATES: u64 = 16;

const WORDS: [&[u8]; 8] =
    [b"domain ", b"page ", b"the ", b"guest ", b"of ", b"writes ", b"memory ", b"to\n"];

/// A guest's memory: each page is zero, words, random, or one that exists many times, as the page's number decides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) pages: u64,
    pub(crate) population: Population,
    /// Contiguous pages that are all of one kind.
    pub(crate) together: u64,
}

impl Memory {
    /// Half of the pages are zero, the others are those of a guest that has booted; each is of a kind of its own.
    pub(crate) fn half_zero(pages: u64) -> Self {
        Self { pages, population: Population::default(), together: 1 }
    }

    /// One page of sixteen is not zero; those are of all kinds and come sixteen at a time.
    pub(crate) fn sparse(pages: u64) -> Self {
        let population = Population { text: 32, random: 20, duplicate: 12 };
        Self { pages, population, together: 16 }
    }

    pub(crate) fn octets(&self) -> u64 {
        self.pages * PAGE_LEN as u64
    }

    pub(crate) fn page(&self, pfn: u64, page: &mut [u8; PAGE_LEN]) {
        let Population { text, random, duplicate } = self.population;
        let (text, random, duplicate) = (u64::from(text), u64::from(random), u64::from(duplicate));
        match mix(pfn / self.together) % 1024 {
            kind if kind < text => words(page, mix(pfn ^ 0x7465_7874)),
            kind if kind < text + random => noise(page, mix(pfn ^ 0x7261_6e64)),
            kind if kind < text + random + duplicate => noise(page, pfn % DUPLICATES),
            _ => page.fill(0),
        }
    }

    /// Its stream.
    pub(crate) fn stream(self) -> Result<Stream, StreamWriteError> {
        let mut writer = StreamWriter::new(Vec::new());
        writer.image_header(ImageHeader { version: ImageVersion::V3 })?;
        let guest = GuestType::X86Hvm;
        writer.domain_header(DomainHeader { guest, xen_major: 4, xen_minor: 17 })?;
        empty(&mut writer, LibxcType::STATIC_DATA_END)?;
        Ok(Stream { memory: self, next: 0, piece: writer.into_inner(), given: 0 })
    }
}

/// A libxc image of a memory.
pub(crate) struct Stream {
    memory: Memory,
    next: u64,
    piece: Vec<u8>,
    given: usize,
}

impl Stream {
    fn batch(&mut self) -> Result<(), StreamWriteError> {
        self.piece.clear();
        self.given = 0;
        let mut writer = StreamWriter::new(std::mem::take(&mut self.piece));
        let pfns = self.next..(self.next + BATCH).min(self.memory.pages);
        let entries: Vec<_> =
            pfns.clone().filter_map(|pfn| PageEntry::new(pfn, PageType::NORMAL)).collect();
        writer.page_batch(&entries)?;
        let mut page = [0; PAGE_LEN];
        for pfn in pfns.clone() {
            self.memory.page(pfn, &mut page);
            writer.pages(&page)?;
        }
        self.next = pfns.end;
        if self.next == self.memory.pages {
            empty(&mut writer, LibxcType::END)?;
        }
        self.piece = writer.into_inner();
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.given == self.piece.len() && self.next < self.memory.pages {
            self.batch().map_err(io::Error::other)?;
        }
        let read = (&self.piece[self.given..]).read(buffer)?;
        self.given += read;
        Ok(read)
    }
}

fn empty(
    writer: &mut StreamWriter<Vec<u8>>,
    record_type: LibxcType,
) -> Result<(), StreamWriteError> {
    writer.libxc_record(&LibxcRecord { record_type, body: &[] })
}

fn noise(octets: &mut [u8], seed: u64) {
    let mut state = seed;
    for word in octets.as_chunks_mut::<8>().0 {
        *word = next(&mut state).to_le_bytes();
    }
}

fn words(octets: &mut [u8], seed: u64) {
    let mut state = seed;
    let mut rest = octets;
    while !rest.is_empty() {
        let word = WORDS[usize::from(next(&mut state).to_le_bytes()[0] % 8)];
        let (at, behind) = rest.split_at_mut(word.len().min(rest.len()));
        at.copy_from_slice(&word[..at.len()]);
        rest = behind;
    }
}

fn mix(number: u64) -> u64 {
    next(&mut { number })
}

/// splitmix64 (Steele, Lea, Flood 2014).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
