//! External snapshots: an empty qcow2 image over the one there is.

use std::path::{Path, PathBuf};

mod commit;
mod graph;
mod live;
mod nodes;
mod offline;
mod pivot;
mod prepared;

pub(crate) use graph::nodes_writing;
pub(super) use graph::{CheckedNode, check_node, job_refusals, look, names, path_of};
pub(crate) use nodes::close_overlays;
pub(super) use prepared::check_backing;

pub use live::{LiveOverlay, LiveOverlays};
pub use offline::{OfflineOverlay, OfflineOverlays};
pub use pivot::{OverlayIntent, OverlaysAre, PivotState, pivot_state, recover_overlays};
pub use prepared::create_overlay;

/// How an overlay names what it rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackingName {
    /// By the absolute path of the image.
    Absolute,
    /// By this path, which QEMU takes as relative to the overlay's directory. It has to lead to the image.
    As(PathBuf),
}

impl BackingName {
    fn for_image(&self, image: &Path) -> std::io::Result<PathBuf> {
        match self {
            Self::Absolute => std::path::absolute(image),
            Self::As(name) => Ok(name.clone()),
        }
    }
}
