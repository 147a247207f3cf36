//! What a simulated domain is made of.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::content::{HEAD_PAGES, P2M_ENTRIES, PAGE_SIZE, PAGES_PER_TICK};

/// Fewer pages than this hold no guest: 256 KiB.
pub const PAGES_MIN: u64 = 64;

/// More pages than this are refused: 1 TiB. A stream that claims more is broken, and its pfns would not be real ones.
pub const PAGES_MAX: u64 = 1 << 28;

/// Each virtual CPU is a record of 5 KiB in the stream. Xen's own limit for PV is 512.
pub const VCPUS_MAX: u32 = 512;

/// A guest has at most that many disks; a limit of the simulation.
pub const DISKS_MAX: usize = 16;

/// The guest's working set is at most that many pages, so that each is written again soon.
const WORKING_PAGES_MAX: u64 = 256;

/// A guest: all of its memory and disks at any tick follow from this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestSpec {
    /// What all content is derived from.
    pub seed: u64,
    /// Memory, in pages of 4096 octets.
    pub pages: u64,
    /// How many more pages it may have and has not, as a guest with less memory than its maximum. They are in its stream, without
    /// data. A configuration's `max_memkb` includes them.
    pub absent: u64,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// What the pages that the guest does not write hold.
    pub population: Population,
    /// Pause between two rounds of writing, in microseconds; 50 at least.
    pub tick_us: u64,
}

impl GuestSpec {
    /// A guest with one virtual CPU and the usual population that writes a thousand times a second.
    pub fn new(seed: u64, pages: u64) -> Self {
        Self { seed, pages, absent: 0, vcpus: 1, population: Population::default(), tick_us: 1000 }
    }

    /// Whether there can be such a guest.
    pub(crate) fn is_possible(&self) -> bool {
        let Population { text, random, duplicate } = self.population;
        (PAGES_MIN..=PAGES_MAX).contains(&self.pages)
            && self.absent <= PAGES_MAX - self.pages
            && (1..=VCPUS_MAX).contains(&self.vcpus)
            // The table of frames leaves room for a working set.
            && self.working_first() + 2 * PAGES_PER_TICK <= self.pages
            && u32::from(text) + u32::from(random) + u32::from(duplicate) <= 1024
    }

    /// Pages that it has or may have.
    pub(crate) fn pages_max(&self) -> u64 {
        self.pages + self.absent
    }

    /// How many pages hold the table of frames.
    pub(crate) fn p2m_pages(&self) -> u64 {
        self.pages_max().div_ceil(P2M_ENTRIES)
    }

    /// The first page that the guest writes in turn.
    pub(crate) fn working_first(&self) -> u64 {
        HEAD_PAGES + self.p2m_pages()
    }

    /// How many pages the guest writes in turn: a multiple of what it writes in one tick.
    pub(crate) fn working_pages(&self) -> u64 {
        let half = (self.pages - self.working_first()) / 2;
        half.min(WORKING_PAGES_MAX) / PAGES_PER_TICK * PAGES_PER_TICK
    }

    /// Memory in octets.
    pub fn octets(&self) -> u64 {
        self.pages * PAGE_SIZE as u64
    }
}

/// How many of 1024 pages hold what; the rest are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Population {
    /// Pages of words, which compress well.
    pub text: u16,
    /// Pages that do not compress.
    pub random: u16,
    /// Pages that exist several times.
    pub duplicate: u16,
}

/// As in a freshly booted guest of 128 MiB: half of it zero.
impl Default for Population {
    fn default() -> Self {
        Self { text: 256, random: 160, duplicate: 96 }
    }
}

/// A domain to be created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainSpec {
    /// Its name.
    pub name: String,
    /// Its uuid.
    pub uuid: Uuid,
    /// Its domid; `None` for the next one that no domain has had.
    pub domid: Option<u16>,
    /// Its guest.
    pub guest: GuestSpec,
    /// Its disks, in the order in which the guest writes to them.
    pub disks: Vec<DiskSpec>,
    /// How long the host waits for the guest to acknowledge a suspend, in milliseconds; libxl waits 60 seconds.
    pub acknowledge_ms: u64,
}

impl DomainSpec {
    /// A domain without disks.
    pub fn new(name: impl Into<String>, uuid: Uuid, guest: GuestSpec) -> Self {
        let (name, domid, disks) = (name.into(), None, Vec::new());
        Self { name, uuid, domid, guest, disks, acknowledge_ms: ACKNOWLEDGE_MS_DEFAULT }
    }

    /// With one more disk, of a raw image.
    #[must_use]
    pub fn with_disk(self, vdev: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        self.with(DiskSpec::new(vdev, DiskImage::Raw { path: path.into() }))
    }

    /// With one more disk, of a qcow2 image.
    #[must_use]
    pub fn with_qcow2_disk(self, vdev: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        self.with(DiskSpec::new(vdev, DiskImage::Qcow2 { path: path.into() }))
    }

    fn with(mut self, disk: DiskSpec) -> Self {
        self.disks.push(disk);
        self
    }
}

/// A guest acknowledges within a tick; this leaves room for a host that is busy.
pub(crate) const ACKNOWLEDGE_MS_DEFAULT: u64 = 5000;

/// A disk of a simulated domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSpec {
    /// Its name in the guest, as `xvda`.
    pub vdev: String,
    /// Where what the guest writes goes.
    pub image: DiskImage,
    /// It is opened for reading only. The guest does not know, and crashes when it writes.
    #[serde(default)]
    pub read_only: bool,
}

impl DiskSpec {
    /// A disk that can be written.
    pub fn new(vdev: impl Into<String>, image: DiskImage) -> Self {
        Self { vdev: vdev.into(), image, read_only: false }
    }
}

/// Where what a guest writes to a disk goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DiskImage {
    /// A file that holds what the disk holds, octet for octet. It must exist; it grows as it is written to.
    Raw {
        /// The file.
        path: PathBuf,
    },
    /// An image that a `qemu-storage-daemon` of the domain's own has open, with all that it rests on. It must exist, with a virtual
    /// size of 512 KiB at least.
    ///
    /// Where it is now is QEMU's to say: a saver can move the disk to an overlay through QMP, which the host does not notice.
    Qcow2 {
        /// The image that it was opened with.
        path: PathBuf,
    },
}

impl DiskImage {
    /// The file.
    pub fn path(&self) -> &Path {
        match self {
            Self::Raw { path } | Self::Qcow2 { path } => path,
        }
    }
}
