//! The snapshots that a qcow2 image has inside, read from its own table.
//!
//! ```text
//! header:  0 magic   60 u32 snapshots   64 u64 offset of their table
//! entry:   0 u64 L1 table  8 u32 L1 entries  12 u16 length of id  14 u16 length of name
//!          16 dates, clock, sizes  36 u32 length of extra data  40 extra data, id, name; padded to 8
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Snapshots that QEMU takes in one image at most.
const SNAPSHOTS_MAX: u32 = 65_536;

/// Octets of extra data that QEMU takes.
const EXTRA_MAX: u32 = 1024;

const ENTRY_LEN: usize = 40;

/// Whether a snapshot of that name is in the image; `None` if its table is broken.
pub(super) fn has_tag(file: &File, tag: &str) -> io::Result<Option<bool>> {
    let mut header = [0; 72];
    if !read(file, &mut header, 0)? || !header.starts_with(b"QFI\xfb") {
        return Ok(None);
    }
    let (count, mut at) = (u32_at(&header, 60), u64_at(&header, 64));
    if count > SNAPSHOTS_MAX {
        return Ok(None);
    }
    let mut found = false;
    for _ in 0..count {
        let mut entry = [0; ENTRY_LEN];
        if !read(file, &mut entry, at)? {
            return Ok(None);
        }
        let (id, name) = (u16_at(&entry, 12), u16_at(&entry, 14));
        let extra = u32_at(&entry, 36);
        if extra > EXTRA_MAX {
            return Ok(None);
        }
        let before = ENTRY_LEN as u64 + u64::from(extra) + u64::from(id);
        let mut octets = vec![0; usize::from(name)];
        let (Some(name_at), Some(next)) = (
            at.checked_add(before),
            at.checked_add((before + u64::from(name)).next_multiple_of(8)),
        ) else {
            return Ok(None);
        };
        if !read(file, &mut octets, name_at)? {
            return Ok(None);
        }
        found |= octets == tag.as_bytes();
        at = next;
    }
    Ok(Some(found))
}

/// Fills the buffer; `false` if the file ends before.
fn read(file: &File, buffer: &mut [u8], at: u64) -> io::Result<bool> {
    match file.read_exact_at(buffer, at) {
        Ok(()) => Ok(true),
        // An offset that no file can have is behind its end as well.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput
            ) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn u16_at(octets: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(array(octets, at))
}

fn u32_at(octets: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(array(octets, at))
}

fn u64_at(octets: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(array(octets, at))
}

/// `octets` has a fixed length that goes beyond `at + N`.
fn array<const N: usize>(octets: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|index| octets[at + index])
}
