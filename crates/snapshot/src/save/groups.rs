//! Disks that are snapshotted together.

use std::collections::BTreeMap;

use crate::disk::image::Writers;
use crate::disk::{DiskSnapshotter, ImageCopies, ImageCopy, LiveInternal, LiveOverlays};

/// The caller's own snapshotters.
pub(super) type Hooks<'a> = BTreeMap<String, Box<dyn DiskSnapshotter + 'a>>;

/// Disks that are snapshotted in one way, all or none.
#[derive(Debug)]
pub(super) enum Group {
    /// Cannot be undone once committed.
    Overlays(LiveOverlays),
    Internal(LiveInternal),
    Copies(ImageCopies),
    /// By its name.
    Hook(String),
}

impl Group {
    /// What does it; `None` for a hook that is not there.
    pub(super) fn snapshotter<'g>(
        &'g mut self,
        hooks: &'g mut Hooks<'_>,
    ) -> Option<&'g mut (dyn DiskSnapshotter + 'g)> {
        match self {
            Self::Overlays(overlays) => Some(overlays),
            Self::Internal(internal) => Some(internal),
            Self::Copies(copies) => Some(copies),
            Self::Hook(name) => match hooks.get_mut(name) {
                Some(hook) => Some(&mut **hook),
                None => None,
            },
        }
    }
}

/// Copies, one group for each process that may have the images open meanwhile.
pub(super) fn copies(all: Vec<(ImageCopy, Writers)>) -> Vec<Group> {
    let mut groups: Vec<(Writers, Vec<ImageCopy>)> = Vec::new();
    for (copy, writers) in all {
        match groups.iter_mut().find(|(known, _)| *known == writers) {
            Some((_, copies)) => copies.push(copy),
            None => groups.push((writers, vec![copy])),
        }
    }
    let group = |(writers, copies)| {
        Group::Copies(ImageCopies::new(copies).with_writers(writers).written_until_commit())
    };
    groups.into_iter().map(group).collect()
}
