//! The parts of a domain's state, and why one is missing.

use std::fmt;

use xenstore_migration::domain_state::Attachment;
use xsclient::{OperationError, Path, QuotaName};

/// A part of a domain's state that could not be read, and why.
#[derive(Clone, Debug)]
pub struct Missing {
    /// Which part.
    pub part: StatePart,
    /// Why.
    pub reason: MissingReason,
}

/// A part of a domain's state.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum StatePart {
    /// The watches that the domain has set.
    Watches,
    /// Its open transactions.
    Transactions,
    /// Octets on their way in the ring, either way.
    PendingData,
    /// On whose behalf the domain acts.
    Target,
    /// What the ring page offers the domain.
    Features,
    /// All quotas.
    Quotas,
    /// One quota.
    Quota(QuotaName),
    /// The tree `/vm/UUID`.
    VmTree,
    /// A tree that the caller named.
    Tree(Path),
    /// A node with all below it.
    Node(Path),
    /// Some nodes directly below this one, with all below them.
    Children(Path),
}

impl StatePart {
    /// The part of which something is that a plan does not change; `None` for what is of no part.
    pub fn of(attachment: &Attachment) -> Option<Self> {
        Some(match attachment {
            Attachment::Watch(_) => Self::Watches,
            Attachment::Transaction(_) => Self::Transactions,
            Attachment::Messages { .. } => Self::PendingData,
            Attachment::Target(_) => Self::Target,
            Attachment::Features(_) => Self::Features,
            Attachment::Quota { name, .. } => Self::Quota(name.clone()),
            _ => return None,
        })
    }
}

/// Why a part could not be read.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum MissingReason {
    /// The protocol has no request for it, and the server is not one that tells by CONTROL; a [`super::ConnectionSource`] can tell.
    NotInProtocol,
    /// The server tells what it has for the domain and the domain has not taken, but not what came from it and is not handled yet.
    HalfTold,
    /// The server, or the [`super::ConnectionSource`], knows no connection of the domain.
    NoConnection,
    /// The server refused to tell, or told something that cannot be held, as permissions for numbers that no domain can have.
    Unreadable(OperationError),
    /// The directory above shows it, but there was none when it was read.
    Vanished,
    /// There is no such node.
    NoSuchNode,
    /// The node `vm` names something that is not `/vm/UUID`.
    NotAVm {
        /// What it holds.
        value: Vec<u8>,
    },
    /// The domain itself can write its node `vm`, so that it could have named another's tree.
    VmIsGuests,
    /// The paths are longer than a path may be.
    PathTooLong,
}

impl Missing {
    pub(super) fn new(part: StatePart, reason: MissingReason) -> Self {
        Self { part, reason }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.part, self.reason)
    }
}

impl fmt::Display for StatePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Watches => f.write_str("watches"),
            Self::Transactions => f.write_str("open transactions"),
            Self::PendingData => f.write_str("pending data"),
            Self::Target => f.write_str("target"),
            Self::Features => f.write_str("features"),
            Self::Quotas => f.write_str("quotas"),
            Self::Quota(name) => write!(f, "quota {name}"),
            Self::VmTree => f.write_str("/vm tree"),
            Self::Tree(path) => write!(f, "tree {path}"),
            Self::Node(path) => write!(f, "{path}"),
            Self::Children(path) => write!(f, "children of {path}"),
        }
    }
}

impl fmt::Display for MissingReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInProtocol => f.write_str("the protocol has no request for it"),
            Self::HalfTold => {
                f.write_str("the server does not tell what it has received and not handled")
            }
            Self::NoConnection => f.write_str("the domain has no connection"),
            Self::Unreadable(error) => error.fmt(f),
            Self::Vanished => f.write_str("it was gone when it was read"),
            Self::NoSuchNode => f.write_str("there is no such node"),
            Self::NotAVm { value } => {
                write!(f, "the node vm holds \"{}\", which is no /vm/UUID", value.escape_ascii())
            }
            Self::VmIsGuests => f.write_str("the domain itself can write its node vm"),
            Self::PathTooLong => f.write_str("the paths are longer than a path may be"),
        }
    }
}
