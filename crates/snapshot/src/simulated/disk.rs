//! Where a simulated guest's disks are.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;

use super::check::read_or_zero;
use super::content::RECORD_SIZE;
use super::spec::{DiskImage, DiskSpec};

/// What is behind a disk: the guest reads and writes records by offset, and does not know where they go.
pub(crate) trait Backing: Send {
    fn read_at(&self, record: &mut [u8; RECORD_SIZE], offset: u64) -> io::Result<()>;
    fn write_at(&self, record: &[u8; RECORD_SIZE], offset: u64) -> io::Result<()>;
}

/// A disk of a guest.
pub(crate) struct GuestDisk {
    pub(crate) spec: DiskSpec,
    pub(crate) backing: Box<dyn Backing>,
}

impl GuestDisk {
    pub(crate) fn open(spec: DiskSpec) -> io::Result<Self> {
        let backing = open(&spec.image)?;
        Ok(Self { spec, backing })
    }

    /// From the next record on, another image is written to, and read.
    pub(crate) fn switch(&mut self, image: DiskImage) -> io::Result<()> {
        self.backing = open(&image)?;
        self.spec.image = image;
        Ok(())
    }
}

fn open(image: &DiskImage) -> io::Result<Box<dyn Backing>> {
    match image {
        DiskImage::Raw { path } => {
            Ok(Box::new(RawFile(OpenOptions::new().read(true).write(true).open(path)?)))
        }
    }
}

struct RawFile(File);

impl Backing for RawFile {
    fn read_at(&self, record: &mut [u8; RECORD_SIZE], offset: u64) -> io::Result<()> {
        read_or_zero(&self.0, record, offset)
    }

    fn write_at(&self, record: &[u8; RECORD_SIZE], offset: u64) -> io::Result<()> {
        self.0.write_all_at(record, offset)
    }
}
