//! Operations that act on domains, on the server, or on the connection.

use xenstore_proto::{DomId, Features, Path, QuotaName, QuotaQuery, Request, TxId};

use crate::client::Client;
use crate::error::{Failure, OperationError};

/// All of these are one round trip; all but [`Client::domain_path`] need a privileged connection (EACCES).
impl Client {
    /// The base path of a domain, whether or not there is one.
    pub fn domain_path(&mut self, domid: DomId) -> Result<Path, OperationError> {
        self.ask_for(&Request::GetDomainPath(domid), TxId::NONE)
    }

    /// Whether a domain is connected to the server.
    pub fn is_domain_introduced(&mut self, domid: DomId) -> Result<bool, OperationError> {
        self.ask_for(&Request::IsDomainIntroduced(domid), TxId::NONE)
    }

    /// Connects a domain: its ring is in frame `gfn`, its event channel is `event_channel`.
    pub fn introduce(
        &mut self,
        domid: DomId,
        gfn: u64,
        event_channel: u32,
    ) -> Result<(), OperationError> {
        self.ask_for(&Request::Introduce { domid, gfn, event_channel }, TxId::NONE)
    }

    /// Disconnects a domain.
    pub fn release(&mut self, domid: DomId) -> Result<(), OperationError> {
        self.ask_for(&Request::Release(domid), TxId::NONE)
    }

    /// Lets the server report the domain's next shutdown again.
    pub fn resume(&mut self, domid: DomId) -> Result<(), OperationError> {
        self.ask_for(&Request::Resume(domid), TxId::NONE)
    }

    /// Gives a domain the permissions of the domain it serves.
    pub fn set_target(&mut self, domid: DomId, target: DomId) -> Result<(), OperationError> {
        self.ask_for(&Request::SetTarget { domid, target }, TxId::NONE)
    }

    /// Drops all watches of this connection, and any transaction that is open on it. Handles from before are refused
    /// with [`crate::Failure::StaleHandle`], after a timeout too if the request was sent.
    ///
    /// Not for the xenbus device: the kernel shares its connection among all programs and its own drivers, and theirs are
    /// dropped as well.
    pub fn reset_watches(&mut self) -> Result<(), OperationError> {
        let reset = self.ask_for(&Request::ResetWatches, TxId::NONE);
        let not_done = |error: &OperationError| {
            error.errno().is_some() || matches!(error.failure(), Failure::Timeout { sent: false })
        };
        if !reset.as_ref().is_err_and(not_done) {
            self.begin_epoch();
        }
        reset
    }

    /// A command to the daemon itself, with its arguments; the answer is the daemon's own text.
    ///
    /// oxenstored answers an unknown command with `OK` and does nothing.
    pub fn control(&mut self, words: &[&str]) -> Result<Vec<u8>, OperationError> {
        let words = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        self.ask_for(&Request::Control(words), TxId::NONE)
    }

    /// What the server offers: to this connection (`None`), or to a domain.
    ///
    /// Before Xen 4.22 and on oxenstored: ENOSYS. oxenstored answers the form without a domain only when another request
    /// follows, so there it may run into its deadline.
    pub fn features(&mut self, domid: Option<DomId>) -> Result<Features, OperationError> {
        self.ask_for(&Request::GetFeature(domid), TxId::NONE)
    }

    /// Restricts what the server will offer a domain that is not introduced yet.
    pub fn set_features(&mut self, domid: DomId, features: Features) -> Result<(), OperationError> {
        self.ask_for(&Request::SetFeature { domid, features }, TxId::NONE)
    }

    /// The names of the server's quotas. Before Xen 4.22 and on oxenstored: ENOSYS, with the same caution as
    /// [`Client::features`].
    pub fn quota_names(&mut self) -> Result<Vec<QuotaName>, OperationError> {
        self.ask_for(&Request::GetQuota(QuotaQuery::Names), TxId::NONE)
    }

    /// A quota of a domain, or what new domains will get (`None`). 0 means no limit.
    pub fn quota(
        &mut self,
        domid: Option<DomId>,
        quota: &QuotaName,
    ) -> Result<u32, OperationError> {
        let quota = quota.clone();
        let query = match domid {
            Some(domid) => QuotaQuery::Domain(domid, quota),
            None => QuotaQuery::Default(quota),
        };
        self.ask_for(&Request::GetQuota(query), TxId::NONE)
    }

    /// Sets a quota of a domain, or what new domains will get (`None`). 0 means no limit.
    pub fn set_quota(
        &mut self,
        domid: Option<DomId>,
        quota: &QuotaName,
        value: u32,
    ) -> Result<(), OperationError> {
        let quota = quota.clone();
        self.ask_for(&Request::SetQuota { domid, quota, value }, TxId::NONE)
    }
}
