//! How a batch is run: its requests in one round trip, directories completed, fences around it.

use std::sync::Arc;
use std::time::Instant;

use xenstore_proto::{Errno, EventOrder, PathOrSpecial, Request, Token, TxId};

use crate::batch::{Batch, Replies};
use crate::carrier::{Carrier, Closing, exchange_fenced};
use crate::directory::complete_directories;
use crate::error::{Failure, OperationError};
use crate::session::{Results, refusal};
use crate::watch::Event;

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
    let manner = carrier.with(|session| session.manner);
    let (results, fences) = if fences.is_empty() {
        (run_bare(carrier, &requests, 0, tx_id, deadline).await?, Vec::new())
    } else {
        if let Some((path, _)) = fences.first()
            && (manner.event_order != EventOrder::WithReplies || tx_id != TxId::NONE)
        {
            return Err(OperationError::of_watch(path.as_str(), Failure::UnorderedEvents));
        }
        run_fenced(carrier, &requests, &fences, deadline).await?
    };
    let ended = carrier.with(|session| {
        let ended = requests.iter().zip(&results).filter_map(|(request, answer)| match request {
            Request::Unwatch { token, .. } => {
                Some((token.clone(), session.watches.take_ended(answer.serial)))
            }
            _ => None,
        });
        ended.collect()
    });
    let split = results.into_iter().map(|answer| (answer.serial, Some(answer.result)));
    let (serials, results) = split.unzip();
    Ok(Replies { number, requests, serials, results, fences, ended })
}

async fn run_bare<C: Carrier>(
    carrier: &mut C,
    requests: &Arc<[Request]>,
    fences: usize,
    tx_id: TxId,
    deadline: Instant,
) -> Result<Results, OperationError> {
    if !requests.is_empty() {
        carrier.with(|session| session.statistics.round_trips += 1);
    }
    let asked = Arc::clone(requests);
    let mut results = exchange_fenced(carrier, asked, fences, tx_id, deadline).await?;
    let closing = Closing::after(carrier, requests, &results);
    complete_directories(&mut *closing.carrier, requests, &mut results, tx_id, deadline).await?;
    closing.keep();
    Ok(results)
}

/// WATCH, the requests, UNWATCH; again with the parts of directories before UNWATCH, if there are any.
async fn run_fenced<C: Carrier>(
    carrier: &mut C,
    requests: &[Request],
    fences: &[(PathOrSpecial, Token)],
    deadline: Instant,
) -> Result<(Results, Seen), OperationError> {
    let fences = fences.iter().cloned();
    let watch = |(path, token)| Request::Watch { path, token, depth: None };
    let unwatch = |(path, token)| Request::Unwatch { path, token };
    let watches: Vec<Request> = fences.clone().map(watch).collect();
    let unwatches: Arc<[Request]> = fences.map(unwatch).collect();
    let inner: Arc<[Request]> = [&watches[..], requests].concat().into();
    let all: Arc<[Request]> = [&inner[..], &unwatches[..]].concat().into();

    carrier.with(|session| session.statistics.round_trips += 1);
    let asked = Arc::clone(&all);
    let mut results = exchange_fenced(carrier, asked, watches.len(), TxId::NONE, deadline).await?;
    let in_parts = requests.iter().zip(&results[watches.len()..]).any(|(request, result)| {
        matches!(request, Request::Directory(_)) && refusal(result) == Some(&Errno::E2BIG)
    });
    if in_parts {
        // What this run has opened is closed: the next one opens its own.
        drop(Closing::after(carrier, &all, &results));
        results = run_bare(carrier, &inner, watches.len(), TxId::NONE, deadline).await?;
        let closing = Closing::after(carrier, &inner, &results);
        let ended = run_bare(&mut *closing.carrier, &unwatches, 0, TxId::NONE, deadline).await?;
        closing.keep();
        results.extend(ended);
    }

    let ended = results.split_off(inner.len());
    let reads = results.split_off(watches.len());
    let states = watches.iter().zip(results).zip(unwatches.iter().zip(ended));
    let seen = carrier.with(|session| {
        let seen = states.map(|((watch, set), (unwatch, ended))| {
            let events = session.watches.take_ended(ended.serial);
            set.result.map_err(|failure| OperationError::new(watch, failure))?;
            ended.result.map_err(|failure| OperationError::new(unwatch, failure))?;
            Ok(disturbances(events))
        });
        seen.collect()
    });
    Ok((reads, seen))
}

/// Of the events of a fence, those that say that something changed.
pub(crate) fn disturbances(events: Vec<Event>) -> Vec<Event> {
    let lost = events.iter().any(|event| event.lost_before);
    events.into_iter().filter(|event| !event.first || lost).collect()
}
