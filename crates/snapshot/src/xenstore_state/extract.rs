//! Reading the state of one domain.

use std::time::Instant;

use xenstore_migration::domain_state::DomainState;
use xsclient::{Client, DomId, OperationError, Path};

use super::connection::{ConnectionSource, ConnectionSourceError};
use super::consistent::{self, Attempt, AttemptError, Change, Means, Task};
use super::levels::{ReadError, Seen};
use super::limits::{LimitExceeded, Limits};
use super::missing::{Missing, MissingReason, StatePart};
use super::of_server::Told;

/// How often a domain is read, when nothing else is said, before its state is given as not consistent.
pub const ATTEMPTS_DEFAULT: u32 = 5;

/// What belongs to a domain's connection.
const OF_CONNECTION: [StatePart; 4] =
    [StatePart::Watches, StatePart::Transactions, StatePart::PendingData, StatePart::Target];

/// Which state to read, and how.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ExtractRequest {
    /// Whose.
    pub domid: DomId,
    /// Trees to read besides `/local/domain/DOMID` and `/vm/UUID`; absolute paths. None of them needs to exist.
    pub roots: Vec<Path>,
    /// When the whole call has to end.
    pub deadline: Instant,
    /// How often to read, at least 1, until nothing changes meanwhile.
    pub attempts: u32,
    /// How to read so that all of it is of one moment.
    pub means: Means,
    /// How much to hold.
    pub limits: Limits,
}

impl ExtractRequest {
    /// The usual request: no trees besides the domain's own, [`ATTEMPTS_DEFAULT`], default limits.
    pub fn new(domid: DomId, deadline: Instant) -> Self {
        Self {
            domid,
            roots: Vec::new(),
            deadline,
            attempts: ATTEMPTS_DEFAULT,
            means: Means::default(),
            limits: Limits::default(),
        }
    }
}

/// The state of a domain, and how far it can be trusted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Extracted {
    /// What was read. Its roots are those of the trees asked for that there are and that no other holds; what could not be
    /// read below them is in `missing`.
    pub state: DomainState,
    /// Whether all of it is of one moment.
    pub consistency: Consistency,
    /// What it does not hold although the domain may have it. A state that lacks nodes must not be restored by a policy that
    /// removes what was not saved.
    pub missing: Vec<Missing>,
    /// Round trips, of all attempts. Pages of directories that do not fit one reply are not in here.
    pub round_trips: u64,
}

/// Whether all of a state is of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Consistency {
    /// Nothing changed while it was read.
    Consistent {
        /// How often it had to be read until then.
        attempts: u32,
    },
    /// Something changed in every attempt; the state is that of the last, and parts of it may never have been there together.
    Changing {
        /// How often it was read.
        attempts: u32,
        /// What changed during the last, in order; empty if the server does not say, as after a transaction.
        changed: Vec<Path>,
    },
}

/// Why a state could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExtractError {
    /// The id is one of those that never name a domain.
    #[error("{domid} is no domain's id: ids from {} are reserved", DomId::FIRST_RESERVED)]
    ReservedDomId {
        /// Which.
        domid: DomId,
    },
    /// A root that is not absolute.
    #[error("domain {domid}: {path} is no absolute path")]
    RelativeRoot {
        /// Whose state was wanted.
        domid: DomId,
        /// The root.
        path: Path,
    },
    /// Xenstore has no such domain.
    #[error("no domain {domid}: Xenstore has no /local/domain/{domid}")]
    NoSuchDomain {
        /// Which.
        domid: DomId,
    },
    /// Xenstore does not show the domain's own node.
    #[error("domain {domid}: Xenstore does not show /local/domain/{domid}")]
    Refused {
        /// Which.
        domid: DomId,
        /// What it says.
        source: OperationError,
    },
    /// A fence was asked for on a transport that does not keep events in order with replies.
    #[error(
        "domain {domid}: the transport does not keep events in order, so a fence proves nothing"
    )]
    UnorderedEvents {
        /// Whose state was wanted.
        domid: DomId,
    },
    /// There is more than the request's limits allow.
    #[error("domain {domid}: the state is too large")]
    TooLarge {
        /// Whose.
        domid: DomId,
        /// Which limit.
        source: LimitExceeded,
    },
    /// The connection source failed, or the server's answer about the connection is none.
    #[error("domain {domid}: cannot tell what it has on its connection")]
    ConnectionSource {
        /// Whose connection.
        domid: DomId,
        /// The source's own error.
        source: ConnectionSourceError,
    },
    /// Xenstore could not be read.
    #[error("domain {domid}: cannot read Xenstore")]
    Xenstore {
        /// Of which domain.
        domid: DomId,
        /// Why.
        source: OperationError,
    },
}

/// Reads what one domain has in Xenstore: `/local/domain/DOMID`, `/vm/UUID`, the trees that the request names, and what the
/// server tells of its quotas and features, and of its connection: watches, open transactions and target. Stock daemons tell
/// nothing of that, as [`Extracted::missing`] then says; Domkeep's does ([`Client::domain_state`]).
///
/// Each level of all trees is one round trip, and one more ends the read; `/vm/UUID` is read beside the other levels. A
/// level of more than 4096 nodes takes one for each 4096, and what is told of a connection one for each 2000 octets but the first.
///
/// # Errors
///
/// If there is no such domain, its state is larger than the limits, or the server does not answer before the deadline. A
/// node that cannot be read is no error: it is in [`Extracted::missing`].
pub fn extract(client: &mut Client, request: &ExtractRequest) -> Result<Extracted, ExtractError> {
    run(client, request, None)
}

/// As [`extract`], with somebody who knows what the protocol cannot tell. The server is not asked for it.
///
/// # Errors
///
/// As [`extract`], and if the source fails.
pub fn extract_with(
    client: &mut Client,
    request: &ExtractRequest,
    source: &mut dyn ConnectionSource,
) -> Result<Extracted, ExtractError> {
    run(client, request, Some(source))
}

fn run(
    client: &mut Client,
    request: &ExtractRequest,
    mut source: Option<&mut dyn ConnectionSource>,
) -> Result<Extracted, ExtractError> {
    let ExtractRequest { domid, roots, deadline, attempts, means, limits } = request;
    let domid = *domid;
    if !domid.is_real() {
        return Err(ExtractError::ReservedDomId { domid });
    }
    if let Some(path) = roots.iter().find(|root| !root.is_absolute()) {
        return Err(ExtractError::RelativeRoot { domid, path: path.clone() });
    }
    let task = Task { domid, extra: roots, limits: *limits, means: *means };
    let mut client = client.with_deadline(*deadline);
    let before = client.statistics();
    let mut made = 0;
    loop {
        made += 1;
        let attempt = consistent::attempt(&mut client, &task, source.as_deref_mut());
        let mut attempt = attempt.map_err(|error| error.of(domid))?;
        let consistency = match attempt.change.take() {
            None => Consistency::Consistent { attempts: made },
            Some(_) if made < *attempts => continue,
            Some(Change::At(paths)) => {
                Consistency::Changing { attempts: made, changed: paths.into_iter().collect() }
            }
            Some(Change::Somewhere) => {
                Consistency::Changing { attempts: made, changed: Vec::new() }
            }
        };
        if let Consistency::Changing { changed, .. } = &consistency {
            tracing::debug!(%domid, made, ?changed, "state of a domain that keeps changing");
        }
        let round_trips = client.statistics().since(&before).round_trips;
        return attempt.into_extracted(domid, consistency, round_trips);
    }
}

impl Attempt {
    fn into_extracted(
        self,
        domid: DomId,
        consistency: Consistency,
        round_trips: u64,
    ) -> Result<Extracted, ExtractError> {
        let Self { trees, reading, questions, told, change: _ } = self;
        if let Some(Seen::Unreadable(error)) = reading.seen(&trees.domain) {
            return Err(ExtractError::Refused { domid, source: error.clone() });
        }
        let mut missing = Vec::new();
        let connection = match told {
            Told::BySource(connection) => Some(connection),
            Told::ByServer(connection) => {
                missing.push(Missing::new(StatePart::PendingData, MissingReason::HalfTold));
                Some(connection)
            }
            Told::Nothing(reason) => {
                missing.extend(OF_CONNECTION.map(|part| Missing::new(part, reason.clone())));
                None
            }
        };
        missing.extend(questions.missing);
        let (mut roots, unread_roots) = trees.read_roots(&reading);
        missing.extend(unread_roots);
        let (nodes, unread) = reading.finish(&roots);
        missing.extend(unread);
        // One below another says nothing more.
        roots.retain(|root| !root.parent().is_some_and(|above| nodes.contains_key(&above)));
        let state = DomainState {
            domid,
            roots,
            nodes,
            connection,
            quotas: questions.quotas,
            features: questions.features,
        };
        Ok(Extracted { state, consistency, missing, round_trips })
    }
}

impl AttemptError {
    fn of(self, domid: DomId) -> ExtractError {
        match self {
            Self::UnorderedEvents => ExtractError::UnorderedEvents { domid },
            Self::NoSuchDomain => ExtractError::NoSuchDomain { domid },
            Self::Read(ReadError::Operation(source)) => ExtractError::Xenstore { domid, source },
            Self::Read(ReadError::Limit(source)) => ExtractError::TooLarge { domid, source },
            Self::Source(source) => ExtractError::ConnectionSource { domid, source },
        }
    }
}
