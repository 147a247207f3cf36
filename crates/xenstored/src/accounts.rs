//! What each domain uses, and what it may.

use std::collections::BTreeMap;

use xenstore_proto::{DomId, Errno};

use crate::access::Subject;
use crate::charges::{Charges, Held};
use crate::limits::TRANSACTION_OCTETS_MAX_PRIVILEGED;
use crate::quota::{Quota, Quotas};
use crate::store::Store;

/// One account for each domain seen.
#[derive(Debug)]
pub(crate) struct Accounts {
    /// What new domains may use.
    pub(crate) defaults: Quotas,
    accounts: BTreeMap<DomId, Account>,
}

/// What one domain may use, and uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) quotas: Quotas,
    held: Held,
    pub(crate) watches: Tally,
    pub(crate) transactions: Tally,
    /// Whether the last warning about its memory still holds.
    warned: bool,
}

/// How many there are of something, and how many octets all of them take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) count: usize,
    pub(crate) octets: usize,
}

/// What a domain uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Nodes that it owns.
    pub nodes: u64,
    /// Watches of its connections.
    pub watches: u64,
    /// Open transactions of its connections.
    pub transactions: u64,
    /// Replies that its connections have not read yet.
    pub outstanding: u64,
    /// Octets of all of that, and of the events that wait: of nodes as C xenstored counts them, of watches path and token,
    /// of transactions what they have to remember, of messages the whole.
    pub memory: u64,
}

impl Accounts {
    /// Accounts for the owners of what is in the store.
    pub(crate) fn of(store: &Store, defaults: Quotas) -> Self {
        let mut accounts = Self { defaults, accounts: BTreeMap::new() };
        accounts.settle(&Charges::of_store(store));
        accounts
    }

    pub(crate) fn get(&self, domid: DomId) -> Option<&Account> {
        self.accounts.get(&domid)
    }

    /// The account of a domain, made if this is the first that is heard of it.
    pub(crate) fn of_domain(&mut self, domid: DomId) -> &mut Account {
        self.accounts.entry(domid).or_insert_with(|| Account::new(self.defaults.clone()))
    }

    pub(crate) fn quotas(&self, domid: DomId) -> &Quotas {
        self.get(domid).map_or(&self.defaults, |account| &account.quotas)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (DomId, &Account)> {
        self.accounts.iter().map(|(domid, account)| (*domid, account))
    }

    /// Sets the limits of the domains seen, and of those to come.
    pub(crate) fn set_all(&mut self, quotas: &Quotas) {
        self.defaults = quotas.clone();
        self.accounts.values_mut().for_each(|account| account.quotas = quotas.clone());
    }

    /// Most octets that a transaction which has `octets` now may remember.
    pub(crate) fn room_for(&self, subject: &Subject, octets: usize) -> usize {
        if subject.privileged {
            return TRANSACTION_OCTETS_MAX_PRIVILEGED;
        }
        let used = self.get(subject.domid).map_or(0, Account::memory);
        match self.quotas(subject.domid).limit(Quota::Memory) {
            Some(limit) => limit.saturating_sub(used) + octets,
            None => usize::MAX,
        }
    }

    /// The domain is gone, and has left nothing: the next one of its number starts afresh.
    pub(crate) fn forget(&mut self, domid: DomId) {
        self.accounts.remove(&domid);
    }

    /// The accounts of the owners of a store, by the limits of new domains.
    pub(crate) fn start_over(&mut self, charges: &Charges) {
        self.accounts.clear();
        self.settle(charges);
    }

    /// Whether all owners may have what they would be charged. Who gives something back may always do so.
    pub(crate) fn allow(&self, charges: &Charges) -> Result<(), Errno> {
        let fits = |(owner, grown): (DomId, Held)| {
            let quotas = self.quotas(owner);
            let (held, more) = self.get(owner).map_or_else(Default::default, |account| {
                (account.held, account.watches.octets + account.transactions.octets)
            });
            let within =
                |quota, total: i64| quotas.allow(quota, usize::try_from(total).unwrap_or_default());
            let more = i64::try_from(more).unwrap_or(i64::MAX / 2);
            (grown.nodes <= 0 || within(Quota::Nodes, held.nodes + grown.nodes))
                && (grown.octets <= 0 || within(Quota::Memory, held.octets + grown.octets + more))
        };
        let limited = charges.iter().filter(|(owner, _)| *owner != DomId::DOM0);
        if { limited }.all(fits) { Ok(()) } else { Err(Errno::ENOSPC) }
    }

    /// Charges everybody.
    pub(crate) fn settle(&mut self, charges: &Charges) {
        for (owner, held) in charges.iter() {
            let account = self.of_domain(owner);
            account.held.nodes += held.nodes;
            account.held.octets += held.octets;
            account.warn(owner);
        }
    }
}

impl Account {
    fn new(quotas: Quotas) -> Self {
        let (watches, transactions) = (Tally::default(), Tally::default());
        Self { quotas, held: Held::default(), watches, transactions, warned: false }
    }

    /// Octets in use, without what waits to be read.
    pub(crate) fn memory(&self) -> usize {
        usize::try_from(self.held.octets).unwrap_or_default()
            + self.watches.octets
            + self.transactions.octets
    }

    pub(crate) fn usage(&self) -> Usage {
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        Usage {
            nodes: u64::try_from(self.held.nodes).unwrap_or_default(),
            watches: count(self.watches.count),
            transactions: count(self.transactions.count),
            outstanding: 0,
            memory: count(self.memory()),
        }
    }

    fn warn(&mut self, domid: DomId) {
        let over = domid != DomId::DOM0 && !self.quotas.allow(Quota::SoftMemory, self.memory());
        if over && !self.warned {
            tracing::warn!(%domid, memory = self.memory(), "domain uses much memory");
        }
        self.warned = over;
    }
}

impl Tally {
    pub(crate) fn add(&mut self, octets: usize) {
        self.count += 1;
        self.octets += octets;
    }

    pub(crate) fn remove(&mut self, octets: usize) {
        self.count = self.count.saturating_sub(1);
        self.octets = self.octets.saturating_sub(octets);
    }
}
