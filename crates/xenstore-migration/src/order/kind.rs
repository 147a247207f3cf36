//! What a stream is for, as far as its records tell.

use crate::order::StreamKind;
use crate::record::{ConnectionSpec, NodeScope, Record};

/// Finds out what a stream is for: that of one domain, as long as nothing in it can only be a server's.
///
/// Only a server has GLOBAL_DATA, GLOBAL_QUOTA_DATA, a socket, a second connection, and the node `/`.
#[derive(Clone, Copy, Debug, Default)]
pub struct AssumedKind {
    connected: bool,
    of_a_server: bool,
}

impl AssumedKind {
    /// Looks at the next record.
    pub fn see(&mut self, record: &Record<'_>) {
        self.of_a_server |= match record {
            Record::Global(_) | Record::GlobalQuota(_) => true,
            Record::Connection(connection) => {
                let second = std::mem::replace(&mut self.connected, true);
                second || matches!(connection.spec, ConnectionSpec::Socket { .. })
            }
            Record::Node(node) => node.scope == NodeScope::Committed && node.path == b"/",
            _ => false,
        };
    }

    /// What the stream is for, if nothing else comes.
    pub const fn kind(self) -> StreamKind {
        if self.of_a_server { StreamKind::LiveUpdate } else { StreamKind::Domain }
    }
}
