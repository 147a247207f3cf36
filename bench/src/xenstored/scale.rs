//! How much is done of each case.

use std::time::Duration;

use crate::Effort;

/// Counts of each case, of one round.
pub(crate) struct Scale {
    pub(crate) rounds: usize,
    /// Requests one after the other.
    pub(crate) round_trips: usize,
    /// Requests of eight clients together, and of one client alone.
    pub(crate) requests: usize,
    /// Domains made by each of eight clients.
    pub(crate) domains_each: u16,
    /// Watches set elsewhere.
    pub(crate) watches: usize,
    /// How long writes are made with them, and without.
    pub(crate) writing: Duration,
    /// Domains of 100 nodes.
    pub(crate) domains: u16,
    /// Connections that do nothing.
    pub(crate) idle: usize,
    /// Nodes of the tree removed.
    pub(crate) removed: usize,
    /// Watches on nodes of that tree.
    pub(crate) removed_watched: usize,
    /// Repetitions of each upstream test.
    pub(crate) upstream: usize,
}

impl Scale {
    pub(crate) fn of(effort: Effort) -> Self {
        match effort {
            Effort::Full => Self {
                rounds: 5,
                round_trips: 20_000,
                requests: 100_000,
                domains_each: 100,
                watches: 27_000,
                writing: Duration::from_millis(300),
                domains: 1000,
                idle: 500,
                removed: 50_000,
                removed_watched: 30_000,
                upstream: 2000,
            },
            Effort::Quick => Self {
                rounds: 3,
                round_trips: 2000,
                requests: 10_000,
                domains_each: 10,
                watches: 2700,
                writing: Duration::from_millis(30),
                domains: 100,
                idle: 100,
                removed: 5000,
                removed_watched: 3000,
                upstream: 100,
            },
        }
    }
}
