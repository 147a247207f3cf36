//! Counts of what a client did.

/// What a client has done since it was opened. Budgets are set, and measurements made, in these numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// How often the client sent requests and then waited for their replies: once for a single request, once for a
    /// batch of any size. Pages of directories are not in here.
    pub round_trips: u64,
    /// Requests submitted, pages included.
    pub requests: u64,
    /// How often a batch had requests left when [`crate::IN_FLIGHT_MAX`] were in flight. More are sent when half of these
    /// are answered, so the server is never idle meanwhile, and this is no round trip.
    pub window_waits: u64,
    /// Octets sent.
    pub octets_sent: u64,
    /// Octets received.
    pub octets_received: u64,
    /// DIRECTORY_PART requests: each is a round trip, counted here only.
    pub directory_pages: u64,
    /// How often a directory changed while it was read in parts, and was read again from the start.
    pub directory_restarts: u64,
    /// Transactions that were tried again after a conflict.
    pub transaction_retries: u64,
    /// Watch events received, those of unknown watches included.
    pub events: u64,
    /// Events dropped because the same was waiting already.
    pub events_coalesced: u64,
    /// Events dropped because too many were waiting.
    pub events_lost: u64,
    /// Events of watches that are no more.
    pub events_unknown: u64,
    /// Replies that came after their deadline and were discarded.
    pub late_replies: u64,
}

impl Statistics {
    /// What was done since `earlier` was taken.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            round_trips: self.round_trips.saturating_sub(earlier.round_trips),
            requests: self.requests.saturating_sub(earlier.requests),
            window_waits: self.window_waits.saturating_sub(earlier.window_waits),
            octets_sent: self.octets_sent.saturating_sub(earlier.octets_sent),
            octets_received: self.octets_received.saturating_sub(earlier.octets_received),
            directory_pages: self.directory_pages.saturating_sub(earlier.directory_pages),
            directory_restarts: self.directory_restarts.saturating_sub(earlier.directory_restarts),
            transaction_retries: self
                .transaction_retries
                .saturating_sub(earlier.transaction_retries),
            events: self.events.saturating_sub(earlier.events),
            events_coalesced: self.events_coalesced.saturating_sub(earlier.events_coalesced),
            events_lost: self.events_lost.saturating_sub(earlier.events_lost),
            events_unknown: self.events_unknown.saturating_sub(earlier.events_unknown),
            late_replies: self.late_replies.saturating_sub(earlier.late_replies),
        }
    }
}
