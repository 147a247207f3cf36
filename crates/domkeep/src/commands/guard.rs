//! `guard`: resumes a domain whose saver has died. A save starts it, with what it needs on its standard input.

use std::io;

use libxl_control::Libxl;
use snapshot::control::{DomainControl, GuardianNeeds};
use snapshot::guard::{GuardError, read_needs, run as guard};
use snapshot::simulated::SimulatedDomain;

use super::SnapshotError;
use crate::exit::{CommandError, Exit};

pub(super) fn run() -> Result<Exit, CommandError> {
    guarded().map_err(|source| SnapshotError::Guard { source: Box::new(source) }.into())
}

/// What is read and written is a conversation with the saver, and no answer for people or programs.
fn guarded() -> Result<Exit, GuardError> {
    let mut input = io::stdin().lock();
    let needs = read_needs(&mut input)?;
    let control = control(&needs)?;
    guard(control.as_ref(), &needs.domain, input, io::stdout())?;
    Ok(Exit::Done)
}

/// The hypervisor that the saver has named.
fn control(needs: &GuardianNeeds) -> Result<Box<dyn DomainControl>, GuardError> {
    if needs.control == Libxl::CONTROL_NAME {
        let libxl = Libxl::from_guardian(needs);
        return Ok(Box::new(libxl.map_err(|error| GuardError::Control { source: error.into() })?));
    }
    Ok(Box::new(SimulatedDomain::from_guardian(needs)?))
}
