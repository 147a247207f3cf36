//! Where new files are to be, and what two disks of a request must not have in common.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use super::DiskRefusal;

/// Refuses a target that is there, or whose directory is not.
pub(super) fn check_target(vdev: &str, path: &Path, refusals: &mut Vec<DiskRefusal>) {
    let (vdev, path) = (vdev.to_owned(), path.to_owned());
    match path.symlink_metadata() {
        Ok(_) => refusals.push(DiskRefusal::TargetExists { vdev, path }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let parent = parent.unwrap_or(Path::new("."));
            let refused = match parent.metadata() {
                Ok(metadata) if metadata.is_dir() => None,
                Ok(_) => Some(io::ErrorKind::NotADirectory.into()),
                Err(source) => Some(source),
            };
            refusals.extend(refused.map(|source| DiskRefusal::Target { vdev, path, source }));
        }
        Err(source) => refusals.push(DiskRefusal::Target { vdev, path, source }),
    }
}

/// What only one disk of a request may have.
#[derive(Default)]
pub(super) struct Unique(BTreeSet<String>);

impl Unique {
    /// Refuses what another disk has: `what` names it together with its kind.
    pub(super) fn check(&mut self, vdev: &str, what: String, refusals: &mut Vec<DiskRefusal>) {
        if !self.0.insert(what.clone()) {
            refusals.push(DiskRefusal::Twice { vdev: vdev.to_owned(), what });
        }
    }
}
