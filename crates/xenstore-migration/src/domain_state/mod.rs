//! What one domain owns in Xenstore, as a value: to and from a stream, under another domain id, and what it takes to make a
//! running Xenstore agree with it.
//!
//! ```text
//! stream of one domain --from_stream--> DomainState --Translation--> DomainState --plan--> Plan: changes, what is left
//! live-update dump -----from_dump-----^     |
//!                                           `--to_stream--> stream of one domain
//! ```

mod collect;
mod from_dump;
mod from_stream;
mod ownership;
mod pattern;
mod plan;
mod policy;
mod reliance;
mod to_stream;
mod translate;
mod value_rules;
mod vm;

use std::collections::{BTreeMap, BTreeSet};

pub use collect::{RecordFault, StalePerm};
pub use from_dump::{DumpContents, FromDumpError};
pub use from_stream::{FromStreamError, StreamContents, UnknownRecord};
pub use pattern::{NodePattern, PatternError};
pub use plan::{Attachment, Change, Left, LeftReason, Plan, PlanError, plan};
pub use policy::{Owner, RestorePolicy, RestoreRule, Treatment};
pub use to_stream::{StreamLoss, ToStreamError};
pub use translate::{TranslateError, Translation};
pub use value_rules::{DomIdValues, PathValues, ValueRule};
pub use vm::{NoVmTree, vm_tree};

use xenstore_proto::{DomId, Features, Path, PathOrSpecial, Perms, QuotaName, Token, TxId};

use crate::record::{NodeAccess, WatchDepth};

/// What one domain owns in Xenstore: nodes below some roots, and what belongs to its connection.
///
/// It is a value: where it was read and where it goes is not in it. Paths are absolute, but for those of watches, which are
/// as WATCH was given them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainState {
    /// Whose.
    pub domid: DomId,
    /// The trees that `nodes` holds completely: `/local/domain/DOMID`, `/vm/UUID`, and what else the caller named.
    pub roots: BTreeSet<Path>,
    /// Every node at or below a root.
    pub nodes: BTreeMap<Path, NodeState>,
    /// Its connection to the server; `None` where the server does not tell.
    pub connection: Option<ConnectionState>,
    /// Quotas that were set for it, also those with names unknown here; 0 means unlimited.
    pub quotas: BTreeMap<QuotaName, u32>,
    /// What the ring page offers the guest; `None` where the server does not tell.
    pub features: Option<Features>,
}

impl DomainState {
    /// The domains that the state names besides its own and domain 0: in permissions, as target, in `@releaseDomain/DOMID`.
    ///
    /// On another host, or later, these ids are those of other domains: [`Translation::domid`] says which ones they are to
    /// be. Reserved ids are not among them.
    pub fn other_domids(&self) -> BTreeSet<DomId> {
        let mut nodes: Vec<_> = self.nodes.values().collect();
        let mut found = BTreeSet::new();
        if let Some(connection) = &self.connection {
            found.extend(connection.target);
            found.extend(connection.watches.iter().filter_map(|watch| match &watch.path {
                PathOrSpecial::Special(name) => translate::domain_of_event(name).map(|it| it.1),
                PathOrSpecial::Node(_) => None,
            }));
            let pending = connection.transactions.iter().flat_map(|open| open.nodes.values());
            nodes.extend(pending.filter_map(|pending| match pending {
                PendingNode::Seen { node, .. } => Some(node),
                PendingNode::Removed | PendingNode::Missed => None,
            }));
        }
        found.extend(nodes.into_iter().flat_map(|node| node.perms.entries()).map(|it| it.domid));
        found.retain(|domid| domid.is_real() && *domid != self.domid && *domid != DomId::DOM0);
        found
    }
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeState {
    /// Any octets.
    pub value: Vec<u8>,
    /// Who may do what. Entries of domains that are gone are not among them.
    pub perms: Perms,
}

/// What a domain's connection holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionState {
    /// On whose behalf the domain acts.
    pub target: Option<DomId>,
    /// Octets received and not handled, as [`crate::ConnectionData::input`].
    pub input: Vec<u8>,
    /// As [`crate::ConnectionData::output_rest`].
    pub output_rest: u16,
    /// Octets to be sent, as [`crate::ConnectionData::output`].
    pub output: Vec<u8>,
    /// Watches, in the order in which they were set.
    pub watches: Vec<WatchState>,
    /// Open transactions.
    pub transactions: Vec<TransactionState>,
}

/// A watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchState {
    /// What is watched, as WATCH was given it.
    pub path: PathOrSpecial,
    /// What comes with each event.
    pub token: Token,
    /// How far below; `None` for a watch that was set without a depth.
    pub depth: Option<WatchDepth>,
}

/// An open transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionState {
    /// The id that the domain was given.
    pub id: TxId,
    /// What it did, by path.
    pub nodes: BTreeMap<Path, PendingNode>,
}

/// What a transaction did to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PendingNode {
    /// It has removed it.
    Removed,
    /// It has looked for it, and there was none.
    ///
    /// Of the root, which is always there, this says that the transaction cannot be committed any more: it has to be
    /// answered with EAGAIN.
    Missed,
    /// It has read or written it, and sees this.
    Seen {
        /// What it did.
        access: NodeAccess,
        /// The node as it sees it.
        node: NodeState,
    },
}
