//! A watch fence that stands over several batches.

use std::sync::Arc;
use std::time::Instant;

use xenstore_proto::{EventOrder, PathOrSpecial, Request, TxId};

use crate::carrier::{Carrier, Closing, at_once, exchange, exchange_fenced};
use crate::client::Client;
use crate::error::{Failure, OperationError};
use crate::run::disturbances;
use crate::session::{Opened, Session};
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
        let (carrier, deadline) = self.call();
        at_once(raise(carrier, watch_requests(paths), deadline))
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
    /// What to close when nobody lowers it.
    pub(crate) fn opened(&self) -> Vec<Opened> {
        self.watches.iter().cloned().map(Opened::Watch).collect()
    }

    /// Whether all of its watches are set.
    fn check(&self, session: &Session) -> Result<(), OperationError> {
        self.watches.iter().try_for_each(|watch| session.check_watch(watch))
    }
}

/// What sets the watches of a fence.
pub(crate) fn watch_requests(paths: impl IntoIterator<Item = PathOrSpecial>) -> Arc<[Request]> {
    let request = |path| Request::Watch { path, token: unique_token(), depth: None };
    paths.into_iter().map(request).collect()
}

pub(crate) async fn raise<C: Carrier>(
    carrier: &mut C,
    requests: Arc<[Request]>,
    deadline: Instant,
) -> Result<Fence, OperationError> {
    let Some(first) = requests.first() else { return Ok(Fence { watches: Vec::new() }) };
    let fail = |failure| OperationError::new(first, failure);
    let manner = carrier.with(|session| session.manner);
    if manner.event_order != EventOrder::WithReplies {
        return Err(fail(Failure::UnorderedEvents));
    }
    carrier.with(|session| session.statistics.round_trips += 1);
    let asked = Arc::clone(&requests);
    let results = exchange_fenced(carrier, asked, requests.len(), TxId::NONE, deadline).await?;
    let closing = Closing::after(carrier, &requests, &results);
    let mut fence = Fence { watches: Vec::new() };
    for (request, answer) in requests.iter().zip(results) {
        answer.result.map_err(|failure| OperationError::new(request, failure))?;
        fence.watches.extend(Watch::set_by(request, answer.serial));
    }
    let begun = closing.carrier.wait_for(WaitFor::AnyEvent, deadline, |session| {
        if let Err(stale) = fence.check(session) {
            return Some(Err(stale));
        }
        let begun = |watch: &Watch| session.watches.has_begun(&watch.token);
        fence.watches.iter().all(begun).then_some(Ok(()))
    });
    let begun = begun.await.map_err(|lost| fail(Failure::Lost(lost)))?;
    begun.unwrap_or_else(|| Err(fail(Failure::Timeout { sent: true })))?;
    closing.keep();
    Ok(fence)
}

pub(crate) async fn lower<C: Carrier>(
    carrier: &mut C,
    fence: Fence,
    deadline: Instant,
) -> Result<Vec<Event>, OperationError> {
    let closing = Closing::new(carrier, fence.opened());
    closing.carrier.with(|session| fence.check(session))?;
    let requests: Arc<[Request]> = fence.watches.iter().map(Watch::end_request).collect();
    if !requests.is_empty() {
        closing.carrier.with(|session| session.statistics.round_trips += 1);
    }
    let results =
        exchange(&mut *closing.carrier, Arc::clone(&requests), TxId::NONE, deadline).await?;
    let events = closing.carrier.with(|session| {
        let of_each = results.iter();
        of_each
            .flat_map(|unwatch| disturbances(session.watches.take_ended(unwatch.serial)))
            .collect()
    });
    for (request, answer) in requests.iter().zip(results) {
        answer.result.map_err(|failure| OperationError::new(request, failure))?;
    }
    Ok(events)
}
