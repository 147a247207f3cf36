//! Overlays as nodes that no disk uses: QEMU opens them before the guest has to wait, and closes those that are not put in place.

use std::path::Path;
use std::time::Instant;

use super::LiveOverlay;
use super::graph::{CheckedNode, holders_of, look, names, path_of};
use super::pivot::OverlayIntent;
use super::prepared::PreparedOverlay;
use crate::disk::DiskFailure;
use crate::disk::image::{ImageFormat, ImageRef, OpenFiles, OpenImage};
use crate::disk::qmp::{QmpClient, QmpNode, TransactionAction};
use crate::journal::steps;

/// A disk that is ready for the transaction.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) disk: LiveOverlay,
    pub(super) checked: CheckedNode,
    pub(super) overlay: PreparedOverlay,
}

impl Ready {
    pub(super) fn to_action(&self) -> TransactionAction {
        TransactionAction::Snapshot {
            node: self.disk.node.clone(),
            overlay: self.disk.overlay_node.clone(),
        }
    }

    pub(super) fn intent(&self) -> OverlayIntent {
        OverlayIntent {
            vdev: self.disk.vdev.clone(),
            node: self.disk.node.clone(),
            overlay: self.overlay.image.clone(),
            overlay_node: self.disk.overlay_node.clone(),
            base: self.checked.chain.active().clone(),
        }
    }

    /// That QEMU, and nobody else, has open what was made, as a node that can be put over the disk.
    pub(super) fn is_open(&self, nodes: &[QmpNode], files: &OpenFiles) -> Result<(), DiskFailure> {
        let Self { disk, checked, overlay } = self;
        let now = OpenImage::open(disk.overlay.clone(), ImageFormat::Qcow2)?;
        if !now.image.is_same_file(&overlay.image) {
            let changes = now.image.changes_since(&overlay.image);
            return Err(DiskFailure::Changed { path: disk.overlay.clone(), changes });
        }
        // The name may have meant another file at the moment when QEMU opened it.
        let writing = holders_of(&now, files)?.writing;
        let is_held = checked.qemu.is_none_or(|qemu| writing == [qemu]);
        let node = nodes.iter().find(|node| node.name == disk.overlay_node);
        let is_right = node.is_some_and(|node| {
            names(&node.image, &overlay.image)
                && node.image.virtual_size == checked.virtual_size
                && node.image.backing.is_none()
                && !node.read_only
        });
        if is_held && is_right { Ok(()) } else { Err(self.intent().not_shown()) }
    }
}

/// Has QEMU open all overlays, without what they rest on, and looks at what it has opened. On failure some may be open; of which disk
/// it is.
pub(super) fn open_overlays(
    socket: &Path,
    ready: &mut [Ready],
    deadline: Instant,
) -> Result<(), (String, DiskFailure)> {
    let first = ready.first().map(|ready| ready.disk.vdev.clone()).unwrap_or_default();
    let of_all = |failure: DiskFailure| (first.clone(), failure);
    let mut client = QmpClient::connect(socket, deadline).map_err(|it| of_all(it.into()))?;
    for Ready { disk, checked, .. } in &*ready {
        let path = disk.overlay.to_str().unwrap_or_default();
        steps::reached("before node");
        client
            .add_overlay(&disk.overlay_node, path, checked.cache, deadline)
            .map_err(|error| (disk.vdev.clone(), error.into()))?;
        steps::reached("after node");
    }
    let nodes = client.nodes(deadline).map_err(|error| of_all(error.into()))?;
    let files = look().map_err(of_all)?;
    for ready in ready {
        let opened = ready.is_open(&nodes, &files).and_then(|()| {
            // A QEMU may mark in its header that it is in use.
            Ok(ImageRef::read(&ready.disk.overlay, ImageFormat::Qcow2)?)
        });
        ready.overlay.image = opened.map_err(|failure| (ready.disk.vdev.clone(), failure))?;
    }
    Ok(())
}

/// Has QEMU close those of the overlays that it has open. The disks may be in whatever they are by now: none is touched, and an
/// overlay that is in use stays open. It may be called again at any time.
///
/// # Errors
///
/// [`DiskFailure::Graph`] if an overlay is in use or another node has it open, or if QEMU cannot be asked or refuses. No file may be
/// removed then, unless [nobody is there](crate::disk::qmp::QmpError::is_nobody_there).
pub(crate) fn close_overlays(
    socket: &Path,
    intents: &[OverlayIntent],
    deadline: Instant,
) -> Result<(), DiskFailure> {
    close_with(&mut QmpClient::connect(socket, deadline)?, intents, deadline)
}

pub(super) fn close_with(
    client: &mut QmpClient,
    intents: &[OverlayIntent],
    deadline: Instant,
) -> Result<(), DiskFailure> {
    let nodes = client.nodes(deadline)?;
    for intent in intents.iter().filter(|intent| intent.is_shown(&nodes)) {
        if !intent.is_left_over(&nodes) {
            return Err(intent.not_shown());
        }
        steps::reached("before close");
        client.delete_node(&intent.overlay_node, deadline)?;
        steps::reached("after close");
    }
    let nodes = client.nodes(deadline)?;
    match intents.iter().find(|intent| intent.is_shown(&nodes)) {
        Some(intent) => Err(intent.not_shown()),
        None => Ok(()),
    }
}

impl OverlayIntent {
    /// Whether any node shows the overlay, or what had its name when QEMU opened it.
    fn is_shown(&self, nodes: &[QmpNode]) -> bool {
        nodes.iter().any(|node| self.is_shown_by(node))
    }

    /// Whether QEMU has the overlay open as the node that it was to be, over nothing.
    fn is_left_over(&self, nodes: &[QmpNode]) -> bool {
        let node = nodes.iter().find(|node| node.name == self.overlay_node);
        node.is_some_and(|node| self.is_shown_by(node) && node.image.backing.is_none())
    }

    /// By its inode, or by its name if that is gone or somebody else's by now.
    fn is_shown_by(&self, node: &QmpNode) -> bool {
        names(&node.image, &self.overlay)
            || path_of(&node.image).is_some_and(|path| path == self.overlay.path)
    }
}
