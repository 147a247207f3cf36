//! Whether overlays are in place, as QEMU tells.

use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::graph::names;
use crate::disk::image::{Chain, ChainRules, ImageFormat, ImageRef, Writers};
use crate::disk::qmp::{QmpClient, QmpNode};
use crate::disk::{DiskAction, DiskFailure, DiskSnapshot, DiskWarning};

/// What a transaction is to do with one disk: to be kept before the commit, so that whoever comes after a call that died can find
/// out what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlayIntent {
    /// The disk as the domain has it, as `xvda`.
    pub vdev: String,
    /// The node of the image that is to be frozen.
    pub node: String,
    /// The overlay as it was made.
    pub overlay: ImageRef,
    /// The node that the overlay is to be.
    pub overlay_node: String,
    /// The image that is to be frozen.
    pub base: ImageRef,
}

/// How a disk is, seen from QEMU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PivotState {
    /// The disk is in its image as before.
    Old {
        /// QEMU has the overlay open all the same, as a node that nothing uses.
        leftover: bool,
    },
    /// The disk is in the overlay, over the image.
    New {
        /// The node of the overlay.
        node: String,
    },
    /// Neither is what QEMU shows.
    Neither,
}

/// How all disks of a transaction are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OverlaysAre {
    /// None was changed, and QEMU has none of the overlays open any more: their files can be removed.
    Unchanged,
    /// All are in their overlays.
    Pivoted(Vec<DiskSnapshot>),
}

impl OverlayIntent {
    /// How the disk is, out of QEMU's nodes. A QEMU that was started anew may call them otherwise.
    pub(super) fn state(&self, nodes: &[QmpNode]) -> PivotState {
        if let Some(node) = nodes.iter().find(|node| self.is_over_base(node)) {
            return PivotState::New { node: node.name.clone() };
        }
        let base = nodes.iter().find(|node| node.name == self.node);
        if !base.is_some_and(|base| names(&base.image, &self.base)) {
            return PivotState::Neither;
        }
        match nodes.iter().find(|node| node.name == self.overlay_node) {
            None if self.is_open(nodes) => PivotState::Neither,
            None => PivotState::Old { leftover: false },
            Some(left) if names(&left.image, &self.overlay) && left.image.backing.is_none() => {
                PivotState::Old { leftover: true }
            }
            Some(_) => PivotState::Neither,
        }
    }

    pub(super) fn is_pivoted(&self, nodes: &[QmpNode]) -> bool {
        nodes.iter().any(|node| node.name == self.overlay_node && self.is_over_base(node))
    }

    /// What was done with a disk that is in its overlay.
    pub(super) fn snapshot(
        &self,
        nodes: &[QmpNode],
        depth: usize,
        mut warnings: Vec<DiskWarning>,
    ) -> Result<DiskSnapshot, DiskFailure> {
        let path = &self.overlay.path;
        let rules = ChainRules { depth, writers: Writers::Anybody };
        let chain = Chain::read(path, ImageFormat::Qcow2, rules);
        let chain = chain.map_err(|broken| match broken.into_iter().next() {
            Some(source) => DiskFailure::Chain { path: path.clone(), source },
            None => self.not_shown(),
        })?;
        let mut images = chain.into_images();
        let active = images.remove(0);
        let frozen = images.first().filter(|frozen| frozen.is_same_file(&self.base)).cloned();
        let Some(frozen) = frozen.filter(|_| active.is_same_file(&self.overlay)) else {
            return Err(self.not_shown());
        };
        // By its name it may be gone, if QEMU replaced it by itself.
        let frozen_node = nodes.iter().find(|node| node.name == self.node && !node.read_only);
        if frozen_node.is_some_and(|node| names(&node.image, &frozen)) {
            warnings.push(DiskWarning::FrozenNotReadOnly { node: self.node.clone() });
        }
        Ok(DiskSnapshot {
            vdev: self.vdev.clone(),
            action: DiskAction::ExternalQcow2 { overlay: path.clone() },
            frozen,
            active,
            chain: images,
            digest: None,
            warnings,
        })
    }

    pub(super) fn not_shown(&self) -> DiskFailure {
        DiskFailure::Graph {
            vdev: self.vdev.clone(),
            active: self.overlay.path.clone(),
            frozen: self.base.path.clone(),
        }
    }

    fn is_over_base(&self, node: &QmpNode) -> bool {
        let below = node.image.backing.as_deref();
        names(&node.image, &self.overlay) && below.is_some_and(|below| names(below, &self.base))
    }

    /// Whether any node shows the overlay, whatever its name and driver are.
    fn is_open(&self, nodes: &[QmpNode]) -> bool {
        nodes.iter().any(|node| names(&node.image, &self.overlay))
    }
}

/// Asks QEMU how a disk is. Nothing is changed.
///
/// # Errors
///
/// If QEMU cannot be asked.
pub fn pivot_state(
    socket: &Path,
    intent: &OverlayIntent,
    deadline: Instant,
) -> Result<PivotState, DiskFailure> {
    let nodes = QmpClient::connect(socket, deadline)?.nodes(deadline)?;
    Ok(intent.state(&nodes))
}

/// Finds out what became of a commit of [`LiveOverlays`](super::LiveOverlays) whose process died, and closes the overlays that were
/// not put in their place. Who made them has to be dead: a commit that is going on would fail by it.
///
/// QEMU forgets what a connection has not got to when it is lost, so that what is told here stays so. It may be called again at any
/// time.
///
/// # Errors
///
/// [`DiskFailure::Graph`] if QEMU shows neither the image nor the overlay in it, [`DiskFailure::Mixed`] if some are in place and others
/// not, or if QEMU cannot be asked or refuses to close a node. No file may be removed then.
pub fn recover_overlays(
    socket: &Path,
    intents: &[OverlayIntent],
    deadline: Instant,
) -> Result<OverlaysAre, DiskFailure> {
    let mut client = QmpClient::connect(socket, deadline)?;
    let nodes = client.nodes(deadline)?;
    let (mut pivoted, mut others, mut left) = (Vec::new(), Vec::new(), Vec::new());
    for intent in intents {
        match intent.state(&nodes) {
            PivotState::New { .. } => pivoted.push(intent),
            PivotState::Old { leftover } => {
                others.push(intent);
                left.extend(leftover.then_some(&intent.overlay_node));
            }
            PivotState::Neither => return Err(intent.not_shown()),
        }
    }
    if others.is_empty() && !pivoted.is_empty() {
        let done = pivoted.iter().map(|intent| intent.snapshot(&nodes, usize::MAX, Vec::new()));
        return done.collect::<Result<_, _>>().map(OverlaysAre::Pivoted);
    }
    if !pivoted.is_empty() {
        let vdevs = |of: Vec<&OverlayIntent>| of.iter().map(|it| it.vdev.clone()).collect();
        return Err(DiskFailure::Mixed { pivoted: vdevs(pivoted), others: vdevs(others) });
    }
    for node in left {
        client.delete_node(node, deadline)?;
    }
    let nodes = client.nodes(deadline)?;
    match others.iter().find(|it| it.state(&nodes) != PivotState::Old { leftover: false }) {
        None => Ok(OverlaysAre::Unchanged),
        Some(intent) => Err(intent.not_shown()),
    }
}
