//! The seam for what the protocol cannot tell.

use std::error::Error;

use xenstore_migration::domain_state::ConnectionState;
use xsclient::DomId;

/// Why a [`ConnectionSource`] failed: the source's own error.
pub type ConnectionSourceError = Box<dyn Error + Send + Sync>;

/// Knows the connections of domains: their watches, transactions, targets, and what is on its way in their rings. A
/// Xenstore server in this process does. No request of the protocol asks for it; without a source, a server is asked by a
/// CONTROL command that Domkeep's knows.
pub trait ConnectionSource {
    /// The connection of a domain; `None` if it has none.
    ///
    /// Called once an attempt, when all nodes have been read and the means that notices changes still stands. What it tells
    /// is of one moment with the nodes if the domain does not run meanwhile.
    ///
    /// # Errors
    ///
    /// If it cannot be known; the extract fails then.
    fn connection(
        &mut self,
        domid: DomId,
    ) -> Result<Option<ConnectionState>, ConnectionSourceError>;
}
