//! Transactions: a guard that aborts unless committed, and a bounded retry.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use xenstore_proto::{Errno, Name, Path, Reply, Request, TxId};

use crate::batch::{Batch, Replies, Slot};
use crate::carrier::{Carrier, ask, ask_for, ask_serial, at_once, reply_for};
use crate::client::Client;
use crate::directory::directory;
use crate::error::{Failure, OperationError};
use crate::nodes::Nodes;
use crate::run::run;
use crate::session::{Opened, Serial};
use crate::waiting::WaitFor;

/// An open transaction. What it does is seen by nobody else until [`Transaction::commit`]; dropping it aborts.
///
/// Operations are in [`Nodes`]. Reading inside a transaction repeats: what was read once stays the same.
#[derive(Debug)]
#[must_use = "a transaction that is dropped is aborted"]
pub struct Transaction<'c> {
    client: &'c mut Client,
    tx_id: TxId,
    serial: Serial,
    open: bool,
}

/// How a commit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "after a conflict nothing was written"]
pub enum Commit {
    /// Everything was written, in one step.
    Committed,
    /// Somebody changed what this transaction had read or written: nothing was written. Start again.
    Conflict,
}

/// A transaction without its client, for callers that cannot hold a borrow. Does not abort when dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DetachedTransaction {
    tx_id: TxId,
    /// The request that started it.
    serial: Serial,
}

impl Client {
    /// Starts a transaction.
    ///
    /// # Errors
    ///
    /// If the server refuses (ENOSPC or EQUOTA: too many are open).
    pub fn transaction(&mut self) -> Result<Transaction<'_>, OperationError> {
        let (carrier, deadline) = self.call();
        let (tx_id, serial) = at_once(start(carrier, deadline))?;
        Ok(Transaction { client: self, tx_id, serial, open: true })
    }

    /// Starts a transaction in the same round trip as a batch of requests outside of it.
    ///
    /// # Errors
    ///
    /// If the server refuses to start one, or the batch fails as [`Nodes::run`] does.
    pub fn transaction_with(
        &mut self,
        mut batch: Batch,
    ) -> Result<(Transaction<'_>, Replies), OperationError> {
        let started = batch.push::<TxId>(Request::TransactionStart);
        let mut replies = self.run(batch)?;
        let (tx_id, serial) = replies.take_serial(started)?;
        Ok((Transaction { client: self, tx_id, serial, open: true }, replies))
    }

    /// Takes a detached transaction up again.
    ///
    /// # Errors
    ///
    /// [`Failure::StaleHandle`], if the connection it was started on is no more.
    pub fn attach(
        &mut self,
        detached: DetachedTransaction,
    ) -> Result<Transaction<'_>, OperationError> {
        let DetachedTransaction { tx_id, serial } = detached;
        if !self.is_current(serial) {
            return Err(OperationError::new(&Request::TransactionStart, Failure::StaleHandle));
        }
        Ok(Transaction { client: self, tx_id, serial, open: true })
    }

    /// Runs `body` in a transaction and commits, again from the start if another change got in between.
    ///
    /// `body` may run several times; each time it sees the store as it is then. Its own error aborts and is given back. No
    /// other try is started after `policy` is used up, nor after [`crate::Options::timeout`] from the start of the first or
    /// the instant of [`Client::with_deadline`].
    ///
    /// # Errors
    ///
    /// What `body` gives, and a failed commit ([`Failure::Conflict`] says how many tries were made).
    pub fn transact<T, E: From<OperationError>>(
        &mut self,
        policy: &RetryPolicy,
        mut body: impl FnMut(&mut Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut tries = Tries::new(policy, self.deadline());
        loop {
            let mut transaction = self.transaction()?;
            // What the body says is more than what an abort can add.
            let value = body(&mut transaction)?;
            if transaction.commit()? == Commit::Committed {
                return Ok(value);
            }
            at_once(tries.after_conflict(self.call().0))?;
        }
    }
}

impl Transaction<'_> {
    /// Makes what the transaction did visible, in one step.
    ///
    /// # Errors
    ///
    /// If the server refuses for another reason than a conflict, or does not answer in time: if [`Failure::Timeout`] says
    /// `sent`, only reading shows whether it was committed.
    pub fn commit(mut self) -> Result<Commit, OperationError> {
        Commit::of(self.end(true))
    }

    /// Runs a last batch and commits, in one round trip.
    ///
    /// A directory that does not fit one reply stays refused with E2BIG: its parts could only be read after the end.
    ///
    /// # Errors
    ///
    /// As [`Transaction::commit`] and [`Nodes::run`].
    pub fn commit_with(mut self, mut batch: Batch) -> Result<(Commit, Replies), OperationError> {
        let end = push_commit(&mut batch);
        // Whether the end was sent cannot be told from a batch that failed; an abort of what has ended does no harm.
        let mut replies = self.run(batch)?;
        self.open = false;
        Ok((Commit::of(replies.take(end))?, replies))
    }

    /// Drops what the transaction did.
    ///
    /// # Errors
    ///
    /// If the server does not answer. Nothing is written then either.
    pub fn abort(mut self) -> Result<(), OperationError> {
        self.end(false)
    }

    /// The number that the server gave the transaction.
    pub fn id(&self) -> TxId {
        self.tx_id
    }

    /// Lets go of the client without ending the transaction; [`Client::attach`] takes it up again.
    pub fn detach(mut self) -> DetachedTransaction {
        self.open = false;
        DetachedTransaction { tx_id: self.tx_id, serial: self.serial }
    }

    fn end(&mut self, commit: bool) -> Result<(), OperationError> {
        let (carrier, deadline) = self.client.call();
        at_once(end(carrier, self.tx_id, commit, deadline, &mut self.open))
    }
}

impl Nodes for Transaction<'_> {
    fn request(&mut self, request: &Request) -> Result<Reply, OperationError> {
        let (carrier, deadline) = self.client.call();
        at_once(ask(carrier, request, self.tx_id, deadline))
    }

    fn run(&mut self, batch: Batch) -> Result<Replies, OperationError> {
        let (carrier, deadline) = self.client.call();
        at_once(run(carrier, batch, self.tx_id, deadline))
    }

    fn directory(&mut self, path: &Path) -> Result<Vec<Name>, OperationError> {
        let (carrier, deadline) = self.client.call();
        at_once(directory(carrier, path, self.tx_id, deadline))
    }
}

impl Drop for Transaction<'_> {
    /// Asks for the abort and does not wait for the answer: what cannot be sent now is sent with the next call.
    fn drop(&mut self) {
        if self.open {
            let opened = vec![Opened::Transaction(self.tx_id)];
            self.client.call().0.with(|session| session.close(opened));
        }
    }
}

impl Commit {
    /// What the answer to a commit says.
    pub(crate) fn of(ended: Result<(), OperationError>) -> Result<Self, OperationError> {
        match ended {
            Ok(()) => Ok(Self::Committed),
            Err(error) if error.errno() == Some(&Errno::EAGAIN) => Ok(Self::Conflict),
            Err(error) => Err(error),
        }
    }
}

/// Starts a transaction. Also gives what tells it from those that a reset has ended.
pub(crate) async fn start<C: Carrier>(
    carrier: &mut C,
    deadline: Instant,
) -> Result<(TxId, Serial), OperationError> {
    let request = Request::TransactionStart;
    let (reply, serial) = ask_serial(carrier, &request, TxId::NONE, deadline).await?;
    Ok((reply_for(&request, Ok(reply))?, serial))
}

/// Adds the end of a batch's transaction to it.
pub(crate) fn push_commit(batch: &mut Batch) -> Slot<()> {
    batch.push(Request::TransactionEnd { commit: true })
}

/// Ends a transaction, and notes whether it is still open then.
pub(crate) async fn end<C: Carrier>(
    carrier: &mut C,
    tx_id: TxId,
    commit: bool,
    deadline: Instant,
    open: &mut bool,
) -> Result<(), OperationError> {
    let ended = ask_for(carrier, &Request::TransactionEnd { commit }, tx_id, deadline).await;
    let not_done = |error: &OperationError| {
        matches!(error.failure(), Failure::Timeout { sent: false })
            || error.errno() == Some(&Errno::EINVAL)
    };
    *open = ended.as_ref().is_err_and(not_done);
    ended
}

/// The tries of a transaction that meets other changes.
pub(crate) struct Tries<'p> {
    policy: &'p RetryPolicy,
    last_start: Instant,
    made: u32,
}

impl<'p> Tries<'p> {
    pub(crate) fn new(policy: &'p RetryPolicy, last_start: Instant) -> Self {
        Self { policy, last_start, made: 0 }
    }

    /// Waits until it is time for another try. Events are taken in meanwhile, so that the server's buffers do not fill.
    ///
    /// # Errors
    ///
    /// If no other try shall be made, or the connection is lost.
    pub(crate) async fn after_conflict<C: Carrier>(
        &mut self,
        carrier: &mut C,
    ) -> Result<(), OperationError> {
        self.made += 1;
        let next = Instant::now() + self.policy.pause(self.made);
        if self.made >= self.policy.attempts || next >= self.last_start {
            let failure = Failure::Conflict { attempts: self.made };
            return Err(OperationError::new(&Request::TransactionEnd { commit: true }, failure));
        }
        carrier.with(|session| session.statistics.transaction_retries += 1);
        if next > Instant::now() {
            let paused = carrier.wait_for(WaitFor::Time, next, |_| None::<()>).await;
            let lost = |lost| OperationError::new(&Request::TransactionStart, Failure::Lost(lost));
            paused.map_err(lost)?;
        }
        Ok(())
    }
}

/// How often a transaction is tried, and how long the pauses in between are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Tries in all, at least 1.
    pub attempts: u32,
    /// The pause after the second conflict; there is none after the first, and each later one is twice as long.
    pub pause_first: Duration,
    /// The longest pause.
    pub pause_max: Duration,
}

impl Default for RetryPolicy {
    /// 100 tries: sixteen clients that plug devices at once need up to about that many on C xenstored.
    fn default() -> Self {
        Self {
            attempts: 100,
            pause_first: Duration::from_millis(1),
            pause_max: Duration::from_millis(50),
        }
    }
}

impl RetryPolicy {
    /// The pause before the next try, somewhere between half and all of what it may be, so that two clients that met once
    /// do not meet each time.
    fn pause(&self, attempts: u32) -> Duration {
        if attempts < 2 {
            return Duration::ZERO;
        }
        let doubled = self.pause_first.saturating_mul(1 << (attempts - 2).min(20));
        let pause = doubled.min(self.pause_max);
        let random = RandomState::new().hash_one(attempts) % 512;
        let share = u32::try_from(random).unwrap_or(0) + 512;
        pause.saturating_mul(share) / 1024
    }
}
