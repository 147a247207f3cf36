//! A watch fence that stands over several batches.

use std::time::Instant;

use xenstore_proto::{EventOrder, PathOrSpecial, Request, TxId};

use crate::client::Client;
use crate::error::{Failure, OperationError};
use crate::link::Step;
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
    watches: Vec<Watch>,
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
        let deadline = self.deadline();
        let epoch = self.epoch();
        let watches: Vec<Watch> = paths
            .into_iter()
            .map(|path| Watch { path, token: unique_token(), depth: None, epoch })
            .collect();
        let Some(first) = watches.first() else { return Ok(Fence { watches }) };
        let fail = |failure| OperationError::of_watch(first.path.as_str(), failure);
        if self.manner().event_order != EventOrder::WithReplies {
            return Err(fail(Failure::UnorderedEvents));
        }
        let requests: Vec<Request> = watches.iter().map(Watch::request).collect();
        self.link.statistics.round_trips += 1;
        let results = self.exchange(&requests, TxId::NONE, deadline)?;
        let refused = results.into_iter().enumerate().find_map(|(at, r)| Some((at, r.err()?)));
        let stands = match refused {
            Some((at, failure)) => Err(OperationError::new(&requests[at], failure)),
            None => self.wait_until_begun(&watches, deadline).map_err(fail),
        };
        if stands.is_err() {
            self.unwatch_unheard(&watches);
        }
        stands.map(|()| Fence { watches })
    }

    /// Takes the watches of a fence down and gives what happened since they were set: empty, if nothing did.
    ///
    /// # Errors
    ///
    /// If it cannot be known what happened: [`Failure::StaleHandle`] after a reconnect, among others.
    pub fn lower(&mut self, fence: Fence) -> Result<Vec<Event>, OperationError> {
        let deadline = self.deadline();
        let Fence { watches } = fence;
        for watch in &watches {
            self.check_watch(watch)?;
        }
        let requests: Vec<Request> = watches.iter().map(Watch::end_request).collect();
        if !requests.is_empty() {
            self.link.statistics.round_trips += 1;
        }
        let results = self.exchange(&requests, TxId::NONE, deadline);
        if results.is_err() {
            self.unwatch_unheard(&watches);
        }
        let mut events = Vec::new();
        for watch in watches {
            let happened = self.watches.take_all(&watch.token);
            self.watches.drop_ended(&watch.token);
            let lost = happened.iter().any(|event| event.lost_before);
            events.extend(happened.into_iter().filter(|event| !event.first || lost));
        }
        for (request, result) in requests.iter().zip(results?) {
            result.map_err(|failure| OperationError::new(request, failure))?;
        }
        Ok(events)
    }

    fn wait_until_begun(&mut self, watches: &[Watch], deadline: Instant) -> Result<(), Failure> {
        while !watches.iter().all(|watch| self.watches.has_begun(&watch.token)) {
            let step = self.link.step(deadline);
            self.take_incoming(None);
            match step {
                Err(lost) => return Err(Failure::Lost(lost)),
                Ok(Step::Moved) if Instant::now() < deadline => {}
                Ok(_) => return Err(Failure::Timeout { sent: true }),
            }
        }
        Ok(())
    }

    /// Ends watches that nobody will have a handle of, without waiting for the answers.
    pub(crate) fn unwatch_unheard(&mut self, watches: &[Watch]) {
        for watch in watches {
            self.watches.remove(&watch.token);
            if let Ok(id) = self.link.connection.submit(&watch.end_request(), TxId::NONE) {
                self.link.connection.discard_reply(id);
            }
        }
        if let Err(lost) = self.link.flush() {
            tracing::debug!(%lost, "watches ended with their connection");
        }
    }
}
