//! The transactions of connections: how they start, nest, end, and are given up.

use std::time::{Duration, Instant};

use xenstore_proto::{Errno, Reply, TxId};

use crate::access::{Actor, Subject};
use crate::limits::TRANSACTIONS_MAX_PRIVILEGED;
use crate::quota::Quota;
use crate::requests::Place;
use crate::server::{ConnectionId, Server};
use crate::store::Store;
use crate::transaction::Transaction;

impl Server {
    /// Starts a transaction inside another one of the same connection, and gives its number.
    ///
    /// Requests with that number read and change what the outer one sees, and nobody else sees that. Ending it with
    /// TRANSACTION_END drops it, or commits it into the outer one by the rules of all commits: EAGAIN if another one
    /// nested there has changed what it depends on. What it has read and changed is the outer one's from then on, and
    /// conflicts with what happens outside when that is committed. An outer transaction cannot be committed
    /// while there are open ones inside (EBUSY); dropped, it takes them with it.
    ///
    /// The protocol has no request for this: TRANSACTION_START in a transaction is EBUSY.
    ///
    /// # Errors
    ///
    /// ENOENT if there is no such transaction, ENOSPC if the domain has too many, EAGAIN if the outer one was given
    /// up ([`Server::expire`]).
    pub fn start_nested(&mut self, connection: ConnectionId, outer: TxId) -> Result<TxId, Errno> {
        let subject = self.subject_of(connection).ok_or(Errno::ENOENT)?;
        let state = self.connections.get(&connection).ok_or(Errno::ENOENT)?;
        let outer_one = state.transactions.get(&outer).ok_or(Errno::ENOENT)?;
        let transaction = outer_one.start_nested(outer)?;
        self.add_transaction(connection, &subject, transaction)
    }

    /// Gives up the transactions that have been open for too long, and says how many these were. To be called now and
    /// then: one that has not been open at an earlier call counts as started at this one. A
    /// [`UnixServer`](crate::UnixServer) calls it for all connections of the server as long as one of its own clients
    /// may have a transaction open.
    ///
    /// What is asked in such a transaction is answered with EAGAIN, also its commit, so that a client that tries again
    /// on EAGAIN does so. It no longer keeps an old state of the store alive.
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use xenstore_proto::{DomId, Errno, Reply, Request, TxId};
    /// use xenstored::{Server, Store};
    /// let mut server = Server::new(Store::new());
    /// let connection = server.connect(DomId::DOM0);
    /// let Reply::Transaction(tx) = server.ask(connection, TxId::NONE, Request::TransactionStart)
    /// else { panic!() };
    /// server.set_transaction_limit(Duration::from_secs(9));
    /// let now = Instant::now();
    /// assert_eq!(server.expire(now), 0);
    /// assert_eq!(server.expire(now + Duration::from_secs(9)), 1);
    /// let end = Request::TransactionEnd { commit: true };
    /// assert_eq!(server.ask(connection, tx, end), Reply::Error(Errno::EAGAIN));
    /// ```
    pub fn expire(&mut self, now: Instant) -> usize {
        let deadline = now + self.transaction_limit;
        let mut expired = 0;
        for state in self.connections.values_mut().filter(|state| !state.transactions.is_empty()) {
            for (tx, transaction) in &mut state.transactions {
                if !transaction.is_late(now, deadline) {
                    continue;
                }
                tracing::warn!(domid = %state.domid, tx = tx.0, "transaction given up: open for too long");
                let octets = transaction.octets();
                self.accounts.of_domain(state.domid).transactions.octets -= octets;
                transaction.give_up();
                expired += 1;
            }
        }
        expired
    }

    /// How long a transaction may be open: [`TRANSACTION_OPEN_MAX`](crate::limits::TRANSACTION_OPEN_MAX) unless set.
    pub fn transaction_limit(&self) -> Duration {
        self.transaction_limit
    }

    /// Sets how long a transaction may be open that [`Server::expire`] sees from now on.
    pub fn set_transaction_limit(&mut self, longest: Duration) {
        self.transaction_limit = longest;
    }

    /// Whether a transaction is open: otherwise there is nothing that [`Server::expire`] could give up.
    pub fn has_transactions(&self) -> bool {
        self.open_transactions > 0
    }

    pub(crate) fn start_transaction(
        &mut self,
        connection: ConnectionId,
        subject: &Subject,
        tx: TxId,
    ) -> Result<Reply, Errno> {
        if tx != TxId::NONE {
            return Err(Errno::EBUSY);
        }
        let transaction = Transaction::start(&self.store);
        self.add_transaction(connection, subject, transaction).map(Reply::Transaction)
    }

    /// Starts a transaction that a predecessor had, with the number after this one. `false` if there is one already.
    pub(crate) fn start_transaction_again(
        &mut self,
        connection: ConnectionId,
        previous: TxId,
    ) -> bool {
        let Some(state) = self.connections.get_mut(&connection) else { return false };
        state.last_transaction = previous;
        let subject = Subject { privileged: true, ..self.domains.subject(state.domid) };
        let transaction = Transaction::start(&self.store);
        let started = self.add_transaction(connection, &subject, transaction);
        started.is_ok_and(|tx| tx.0 == previous.0 + 1)
    }

    /// The transaction can only be ended.
    pub(crate) fn give_up_transaction(&mut self, connection: ConnectionId, tx: TxId) {
        let Some(state) = self.connections.get_mut(&connection) else { return };
        let Some(transaction) = state.transactions.get_mut(&tx) else { return };
        self.accounts.of_domain(state.domid).transactions.octets -= transaction.octets();
        transaction.give_up();
    }

    /// The store as a transaction sees it.
    pub(crate) fn transaction_view(&self, place: Place) -> Option<&Store> {
        let state = self.connections.get(&place.connection)?;
        Some(state.transactions.get(&place.tx)?.view())
    }

    fn add_transaction(
        &mut self,
        connection: ConnectionId,
        subject: &Subject,
        transaction: Transaction,
    ) -> Result<TxId, Errno> {
        let state = self.connections.get_mut(&connection).ok_or(Errno::EIO)?;
        let account = self.accounts.of_domain(subject.domid);
        let within = if subject.privileged {
            state.transactions.len() < TRANSACTIONS_MAX_PRIVILEGED
        } else {
            account.quotas.allow(Quota::Transactions, account.transactions.count + 1)
        };
        if !within {
            return Err(Errno::ENOSPC);
        }
        let mut id = state.last_transaction;
        loop {
            // After four thousand million, the first numbers come again; 0 is none, and the ones still open are taken.
            id = TxId(id.0.wrapping_add(1));
            if id != TxId::NONE && !state.transactions.contains_key(&id) {
                break;
            }
        }
        account.transactions.add(transaction.octets());
        self.open_transactions += 1;
        state.last_transaction = id;
        state.transactions.insert(id, transaction);
        Ok(id)
    }

    pub(crate) fn end_transaction(
        &mut self,
        connection: ConnectionId,
        subject: &Subject,
        tx: TxId,
        commit: bool,
    ) -> Result<Reply, Errno> {
        let state = self.connections.get(&connection).ok_or(Errno::EIO)?;
        let inside = |inner: &Transaction| inner.parent == Some(tx);
        if commit && state.transactions.values().any(inside) {
            return Err(Errno::EBUSY);
        }
        let transaction = self.take_transaction(connection, tx).ok_or(Errno::ENOENT)?;
        if !commit {
            return Ok(Reply::Ok);
        }
        match transaction.parent {
            None => self.commit(subject, transaction)?,
            Some(outer) => self.commit_nested(connection, subject, outer, transaction)?,
        }
        Ok(Reply::Ok)
    }

    fn commit(&mut self, subject: &Subject, transaction: Transaction) -> Result<(), Errno> {
        self.store.stamp = self.stamp;
        let actor = Actor::new(subject, self.policy.as_ref(), &self.accounts);
        let committed = transaction.commit(&self.store, actor)?;
        let old = std::mem::replace(&mut self.store, committed.new);
        self.stamp = self.stamp.max(self.store.stamp);
        self.keep_since(self.backend.is_durable().then(|| old.clone()))?;
        self.accounts.settle(&committed.charges);
        self.fire_commit(&old, &committed.changed);
        Ok(())
    }

    fn commit_nested(
        &mut self,
        connection: ConnectionId,
        subject: &Subject,
        outer: TxId,
        inner: Transaction,
    ) -> Result<(), Errno> {
        let state = self.connections.get_mut(&connection).ok_or(Errno::EIO)?;
        let outer = state.transactions.get_mut(&outer).ok_or(Errno::ENOENT)?;
        outer.view_mut().stamp = self.stamp;
        outer.octets_max = self.accounts.room_for(subject, outer.octets());
        let before = outer.octets();
        let actor = Actor::new(subject, self.policy.as_ref(), &self.accounts);
        let taken = outer.take_in(inner, actor);
        self.stamp = self.stamp.max(outer.view_mut().stamp);
        let octets = outer.octets() - before;
        self.accounts.of_domain(subject.domid).transactions.octets += octets;
        taken
    }

    pub(crate) fn drop_transactions(&mut self, connection: ConnectionId) {
        let Some(state) = self.connections.get(&connection) else { return };
        let open: Vec<_> = state.transactions.keys().copied().collect();
        for tx in open {
            self.take_transaction(connection, tx);
        }
    }

    /// Takes a transaction out, and drops those inside it.
    fn take_transaction(&mut self, connection: ConnectionId, tx: TxId) -> Option<Transaction> {
        let state = self.connections.get_mut(&connection)?;
        let transaction = state.transactions.remove(&tx)?;
        let mut gone = vec![tx];
        let tally = &mut self.accounts.of_domain(state.domid).transactions;
        tally.remove(transaction.octets());
        let mut dropped = 1;
        while let Some(outer) = gone.pop() {
            let inside = |_: &TxId, inner: &mut Transaction| inner.parent == Some(outer);
            for (tx, inner) in state.transactions.extract_if(.., inside) {
                tally.remove(inner.octets());
                gone.push(tx);
                dropped += 1;
            }
        }
        self.open_transactions -= dropped;
        Some(transaction)
    }
}
