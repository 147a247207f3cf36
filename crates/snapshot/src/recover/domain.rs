//! What is asked of the hypervisor, in a way that nobody minds twice.

use std::time::{Duration, Instant};

use crate::control::{ChangeFailure, DomainControl, DomainIdentity, DomainState, Refusal};
use crate::journal::steps;

use super::RecoverError;

/// How long a call may take. A guest that was asked to suspend has a minute to do so.
const CALL_LIMIT: Duration = Duration::from_secs(90);

pub(super) fn soon() -> Instant {
    Instant::now() + CALL_LIMIT
}

/// What the domain is once nothing of its saver is under way any more.
pub(super) fn settled(
    control: &dyn DomainControl,
    domain: &DomainIdentity,
) -> Result<DomainState, RecoverError> {
    Ok(match control.state(domain, soon())? {
        DomainState::Gone => DomainState::Gone,
        _ => control.settled(domain, soon())?,
    })
}

/// Has a suspended domain go on. A guardian may have done so at any moment.
pub(super) fn resume(
    control: &dyn DomainControl,
    domain: &DomainIdentity,
) -> Result<DomainState, RecoverError> {
    steps::reached("before resume");
    let resumed = control.resume(domain, soon());
    steps::reached("after resume");
    match resumed {
        Err(error) if matches!(error.state, None | Some(DomainState::Suspended)) => {
            Err(error.into())
        }
        _ => Ok(control.state(domain, soon())?),
    }
}

/// Pauses it, in whatever state it is.
pub(super) fn pause(
    control: &dyn DomainControl,
    domain: &DomainIdentity,
) -> Result<(), RecoverError> {
    steps::reached("before pause");
    let paused = control.pause(domain, soon());
    steps::reached("after pause");
    Ok(paused?)
}

/// After this there is no such domain.
pub(super) fn destroy(
    control: &dyn DomainControl,
    domain: &DomainIdentity,
) -> Result<(), RecoverError> {
    steps::reached("before destroy");
    let destroyed = control.destroy(domain, soon());
    steps::reached("after destroy");
    match destroyed {
        Err(error) if is_gone(&error.reason) => Ok(()),
        destroyed => Ok(destroyed?),
    }
}

fn is_gone(failure: &ChangeFailure) -> bool {
    let ChangeFailure::Refused(refusal) = failure else { return false };
    matches!(refusal, Refusal::NoSuchDomain | Refusal::AnotherDomain { .. })
}
