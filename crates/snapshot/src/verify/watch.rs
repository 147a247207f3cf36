//! Progress of a comparison, and its end when it is cancelled.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;

use crate::Observer;
use crate::image::ReadAt;

/// Octets after which the observer is told again.
const STEP: u64 = 4 << 20;

/// Counts octets that are read for digests.
pub(super) struct Watch<'w, 'o> {
    observer: RefCell<&'w mut Observer<'o>>,
    total: u64,
    /// Octets of what is done with.
    before: Cell<u64>,
    /// Octets of what is being read.
    now: Cell<u64>,
    told: Cell<u64>,
    read: Cell<u64>,
    /// Whether what is read is content. Headers and tables are not counted.
    counting: Cell<bool>,
}

impl<'w, 'o> Watch<'w, 'o> {
    pub(super) fn new(observer: &'w mut Observer<'o>, total: u64) -> Self {
        observer.advance(0, Some(total));
        let zero = || Cell::new(0);
        let observer = RefCell::new(observer);
        Self {
            observer,
            total,
            before: zero(),
            now: zero(),
            told: zero(),
            read: zero(),
            counting: Cell::new(false),
        }
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.observer.borrow().is_cancelled()
    }

    /// From here on what is read is content.
    pub(super) fn start(&self) {
        self.counting.set(true);
    }

    /// What was read up to now is done with; it was to be so many octets.
    pub(super) fn done(&self, octets: u64) {
        self.before.set(self.before.get().saturating_add(octets));
        self.now.set(0);
        self.counting.set(false);
        if octets > 0 && !self.is_cancelled() {
            self.tell(self.before.get());
        }
    }

    /// Octets that were read.
    pub(super) fn octets(&self) -> u64 {
        self.read.get()
    }

    /// What is being read has been read up to here.
    pub(super) fn reached(&self, read: u64, upto: u64) -> io::Result<()> {
        if !self.counting.get() {
            return Ok(());
        }
        self.read.set(self.read.get().saturating_add(read));
        self.now.set(self.now.get().max(upto));
        let done = self.before.get().saturating_add(self.now.get()).min(self.total);
        if done >= self.told.get().saturating_add(STEP) {
            self.tell(done);
        }
        if self.is_cancelled() { Err(io::Error::other("cancelled")) } else { Ok(()) }
    }

    fn tell(&self, done: u64) {
        self.told.set(done);
        self.observer.borrow_mut().advance(done, Some(self.total));
    }
}

/// A file whose reading is watched.
pub(super) struct Watched<'a, 'w, 'o> {
    pub(super) file: &'a File,
    pub(super) watch: &'a Watch<'w, 'o>,
}

impl ReadAt for Watched<'_, '_, '_> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = ReadAt::read_at(self.file, buffer, offset)?;
        self.watch.reached(read as u64, offset.saturating_add(read as u64))?;
        Ok(read)
    }

    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn data_in(&self, range: Range<u64>) -> io::Result<Option<Range<u64>>> {
        let end = range.end;
        let data = self.file.data_in(range)?;
        self.watch.reached(0, data.as_ref().map_or(end, |data| data.start))?;
        Ok(data)
    }
}

/// The octets of a file from its beginning, wherever its position is.
pub(super) struct Octets<'a, 'w, 'o> {
    pub(super) file: Watched<'a, 'w, 'o>,
    pub(super) next: u64,
}

impl<'a, 'w, 'o> Octets<'a, 'w, 'o> {
    pub(super) fn of(file: &'a File, watch: &'a Watch<'w, 'o>) -> Self {
        Self { file: Watched { file, watch }, next: 0 }
    }
}

impl Read for Octets<'_, '_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.next)?;
        self.next += read as u64;
        Ok(read)
    }
}
