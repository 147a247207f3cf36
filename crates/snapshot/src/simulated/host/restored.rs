//! What a stream restores: memory and virtual CPUs of a domain to be.

use std::io;
use std::path::Path;

use crate::simulated::content::{self, Head, PAGE_SIZE, Page};
use crate::simulated::memory::GuestMemory;
use crate::simulated::stream::Sink;

/// Takes in a stream as a hypervisor does: whether the pages are right is the guest's to notice.
pub(super) struct Restored<'a> {
    directory: &'a Path,
    pages_wanted: u64,
    memory: Option<GuestMemory>,
    /// Per virtual CPU, the tick in its registers.
    vcpus: Vec<(u32, Option<u64>)>,
}

impl<'a> Restored<'a> {
    pub(super) fn new(directory: &'a Path, pages_wanted: u64) -> Self {
        Self { directory, pages_wanted, memory: None, vcpus: Vec::new() }
    }

    /// Memory, head and tick; what is wrong, if a guest cannot go on from it.
    pub(super) fn finish(self) -> Result<(GuestMemory, Head, u64), String> {
        let memory = self.memory.ok_or("there is no memory in it")?;
        let page = memory.read(0).map_err(|error| error.to_string())?;
        let head = Head::from_page(&page).ok_or("it is not of a simulated guest")?;
        if head.spec.pages_max() != memory.pages() {
            return Err("its guest had another number of pages".into());
        }
        let expected: Vec<_> = (0..head.spec.vcpus).collect();
        if !self.vcpus.iter().map(|(number, _)| number).eq(&expected) {
            return Err("its guest had other virtual CPUs".into());
        }
        let ticks: Option<Vec<u64>> = self.vcpus.iter().map(|(_, tick)| *tick).collect();
        match ticks.as_deref() {
            Some([tick, rest @ ..]) if rest.iter().all(|other| other == tick) => {
                Ok((memory, head, *tick))
            }
            _ => Err("its virtual CPUs are of different ticks".into()),
        }
    }
}

impl Sink for Restored<'_> {
    fn pages(&mut self, pages: u64) -> io::Result<bool> {
        if pages != self.pages_wanted {
            return Ok(false);
        }
        self.memory = Some(GuestMemory::new(self.directory, pages)?);
        Ok(true)
    }

    fn page(&mut self, pfn: u64, _type: u8, page: Option<&Page>) -> io::Result<()> {
        match (&self.memory, page) {
            // Holes stay holes. A page that comes twice may have become zero, but only a live stream has such.
            (Some(memory), Some(page)) if *page != [0; PAGE_SIZE] || memory.read(pfn)? != *page => {
                memory.write(pfn, page)
            }
            _ => Ok(()),
        }
    }

    fn vcpu(&mut self, number: u32, context: Vec<u8>) -> io::Result<()> {
        self.vcpus.push((number, content::vcpu_tick(&context)));
        Ok(())
    }
}
