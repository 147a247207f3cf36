//! What the blocking client and the asynchronous one do alike, over the two things that they do differently.
//!
//! Everything that takes more than one request (directories in parts, batches with fences, the pages of a domain's state) is
//! written once, as a function over a [`Carrier`]. The blocking client's carrier has waited when it gives its future, so that
//! the function's future is ready when it is first polled: [`at_once`].

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use xenstore_proto::{Reply, Request, TxId};

use crate::error::{ConnectionLost, Failure, OperationError};
use crate::from_reply::FromReply;
use crate::session::{Answer, ExchangeId, Opened, Results, Serial, Session};
use crate::waiting::WaitFor;

/// How a session is reached, and how one waits for it.
pub(crate) trait Carrier: Send {
    /// Does something with the session; what there is to send then is sent, now or soon, without waiting.
    fn with<R>(&mut self, act: impl FnOnce(&mut Session) -> R) -> R;

    /// Waits until `check` finds something; `None` if it has not by the deadline.
    ///
    /// What had come before the connection was lost is found even so.
    fn wait_for<R: Send>(
        &mut self,
        on: WaitFor,
        deadline: Instant,
        check: impl FnMut(&mut Session) -> Option<R> + Send,
    ) -> impl Future<Output = Result<Option<R>, ConnectionLost>> + Send;
}

/// What a future gives that waits for nothing, as all do whose carrier is a blocking one.
pub(crate) fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("a blocking carrier has waited before it gives its future"),
    }
}

/// Sends requests and collects what each was answered. Dropped before its end, it gives them up.
///
/// # Errors
///
/// If not all of them were answered, about the first that was not. What a server refuses is in the results.
pub(crate) async fn exchange<C: Carrier>(
    carrier: &mut C,
    requests: Arc<[Request]>,
    tx_id: TxId,
    deadline: Instant,
) -> Result<Results, OperationError> {
    exchange_fenced(carrier, requests, 0, tx_id, deadline).await
}

/// [`exchange`] of requests of which so many, from the first on, are the watches of fences.
pub(crate) async fn exchange_fenced<C: Carrier>(
    carrier: &mut C,
    requests: Arc<[Request]>,
    fences: usize,
    tx_id: TxId,
    deadline: Instant,
) -> Result<Results, OperationError> {
    if requests.is_empty() {
        return Ok(Vec::new());
    }
    let id = carrier.with(|session| session.begin(requests, fences, tx_id, deadline))?;
    let mut call = Call { carrier, id: Some(id) };
    let check = move |session: &mut Session| session.take_answered(id);
    let lost = match call.carrier.wait_for(WaitFor::Exchange(id), deadline, check).await {
        Ok(Some(results)) => {
            call.id = None;
            return Ok(results);
        }
        Ok(None) => None,
        Err(lost) => Some(lost),
    };
    call.id = None;
    let given_up = call.carrier.with(|session| session.give_up(id, lost));
    Err(given_up.expect("an exchange stays until it is taken or given up, which is done here only"))
}

/// Requests that somebody waits for.
struct Call<'c, C: Carrier> {
    carrier: &'c mut C,
    id: Option<ExchangeId>,
}

impl<C: Carrier> Drop for Call<'_, C> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.carrier.with(|session| drop(session.give_up(id, None)));
        }
    }
}

/// One request and its reply: one round trip.
pub(crate) async fn ask<C: Carrier>(
    carrier: &mut C,
    request: &Request,
    tx_id: TxId,
    deadline: Instant,
) -> Result<Reply, OperationError> {
    ask_serial(carrier, request, tx_id, deadline).await.map(|(reply, _)| reply)
}

/// One request, its reply, and what tells the request from others.
pub(crate) async fn ask_serial<C: Carrier>(
    carrier: &mut C,
    request: &Request,
    tx_id: TxId,
    deadline: Instant,
) -> Result<(Reply, Serial), OperationError> {
    carrier.with(|session| session.statistics.round_trips += 1);
    let mut results = exchange(carrier, [request.clone()].into(), tx_id, deadline).await?;
    let failed = |failure| OperationError::new(request, failure);
    let Answer { result, serial } = results.pop().ok_or_else(|| failed(Failure::NoSuchSlot))?;
    if let Request::Unwatch { .. } = request {
        carrier.with(|session| drop(session.watches.take_ended(serial)));
    }
    Ok((result.map_err(failed)?, serial))
}

/// One request and what its reply holds.
pub(crate) async fn ask_for<T: FromReply, C: Carrier>(
    carrier: &mut C,
    request: &Request,
    tx_id: TxId,
    deadline: Instant,
) -> Result<T, OperationError> {
    reply_for(request, ask(carrier, request, tx_id, deadline).await)
}

/// What the reply to a request holds.
pub(crate) fn reply_for<T: FromReply>(
    request: &Request,
    reply: Result<Reply, OperationError>,
) -> Result<T, OperationError> {
    T::from_reply(reply?).map_err(|failure| OperationError::new(request, failure))
}

/// Closes what was opened, unless it is kept: however the function that holds it ends.
pub(crate) struct Closing<'c, C: Carrier> {
    pub(crate) carrier: &'c mut C,
    opened: Vec<Opened>,
}

impl<'c, C: Carrier> Closing<'c, C> {
    pub(crate) fn new(carrier: &'c mut C, opened: Vec<Opened>) -> Self {
        Self { carrier, opened }
    }

    /// What answered requests have opened.
    pub(crate) fn after(carrier: &'c mut C, requests: &[Request], results: &Results) -> Self {
        let asked = requests.iter().zip(results);
        let opened = asked.filter_map(|(request, answer)| Opened::by(request, answer)).collect();
        Self { carrier, opened }
    }

    /// Leaves it to somebody else.
    pub(crate) fn keep(mut self) {
        self.opened.clear();
    }
}

impl<C: Carrier> Drop for Closing<'_, C> {
    fn drop(&mut self) {
        let opened = std::mem::take(&mut self.opened);
        if !opened.is_empty() {
            self.carrier.with(|session| session.close(opened));
        }
    }
}
