//! Transactions: a guard that aborts unless committed, and a bounded retry.

use xenstore_proto::{Name, Path, Reply, Request, TxId};

use super::client::Client;
use super::nodes::Nodes;
use super::replies::Replies;
use crate::batch::Batch;
use crate::carrier::ask;
use crate::directory::directory;
use crate::error::{Failure, OperationError};
use crate::run::run;
use crate::session::{Opened, Serial};
use crate::transaction::{Commit, RetryPolicy, Tries, end, push_commit, start};

/// An open transaction. What it does is seen by nobody else until [`Transaction::commit`]; dropping it aborts, without
/// waiting for the answer.
///
/// Operations are in [`Nodes`], and may run at the same time. Reading inside a transaction repeats: what was read once
/// stays the same. The client stays in use beside it.
#[derive(Debug)]
#[must_use = "a transaction that is dropped is aborted"]
pub struct Transaction {
    client: Client,
    tx_id: TxId,
    /// The request that started it.
    serial: Serial,
    open: bool,
}

impl Client {
    /// Starts a transaction. Cancel-safe: dropped, it leaves none.
    ///
    /// # Errors
    ///
    /// If the server refuses (ENOSPC or EQUOTA: too many are open).
    pub async fn transaction(&self) -> Result<Transaction, OperationError> {
        let (tx_id, serial) = start(&mut &*self.handle, self.deadline()).await?;
        Ok(Transaction { client: self.clone(), tx_id, serial, open: true })
    }

    /// Starts a transaction in the same round trip as a batch of requests outside of it. Cancel-safe: dropped, it leaves
    /// none; of the batch as [`Nodes::run`].
    ///
    /// # Errors
    ///
    /// If the server refuses to start one, or the batch fails as [`Nodes::run`] does.
    pub async fn transaction_with(
        &self,
        mut batch: Batch,
    ) -> Result<(Transaction, Replies), OperationError> {
        let started = batch.push::<TxId>(Request::TransactionStart);
        let mut replies = self.run(batch).await?;
        let (tx_id, serial) = replies.take_serial(started)?;
        Ok((Transaction { client: self.clone(), tx_id, serial, open: true }, replies))
    }

    /// Runs `body` in a transaction and commits, again from the start if another change got in between:
    /// [`crate::Client::transact`]. `body` is given the transaction and gives it back to be committed; what it drops is aborted.
    ///
    /// Cancel-safe: dropped, it aborts; if the commit was sent already, everything or nothing is written.
    ///
    /// # Errors
    ///
    /// What `body` gives, and a failed commit ([`Failure::Conflict`] says how many tries were made).
    pub async fn transact<T, E, F>(
        &self,
        policy: &RetryPolicy,
        mut body: impl FnMut(Transaction) -> F,
    ) -> Result<T, E>
    where
        E: From<OperationError>,
        // Not an AsyncFnMut that borrows the transaction: the compiler cannot tell that such a future may be spawned.
        F: Future<Output = Result<(Transaction, T), E>>,
    {
        let mut tries = Tries::new(policy, self.deadline());
        loop {
            let transaction = self.transaction().await?;
            let (transaction, value) = body(transaction).await?;
            if transaction.commit().await? == Commit::Committed {
                return Ok(value);
            }
            tries.after_conflict(&mut &*self.handle).await?;
        }
    }
}

impl Transaction {
    /// Makes what the transaction did visible, in one step.
    ///
    /// Cancel-safe, in that everything or nothing is written then; only reading shows which.
    ///
    /// # Errors
    ///
    /// If the server refuses for another reason than a conflict, or does not answer in time: if [`Failure::Timeout`] says
    /// `sent`, only reading shows whether it was committed.
    pub async fn commit(mut self) -> Result<Commit, OperationError> {
        Commit::of(self.end(true).await)
    }

    /// Runs a last batch and commits, in one round trip. Cancel-safe as [`Transaction::commit`].
    ///
    /// A directory that does not fit one reply stays refused with E2BIG: its parts could only be read after the end.
    ///
    /// # Errors
    ///
    /// As [`Transaction::commit`] and [`Nodes::run`].
    pub async fn commit_with(
        mut self,
        mut batch: Batch,
    ) -> Result<(Commit, Replies), OperationError> {
        let end = push_commit(&mut batch);
        // Whether the end was sent cannot be told from a batch that failed; an abort of what has ended does no harm.
        let mut replies = self.run(batch).await?;
        self.open = false;
        Ok((Commit::of(replies.take(end))?, replies))
    }

    /// Drops what the transaction did, and says how that went, which dropping it does not. Cancel-safe: it is aborted then.
    ///
    /// # Errors
    ///
    /// If the server does not answer. Nothing is written then either.
    pub async fn abort(mut self) -> Result<(), OperationError> {
        self.end(false).await
    }

    /// The number that the server gave the transaction.
    pub fn id(&self) -> TxId {
        self.tx_id
    }

    async fn end(&mut self, commit: bool) -> Result<(), OperationError> {
        self.check()?;
        let carrier = &mut &*self.client.handle;
        end(carrier, self.tx_id, commit, self.client.deadline(), &mut self.open).await
    }

    /// Whether the transaction has not ended by a reset of the connection: what is asked in it would be answered as if there
    /// were no nodes.
    fn check(&self) -> Result<(), OperationError> {
        if self.client.handle.with(|session| session.is_current(self.serial)) {
            return Ok(());
        }
        Err(OperationError::new(&Request::TransactionStart, Failure::StaleHandle))
    }

    /// What was asked in the transaction, if it was open all the while.
    async fn inside<T>(
        &self,
        asked: impl Future<Output = Result<T, OperationError>>,
    ) -> Result<T, OperationError> {
        self.check()?;
        let answered = asked.await;
        self.check()?;
        answered
    }
}

impl Nodes for Transaction {
    async fn request(&self, request: &Request) -> Result<Reply, OperationError> {
        let carrier = &mut &*self.client.handle;
        self.inside(ask(carrier, request, self.tx_id, self.client.deadline())).await
    }

    async fn run(&self, batch: Batch) -> Result<Replies, OperationError> {
        let carrier = &mut &*self.client.handle;
        let ran = self.inside(run(carrier, batch, self.tx_id, self.client.deadline())).await;
        Ok(Replies::new(&self.client, ran?))
    }

    async fn directory(&self, path: &Path) -> Result<Vec<Name>, OperationError> {
        let carrier = &mut &*self.client.handle;
        self.inside(directory(carrier, path, self.tx_id, self.client.deadline())).await
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if self.open && self.check().is_ok() {
            let opened = vec![Opened::Transaction(self.tx_id)];
            self.client.handle.with(|session| session.close(opened));
        }
    }
}
