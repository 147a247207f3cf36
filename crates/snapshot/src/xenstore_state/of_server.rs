//! What a domain has on its connection, from a server that tells it by CONTROL, and back to one that takes it.

use std::collections::BTreeMap;

use xenstore_migration::domain_state::{
    Attachment, ConnectionState, DomainState, FromStreamError, PendingNode, ToStreamError,
};
use xenstore_migration::{
    ByteOrder, CreateError, NodeAccess, OpenError, Peer, Preamble, ReadOptions, StreamReader,
    StreamWriter, Version, WriteError,
};
use xsclient::{Client, DomId, DomainStatePage, Errno, Failure, OperationError, Perms};

use super::missing::MissingReason;

/// What is known of a domain's connection.
#[derive(Debug)]
pub(super) enum Told {
    /// By the caller's own source.
    BySource(ConnectionState),
    /// By the server, which does not know what is on its way to it.
    ByServer(ConnectionState),
    Nothing(MissingReason),
}

/// Why a server's answer is of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum AnswerError {
    #[error("the server's answer is no stream of the xenstore-migration format")]
    Open(#[from] OpenError),
    #[error("the server's answer is no state of a domain")]
    State(#[from] FromStreamError),
    #[error("the server's answer is of domain {told}")]
    OtherDomain { told: DomId },
}

/// Why a server's word is not known.
pub(super) enum AskError {
    Operation(OperationError),
    Answer(AnswerError),
}

impl From<OperationError> for AskError {
    fn from(error: OperationError) -> Self {
        Self::Operation(error)
    }
}

impl From<AnswerError> for AskError {
    fn from(error: AnswerError) -> Self {
        Self::Answer(error)
    }
}

/// Takes what the server answers to the question for a domain's state, and the pages that are not here yet.
pub(super) fn told(
    client: &mut Client,
    domid: DomId,
    first: Result<DomainStatePage, OperationError>,
) -> Result<Told, AskError> {
    let stream = match client.rest_of_domain_state(domid, first) {
        Ok(stream) => stream,
        Err(error) => return Ok(Told::Nothing(reason(error)?)),
    };
    Ok(Told::ByServer(parse(domid, &stream)?.connection.unwrap_or_default()))
}

/// What the server says of a domain's connection now, with quotas and features; or why it does not.
pub(super) fn ask(
    client: &mut Client,
    domid: DomId,
) -> Result<Result<DomainState, MissingReason>, AskError> {
    match client.domain_state(domid) {
        Ok(stream) => Ok(Ok(parse(domid, &stream)?)),
        Err(error) => Ok(Err(reason(error)?)),
    }
}

/// Why the server does not tell; an error if it did not answer, or not as it should.
fn reason(error: OperationError) -> Result<MissingReason, OperationError> {
    match error.failure() {
        Failure::UnknownCommand => Ok(MissingReason::NotInProtocol),
        Failure::Refused(errno) if *errno == Errno::ENOENT => Ok(MissingReason::NoConnection),
        Failure::Refused(_) | Failure::StateChanging { .. } | Failure::StateTooLong { .. } => {
            Ok(MissingReason::Unreadable(error))
        }
        _ => Err(error),
    }
}

fn parse(domid: DomId, stream: &[u8]) -> Result<DomainState, AnswerError> {
    let mut reader = StreamReader::open(stream, ReadOptions::default())?;
    let state = DomainState::from_stream(&mut reader)?.state;
    if state.domid != domid {
        return Err(AnswerError::OtherDomain { told: state.domid });
    }
    Ok(state)
}

/// Why watches and transactions cannot be told to a server.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    #[error(transparent)]
    Create(#[from] CreateError),
    #[error(transparent)]
    State(#[from] ToStreamError),
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// The watches and transactions among what a domain has not yet, as [`Client::set_domain_state`] takes them; `None` if there are none.
pub(super) fn to_give(
    wanted: &DomainState,
    missing: &[Attachment],
) -> Result<Option<Vec<u8>>, StreamError> {
    let mut connection = ConnectionState::default();
    for attachment in missing {
        match attachment {
            Attachment::Watch(watch) => connection.watches.push(watch.clone()),
            Attachment::Transaction(open) => connection.transactions.push(open.clone()),
            _ => {}
        }
    }
    if connection == ConnectionState::default() {
        return Ok(None);
    }
    let mut given = DomainState { connection: Some(connection), ..wanted.clone() };
    (given.quotas, given.features) = (BTreeMap::new(), None);
    given.nodes = given.relied_on();
    let nodes = &given.nodes;
    let is_root = |above: Option<_>| !above.is_some_and(|above| nodes.contains_key(&above));
    given.roots = nodes.keys().filter(|path| is_root(path.parent())).cloned().collect();
    let preamble = Preamble::new(Version::V2, ByteOrder::Little);
    let mut writer = StreamWriter::create(Vec::new(), preamble, Peer::Specification)?;
    given.to_stream(&mut writer)?;
    Ok(Some(writer.finish()?))
}

/// Whom a transaction would give rights by their number alone, if it were committed.
pub(super) fn named_by(attachment: &Attachment) -> impl Iterator<Item = DomId> {
    let nodes = match attachment {
        Attachment::Transaction(open) => Some(open.nodes.values()),
        _ => None,
    };
    let perms = nodes.into_iter().flatten().filter_map(|pending| match pending {
        PendingNode::Seen { access, node } if access.contains(NodeAccess::WRITTEN) => {
            Some(&node.perms)
        }
        _ => None,
    });
    perms.flat_map(Perms::entries).map(|entry| entry.domid)
}
