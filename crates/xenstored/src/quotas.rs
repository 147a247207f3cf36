//! Asking and setting what domains may use, and asking what they do.

use xenstore_proto::{DomId, Errno, QuotaName, QuotaQuery, Reply};

use crate::accounts::Usage;
use crate::quota::{Quota, Quotas};
use crate::server::Server;

impl Server {
    /// The same server with other limits for domains that it has not seen yet: for before anybody is connected.
    #[must_use]
    pub fn with_quotas(mut self, defaults: &Quotas) -> Self {
        self.accounts.set_all(defaults);
        self
    }

    /// What a domain may use; of a domain not seen yet, what it will.
    pub fn quotas(&self, domid: DomId) -> &Quotas {
        self.accounts.quotas(domid)
    }

    /// What domains may use that have not been seen yet.
    pub fn default_quotas(&self) -> &Quotas {
        &self.accounts.defaults
    }

    /// Sets a limit: of one domain, or of those not seen yet. 0 is none.
    ///
    /// What a domain has already stays, also where it is more than the new limit.
    pub fn set_quota(&mut self, domid: Option<DomId>, quota: Quota, limit: u32) {
        match domid {
            Some(domid) => self.accounts.of_domain(domid).quotas.set(quota, limit),
            None => self.accounts.defaults.set(quota, limit),
        }
    }

    /// What each domain seen uses.
    pub fn usage(&self) -> impl Iterator<Item = (DomId, Usage)> {
        let mut all: std::collections::BTreeMap<_, _> =
            self.accounts.iter().map(|(domid, account)| (domid, account.usage())).collect();
        for state in self.connections.values() {
            let usage = all.entry(state.domid).or_default();
            usage.outstanding += u64::try_from(state.output.replies()).unwrap_or(u64::MAX);
            usage.memory += u64::try_from(state.output.octets()).unwrap_or(u64::MAX);
        }
        all.into_iter()
    }

    /// What one domain uses; all zero if it has not been seen.
    pub fn usage_of(&self, domid: DomId) -> Usage {
        self.usage().find(|(of, _)| *of == domid).map(|(_, usage)| usage).unwrap_or_default()
    }

    pub(crate) fn get_quota(&self, query: &QuotaQuery) -> Result<Reply, Errno> {
        match query {
            QuotaQuery::Names => {
                let names = Quota::ALL.into_iter().map(|quota| quota.name().parse());
                Ok(Reply::QuotaNames(names.collect::<Result<_, _>>().map_err(|_| Errno::EIO)?))
            }
            QuotaQuery::Default(name) => {
                Ok(Reply::QuotaValue(self.accounts.defaults.get(known(name)?)))
            }
            QuotaQuery::Domain(domid, name) => {
                let quota = known(name)?;
                let account = self.accounts.get(*domid).ok_or(Errno::ENOENT)?;
                Ok(Reply::QuotaValue(account.quotas.get(quota)))
            }
        }
    }

    pub(crate) fn set_quota_named(
        &mut self,
        domid: Option<DomId>,
        name: &QuotaName,
        limit: u32,
    ) -> Result<Reply, Errno> {
        let quota = known(name)?;
        if domid.is_some_and(|domid| self.accounts.get(domid).is_none()) {
            return Err(Errno::ENOENT);
        }
        self.set_quota(domid, quota, limit);
        Ok(Reply::Ok)
    }
}

fn known(name: &QuotaName) -> Result<Quota, Errno> {
    Quota::named(name).ok_or(Errno::EINVAL)
}
