//! What an unprivileged domain may use, with C xenstored's names and defaults.

use std::fmt;

use xenstore_proto::QuotaName;

/// Something of which a domain may use only so much.
///
/// Only domains that are not privileged are limited. What goes over a limit is refused with ENOSPC, except where it
/// says otherwise here. A limit is what may be used: with 10 transactions a domain has ten. (Xen 4.22 allows one less
/// than the number says: nine; older ones ten.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Quota {
    /// `nodes`: nodes that the domain owns. A transaction is checked when it is committed.
    Nodes,
    /// `watches`: watches of all the domain's connections.
    Watches,
    /// `outstanding`: replies that a connection has not read yet. With more, its next request waits.
    Outstanding,
    /// `memory`: octets of [`Usage::memory`](crate::Usage::memory) without what waits to be read. What waits to be
    /// read on one connection has the same limit, above which the connection is closed: events cannot be refused, and
    /// closing tells the client that it has missed some. (Twice [`OUTPUT_HIGH_WATER`](crate::limits::OUTPUT_HIGH_WATER)
    /// is always allowed.)
    Memory,
    /// `soft-memory`: octets above which a warning is logged.
    SoftMemory,
    /// `transactions`: open transactions of all the domain's connections, nested ones included.
    Transactions,
    /// `transaction-nodes`: different nodes that one transaction reads, changes or creates.
    TransactionNodes,
    /// `node-permissions`: entries of the permissions that the domain gives to a node, the owner's included.
    NodePermissions,
    /// `path-max`: octets of a path, without `/local/domain/N/` in front, so that what fits stays so under another
    /// number (XSA-323). Longer ones are malformed: EINVAL.
    PathMax,
    /// `node-size`: octets of a node that the domain writes or adds children to: 16, 8 for each entry of the permissions,
    /// the value, and the children's names with a NUL each.
    NodeSize,
}

impl Quota {
    /// All, in the order in which they are listed.
    pub const ALL: [Self; 10] = [
        Self::Nodes,
        Self::Watches,
        Self::Outstanding,
        Self::Memory,
        Self::SoftMemory,
        Self::Transactions,
        Self::TransactionNodes,
        Self::NodePermissions,
        Self::PathMax,
        Self::NodeSize,
    ];

    /// Its name in GET_QUOTA and SET_QUOTA.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nodes => "nodes",
            Self::Watches => "watches",
            Self::Outstanding => "outstanding",
            Self::Memory => "memory",
            Self::SoftMemory => "soft-memory",
            Self::Transactions => "transactions",
            Self::TransactionNodes => "transaction-nodes",
            Self::NodePermissions => "node-permissions",
            Self::PathMax => "path-max",
            Self::NodeSize => "node-size",
        }
    }

    /// The quota of this name.
    pub fn named(name: &QuotaName) -> Option<Self> {
        Self::ALL.into_iter().find(|quota| quota.name() == name.as_str())
    }

    const fn place(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A limit for each [`Quota`]; 0 is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quotas([u32; Quota::ALL.len()]);

impl Quotas {
    /// No limits.
    pub const UNLIMITED: Self = Self([0; Quota::ALL.len()]);

    /// The limit as GET_QUOTA gives it: 0 is none.
    pub const fn get(&self, quota: Quota) -> u32 {
        self.0[quota.place()]
    }

    /// Sets a limit; 0 is none.
    pub const fn set(&mut self, quota: Quota, limit: u32) {
        self.0[quota.place()] = limit;
    }

    /// Whether so much is within the limit.
    pub fn allow(&self, quota: Quota, used: usize) -> bool {
        match self.get(quota) {
            0 => true,
            limit => u32::try_from(used).is_ok_and(|used| used <= limit),
        }
    }

    /// The limit, if there is one.
    pub(crate) fn limit(&self, quota: Quota) -> Option<usize> {
        Some(self.get(quota)).filter(|&limit| limit > 0).and_then(|limit| limit.try_into().ok())
    }
}

/// C xenstored's.
impl Default for Quotas {
    fn default() -> Self {
        let mut quotas = Self::UNLIMITED;
        for quota in Quota::ALL {
            quotas.set(
                quota,
                match quota {
                    Quota::Nodes => 1000,
                    Quota::Watches => 128,
                    Quota::Outstanding => 20,
                    Quota::Memory => 2_621_440,
                    Quota::SoftMemory => 2_097_152,
                    Quota::Transactions => 10,
                    Quota::TransactionNodes => 1024,
                    Quota::NodePermissions => 5,
                    Quota::PathMax | Quota::NodeSize => 2048,
                },
            );
        }
        quotas
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_quota_is_found_by_its_name_and_has_a_default_and_a_place_of_its_own() {
        let mut quotas = Quotas::UNLIMITED;
        for (limit, quota) in (1..).zip(Quota::ALL) {
            assert_eq!(Quota::named(&quota.name().parse().unwrap()), Some(quota));
            assert_ne!(Quotas::default().get(quota), 0);
            quotas.set(quota, limit);
        }
        assert_eq!(quotas.0, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    }

    #[test]
    fn the_limit_itself_is_allowed_and_none_allows_everything() {
        let quotas = Quotas::default();
        assert!(quotas.allow(Quota::Nodes, 1000) && !quotas.allow(Quota::Nodes, 1001));
        assert!(Quotas::UNLIMITED.allow(Quota::Nodes, usize::MAX));
    }
}
