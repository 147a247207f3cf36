//! Directories too big for one reply: read in parts that belong together.

use std::sync::Arc;
use std::time::Instant;

use xenstore_proto::{Errno, Name, Path, Reply, Request, TxId};

use crate::carrier::{Carrier, exchange};
use crate::error::{Failure, OperationError};
use crate::session::{Results, refusal};

/// How often a directory that changes while it is read in parts is read, before that is an error.
pub const DIRECTORY_ATTEMPTS_MAX: u32 = 16;

/// Octets of names kept of one directory: the names of some 200,000 domains, and an end to a server that never says
/// that a part is the last.
pub const DIRECTORY_OCTETS_MAX: usize = 4 << 20;

pub(crate) async fn directory<C: Carrier>(
    carrier: &mut C,
    path: &Path,
    tx_id: TxId,
    deadline: Instant,
) -> Result<Vec<Name>, OperationError> {
    carrier.with(|session| session.statistics.round_trips += 1);
    let requests: Arc<[Request]> = [Request::Directory(path.clone())].into();
    let mut results = exchange(carrier, Arc::clone(&requests), tx_id, deadline).await?;
    complete_directories(carrier, &requests, &mut results, tx_id, deadline).await?;
    let error = |failure| OperationError::new(&requests[0], failure);
    let result = results.pop().map_or(Err(Failure::NoSuchSlot), |answer| answer.result);
    match result.map_err(error)? {
        Reply::Names(names) => Ok(names),
        _ => Err(error(Failure::UnexpectedReply { wanted: "a list of names" })),
    }
}

/// Replaces each E2BIG of a DIRECTORY by what reading the directory in parts gives.
///
/// Not if the requests themselves ended their transaction: its directories can no longer be read, and the ENOENT of a
/// transaction that is no more must not pass for that of a directory.
///
/// # Errors
///
/// If a part was not answered. What a server refuses replaces the E2BIG.
pub(crate) async fn complete_directories<C: Carrier>(
    carrier: &mut C,
    requests: &[Request],
    results: &mut Results,
    tx_id: TxId,
    deadline: Instant,
) -> Result<(), OperationError> {
    let ends = |request: &Request| matches!(request, Request::TransactionEnd { .. });
    if tx_id != TxId::NONE && requests.iter().any(ends) {
        return Ok(());
    }
    for (request, answer) in requests.iter().zip(results) {
        match request {
            Request::Directory(path) if refusal(answer) == Some(&Errno::E2BIG) => {
                let names = read_in_parts(carrier, path, tx_id, deadline).await?;
                answer.result = names.map(Reply::Names);
            }
            _ => {}
        }
    }
    Ok(())
}

/// The names, or why the server does not give them.
async fn read_in_parts<C: Carrier>(
    carrier: &mut C,
    path: &Path,
    tx_id: TxId,
    deadline: Instant,
) -> Result<Result<Vec<Name>, Failure>, OperationError> {
    for attempt in 1.. {
        match try_in_parts(carrier, path, tx_id, deadline).await? {
            Ok(None) if attempt == DIRECTORY_ATTEMPTS_MAX => break,
            Ok(None) => carrier.with(|session| session.statistics.directory_restarts += 1),
            Ok(Some(names)) => return Ok(Ok(names)),
            Err(failure) => return Ok(Err(failure)),
        }
    }
    Ok(Err(Failure::DirectoryChanging { attempts: DIRECTORY_ATTEMPTS_MAX }))
}

/// `None`, if the directory changed under way.
async fn try_in_parts<C: Carrier>(
    carrier: &mut C,
    path: &Path,
    tx_id: TxId,
    deadline: Instant,
) -> Result<Result<Option<Vec<Name>>, Failure>, OperationError> {
    let mut names: Vec<Name> = Vec::new();
    let mut octets = 0_usize;
    let mut generation = None;
    while let Some(offset) = u32::try_from(octets).ok().filter(|_| octets <= DIRECTORY_OCTETS_MAX) {
        carrier.with(|session| session.statistics.directory_pages += 1);
        let request = [Request::DirectoryPart { path: path.clone(), offset }].into();
        let answer = exchange(carrier, request, tx_id, deadline).await?.pop();
        let part = match answer.map(|answer| answer.result) {
            Some(Ok(Reply::Part(part))) => part,
            Some(Err(Failure::Refused(errno))) if errno == Errno::ENOSYS => {
                return Ok(Err(Failure::NoParts));
            }
            Some(Err(failure)) => return Ok(Err(failure)),
            _ => return Ok(Err(Failure::UnexpectedReply { wanted: "a part of a directory" })),
        };
        if *generation.get_or_insert(part.generation) != part.generation {
            return Ok(Ok(None));
        }
        if part.names.is_empty() && !part.last {
            let wanted = "a part of a directory: it holds no name and is not the last";
            return Ok(Err(Failure::UnexpectedReply { wanted }));
        }
        octets += part.octets();
        names.extend(part.names);
        if part.last {
            return Ok(Ok(Some(names)));
        }
    }
    Ok(Err(Failure::DirectoryTooLong { max: DIRECTORY_OCTETS_MAX }))
}
