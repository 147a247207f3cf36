//! A simulated domain's [`DomainControl`], over its host's socket.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use libxl_config::{DomainConfig, Layout};
use xsclient::DomId;

use super::connection::{self, Answer, CallError, STEP_LIMIT};
use super::protocol::{Failure, Reply, Request};
use super::reasons::{HostFailure, Reason, build_failure};
use crate::control::{
    BuildError, BuildFailure, Cause, ChangeError, DomainControl, DomainIdentity, DomainState,
    DomainView, Failed, GuardianNeeds, GuardianNeedsError, Operation, Queried, QueryError, Refusal,
    RenameError, ResumeError, SuspendError, Until, remove_built,
};

/// Domains of a simulated host, as far as a saver and a restorer see them.
///
/// Each call is a connection of its own. Nothing is kept between calls, so that any number of processes can act on the same
/// domains, one after the other died.
#[derive(Clone, Debug)]
pub struct SimulatedDomain {
    socket: PathBuf,
}

/// The name of this implementation in [`GuardianNeeds::control`].
const CONTROL_NAME: &str = "simulated";

impl SimulatedDomain {
    /// The domains of the host that listens on `socket`. Connects when it is used.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// In a guardian: what [`DomainControl::guardian`] has described.
    ///
    /// # Errors
    ///
    /// If it describes another implementation, or lacks the socket.
    pub fn from_guardian(needs: &GuardianNeeds) -> Result<Self, GuardianNeedsError> {
        if needs.control != CONTROL_NAME {
            return Err(GuardianNeedsError::OtherControl {
                expected: CONTROL_NAME,
                found: needs.control.clone(),
            });
        }
        match &needs.address {
            Some(socket) => Ok(Self::new(socket)),
            None => Err(GuardianNeedsError::NoAddress { control: needs.control.clone() }),
        }
    }

    /// The host's socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Does one thing to a domain, and looks at it afterwards, whatever was answered.
    fn act<R: From<Reason>>(
        &self,
        (domain, operation): (&DomainIdentity, Operation),
        request: &Request,
        stream: Option<BorrowedFd<'_>>,
        until: Until<'_>,
        after: impl Fn(&DomainView) -> Result<(), Reason>,
    ) -> Result<(), Failed<R>> {
        let domid = domain.domid;
        if domid == DomId::DOM0 || !domid.is_real() {
            return Err(Failed::new(domid, operation, None, Reason::from(Refusal::ControlDomain)));
        }
        let answered = connection::call(&self.socket, request, stream, until);
        // What is done at the deadline is looked at all the same.
        let looked = self.find(domid, Instant::now() + STEP_LIMIT);
        let view =
            looked.as_ref().ok().map(|view| view.as_ref().filter(|view| view.identity == *domain));
        let state = view.map(|view| view.map_or(DomainState::Gone, |view| view.state));
        let reason = match (answered, view) {
            (
                Ok(Answer { reply: Reply::Failed(Failure::Cancelled), stopped: Some(stopped) }),
                _,
            ) => stopped.into(),
            (Ok(Answer { reply: Reply::Failed(failure), .. }), _) => Reason::from_host(failure),
            (Ok(Answer { stopped: Some(stopped), .. }), Some(Some(view)))
                if after(view).is_err() =>
            {
                stopped.into()
            }
            (Ok(_), Some(Some(view))) => match after(view) {
                Ok(()) => return Ok(()),
                Err(reason) => reason,
            },
            (Ok(_), Some(None)) if operation == Operation::Destroy => return Ok(()),
            (Ok(_), Some(None)) => Refusal::NoSuchDomain.into(),
            (Ok(_), None) => match looked {
                Err(error) => Reason::Hypervisor(Box::new(error)),
                Ok(_) => Reason::Hypervisor(Box::new(CallError::Reply)),
            },
            (Err(error), _) => error.into(),
        };
        Err(Failed::new(domid, operation, state, reason))
    }

    fn listed(&self, deadline: Instant) -> Result<Vec<DomainView>, CallError> {
        match connection::call(&self.socket, &Request::List, None, deadline.into())?.reply {
            Reply::Domains(views) => Ok(views),
            _ => Err(CallError::Reply),
        }
    }
}

impl DomainControl for SimulatedDomain {
    fn find(&self, domid: DomId, deadline: Instant) -> Result<Option<DomainView>, QueryError> {
        let request = Request::Find { domid: domid.get() };
        let hypervisor =
            |source: Cause| QueryError::Hypervisor { about: Queried::Domain(domid), source };
        match connection::call(&self.socket, &request, None, deadline.into()) {
            Ok(Answer { reply: Reply::Found(view), .. }) => Ok(view),
            Ok(Answer { stopped: Some(_), .. }) | Err(CallError::DeadlinePassed) => {
                Err(QueryError::DeadlinePassed { about: Queried::Domain(domid) })
            }
            Ok(Answer { reply: Reply::Failed(failure), .. }) => {
                Err(hypervisor(Box::new(HostFailure(failure))))
            }
            Ok(_) => Err(hypervisor(Box::new(CallError::Reply))),
            Err(error) => Err(hypervisor(Box::new(error))),
        }
    }

    fn list(&self, deadline: Instant) -> Result<Vec<DomainView>, QueryError> {
        self.listed(deadline).map_err(|error| match error {
            CallError::DeadlinePassed => QueryError::DeadlinePassed { about: Queried::Domains },
            error => QueryError::Hypervisor { about: Queried::Domains, source: Box::new(error) },
        })
    }

    fn suspend_to(
        &self,
        domain: &DomainIdentity,
        stream: BorrowedFd<'_>,
        live: bool,
        until: Until<'_>,
    ) -> Result<(), SuspendError> {
        let request = Request::SuspendTo { domain: *domain, live };
        self.act((domain, Operation::Suspend), &request, Some(stream), until, is_suspended)
    }

    fn suspend_only(&self, domain: &DomainIdentity, until: Until<'_>) -> Result<(), SuspendError> {
        let request = Request::SuspendOnly { domain: *domain };
        self.act((domain, Operation::Suspend), &request, None, until, is_suspended)
    }

    fn resume(&self, domain: &DomainIdentity, deadline: Instant) -> Result<(), ResumeError> {
        let request = Request::Resume { domain: *domain };
        self.act((domain, Operation::Resume), &request, None, deadline.into(), |view| {
            holds(view.state != DomainState::Suspended)
        })
    }

    fn build_from(
        &self,
        configuration: &DomainConfig,
        stream: BorrowedFd<'_>,
        until: Until<'_>,
    ) -> Result<DomainView, BuildError> {
        let before =
            self.listed(until.deadline).map_err(|error| BuildError::new(None, error.into()))?;
        let request = Request::BuildFrom { configuration: configuration.to_json(Layout::Yajl) };
        let answered = connection::call(&self.socket, &request, Some(stream), until);
        let reason = match answered {
            Ok(Answer { reply: Reply::Domain(view), .. }) => {
                let deadline = Instant::now() + STEP_LIMIT;
                match self.find(view.identity.domid, deadline) {
                    Ok(Some(found)) if found == view && found.state == DomainState::Paused => {
                        return Ok(found);
                    }
                    Ok(_) => BuildFailure::NotBuilt,
                    Err(error) => BuildFailure::Hypervisor { source: Box::new(error) },
                }
            }
            Ok(Answer { stopped: Some(stopped), reply: Reply::Failed(Failure::Cancelled) }) => {
                stopped.into()
            }
            Ok(Answer { reply: Reply::Failed(failure), .. }) => build_failure(failure),
            Ok(_) => CallError::Reply.into(),
            Err(error) => error.into(),
        };
        let deadline = Instant::now() + STEP_LIMIT;
        Err(BuildError::new(remove_built(self, configuration, &before, deadline), reason))
    }

    fn pause(&self, domain: &DomainIdentity, deadline: Instant) -> Result<(), ChangeError> {
        let request = Request::Pause { domain: *domain };
        self.act((domain, Operation::Pause), &request, None, deadline.into(), |view| {
            holds(view.paused)
        })
    }

    fn unpause(&self, domain: &DomainIdentity, deadline: Instant) -> Result<(), ChangeError> {
        let request = Request::Unpause { domain: *domain };
        self.act((domain, Operation::Unpause), &request, None, deadline.into(), |view| {
            holds(!view.paused)
        })
    }

    fn destroy(&self, domain: &DomainIdentity, deadline: Instant) -> Result<(), ChangeError> {
        let request = Request::Destroy { domain: *domain };
        self.act((domain, Operation::Destroy), &request, None, deadline.into(), |_| {
            Err(Reason::FalseReport)
        })
    }

    fn rename(
        &self,
        domain: &DomainIdentity,
        name: &str,
        deadline: Instant,
    ) -> Result<(), RenameError> {
        let request = Request::Rename { domain: *domain, name: name.to_owned() };
        self.act((domain, Operation::Rename), &request, None, deadline.into(), |view| {
            holds(view.name.as_deref() == Some(name))
        })
    }

    fn settled(
        &self,
        domain: &DomainIdentity,
        deadline: Instant,
    ) -> Result<DomainState, QueryError> {
        let domid = domain.domid;
        let request = Request::Settle { domain: *domain };
        let hypervisor =
            |source: Cause| QueryError::Hypervisor { about: Queried::Domain(domid), source };
        match connection::call(&self.socket, &request, None, deadline.into()) {
            Ok(Answer { reply: Reply::Found(view), .. }) => {
                Ok(view.map_or(DomainState::Gone, |view| view.state))
            }
            Ok(Answer { reply: Reply::Failed(failure), stopped }) => match failure {
                Failure::NoSuchDomain | Failure::AnotherDomain { .. } => Ok(DomainState::Gone),
                _ if stopped.is_some() => {
                    Err(QueryError::DeadlinePassed { about: Queried::Domain(domid) })
                }
                failure => Err(hypervisor(Box::new(HostFailure(failure)))),
            },
            Ok(_) => Err(hypervisor(Box::new(CallError::Reply))),
            Err(CallError::DeadlinePassed) => {
                Err(QueryError::DeadlinePassed { about: Queried::Domain(domid) })
            }
            Err(error) => Err(hypervisor(Box::new(error))),
        }
    }

    /// `None` if the socket's path is not UTF-8, which JSON cannot hold.
    fn guardian(&self, domain: &DomainIdentity) -> Option<GuardianNeeds> {
        let socket = std::path::absolute(&self.socket).ok()?;
        Some(GuardianNeeds {
            control: CONTROL_NAME.to_owned(),
            address: Some(socket.to_str()?.to_owned()),
            environment: BTreeMap::new(),
            domain: *domain,
        })
    }
}

fn holds(holds: bool) -> Result<(), Reason> {
    if holds { Ok(()) } else { Err(Reason::FalseReport) }
}

fn is_suspended(view: &DomainView) -> Result<(), Reason> {
    holds(view.state == DomainState::Suspended)
}
