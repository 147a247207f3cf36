//! Restoring the state of one domain.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Instant;

use xenstore_migration::domain_state::{
    Attachment, Change, DomainState, Plan, PlanError, RestorePolicy, plan,
};
use xsclient::{
    Batch, Client, DomId, Failure, MessageType, Nodes, OperationError, Path, PayloadTooLong, Perms,
    RetryPolicy, Transaction,
};

use super::changes::{Changes, ChangesError};
use super::connection::ConnectionSourceError;
use super::levels::{ReadError, Reading, Seen};
use super::limits::{LimitExceeded, Limits};
use super::missing::{MissingReason, StatePart};
use super::of_server::{self, AskError};

/// How to apply a state.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ApplyRequest {
    /// Which nodes may be changed.
    pub policy: RestorePolicy,
    /// Whether to find out only what would be changed.
    pub dry_run: bool,
    /// When the whole call has to end.
    pub deadline: Instant,
    /// How often to try, at least 1, when somebody else changes something meanwhile.
    pub attempts: u32,
    /// How much of the store to hold.
    pub limits: Limits,
    /// Domains that may get rights. Another domain named in permissions may be somebody else on this host, or by now.
    pub known: BTreeSet<DomId>,
}

impl ApplyRequest {
    /// The usual request: for real, with the attempts of [`RetryPolicy::default`] and default limits. Nobody gets rights but domain 0
    /// and the domain itself.
    pub fn new(policy: RestorePolicy, deadline: Instant) -> Self {
        Self {
            policy,
            dry_run: false,
            deadline,
            attempts: RetryPolicy::default().attempts,
            limits: Limits::default(),
            known: BTreeSet::new(),
        }
    }
}

/// What was done.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Applied {
    /// What was changed, or would be; and what was left as it was. If nothing was committed, the server has not checked that
    /// all of what the plan is made from was of one moment (in C xenstored only a commit does).
    pub plan: Plan,
    /// Whether anything was written. Not in a dry run, not if there was nothing to change, and not if there are `strangers`.
    pub committed: bool,
    /// Domains that the plan would give rights to and the request does not know.
    pub strangers: BTreeSet<DomId>,
    /// How often the store was read until the changes could be made, or none were to be.
    pub attempts: u32,
    /// Watches and open transactions that the domain has been given, or would be: those that the policy wants and the domain has
    /// not, from a server that takes them ([`Client::set_domain_state`]). They are not in the plan any more.
    ///
    /// A transaction among them goes on if what it relied on is as it was, and is answered with EAGAIN otherwise.
    pub given: Vec<Attachment>,
    /// What the state holds besides nodes and the domain has not got, each part once. The plan has the particulars.
    pub unapplied: Vec<Unapplied>,
    /// Round trips, of all attempts. Pages of directories that do not fit one reply are not in here.
    pub round_trips: u64,
}

/// A part of a state that the domain has not got.
#[derive(Clone, Debug)]
pub struct Unapplied {
    /// Which part.
    pub part: StatePart,
    /// Why.
    pub reason: UnappliedReason,
}

impl fmt::Display for Unapplied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.part, self.reason)
    }
}

/// Why a domain has not got a part of a state.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnappliedReason {
    /// The policy does not want it.
    #[error("the policy leaves it")]
    Policy,
    /// The protocol has no request for it, and the server is not one that takes it by CONTROL.
    #[error("the protocol has no request for it")]
    NotInProtocol,
    /// Target, quotas and features are for whoever introduces the domain.
    #[error("it is for whoever introduces the domain")]
    OfIntroduction,
    /// The domain has no connection yet that could have it.
    #[error("the domain has no connection")]
    NoConnection,
    /// The server refused it; the nodes are changed all the same.
    #[error("{0}")]
    Refused(OperationError),
    /// Nothing is changed, since a domain would get rights by its number alone.
    #[error("domains would get rights that are not known")]
    Strangers,
}

/// Why a state was not applied. Unless it says otherwise, nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The id is one of those that never name a domain.
    #[error("{domid} is no domain's id: ids from {} are reserved", DomId::FIRST_RESERVED)]
    ReservedDomId {
        /// Which.
        domid: DomId,
    },
    /// A root or node of the state that is not absolute.
    #[error("domain {domid}: {path} is no absolute path")]
    RelativePath {
        /// Whose state.
        domid: DomId,
        /// The path.
        path: Path,
    },
    /// Xenstore has no such domain: a state is applied to one that has been created.
    #[error("no domain {domid} to restore into: Xenstore has no /local/domain/{domid}")]
    NoSuchDomain {
        /// Which.
        domid: DomId,
    },
    /// A node that the plan depends on cannot be read.
    #[error("domain {domid}: cannot see what {path} is now")]
    Unreadable {
        /// Whose state.
        domid: DomId,
        /// The node.
        path: Path,
        /// Why.
        source: OperationError,
    },
    /// A node has children whose paths are longer than a path may be, so that they cannot be seen.
    #[error("domain {domid}: cannot see all that is below {path}: the paths are too long")]
    TooDeep {
        /// Whose state.
        domid: DomId,
        /// The node.
        path: Path,
    },
    /// There is more in the store, or in the state, than the request's limits allow.
    #[error("domain {domid}: the state is too large")]
    TooLarge {
        /// Whose.
        domid: DomId,
        /// Which limit.
        source: LimitExceeded,
    },
    /// There is no plan.
    #[error("domain {domid}: the state cannot be restored")]
    Plan {
        /// Whose state.
        domid: DomId,
        /// Why.
        source: PlanError,
    },
    /// A node's path and value, or path and permissions, do not fit one message.
    #[error("domain {domid}: {operation} of {path} does not fit a message")]
    TooLong {
        /// Whose state.
        domid: DomId,
        /// WRITE or SET_PERMS.
        operation: MessageType,
        /// The node.
        path: Path,
        /// How long it is, and how long it may be.
        source: PayloadTooLong,
    },
    /// The server refuses one of the changes, so that none was made. E2BIG for a value longer than 2048 octets is
    /// oxenstored's.
    #[error("domain {domid}: {path} could not be changed, so nothing was")]
    Refused {
        /// Whose state.
        domid: DomId,
        /// WRITE, SET_PERMS or RM.
        operation: MessageType,
        /// The node.
        path: Path,
        /// The server's word.
        source: OperationError,
    },
    /// Somebody else changed something in every attempt.
    #[error("domain {domid}: another change got in between in each of {attempts} attempts")]
    Conflict {
        /// Whose state.
        domid: DomId,
        /// Attempts made.
        attempts: u32,
    },
    /// The server did not say whether it made the changes: either all are made, or none. Applying again finds out.
    #[error("domain {domid}: it is not known whether the changes were made")]
    OutcomeUnknown {
        /// Whose state.
        domid: DomId,
        /// Why.
        source: OperationError,
    },
    /// The server's answer about the domain's connection is none.
    #[error("domain {domid}: cannot tell what it has on its connection")]
    Connection {
        /// Whose state.
        domid: DomId,
        /// Why.
        source: ConnectionSourceError,
    },
    /// Xenstore could not be reached or read.
    #[error("domain {domid}: cannot apply a state in Xenstore")]
    Xenstore {
        /// Of which domain.
        domid: DomId,
        /// Why.
        source: OperationError,
    },
}

/// Changes what the policy allows so that the domain has the nodes of a state: all in one transaction, or nothing.
///
/// `wanted` must be about the domain that it goes into: translate it first, if it was another's. The domain must have
/// been created, and should not run yet. What is there now is read in the same transaction, so that a second apply finds
/// nothing to change and writes nothing.
///
/// Watches and open transactions that the policy wants come after that, all or none, where the server takes them. If it
/// does not, that is no error: [`Applied::unapplied`] says so.
///
/// # Errors
///
/// If there is no such domain, there is no plan, or the server refuses a change or does not answer before the deadline.
pub fn apply(
    client: &mut Client,
    wanted: &DomainState,
    request: &ApplyRequest,
) -> Result<Applied, ApplyError> {
    let domid = wanted.domid;
    check(wanted)?;
    let message_max = client.manner().request_payload_max;
    let mut client = client.with_deadline(request.deadline);
    let before = client.statistics();
    let retries = RetryPolicy { attempts: request.attempts, ..RetryPolicy::default() };
    let now = connection_now(&mut client, wanted, &request.policy)?;
    let takes = now.is_ok();
    let mut attempts = 0;
    let ran = client.transact(&retries, |transaction| {
        attempts += 1;
        let current = read_current(transaction, wanted, request.limits, now.as_ref().ok())?;
        let plan = plan(&current, wanted, &request.policy)
            .map_err(|source| ApplyError::Plan { domid, source })?;
        let changes = Changes::of(&plan, message_max).map_err(|error| of_change(domid, error))?;
        if request.dry_run
            || changes.is_empty()
            || !strangers(&plan, takes, domid, request).is_empty()
        {
            return Err(End::NothingToCommit(plan));
        }
        changes.make(transaction).map_err(|error| of_change(domid, error))?;
        Ok(plan)
    });
    let (mut plan, committed) = match ran {
        Ok(plan) => (plan, true),
        Err(End::NothingToCommit(plan)) => (plan, false),
        Err(End::Failed(error)) => return Err(error),
        Err(End::Client(source)) => return Err(failed(domid, source)),
    };
    let strangers = strangers(&plan, takes, domid, request);
    let outcome = match now {
        Err(reason) => Err(reason),
        Ok(_) if !strangers.is_empty() => Err(UnappliedReason::Strangers),
        Ok(_) if request.dry_run => Ok(()),
        Ok(_) => give(&mut client, wanted, &plan)?,
    };
    let mut given = Vec::new();
    if outcome.is_ok() {
        given = plan.attachments.extract_if(.., |attachment| is_given(attachment)).collect();
    }
    let unapplied = unapplied(&plan, &outcome);
    let round_trips = client.statistics().since(&before).round_trips;
    Ok(Applied { plan, committed, strangers, attempts, given, unapplied, round_trips })
}

/// What the domain has on its connection now, if that matters and the server tells; or why there is nobody to give it something.
fn connection_now(
    client: &mut Client,
    wanted: &DomainState,
    policy: &RestorePolicy,
) -> Result<Result<DomainState, UnappliedReason>, ApplyError> {
    let domid = wanted.domid;
    let something = wanted.connection.as_ref().is_some_and(|connection| {
        !connection.watches.is_empty() || !connection.transactions.is_empty()
    });
    if !something || !policy.wants_attachments() {
        return Ok(Err(UnappliedReason::Policy));
    }
    let answer = of_server::ask(client, domid);
    let answer = answer.map_err(|error| match error {
        AskError::Operation(source) => failed(domid, source),
        AskError::Answer(error) => ApplyError::Connection { domid, source: error.into() },
    })?;
    Ok(answer.map_err(|reason| match reason {
        MissingReason::Unreadable(error) => UnappliedReason::Refused(error),
        MissingReason::NoConnection => UnappliedReason::NoConnection,
        _ => UnappliedReason::NotInProtocol,
    }))
}

/// Gives the domain the watches and transactions of the plan.
fn give(
    client: &mut Client,
    wanted: &DomainState,
    plan: &Plan,
) -> Result<Result<(), UnappliedReason>, ApplyError> {
    let domid = wanted.domid;
    let stream = of_server::to_give(wanted, &plan.attachments)
        .map_err(|source| ApplyError::Connection { domid, source: source.into() })?;
    let Some(stream) = stream else { return Ok(Ok(())) };
    let set = client.set_domain_state(domid, &stream);
    Ok(set.map_err(|error| match error.failure() {
        Failure::UnknownCommand => UnappliedReason::NotInProtocol,
        _ => UnappliedReason::Refused(error),
    }))
}

/// What a server takes by CONTROL.
fn is_given(attachment: &Attachment) -> bool {
    matches!(attachment, Attachment::Watch(_) | Attachment::Transaction(_))
}

/// Whom the plan would give rights by their number alone; also by what its transactions do when they are committed, if the
/// server `takes` them.
fn strangers(plan: &Plan, takes: bool, domid: DomId, request: &ApplyRequest) -> BTreeSet<DomId> {
    let perms = plan.changes.iter().filter_map(|change| match change {
        Change::Create { perms, .. } | Change::SetPerms { perms, .. } => Some(perms),
        Change::SetValue { .. } | Change::Remove { .. } => None,
    });
    let named = perms.flat_map(Perms::entries).map(|entry| entry.domid);
    let pending = plan.attachments.iter().filter(|_| takes).flat_map(of_server::named_by);
    named
        .chain(pending)
        .filter(|other| ![DomId::DOM0, domid].contains(other) && !request.known.contains(other))
        .collect()
}

/// How the work in a transaction ends without a commit.
enum End {
    NothingToCommit(Plan),
    Failed(ApplyError),
    Client(OperationError),
}

fn check(wanted: &DomainState) -> Result<(), ApplyError> {
    let domid = wanted.domid;
    if !domid.is_real() {
        return Err(ApplyError::ReservedDomId { domid });
    }
    match wanted.roots.iter().chain(wanted.nodes.keys()).find(|path| !path.is_absolute()) {
        Some(path) => Err(ApplyError::RelativePath { domid, path: path.clone() }),
        None => Ok(()),
    }
}

/// What there is now in the trees that the wanted state covers.
fn read_current(
    transaction: &mut Transaction<'_>,
    wanted: &DomainState,
    limits: Limits,
    told: Option<&DomainState>,
) -> Result<DomainState, End> {
    let domid = wanted.domid;
    let domain = Path::of_domain(domid);
    let mut reading = Reading::new(limits);
    reading.want(domain.clone());
    // What is wanted is mostly there already, so that one batch reads nearly all.
    wanted.roots.iter().chain(wanted.nodes.keys()).for_each(|path| reading.want(path.clone()));
    while !reading.is_done() {
        let mut batch = Batch::new();
        let level = reading.next_level(&mut batch);
        let mut replies = transaction.run(batch)?;
        reading.take(level, &mut replies).map_err(|error| match error {
            ReadError::Operation(source) => End::Client(source),
            ReadError::Limit(source) => ApplyError::TooLarge { domid, source }.into(),
        })?;
    }
    match reading.seen(&domain) {
        Some(Seen::Node(_)) => {}
        Some(Seen::Unreadable(source)) => {
            let source = source.clone();
            return Err(ApplyError::Unreadable { domid, path: domain, source }.into());
        }
        Some(Seen::Absent { .. }) | None => return Err(ApplyError::NoSuchDomain { domid }.into()),
    }
    let roots = wanted.roots.clone();
    let (nodes, missing) = reading.finish(&roots);
    for missing in missing {
        match (missing.part, missing.reason) {
            (StatePart::Node(path), MissingReason::Unreadable(source)) => {
                return Err(ApplyError::Unreadable { domid, path, source }.into());
            }
            (StatePart::Children(path), _) => {
                return Err(ApplyError::TooDeep { domid, path }.into());
            }
            // One that vanished is a conflict, which the commit finds.
            _ => {}
        }
    }
    Ok(DomainState {
        domid,
        roots,
        nodes,
        connection: told.and_then(|told| told.connection.clone()),
        quotas: told.map_or_else(BTreeMap::new, |told| told.quotas.clone()),
        features: told.and_then(|told| told.features),
    })
}

/// What of the state the domain has not got.
fn unapplied(plan: &Plan, outcome: &Result<(), UnappliedReason>) -> Vec<Unapplied> {
    let mut parts = BTreeMap::new();
    for attachment in &plan.attachments_left {
        StatePart::of(attachment).map(|part| parts.entry(part).or_insert(UnappliedReason::Policy));
    }
    for attachment in &plan.attachments {
        let reason = match (attachment, outcome) {
            (Attachment::Watch(_) | Attachment::Transaction(_), Err(reason)) => reason.clone(),
            (Attachment::Messages { .. }, _) => UnappliedReason::NotInProtocol,
            _ => UnappliedReason::OfIntroduction,
        };
        StatePart::of(attachment).map(|part| parts.entry(part).or_insert(reason));
    }
    parts.into_iter().map(|(part, reason)| Unapplied { part, reason }).collect()
}

fn of_change(domid: DomId, error: ChangesError) -> End {
    let error = match error {
        ChangesError::TooLong { operation, path, source } => {
            ApplyError::TooLong { domid, operation, path, source }
        }
        ChangesError::Refused { path, source } => {
            ApplyError::Refused { domid, operation: source.operation(), path, source }
        }
        ChangesError::NotAnswered(source) => return End::Client(source),
    };
    End::Failed(error)
}

/// What an error of the connection, or of the transaction itself, means.
fn failed(domid: DomId, source: OperationError) -> ApplyError {
    let committing = source.operation() == MessageType::TRANSACTION_END;
    match source.failure() {
        Failure::Conflict { attempts } => ApplyError::Conflict { domid, attempts: *attempts },
        Failure::Timeout { sent: true } | Failure::Lost(_) if committing => {
            ApplyError::OutcomeUnknown { domid, source }
        }
        _ => ApplyError::Xenstore { domid, source },
    }
}

impl From<OperationError> for End {
    fn from(error: OperationError) -> Self {
        Self::Client(error)
    }
}

impl From<ApplyError> for End {
    fn from(error: ApplyError) -> Self {
        Self::Failed(error)
    }
}
