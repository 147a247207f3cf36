//! How a batch is run: its requests in one round trip, directories completed, fences around it.

use std::sync::Arc;
use std::time::Instant;

use xenstore_proto::{Errno, EventOrder, Request, TxId};

use crate::batch::{Batch, Replies};
use crate::carrier::{Carrier, Closing, exchange};
use crate::directory::complete_directories;
use crate::error::{Failure, OperationError};
use crate::session::{Results, Session, refusal};
use crate::watch::{Event, Watch};

/// What was seen inside each fence.
type Seen = Vec<Result<Vec<Event>, OperationError>>;

pub(crate) async fn run<C: Carrier>(
    carrier: &mut C,
    batch: Batch,
    tx_id: TxId,
    deadline: Instant,
) -> Result<Replies, OperationError> {
    let Batch { number, requests, fences } = batch;
    let requests: Arc<[Request]> = requests.into();
    let (epoch, manner) = carrier.with(|session| (session.epoch, session.manner));
    let (results, fences) = if fences.is_empty() {
        (run_bare(carrier, &requests, tx_id, deadline).await?, Vec::new())
    } else {
        if let Some((path, _)) = fences.first()
            && (manner.event_order != EventOrder::WithReplies || tx_id != TxId::NONE)
        {
            return Err(OperationError::of_watch(path.as_str(), Failure::UnorderedEvents));
        }
        let fence = |(path, token)| Watch { path, token, depth: None, epoch };
        let fences: Vec<Watch> = fences.into_iter().map(fence).collect();
        run_fenced(carrier, &requests, &fences, deadline).await?
    };
    let ended = carrier.with(|session| {
        let ended = requests.iter().filter_map(|request| match request {
            Request::Unwatch { token, .. } if !session.watches.is_set(token) => {
                Some((token.clone(), events_of_ended(session, token)))
            }
            _ => None,
        });
        ended.collect()
    });
    let results = results.into_iter().map(Some).collect();
    Ok(Replies { number, epoch, requests, results, fences, ended })
}

async fn run_bare<C: Carrier>(
    carrier: &mut C,
    requests: &Arc<[Request]>,
    tx_id: TxId,
    deadline: Instant,
) -> Result<Results, OperationError> {
    if !requests.is_empty() {
        carrier.with(|session| session.statistics.round_trips += 1);
    }
    let mut results = exchange(carrier, Arc::clone(requests), tx_id, deadline).await?;
    let closing = Closing::after(carrier, requests, &results);
    complete_directories(&mut *closing.carrier, requests, &mut results, tx_id, deadline).await?;
    closing.keep();
    Ok(results)
}

/// WATCH, the requests, UNWATCH; again with the parts of directories before UNWATCH, if there are any.
async fn run_fenced<C: Carrier>(
    carrier: &mut C,
    requests: &[Request],
    fences: &[Watch],
    deadline: Instant,
) -> Result<(Results, Seen), OperationError> {
    let watches: Vec<Request> = fences.iter().map(Watch::request).collect();
    let unwatches: Arc<[Request]> = fences.iter().map(Watch::end_request).collect();
    let inner: Arc<[Request]> = [&watches[..], requests].concat().into();
    let all: Arc<[Request]> = [&inner[..], &unwatches[..]].concat().into();

    carrier.with(|session| session.statistics.round_trips += 1);
    let mut results = exchange(carrier, Arc::clone(&all), TxId::NONE, deadline).await?;
    let in_parts = requests.iter().zip(&results[watches.len()..]).any(|(request, result)| {
        matches!(request, Request::Directory(_)) && refusal(result) == Some(&Errno::E2BIG)
    });
    if in_parts {
        // What this run has opened is closed: the next one opens its own.
        drop(Closing::after(carrier, &all, &results));
        results = run_bare(carrier, &inner, TxId::NONE, deadline).await?;
        let closing = Closing::after(carrier, &inner, &results);
        let ended = run_bare(&mut *closing.carrier, &unwatches, TxId::NONE, deadline).await?;
        closing.keep();
        results.extend(ended);
    }

    let ended = results.split_off(inner.len());
    let reads = results.split_off(watches.len());
    let states = watches.iter().zip(results).zip(unwatches.iter().zip(ended)).zip(fences);
    let seen = carrier.with(|session| {
        let seen = states.map(|(((watch, set), (unwatch, ended)), Watch { token, .. })| {
            let events = events_of_ended(session, token);
            set.map_err(|failure| OperationError::new(watch, failure))?;
            ended.map_err(|failure| OperationError::new(unwatch, failure))?;
            Ok(disturbances(events))
        });
        seen.collect()
    });
    Ok((reads, seen))
}

/// The events of a watch that nobody took, and the end of it if it was ended.
pub(crate) fn events_of_ended(session: &mut Session, token: &xenstore_proto::Token) -> Vec<Event> {
    let events = session.watches.take_all(token);
    session.watches.drop_ended(token);
    events
}

/// Of the events of a fence, those that say that something changed.
pub(crate) fn disturbances(events: Vec<Event>) -> Vec<Event> {
    let lost = events.iter().any(|event| event.lost_before);
    events.into_iter().filter(|event| !event.first || lost).collect()
}
