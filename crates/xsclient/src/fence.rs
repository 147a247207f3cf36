//! A watch fence that stands over several batches.

use std::sync::Arc;
use std::time::Instant;

use xenstore_proto::{EventOrder, PathOrSpecial, Request, TxId};

use crate::carrier::{Carrier, Closing, at_once, exchange};
use crate::client::Client;
use crate::error::{Failure, OperationError};
use crate::run::{disturbances, events_of_ended};
use crate::session::{Epoch, Opened};
use crate::waiting::WaitFor;
use crate::watch::{Event, Watch, unique_token};

/// Watches that tell whether anything below some paths changed while they were read.
///
/// ```text
/// client.fence(paths)       WATCH each, wait for all first events     one round trip
/// client.run(batch) ...     the reads, in as many batches as needed
/// client.lower(fence)       UNWATCH each, give what happened          one round trip
/// ```
///
/// If [`Client::lower`] gives no event, all reads in between saw one state. Because the first events have come before the first
/// read is sent, no server can merge a change with them: this has not the gap of [`crate::Batch::fence`].
#[derive(Debug)]
#[must_use = "the watches stay set until Client::lower"]
pub struct Fence {
    pub(crate) watches: Vec<Watch>,
}

impl Client {
    /// Sets watches on the paths, and returns when all of them stand.
    ///
    /// # Errors
    ///
    /// [`Failure::UnorderedEvents`], if the transport does not keep events in order with replies ([`Client::manner`]): use a
    /// transaction there.
    pub fn fence(
        &mut self,
        paths: impl IntoIterator<Item = PathOrSpecial>,
    ) -> Result<Fence, OperationError> {
        let fence = Fence::around(paths, self.epoch());
        let (carrier, deadline) = self.call();
        at_once(raise(carrier, fence, deadline))
    }

    /// Takes the watches of a fence down and gives what happened since they were set: empty, if nothing did.
    ///
    /// # Errors
    ///
    /// If it cannot be known what happened: [`Failure::StaleHandle`] after a reconnect, among others.
    pub fn lower(&mut self, fence: Fence) -> Result<Vec<Event>, OperationError> {
        let (carrier, deadline) = self.call();
        at_once(lower(carrier, fence, deadline))
    }
}

impl Fence {
    /// A fence that does not stand yet.
    pub(crate) fn around(paths: impl IntoIterator<Item = PathOrSpecial>, epoch: Epoch) -> Self {
        let watch = |path| Watch { path, token: unique_token(), depth: None, epoch };
        Self { watches: paths.into_iter().map(watch).collect() }
    }

    /// What to close when nobody lowers it.
    pub(crate) fn opened(&self) -> Vec<Opened> {
        self.watches.iter().cloned().map(Opened::Watch).collect()
    }
}

pub(crate) async fn raise<C: Carrier>(
    carrier: &mut C,
    fence: Fence,
    deadline: Instant,
) -> Result<Fence, OperationError> {
    let Some(first) = fence.watches.first() else { return Ok(fence) };
    let fail = |failure| OperationError::of_watch(first.path.as_str(), failure);
    let manner = carrier.with(|session| session.manner);
    if manner.event_order != EventOrder::WithReplies {
        return Err(fail(Failure::UnorderedEvents));
    }
    let requests: Arc<[Request]> = fence.watches.iter().map(Watch::request).collect();
    carrier.with(|session| session.statistics.round_trips += 1);
    let results = exchange(carrier, Arc::clone(&requests), TxId::NONE, deadline).await?;
    let closing = Closing::new(carrier, fence.opened());
    for (request, result) in requests.iter().zip(results) {
        result.map_err(|failure| OperationError::new(request, failure))?;
    }
    let begun = closing.carrier.wait_for(WaitFor::AnyEvent, deadline, |session| {
        let begun = |watch: &Watch| session.watches.has_begun(&watch.token);
        fence.watches.iter().all(begun).then_some(())
    });
    let begun = begun.await.map_err(|lost| fail(Failure::Lost(lost)))?;
    begun.ok_or_else(|| fail(Failure::Timeout { sent: true }))?;
    closing.keep();
    Ok(fence)
}

pub(crate) async fn lower<C: Carrier>(
    carrier: &mut C,
    fence: Fence,
    deadline: Instant,
) -> Result<Vec<Event>, OperationError> {
    let closing = Closing::new(carrier, fence.opened());
    let stale = |session: &mut crate::session::Session| {
        fence.watches.iter().try_for_each(|watch| session.check_watch(watch))
    };
    closing.carrier.with(stale)?;
    let requests: Arc<[Request]> = fence.watches.iter().map(Watch::end_request).collect();
    if !requests.is_empty() {
        closing.carrier.with(|session| session.statistics.round_trips += 1);
    }
    let results =
        exchange(&mut *closing.carrier, Arc::clone(&requests), TxId::NONE, deadline).await?;
    let events = closing.carrier.with(|session| {
        let of_each = fence.watches.iter();
        of_each.flat_map(|watch| disturbances(events_of_ended(session, &watch.token))).collect()
    });
    for (request, result) in requests.iter().zip(results) {
        result.map_err(|failure| OperationError::new(request, failure))?;
    }
    Ok(events)
}
