//! A simulated domain's memory: a sparse file without a name.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::content::{self, PAGE_SIZE, Page};
use super::spec::GuestSpec;

/// Pages by number. What was never written is a hole, and zero.
#[derive(Debug)]
pub(crate) struct GuestMemory {
    file: File,
    pages: u64,
}

impl GuestMemory {
    /// Zero pages. The file is in `directory`, and is gone with the process whatever becomes of that.
    pub(crate) fn new(directory: &Path, pages: u64) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = directory.join(format!("memory-{}-{number}", std::process::id()));
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        fs::remove_file(&path)?;
        file.set_len(pages * PAGE_SIZE as u64)?;
        Ok(Self { file, pages })
    }

    /// A guest's memory before its first tick.
    pub(crate) fn populated(directory: &Path, spec: &GuestSpec, disks: u64) -> io::Result<Self> {
        let memory = Self::new(directory, spec.pages)?;
        for pfn in (0..spec.pages).filter(|pfn| !content::is_always_zero(spec, *pfn)) {
            memory.write(pfn, &content::page(spec, disks, pfn, 0))?;
        }
        Ok(memory)
    }

    pub(crate) fn pages(&self) -> u64 {
        self.pages
    }

    pub(crate) fn read(&self, pfn: u64) -> io::Result<Page> {
        let mut page = [0; PAGE_SIZE];
        self.read_run(pfn, &mut page)?;
        Ok(page)
    }

    /// Whole pages from `pfn` on.
    pub(crate) fn read_run(&self, pfn: u64, octets: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(octets, pfn * PAGE_SIZE as u64)
    }

    pub(crate) fn write(&self, pfn: u64, page: &Page) -> io::Result<()> {
        debug_assert!(pfn < self.pages, "page {pfn} of {}", self.pages);
        self.file.write_all_at(page, pfn * PAGE_SIZE as u64)
    }

    /// Octets that the file really takes.
    pub(crate) fn stored(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.blocks() * 512)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_gib_take_what_was_written_to_them() {
        let directory = tempfile::tempdir().unwrap();
        let memory = GuestMemory::new(directory.path(), 4 << 20).unwrap();
        memory.write(4_194_303, &[7; PAGE_SIZE]).unwrap();
        assert_eq!(memory.read(4_194_303).unwrap(), [7; PAGE_SIZE]);
        assert_eq!(memory.read(2 << 20).unwrap(), [0; PAGE_SIZE]);
        assert!(memory.stored().unwrap() <= 1 << 20);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "the file has no name");
    }
}
