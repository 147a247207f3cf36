//! Where a simulated guest's disks are.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::check::read_or_zero;
use super::content::RECORD_SIZE;
use super::nbd::NbdDisk;
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
    /// `nbd` is the socket of the process that has the domain's qcow2 images open.
    pub(crate) fn open(spec: DiskSpec, nbd: Option<&Path>) -> io::Result<Self> {
        let backing: Box<dyn Backing> = match &spec.image {
            DiskImage::Raw { path } => Box::new(RawFile::open(path, spec.read_only)?),
            DiskImage::Qcow2 { .. } => {
                let nbd = nbd.ok_or_else(|| io::Error::other("nobody has its qcow2 image open"))?;
                Box::new(NbdDisk::open(nbd, &spec.vdev)?)
            }
        };
        Ok(Self { spec, backing })
    }

    /// From the next record on, another image is written to, and read. Both must be raw: what QEMU has open is moved by QMP.
    pub(crate) fn switch(&mut self, image: DiskImage) -> io::Result<()> {
        let (DiskImage::Raw { .. }, DiskImage::Raw { path }) = (&self.spec.image, &image) else {
            let problem = "only a raw disk can be switched, and to a raw image";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        };
        self.backing = Box::new(RawFile::open(path, self.spec.read_only)?);
        self.spec.image = image;
        Ok(())
    }
}

struct RawFile(File);

impl RawFile {
    fn open(path: &Path, read_only: bool) -> io::Result<Self> {
        Ok(Self(OpenOptions::new().read(true).write(!read_only).open(path)?))
    }
}

impl Backing for RawFile {
    fn read_at(&self, record: &mut [u8; RECORD_SIZE], offset: u64) -> io::Result<()> {
        read_or_zero(&self.0, record, offset)
    }

    fn write_at(&self, record: &[u8; RECORD_SIZE], offset: u64) -> io::Result<()> {
        self.0.write_all_at(record, offset)
    }
}
