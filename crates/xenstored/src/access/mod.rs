//! Who may do what with a node: what a policy is asked. How the store works is not its business, and who may do what
//! is nobody else's.

mod chinese_wall;
mod standard;

use std::fmt;

use xenstore_proto::{Access, DomId, Perms};

use crate::accounts::Accounts;
use crate::quota::Quotas;

pub use chinese_wall::{ChineseWall, Company, ConflictClass, WallError};
pub use standard::Standard;

/// Decides who may do what with which node.
///
/// The server asks before anything is read, changed or told, in transactions and outside, and again when a transaction
/// is done over on a store that has changed since; a decision that comes out differently then is a conflict.
/// A denied request answers EACCES whether or not there is such a node.
///
/// A policy with a memory keeps it behind a lock of its own. Hand the server a clone of an `Arc` to look at it
/// meanwhile:
///
/// ```
/// use std::sync::Arc;
/// use xenstored::{Embedded, Server, Standard, Store};
/// let policy = Arc::new(Standard);
/// let xenstore = Embedded::from(Server::new(Store::new()).with_policy(policy));
/// # drop(xenstore);
/// ```
pub trait AccessPolicy: Send + Sync + fmt::Debug {
    /// What the subject may do with the object now: read it with its list of children and permissions, or write,
    /// remove and create below it.
    fn access(&self, subject: &Subject, object: Object<'_>) -> Access;

    /// Whether the subject may change the permissions.
    fn owns(&self, subject: &Subject, object: Object<'_>) -> bool;

    /// Whether the subject may hear of a change. As in the standard model: who may read the node or the one above
    /// it, as they are or as they were.
    fn hears(&self, subject: &Subject, changed: &Changed<'_>) -> bool {
        let mut known = changed.node.iter().chain(changed.above);
        let path = changed.path;
        subject.privileged
            || known.any(|perms| self.access(subject, Object { path, perms }).can_read())
    }

    /// The subject was granted something: it reads, changes or hears of the object.
    fn touched(&self, _subject: &Subject, _object: Object<'_>) {}

    /// Whether a removal needs the permission to write each node below, too. In the standard model, whoever may
    /// write a node may remove it with all below.
    fn guards_below(&self) -> bool {
        false
    }

    /// What the policy has learnt of domains, for a successor of the server: lines of text in a form of its own.
    fn memory(&self) -> String {
        String::new()
    }

    /// Takes over what a predecessor's policy has learnt. Gives the lines that mean nothing here.
    fn remember(&self, memory: &str) -> Vec<String> {
        memory.lines().map(str::to_owned).collect()
    }

    /// The domain is gone: the next one of this number is another.
    fn released(&self, _domid: DomId) {}
}

/// On whose behalf something is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Subject {
    /// The domain whose connection it is.
    pub domid: DomId,
    /// The domain whose permissions this one has besides its own (SET_TARGET).
    pub target: Option<DomId>,
    /// Whether it is the control domain.
    pub privileged: bool,
}

/// What something is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Object<'a> {
    /// The absolute path asked for, or a special name (`@releaseDomain`). There may be no such node.
    pub path: &'a str,
    /// The permissions of the node, or of the nearest one above that exists.
    pub perms: &'a Perms,
}

/// A node that was changed, removed or created.
#[derive(Clone, Copy, Debug)]
pub struct Changed<'a> {
    /// Its absolute path.
    pub path: &'a str,
    /// The permissions it has and had.
    pub node: &'a [&'a Perms],
    /// The permissions that the node above it has and had.
    pub above: &'a [&'a Perms],
}

impl Subject {
    pub(crate) const CONTROL: Self = Self { domid: DomId::DOM0, target: None, privileged: true };
}

/// A subject under a policy, with its limits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Actor<'a> {
    pub(crate) subject: &'a Subject,
    pub(crate) policy: &'a dyn AccessPolicy,
    pub(crate) quotas: &'a Quotas,
    /// Who has to allow a change's charges before it is made; nobody for a privileged subject, and in a
    /// transaction, which the commit asks for.
    pub(crate) accounts: Option<&'a Accounts>,
}

impl<'a> Actor<'a> {
    pub(crate) fn new(
        subject: &'a Subject,
        policy: &'a dyn AccessPolicy,
        accounts: &'a Accounts,
    ) -> Self {
        let (quotas, accounts) = if subject.privileged {
            (&Quotas::UNLIMITED, None)
        } else {
            (accounts.quotas(subject.domid), Some(accounts))
        };
        Self { subject, policy, quotas, accounts }
    }

    /// Whether the actor may read; the policy hears of it if so.
    pub(crate) fn reads(&self, object: Object<'_>) -> bool {
        self.does(object, Access::can_read)
    }

    /// Whether the actor may write; the policy hears of it if so.
    pub(crate) fn writes(&self, object: Object<'_>) -> bool {
        self.does(object, Access::can_write)
    }

    pub(crate) fn owns(&self, object: Object<'_>) -> bool {
        self.policy.owns(self.subject, object)
    }

    /// Whether the actor hears of a change; the policy hears of it if so.
    pub(crate) fn hears(&self, changed: &Changed<'_>) -> bool {
        let granted = self.policy.hears(self.subject, changed);
        if granted {
            for perms in changed.node {
                self.policy.touched(self.subject, Object { path: changed.path, perms });
            }
        }
        granted
    }

    fn does(&self, object: Object<'_>, what: impl Fn(Access) -> bool) -> bool {
        let granted = what(self.policy.access(self.subject, object));
        if granted {
            self.policy.touched(self.subject, object);
        }
        granted
    }
}
