//! Suspending, with and without a stream.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use snapshot::control::{
    DomainIdentity, DomainState, Failed, Operation, Refusal, SuspendError, SuspendFailure, Until,
};

use crate::control::{LOOK_LIMIT, Libxl};
use crate::failure::{Failing, LibxlFailure, outcome};
use crate::rc;
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
        let sink = match stream.map(|(stream, _)| Sink::of(stream)).transpose() {
            Ok(sink) => sink,
            Err(source) => return Err(failed(Some(state), SuspendFailure::Stream { source })),
        };
        let live = stream.is_some_and(|(_, live)| live);
        let number = u32::from(domain.domid.get());
        let theirs = match sink.as_ref().map(Sink::duplicate).transpose() {
            Ok(theirs) => theirs,
            Err(source) => return Err(failed(Some(state), SuspendFailure::Stream { source })),
        };
        let ran = self.pool.run(until, move |context| {
            let rc = match &theirs {
                Some(stream) => context.suspend(number, stream.as_fd(), live),
                None => context.suspend_only(number),
            };
            if rc == 0 { Ok(()) } else { Err(rc) }
        });
        if let Some(sink) = &sink {
            sink.restore_flags();
        }
        let answered = outcome(ran);
        let state = match self.found(domain) {
            // libxl's answer does not say that the guest will not suspend after all.
            Some(DomainState::Running) => self.call_off(domain, may_be_late(&answered)),
            state => state,
        };
        let why = match (answered, state) {
            (Ok(_), Some(DomainState::Suspended)) => return Ok(()),
            (_, Some(DomainState::ShutDown(reason))) => SuspendFailure::GuestStopped { reason },
            (Ok(_), Some(DomainState::Running)) => SuspendFailure::NotSuspended,
            (Ok(_), state) => {
                let cause = format!("libxl answers that it is suspended, and it is {state:?}");
                SuspendFailure::Hypervisor { source: cause.into() }
            }
            (Err(Failing::Libxl(LibxlFailure::Rc { rc, log })), state) => {
                explain(rc, log, state, live, sink.as_ref())
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
    sink: Option<&Sink>,
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
            let kind = match sink {
                Some(sink) if sink.has_no_reader() => io::ErrorKind::BrokenPipe,
                _ => io::ErrorKind::Other,
            };
            let source = io::Error::new(kind, LibxlFailure::Rc { rc, log });
            SuspendFailure::Stream { source }
        }
        _ => Failing::Libxl(LibxlFailure::Rc { rc, log }).into(),
    }
}

/// Whether libxl's log tells of a helper that did not end by itself.
pub(crate) fn helper_died(log: &str) -> bool {
    log.contains("helper") && (log.contains("died") || log.contains("fatal signal"))
}

/// Where a stream goes. libxl may leave it another mode than it had: it belongs to the caller's descriptor as well.
struct Sink {
    fd: OwnedFd,
    flags: OFlags,
}

impl Sink {
    fn of(stream: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self { fd: stream.try_clone_to_owned()?, flags: fcntl_getfl(stream)? })
    }

    /// One that stays open for as long as libxl needs it, whatever becomes of the caller.
    fn duplicate(&self) -> io::Result<OwnedFd> {
        self.fd.try_clone()
    }

    fn restore_flags(&self) {
        let restored = fcntl_getfl(&self.fd).and_then(|now| {
            if now == self.flags { Ok(()) } else { fcntl_setfl(&self.fd, self.flags) }
        });
        if let Err(error) = restored {
            tracing::warn!(%error, "the stream's descriptor has another mode than before");
        }
    }

    /// Whether it is a pipe or socket whose other end is closed.
    fn has_no_reader(&self) -> bool {
        let mut fds = [PollFd::new(&self.fd, PollFlags::OUT)];
        let polled = poll(&mut fds, Some(&Timespec::default()));
        polled.is_ok() && fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
    }
}
