//! What became of internal snapshots whose process died.

use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::disk::image::ImageRef;
use crate::disk::overlay::names;
use crate::disk::qmp::{QmpClient, QmpNode};
use crate::disk::{DiskFailure, DiskRefusal};

/// A snapshot that a transaction is to make inside an image: to be kept before the commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagIntent {
    /// The disk as the domain has it, as `xvda`.
    pub vdev: String,
    /// The node of the image.
    pub node: String,
    /// The image.
    pub image: ImageRef,
    /// What the snapshot is to be called. Nothing was called so when the commit was prepared.
    pub tag: String,
}

/// Deletes the snapshots that a commit of [`LiveInternal`](super::LiveInternal) has made whose process died, and tells of which disks.
/// It may be called again at any time.
///
/// # Errors
///
/// If a node shows another image than then, if QEMU cannot be asked or refuses, or [`DiskFailure::SnapshotStays`].
pub fn recover_internal(
    socket: &Path,
    intents: &[TagIntent],
    deadline: Instant,
) -> Result<Vec<String>, DiskFailure> {
    let mut client = QmpClient::connect(socket, deadline)?;
    let nodes = client.nodes(deadline)?;
    let refusals: Vec<_> = intents.iter().filter_map(|intent| intent.against(&nodes)).collect();
    if !refusals.is_empty() {
        return Err(DiskFailure::Refused { refusals });
    }
    let mut deleted = Vec::new();
    for TagIntent { vdev, node, image, tag } in intents {
        if let Some(id) = id_of(tag, node, image, &nodes) {
            client.delete_internal_snapshot(node, &id, tag, deadline)?;
            deleted.push(vdev.clone());
        }
    }
    let nodes = client.nodes(deadline)?;
    for TagIntent { vdev: _, node, image, tag } in intents {
        if id_of(tag, node, image, &nodes).is_some() {
            let (path, tag) = (image.path.clone(), tag.clone());
            return Err(DiskFailure::SnapshotStays { path, tag });
        }
    }
    Ok(deleted)
}

impl TagIntent {
    fn against(&self, nodes: &[QmpNode]) -> Option<DiskRefusal> {
        let (vdev, path) = (self.vdev.clone(), self.image.path.clone());
        match nodes.iter().find(|node| node.name == self.node) {
            None => Some(DiskRefusal::NoNode { vdev, node: self.node.clone() }),
            Some(node) if names(&node.image, &self.image) => None,
            Some(_) => Some(DiskRefusal::NotTheOpenFile { vdev, path }),
        }
    }
}

/// The id of the snapshot with a tag, if the node shows the image still.
pub(super) fn id_of(tag: &str, node: &str, image: &ImageRef, nodes: &[QmpNode]) -> Option<String> {
    let node = nodes.iter().find(|open| open.name == node)?;
    let made = node.image.snapshots.iter().find(|snapshot| snapshot.name == tag)?;
    names(&node.image, image).then(|| made.id.clone())
}
