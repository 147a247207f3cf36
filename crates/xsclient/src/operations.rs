//! Operations that act on domains, on the server, or on the connection.

use xenstore_proto::{DomId, Features, Path, QuotaName, QuotaQuery, Request};

use crate::client::Client;
use crate::error::OperationError;

/// Makes methods of both clients, each of which is one request.
macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $ty:ty),*) -> $reply:ty: $request:expr;)*) => {
        /// All of these are one round trip; all but [`Client::domain_path`] need a privileged connection (EACCES).
        impl Client {
            $($(#[$doc])* pub fn $name(&mut self, $($arg: $ty),*) -> Result<$reply, OperationError> {
                self.ask_for(&$request)
            })*
        }

        #[cfg(feature = "tokio")]
        mod asynchronous {
            use super::*;
            use crate::asynchronous::Client;

            /// All of these are one round trip; all but [`Client::domain_path`] need a privileged connection (EACCES).
            ///
            /// Cancel-safe: a request that was not sent when the future is dropped has no effect, one that was is carried out.
            impl Client {
                $($(#[$doc])* pub async fn $name(&self, $($arg: $ty),*) -> Result<$reply, OperationError> {
                    self.ask_for(&$request).await
                })*
            }
        }
    };
}

operations! {
    /// The base path of a domain, whether or not there is one.
    domain_path(domid: DomId) -> Path: Request::GetDomainPath(domid);

    /// Whether a domain is connected to the server.
    is_domain_introduced(domid: DomId) -> bool: Request::IsDomainIntroduced(domid);

    /// Connects a domain: its ring is in frame `gfn`, its event channel is `event_channel`.
    introduce(domid: DomId, gfn: u64, event_channel: u32) -> ():
        Request::Introduce { domid, gfn, event_channel };

    /// Disconnects a domain.
    release(domid: DomId) -> (): Request::Release(domid);

    /// Lets the server report the domain's next shutdown again.
    resume(domid: DomId) -> (): Request::Resume(domid);

    /// Gives a domain the permissions of the domain it serves.
    set_target(domid: DomId, target: DomId) -> (): Request::SetTarget { domid, target };

    /// Drops all watches of this connection, and any transaction that is open on it. Handles from before are refused
    /// with [`crate::Failure::StaleHandle`], after a timeout too if the request was sent.
    ///
    /// Not for the xenbus device: the kernel shares its connection among all programs and its own drivers, and theirs are
    /// dropped as well.
    reset_watches() -> (): Request::ResetWatches;

    /// A command to the daemon itself, with its arguments; the answer is the daemon's own text.
    ///
    /// oxenstored answers an unknown command with `OK` and does nothing.
    control(words: &[&str]) -> Vec<u8>:
        Request::Control(words.iter().map(|word| word.as_bytes().to_vec()).collect());

    /// What the server offers: to this connection (`None`), or to a domain.
    ///
    /// Before Xen 4.22 and on oxenstored: ENOSYS. oxenstored answers the form without a domain only when another request
    /// follows, so there it may run into its deadline.
    features(domid: Option<DomId>) -> Features: Request::GetFeature(domid);

    /// Restricts what the server will offer a domain that is not introduced yet.
    set_features(domid: DomId, features: Features) -> (): Request::SetFeature { domid, features };

    /// The names of the server's quotas. Before Xen 4.22 and on oxenstored: ENOSYS, with the same caution as
    /// [`Client::features`].
    quota_names() -> Vec<QuotaName>: Request::GetQuota(QuotaQuery::Names);

    /// A quota of a domain, or what new domains will get (`None`). 0 means no limit.
    quota(domid: Option<DomId>, quota: &QuotaName) -> u32: Request::GetQuota(match domid {
        Some(domid) => QuotaQuery::Domain(domid, quota.clone()),
        None => QuotaQuery::Default(quota.clone()),
    });

    /// Sets a quota of a domain, or what new domains will get (`None`). 0 means no limit.
    set_quota(domid: Option<DomId>, quota: &QuotaName, value: u32) -> ():
        Request::SetQuota { domid, quota: quota.clone(), value };
}
