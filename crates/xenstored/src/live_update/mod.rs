//! Live update: a server's whole state in the form of the migration stream, for a successor that goes on from it.
//!
//! ```text
//! Server, links --capture--> stream --restore--> Server, links        ours
//!                               `--------------> C xenstored -U       and back
//! ```

mod capture;
mod command;
mod descriptors;
mod pending;
mod restore;
mod succession;
#[cfg(test)]
mod tests;
mod tree_builder;

pub(crate) use capture::{Capture, LinkPlace, LinkState, write_watches};
pub use capture::{CaptureError, Successor};
pub(crate) use command::{Due, Update};
pub(crate) use descriptors::Inherited;
pub(crate) use pending::{PendingNode, PendingTransaction, write as write_transactions};
pub use restore::RestoreError;
pub(crate) use restore::Restored;
pub use succession::LiveUpdate;
pub(crate) use succession::Succession;
