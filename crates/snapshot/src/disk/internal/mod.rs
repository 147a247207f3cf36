//! Snapshots inside qcow2 images.

mod live;
mod offline;
mod recovery;

pub use live::{LiveInternal, LiveInternalSnapshot};
pub use offline::{OfflineInternal, OfflineInternalSnapshot};
pub use recovery::{TagIntent, recover_internal};

use crate::disk::DiskRefusal;

/// Longest tag: what QEMU reads of a name.
const TAG_MAX: usize = 127;

/// Refuses a tag that is taken, or that programs would take for an id: QEMU numbers snapshots, and looks for either.
fn check_tag<'a>(
    vdev: &str,
    tag: &str,
    mut taken: impl Iterator<Item = (&'a str, &'a str)>,
    refusals: &mut Vec<DiskRefusal>,
) {
    let (vdev, owned) = (vdev.to_owned(), tag.to_owned());
    let is_number = tag.bytes().all(|octet| octet.is_ascii_digit());
    if is_number || tag.starts_with('-') || tag.len() > TAG_MAX || tag.contains(char::is_control) {
        refusals.push(DiskRefusal::TagUnusable { vdev, tag: owned });
    } else if taken.any(|(id, name)| id == tag || name == tag) {
        refusals.push(DiskRefusal::TagTaken { vdev, tag: owned });
    }
}
