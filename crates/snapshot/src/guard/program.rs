//! The guardian's own side.

use std::ffi::OsStr;
use std::io::{self, BufRead, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{ARMED, QMP, RELEASE, WORD_MAX};
use crate::control::{
    Cause, DomainControl, DomainIdentity, DomainState, GUARDIAN_NEEDS_MAX, GuardianNeeds,
    GuardianNeedsError,
};
use crate::disk::qmp::QmpClient;

/// How long a guardian tries. A hypervisor that does not answer for so long is not helped by one more request.
const TRY_LIMIT: Duration = Duration::from_secs(600);
/// How long one attempt may take: what the saver has begun may have to end first.
const CALL_LIMIT: Duration = Duration::from_secs(90);
/// How long QEMU may take to answer.
const QEMU_LIMIT: Duration = Duration::from_secs(30);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

/// What a guardian did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GuardOutcome {
    /// Nothing: the saver has released it.
    Released,
    /// The saver died, and the domain goes on.
    Resumed,
    /// The saver died, and the domain was not suspended.
    NotSuspended {
        /// What it is.
        state: DomainState,
    },
}

/// Why a guardian could not do its work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuardError {
    /// What it needs was not told.
    #[error("what the guardian needs cannot be read")]
    Input {
        /// Why.
        source: io::Error,
    },
    /// What it was told is not what it needs.
    #[error("what the guardian was told is of no use")]
    Needs {
        /// Why.
        #[from]
        source: GuardianNeedsError,
    },
    /// The hypervisor that it is to use cannot be reached.
    #[error("the guardian cannot reach the hypervisor")]
    Control {
        /// Why.
        source: Cause,
    },
    /// The saver cannot be told that the guardian is armed.
    #[error("the saver cannot be told that the guardian is armed")]
    Output {
        /// Why.
        source: io::Error,
    },
    /// The domain was not resumed in all the time there was.
    #[error("domain {domain} could not be resumed: {last}")]
    NotResumed {
        /// Which.
        domain: DomainIdentity,
        /// The last failure.
        last: String,
    },
}

/// Reads the first line: what the guardian needs.
///
/// # Errors
///
/// If the line cannot be read, is too long or of another shape.
pub fn read_needs(input: &mut impl BufRead) -> Result<GuardianNeeds, GuardError> {
    let mut line = String::new();
    let max = GUARDIAN_NEEDS_MAX as u64 + 1;
    input.take(max).read_line(&mut line).map_err(|source| GuardError::Input { source })?;
    Ok(GuardianNeeds::from_json(line.trim_end())?)
}

/// Says on `output` that it is armed, and waits for the saver's word or its end on `input`, behind the line that
/// [`read_needs`] has read. Without a word, the domain is resumed if it is suspended.
///
/// # Errors
///
/// If the domain could not be resumed within ten minutes.
pub fn run(
    control: &dyn DomainControl,
    domain: &DomainIdentity,
    input: impl Read,
    mut output: impl Write,
) -> Result<GuardOutcome, GuardError> {
    let said = output.write_all(ARMED).and_then(|()| output.flush());
    said.map_err(|source| GuardError::Output { source })?;
    let qmp = match last_word(input) {
        Last::Released => return Ok(GuardOutcome::Released),
        Last::Died { qmp } => qmp,
    };
    if let Some(qmp) = qmp {
        await_qemu(&qmp, Instant::now() + QEMU_LIMIT);
    }
    let give_up = Instant::now() + TRY_LIMIT;
    loop {
        match bring_back(control, domain, give_up.min(Instant::now() + CALL_LIMIT)) {
            Ok(outcome) => return Ok(outcome),
            Err(last) if Instant::now() >= give_up => {
                return Err(GuardError::NotResumed { domain: *domain, last });
            }
            Err(last) => {
                tracing::warn!(%domain, last, "the domain is not resumed yet");
                std::thread::sleep(PAUSE);
            }
        }
    }
}

/// How a saver ended.
enum Last {
    Released,
    Died {
        /// The socket of the QEMU that it was about to ask for something.
        qmp: Option<PathBuf>,
    },
}

/// Listens to the end. What cannot be read any more has ended.
fn last_word(mut input: impl Read) -> Last {
    let (mut heard, mut octet, mut qmp) = (Vec::new(), [0], None);
    loop {
        match input.read(&mut octet) {
            Ok(0) => return Last::Died { qmp },
            Ok(_) if octet == *b"\n" => {
                if heard == RELEASE[..RELEASE.len() - 1] {
                    return Last::Released;
                }
                if let Some(path) = heard.strip_prefix(QMP) {
                    qmp = Some(OsStr::from_bytes(path).into());
                }
                heard.clear();
            }
            // Nothing that it can be told is longer.
            Ok(_) if heard.len() < WORD_MAX => heard.push(octet[0]),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Last::Died { qmp },
        }
    }
}

/// Waits until QEMU has done what it was asked for, which it does one after another. One that does not answer holds the guest up
/// no longer than this: its disks stand still in any case.
fn await_qemu(socket: &Path, deadline: Instant) {
    let answered = QmpClient::connect(socket, deadline).and_then(|mut qemu| qemu.nodes(deadline));
    if let Err(error) = answered {
        tracing::warn!(socket = %socket.display(), %error, "QEMU does not tell whether it is done");
    }
}

fn bring_back(
    control: &dyn DomainControl,
    domain: &DomainIdentity,
    deadline: Instant,
) -> Result<GuardOutcome, String> {
    let state = control.state(domain, deadline).map_err(|error| error.to_string())?;
    if state == DomainState::Gone {
        return Ok(GuardOutcome::NotSuspended { state });
    }
    let state = control.settled(domain, deadline).map_err(|error| error.to_string())?;
    if state != DomainState::Suspended {
        return Ok(GuardOutcome::NotSuspended { state });
    }
    match control.resume(domain, deadline) {
        Ok(()) => Ok(GuardOutcome::Resumed),
        Err(error) => match error.state {
            Some(DomainState::Running | DomainState::Paused) => Ok(GuardOutcome::Resumed),
            _ => Err(error.to_string()),
        },
    }
}
