//! Every size this server limits whoever asks, with where the number comes from. What it limits for unprivileged domains
//! only is a [`Quota`](crate::Quota).

use std::time::Duration;

pub use xenstore_proto::limits::PAYLOAD_MAX;

/// Most octets of a value: no READ reply could carry a longer one.
pub const VALUE_MAX: usize = PAYLOAD_MAX;

/// Most entries of a node's permissions: 65536 domains can be told apart, but a GET_PERMS reply must carry them all. An
/// entry takes at most seven octets there (letter, five digits, NUL).
pub const PERMS_MAX: usize = PAYLOAD_MAX / 7;

/// How long a transaction may be open: a toolstack's take milliseconds, and what has been forgotten keeps an old state of
/// the store in memory.
pub const TRANSACTION_OPEN_MAX: Duration = Duration::from_secs(60);

/// Most open transactions of a privileged connection: far above what a toolstack opens, far below what would hurt.
pub const TRANSACTIONS_MAX_PRIVILEGED: usize = 4096;

/// Most watches of a privileged connection: a toolstack has some for each domain, and thirty times what the busiest host we know has in
/// all is far above that. So many take about half a gibibyte.
pub const WATCHES_MAX_PRIVILEGED: usize = 1_000_000;

/// Most octets that one transaction of a privileged connection remembers: a transaction that writes every node of a
/// host with thousands of domains stays below.
pub const TRANSACTION_OCTETS_MAX_PRIVILEGED: usize = 256 << 20;

/// Octets of unread output above which a connection's next request waits until the client has read some.
pub const OUTPUT_HIGH_WATER: usize = 256 << 10;

/// Octets of unread output above which a privileged connection is closed: 50,000 events of removed nodes fit well.
///
/// Requests wait at [`OUTPUT_HIGH_WATER`] already, so what comes on top are events, which nothing can hold back.
/// Closing tells the client that it has missed something; dropping events silently would not. An unprivileged
/// connection is closed at its quota of memory, or here if it has none; but never below twice
/// [`OUTPUT_HIGH_WATER`].
pub const OUTPUT_MAX_PRIVILEGED: usize = 32 << 20;

/// Most octets of one line of a store's text form: path, value with every octet escaped, permissions, and room to
/// spare.
pub const TEXT_LINE_MAX: usize = 64 << 10;

/// Most octets of one domain's state, told or taken by CONTROL: what its quota of memory allows by default, several times over. As
/// much is kept for a client that has not asked for the last page.
pub const DOMAIN_STATE_MAX: usize = 4 << 20;

/// Octets of a page of a domain's state: twice as many digits and some numbers fit a message.
pub const DOMAIN_STATE_PAGE: usize = 2000;
