//! Suspending, with and without a stream.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use snapshot::control::{
    DomainIdentity, DomainState, Failed, Operation, Refusal, SuspendError, SuspendFailure, Until,
};

use crate::control::{LOOK_LIMIT, Libxl};
use crate::failure::{Failing, LibxlFailure, outcome};
use crate::rc;
use crate::relay::{Relay, Unfinished};
use crate::store::Withdrawn;

/// How long a guest that has seen a request may take to suspend when the call has failed, before it is taken for one that will
/// not. With what stopping takes it is less than what the trait allows.
const LATE_LIMIT: Duration = Duration::from_secs(5);

impl Libxl {
    pub(crate) fn suspend(
        &self,
        domain: &DomainIdentity,
        stream: Option<(BorrowedFd<'_>, bool)>,
        until: Until<'_>,
    ) -> Result<(), SuspendError> {
        let failed =
            |state, why: SuspendFailure| Failed::new(domain.domid, Operation::Suspend, state, why);
        let view = self
            .meant(domain, until.deadline)
            .map_err(|refused| refused.failed(domain, Operation::Suspend))?;
        let state = view.state;
        if state != DomainState::Running {
            return Err(failed(Some(state), Refusal::WrongState { state }.into()));
        }
        if until.cancel.is_some_and(snapshot::control::CancelToken::is_cancelled) {
            return Err(failed(Some(state), SuspendFailure::Cancelled));
        }
        let relay = match stream.map(|(stream, _)| Relay::start(stream)).transpose() {
            Ok(relay) => relay,
            Err(source) => return Err(failed(Some(state), SuspendFailure::Stream { source })),
        };
        let (relay, inlet) = relay.unzip();
        let live = stream.is_some_and(|(_, live)| live);
        let number = u32::from(domain.domid.get());
        let ran = self.pool.run(until, move |context| {
            let rc = match &inlet {
                Some(inlet) => context.suspend(number, inlet.as_fd(), live),
                None => context.suspend_only(number),
            };
            if rc == 0 { Ok(()) } else { Err(rc) }
        });
        let answered = outcome(ran);
        let state = match self.found(domain) {
            // libxl's answer does not say that the guest will not suspend after all.
            Some(DomainState::Running) => self.call_off(domain, may_be_late(&answered)),
            state => state,
        };
        let why = match (answered, state) {
            (Ok(_), Some(DomainState::Suspended)) => {
                match relay.map_or(Ok(()), |relay| relay.finish(until)) {
                    Ok(()) => return Ok(()),
                    Err(Unfinished::Sink(source)) => SuspendFailure::Stream { source },
                    Err(Unfinished::Stopped(stop)) => Failing::from(stop).into(),
                }
            }
            (_, Some(DomainState::ShutDown(reason))) => SuspendFailure::GuestStopped { reason },
            (Ok(_), Some(DomainState::Running)) => SuspendFailure::NotSuspended,
            (Ok(_), state) => {
                let cause = format!("libxl answers that it is suspended, and it is {state:?}");
                SuspendFailure::Hypervisor { source: cause.into() }
            }
            (Err(Failing::Libxl(LibxlFailure::Rc { rc, log })), state) => {
                explain(rc, log, state, live, relay.and_then(Relay::give_up))
            }
            (Err(failing), _) => failing.into(),
        };
        Err(failed(state, why))
    }

    /// Takes the request back. If the guest has seen it already, it is given the time to suspend: what is told of it afterwards
    /// has to stay true.
    fn call_off(&self, domain: &DomainIdentity, may_be_late: bool) -> Option<DomainState> {
        let withdrawn = self.store.withdraw(domain.domid, Instant::now() + LOOK_LIMIT);
        match withdrawn {
            Ok(Withdrawn::NotThere) if may_be_late => {
                let until = Instant::now() + LATE_LIMIT;
                let late = self.store.await_change(domain.domid, until, || {
                    Ok::<_, Failing>(match self.found(domain) {
                        Some(DomainState::Running) | None => ControlFlow::Continue(()),
                        Some(state) => ControlFlow::Break(state),
                    })
                });
                if let Ok(Some(state)) = late {
                    return Some(state);
                }
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, %domain, "its request to suspend cannot be taken back");
            }
        }
        self.found(domain)
    }
}

/// Whether the guest may have seen a request that libxl has not taken back: not if libxl has waited for it in vain.
fn may_be_late<T>(answered: &Result<T, Failing>) -> bool {
    match answered {
        Ok(_) => false,
        Err(Failing::Libxl(failure)) => !failure.is_guest_timed_out(),
        Err(_) => true,
    }
}

/// What a number means for a domain that was found so.
fn explain(
    rc: i32,
    log: String,
    state: Option<DomainState>,
    live: bool,
    sink: Option<io::Error>,
) -> SuspendFailure {
    let unanswered = log.contains("acknowledge");
    match state {
        Some(DomainState::Running) if rc == rc::GUEST_TIMED_OUT && live && !unanswered => {
            SuspendFailure::LiveUnsupported
        }
        Some(DomainState::Running) if rc == rc::GUEST_TIMED_OUT || unanswered => {
            SuspendFailure::NotAcknowledged
        }
        Some(DomainState::Suspended) if helper_died(&log) => SuspendFailure::HelperDied,
        Some(DomainState::Suspended) => {
            let failure = || io::Error::other(LibxlFailure::Rc { rc, log });
            SuspendFailure::Stream { source: sink.unwrap_or_else(failure) }
        }
        _ => Failing::Libxl(LibxlFailure::Rc { rc, log }).into(),
    }
}

/// Whether libxl's log tells of a helper that did not end by itself.
pub(crate) fn helper_died(log: &str) -> bool {
    log.contains("helper") && (log.contains("died") || log.contains("fatal signal"))
}
