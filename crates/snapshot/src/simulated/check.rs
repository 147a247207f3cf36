//! Whether what was saved of a simulated domain is of one moment.
//!
//! All that a guest holds at a tick follows from its spec, so that nothing but what was saved is needed to check it, and every
//! octet is compared. What may be asked of memory and disks together is in [`consistent`].

use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use super::content::{self, Head, PAGE_SIZE, Page, RECORD_SIZE, RECORDS};
use super::memory::GuestMemory;
use super::qcow2_content;
use super::spec::GuestSpec;
use super::stream::{self, Sink, StreamError};

/// A guest's memory and virtual CPUs, found to be of one tick.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckedMemory {
    /// The guest.
    pub spec: GuestSpec,
    /// How many disks it has.
    pub disks: u64,
    /// The tick.
    pub tick: u64,
}

/// Why something saved is not what a guest had at any moment.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// There is no stream to check.
    #[error("the memory cannot be read")]
    Stream(#[from] StreamError),
    /// Memory or disk cannot be read.
    #[error("{what} cannot be read")]
    Read {
        /// Which.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// Page 0 is no guest's.
    #[error("page 0 is not the head of a simulated guest's memory")]
    NoGuest,
    /// The guest was stopped in the midst of a tick. After a pause that may be; a suspend comes between ticks.
    #[error("tick {begun} had begun and tick {done} was the last that was done")]
    WithinTick {
        /// The one that had begun.
        begun: u64,
        /// The one that was done.
        done: u64,
    },
    /// A page is not what it was at the head's tick.
    #[error("page {pfn} is not what it was at tick {tick}")]
    TornPage {
        /// Which page.
        pfn: u64,
        /// The tick in the head.
        tick: u64,
    },
    /// A virtual CPU is not what it was at the head's tick.
    #[error("virtual CPU {vcpu} is at tick {found:?}, the memory at {tick}")]
    TornVcpu {
        /// Which.
        vcpu: u32,
        /// The tick in its registers.
        found: Option<u64>,
        /// The tick in the head.
        tick: u64,
    },
    /// A record is not what it must be, given the last one on that disk.
    #[error(
        "disk {disk}: the record in slot {slot} is wrong, or of another tick than it must be when {tick} was the last"
    )]
    TornDisk {
        /// Which disk, from 0.
        disk: usize,
        /// Which record.
        slot: u64,
        /// The last tick on the disk.
        tick: u64,
    },
    /// A disk is of another moment than the memory.
    #[error("disk {disk} is at tick {found}, the memory at {tick}")]
    DiskOfAnotherMoment {
        /// Which disk, from 0.
        disk: usize,
        /// The last tick on it.
        found: u64,
        /// The memory's.
        tick: u64,
    },
    /// There are more or fewer disks than the guest has.
    #[error("the guest has {expected} disks, and there are {found}")]
    Disks {
        /// By the memory.
        expected: u64,
        /// How many there are.
        found: usize,
    },
    /// Disks without memory are not of one moment.
    #[error("disk {disk} is at tick {found}, the one before it at {before}")]
    DisksOutOfOrder {
        /// Which disk, from 1.
        disk: usize,
        /// The last tick on it.
        found: u64,
        /// The last tick on the one before.
        before: u64,
    },
}

/// Checks a whole stream: that it is one, and that all in it is of one tick. Memory use does not depend on its length.
///
/// # Errors
///
/// The first thing that is wrong.
pub fn stream(input: &mut dyn Read) -> Result<CheckedMemory, CheckError> {
    let mut sink = CheckingSink::default();
    match stream::read(input, &mut sink) {
        Err(StreamError::Keep { .. }) if sink.wrong.is_some() => {}
        other => other?,
    }
    match (sink.wrong, sink.head) {
        (Some(wrong), _) => Err(wrong),
        (None, None) => Err(CheckError::NoGuest),
        (None, Some(head)) => {
            Ok(CheckedMemory { spec: head.spec, disks: head.disks, tick: head.done })
        }
    }
}

/// Checks a disk by itself, and says which tick was the last that was written to it. `disk` is its number in the guest's order.
///
/// # Errors
///
/// If a record is missing or wrong.
pub fn disk(
    seed: u64,
    disk: usize,
    read_at: &mut dyn FnMut(&mut [u8], u64) -> io::Result<()>,
) -> Result<u64, CheckError> {
    let mut records = Vec::new();
    for slot in 0..RECORDS {
        let mut record = [0; RECORD_SIZE];
        read_at(&mut record, slot * RECORD_SIZE as u64)
            .map_err(|source| CheckError::Read { what: format!("disk {disk}"), source })?;
        records.push(record);
    }
    let tick = records.iter().map(content::record_tick).max().unwrap_or_default();
    for (slot, record) in (0..).zip(&records) {
        let expected = content::record(seed, disk as u64, content::last_in_slot(slot, tick));
        if *record != expected {
            return Err(CheckError::TornDisk { disk, slot, tick });
        }
    }
    Ok(tick)
}

/// Checks a raw image. What is behind its end is zero, as on a disk that was never written there.
///
/// # Errors
///
/// As [`disk`].
pub fn raw_disk(seed: u64, number: usize, file: &std::fs::File) -> Result<u64, CheckError> {
    disk(seed, number, &mut |octets, offset| read_or_zero(file, octets, offset))
}

/// Checks a qcow2 image together with all that it rests on, by `qemu-img`, which needs room for its content in `directory`.
///
/// QEMU keeps some of what it has written to an image in its own memory until the image is frozen, flushed or closed: an
/// image that is still written to is checked in vain.
///
/// # Errors
///
/// As [`disk`].
pub fn qcow2_disk(
    seed: u64,
    number: usize,
    image: &Path,
    directory: &Path,
    deadline: Instant,
) -> Result<u64, CheckError> {
    let raw = qcow2_content::raw(image, directory, deadline)
        .map_err(|source| CheckError::Read { what: image.display().to_string(), source })?;
    raw_disk(seed, number, &raw)
}

/// Checks that memory and all disks are of one moment; `disks` are the ticks that [`disk`] found, in the guest's order.
///
/// # Errors
///
/// The first disk that is not.
pub fn consistent(memory: &CheckedMemory, disks: &[u64]) -> Result<(), CheckError> {
    if memory.disks != disks.len() as u64 {
        return Err(CheckError::Disks { expected: memory.disks, found: disks.len() });
    }
    match disks.iter().enumerate().find(|(_, tick)| **tick != memory.tick) {
        Some((disk, found)) => {
            Err(CheckError::DiskOfAnotherMoment { disk, found: *found, tick: memory.tick })
        }
        None => Ok(()),
    }
}

/// Checks that disks are of one moment, as after a power failure: each has what was written before the one behind it.
///
/// # Errors
///
/// The first disk that is not.
pub fn crash_consistent(disks: &[u64]) -> Result<(), CheckError> {
    let first = disks.first().copied().unwrap_or_default();
    for (disk, pair) in (1..).zip(disks.windows(2)) {
        if let [before, found] = *pair
            && (found > before || found + 1 < first)
        {
            return Err(CheckError::DisksOutOfOrder { disk, found, before });
        }
    }
    Ok(())
}

/// Checks a domain's memory where it is: the host knows the tick that is done, and how many steps of the next one are.
pub(crate) fn memory(
    memory: &GuestMemory,
    spec: &GuestSpec,
    disks: u64,
    tick: u64,
    steps: usize,
) -> Result<(), CheckError> {
    for pfn in 0..spec.pages {
        let page = memory
            .read(pfn)
            .map_err(|source| CheckError::Read { what: format!("page {pfn}"), source })?;
        let matches = if content::is_always_zero(spec, pfn) {
            page == [0; PAGE_SIZE]
        } else {
            page == content::page_within(spec, disks, pfn, tick, steps)
        };
        if !matches {
            return Err(CheckError::TornPage { pfn, tick });
        }
    }
    Ok(())
}

fn head_of(page: &Page) -> Result<Head, CheckError> {
    let head = Head::from_page(page).ok_or(CheckError::NoGuest)?;
    if head.begun != head.done || head.to_page() != *page {
        return Err(CheckError::WithinTick { begun: head.begun, done: head.done });
    }
    Ok(head)
}

fn check_page(head: &Head, pfn: u64, page: &Page) -> Result<(), CheckError> {
    let matches = if content::is_always_zero(&head.spec, pfn) {
        *page == [0; PAGE_SIZE]
    } else {
        content::page(&head.spec, head.disks, pfn, head.done) == *page
    };
    if matches { Ok(()) } else { Err(CheckError::TornPage { pfn, tick: head.done }) }
}

/// Reads; what is behind the end of the file is zero.
pub(crate) fn read_or_zero(
    file: &std::fs::File,
    mut octets: &mut [u8],
    mut offset: u64,
) -> io::Result<()> {
    while !octets.is_empty() {
        match file.read_at(octets, offset) {
            Ok(0) => {
                octets.fill(0);
                break;
            }
            Ok(read) => {
                octets = &mut octets[read..];
                offset += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Compares what comes with what must come, as it comes.
#[derive(Default)]
struct CheckingSink {
    pages: u64,
    head: Option<Head>,
    wrong: Option<CheckError>,
}

impl CheckingSink {
    fn check(&mut self, checked: Result<(), CheckError>) -> io::Result<()> {
        checked.map_err(|error| {
            self.wrong = Some(error);
            io::ErrorKind::InvalidData.into()
        })
    }
}

impl Sink for CheckingSink {
    fn pages(&mut self, pages: u64) -> io::Result<bool> {
        self.pages = pages;
        Ok(true)
    }

    fn page(&mut self, pfn: u64, page_type: u8, page: Option<&Page>) -> io::Result<()> {
        let checked = match (&self.head, page) {
            (None, Some(page)) if pfn == 0 => head_of(page).map(|head| self.head = Some(head)),
            // Page 0 comes first in every stream that is not live.
            (None, _) => Err(CheckError::NoGuest),
            (Some(head), _) if head.spec.pages_max() != self.pages => Err(CheckError::NoGuest),
            (Some(head), None)
                if pfn >= head.spec.pages && page_type == content::page_type(&head.spec, pfn) =>
            {
                Ok(())
            }
            (Some(head), Some(page))
                if pfn < head.spec.pages && page_type == content::page_type(&head.spec, pfn) =>
            {
                check_page(head, pfn, page)
            }
            (Some(head), _) => Err(CheckError::TornPage { pfn, tick: head.done }),
        };
        self.check(checked)
    }

    fn vcpu(&mut self, number: u32, context: Vec<u8>) -> io::Result<()> {
        let checked = match &self.head {
            None => Err(CheckError::NoGuest),
            Some(head) if context == content::vcpu(&head.spec, number, head.done) => Ok(()),
            Some(head) => Err(CheckError::TornVcpu {
                vcpu: number,
                found: content::vcpu_tick(&context),
                tick: head.done,
            }),
        };
        self.check(checked)
    }
}
