//! What of a ring's messages is neither in the ring nor at its reader, kept where the next server finds it if this one is
//! killed.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path as FsPath;

use rustix::fs::{FallocateFlags, fallocate};
use xenstore_proto::DomId;

use super::hypervisor::DomainHandle;
use super::raw::{Mapping, PAGE};
use super::slot::{HEAD, SLOT_PAGES, Slot};

/// The first octets of the file: another layout gets others.
const MAGIC: [u8; 16] = *b"DOMKEEP INFLT 1\n";

/// Where the kernel says which of its boots this is. Pages and domain numbers of another one mean nothing.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Octets of a boot's name, as text.
const BOOT_ID_LEN: usize = 36;

/// Octets of a slot in the file.
const SLOT: u64 = (SLOT_PAGES * PAGE) as u64;

/// There cannot be more domains.
const SLOTS_MAX: u64 = 1 << 15;

/// The file of messages in flight: a slot for each domain whose ring is served.
///
/// ```text
/// octet    0  "DOMKEEP INFLT 1\n"
///         16  which boot of the kernel this is: 36 octets of text
///       4096  slots, each of 5 pages: see `slot`
/// ```
///
/// It is mapped and never synced: it has to outlive this process, not the host. Its space is allocated before it is
/// mapped, since a page that the file system cannot give would end the process.
#[derive(Debug)]
pub(crate) struct InFlight {
    file: File,
    slots: Vec<Place>,
}

/// What is known of a slot of the file.
#[derive(Debug)]
struct Place {
    /// Whose it is, or was when the last server died.
    owner: Option<(DomId, DomainHandle)>,
    /// Whether this server has given it out.
    claimed: bool,
}

impl InFlight {
    /// Opens the file, or makes it. What is none, or of another boot, is emptied.
    ///
    /// # Errors
    ///
    /// The system's.
    pub(crate) fn open(path: &FsPath) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(path)?;
        let head = head()?;
        let len = file.metadata()?.len();
        let mut found = vec![0; head.len()];
        let ours = file.read_exact_at(&mut found, 0).is_ok() && found == head;
        if !ours {
            if len > 0 {
                tracing::warn!(path = %path.display(), "messages in flight are of another boot, or damaged: not used");
            }
            file.set_len(0)?;
            fallocate(&file, FallocateFlags::empty(), 0, PAGE as u64)?;
            file.write_all_at(&head, 0)?;
        }
        let len = if ours { len } else { 0 };
        let count = (len.saturating_sub(PAGE as u64) / SLOT).min(SLOTS_MAX);
        let mut slots = Vec::new();
        for number in 0..count {
            let mut head = [0; HEAD];
            file.read_exact_at(&mut head, at(number))?;
            slots.push(Place { owner: Slot::owner_in(&head), claimed: false });
        }
        Ok(Self { file, slots })
    }

    /// The slot of a domain: the one that it had, if it is that domain, or else an empty one.
    ///
    /// # Errors
    ///
    /// The system's.
    pub(crate) fn claim(&mut self, domid: DomId, handle: DomainHandle) -> io::Result<Slot> {
        let owner = Some((domid, handle));
        let number = match self.slots.iter().position(|place| place.owner == owner) {
            Some(number) => number,
            None => self.free_slot(domid)?,
        };
        let place = &mut self.slots[number];
        let number = number as u64;
        // It is allocated already, unless somebody has made holes in it.
        fallocate(&self.file, FallocateFlags::empty(), at(number), SLOT)?;
        let mapping = Mapping::shared_pages(&self.file, at(number), SLOT_PAGES)?;
        place.claimed = true;
        if place.owner == owner {
            return Ok(Slot::found(mapping));
        }
        place.owner = owner;
        Ok(Slot::fresh(mapping, domid, handle))
    }

    /// A domain is gone: its slot is another's to have.
    pub(crate) fn release(&mut self, domid: DomId) {
        for (number, place) in (0..).zip(&mut self.slots) {
            if place.owner.is_some_and(|(owner, _)| owner == domid) {
                *place = Place { owner: None, claimed: false };
                void(&self.file, number);
            }
        }
    }

    /// The domains that a dead server had and this one has not found are gone.
    pub(crate) fn release_unclaimed(&mut self) {
        for (number, place) in (0..).zip(&mut self.slots) {
            if !place.claimed && place.owner.take().is_some() {
                void(&self.file, number);
            }
        }
    }

    /// One that is nobody's, or of an earlier domain of the same number.
    fn free_slot(&mut self, domid: DomId) -> io::Result<usize> {
        let same = |place: &Place| place.owner.is_some_and(|(owner, _)| owner == domid);
        let free = |place: &Place| place.owner.is_none() && !place.claimed;
        let places = &self.slots;
        if let Some(number) = places.iter().position(same).or_else(|| places.iter().position(free))
        {
            return Ok(number);
        }
        if self.slots.len() as u64 >= SLOTS_MAX {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.slots.push(Place { owner: None, claimed: false });
        Ok(self.slots.len() - 1)
    }
}

/// What the file begins with in this boot.
fn head() -> io::Result<Vec<u8>> {
    let boot = std::fs::read_to_string(BOOT_ID)?;
    let boot = boot.trim_end();
    if boot.len() != BOOT_ID_LEN {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no name of a boot"));
    }
    Ok([&MAGIC[..], boot.as_bytes()].concat())
}

/// Where a slot is in the file.
fn at(number: u64) -> u64 {
    PAGE as u64 + number * SLOT
}

/// Makes what is in a slot worth nothing.
fn void(file: &File, number: u64) {
    if let Err(error) = file.write_all_at(&[0; HEAD], at(number)) {
        // Its domain is known by its handle: nobody else will be given what is there.
        tracing::warn!(%error, "messages in flight of a domain that is gone are not removed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xen::slot::Record;

    const SEVEN: DomId = DomId::new(7);

    fn handle(number: u8) -> DomainHandle {
        DomainHandle([number; 16])
    }

    fn record(put_to: u32) -> Record {
        Record { put_from: 1, put_to, rest: 0, answered: 5, taken: 9 }
    }

    #[test]
    fn a_slot_is_found_again_by_the_same_domain_and_by_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in-flight");
        let open = || InFlight::open(&path).unwrap();
        let mut file = open();
        let mut slot = file.claim(SEVEN, handle(1)).unwrap();
        assert_eq!(slot.record(), None);
        slot.keep_request(7, b"half a request");
        slot.keep(record(2));
        let mut other = file.claim(DomId::new(8), handle(2)).unwrap();
        other.keep(record(3));
        drop((file, slot, other));

        let mut file = open();
        let slot = file.claim(SEVEN, handle(1)).unwrap();
        assert_eq!(slot.record(), Some(record(2)));
        assert_eq!(slot.requests(7, 14), b"half a request");
        drop(slot);
        // 8 is not there any more.
        file.release_unclaimed();
        drop(file);

        let mut file = open();
        let next = file.claim(SEVEN, handle(3)).unwrap();
        assert_eq!(next.record(), None, "another domain of this number");
        assert_eq!(next.requests(7, 14), [0; 14], "an earlier domain's octets are nobody's");
        assert_eq!(file.claim(DomId::new(8), handle(2)).unwrap().record(), None);
        assert_eq!(file.slots.len(), 2, "slots are used again");
        file.release(SEVEN);
        assert_eq!(file.claim(SEVEN, handle(3)).unwrap().record(), None);
    }

    #[test]
    fn a_file_that_is_none_or_of_another_boot_or_cut_off_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in-flight");
        let mut whole = {
            let mut file = InFlight::open(&path).unwrap();
            file.claim(SEVEN, handle(1)).unwrap().keep(record(2));
            std::fs::read(&path).unwrap()
        };
        assert_eq!(whole.len() as u64, PAGE as u64 + SLOT);
        let claim = |octets: &[u8]| {
            std::fs::write(&path, octets).unwrap();
            InFlight::open(&path).unwrap().claim(SEVEN, handle(1)).unwrap().record()
        };
        assert_eq!(claim(&whole), Some(record(2)));
        for len in [0, 1, 20, PAGE, PAGE + 10, whole.len() - 1] {
            assert_eq!(claim(&whole[..len]), None, "{len} octets");
        }
        whole[MAGIC.len()] ^= 1;
        assert_eq!(claim(&whole), None, "another boot");
        assert_eq!(claim(&vec![0xA5; whole.len()]), None, "garbage");
        assert_eq!(claim(&[0xA5; 77]), None, "garbage");
    }
}
