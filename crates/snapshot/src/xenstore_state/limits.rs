//! How much of a store is held.

/// Most nodes, when nothing else is said: C xenstored lets a guest own 1000, hosts that allow more say some thousands, and
/// what a toolstack keeps for one domain is some hundred.
pub const NODES_DEFAULT: usize = 65_536;

/// Most octets of paths, values, names and permissions, when nothing else is said: with the 2048 octets that servers let a
/// guest put into a node, 16,000 full ones.
pub const OCTETS_DEFAULT: usize = 64 << 20;

/// How much of a store is held, so that a guest that writes without end cannot make the reader hold without end.
///
/// They count what is read, in all trees together. A level is read in pieces of at most 4096 nodes, and the limits
/// are checked after each, so that what is held at a time is at most what the limits say and the replies of one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most nodes.
    pub nodes: usize,
    /// Most octets of paths, values, names and permissions.
    pub octets: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { nodes: NODES_DEFAULT, octets: OCTETS_DEFAULT }
    }
}

/// There is more than [`Limits`] allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitExceeded {
    /// Too many nodes.
    #[error("there are more than {max} nodes")]
    Nodes {
        /// Nodes allowed.
        max: usize,
    },
    /// Too many octets.
    #[error("the nodes hold more than {max} octets")]
    Octets {
        /// Octets allowed.
        max: usize,
    },
}
