//! The caller's callbacks as a hypervisor: what they promise less than [`DomainControl`] does is added here.
//!
//! A callback does one thing to a domain that is there. That it is the domain that was meant, and in a state in which the thing can be
//! done, is looked at before; what has become of it, afterwards. So a callback may be as careless as libxl, which reports success for a
//! guest that never suspended.

use std::ffi::{CString, c_char, c_int, c_void};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr;
use std::time::{Duration, Instant};

use libxl_config::{DomainConfig, Layout};
use snapshot::control::{
    BuildError, BuildFailure, ChangeError, ChangeFailure, DomainControl, DomainIdentity,
    DomainState, DomainView, Failed, GuardianNeeds, Operation, Queried, QueryError, Refusal,
    RenameError, RenameFailure, ResumeError, ResumeFailure, SuspendError, SuspendFailure, Until,
    remove_built,
};
use xsclient::DomId;

use crate::answer::{Answer, Said, Unanswered};
use crate::arguments::required;
use crate::control::{Call, ControlOps, Domain};
use crate::observer::Cancel;
use crate::problem::Problem;
use crate::status::Status;

/// How long it may take to find out what became of a domain, when the time for the call itself is over.
const LOOK_LIMIT: Duration = Duration::from_secs(10);

/// Octets in which a callback says why it failed.
const MESSAGE_LEN: usize = 512;

type OfDomain = unsafe extern "C" fn(*mut c_void, u32, *mut Call) -> c_int;

pub(crate) struct Callbacks {
    ops: ControlOps,
    must: Must,
    user: *mut c_void,
    /// Name and address of what a guardian uses.
    guardian: Option<(String, Option<String>)>,
}

/// The callbacks that have to be there.
struct Must {
    find: unsafe extern "C" fn(*mut c_void, u32, *mut Domain, *mut Call) -> c_int,
    list: unsafe extern "C" fn(
        *mut c_void,
        Option<unsafe extern "C" fn(*mut c_void, *const Domain)>,
        *mut c_void,
        *mut Call,
    ) -> c_int,
    suspend: unsafe extern "C" fn(*mut c_void, u32, c_int, bool, *mut Call) -> c_int,
    resume: OfDomain,
    build: unsafe extern "C" fn(*mut c_void, *const c_char, c_int, *mut u32, *mut Call) -> c_int,
    pause: OfDomain,
    unpause: OfDomain,
    destroy: OfDomain,
    rename: unsafe extern "C" fn(*mut c_void, u32, *const c_char, *mut Call) -> c_int,
}

// SAFETY: the header says that callbacks may be called by several threads at the same time, with the same `user`.
unsafe impl Send for Callbacks {}
// SAFETY: as above.
unsafe impl Sync for Callbacks {}

impl Callbacks {
    pub(crate) fn new(
        ops: ControlOps,
        user: *mut c_void,
        guardian: Option<(String, Option<String>)>,
    ) -> Result<Self, Problem> {
        let must = Must {
            find: required(ops.find, "ops->find")?,
            list: required(ops.list, "ops->list")?,
            suspend: required(ops.suspend, "ops->suspend")?,
            resume: required(ops.resume, "ops->resume")?,
            build: required(ops.build, "ops->build")?,
            pause: required(ops.pause, "ops->pause")?,
            unpause: required(ops.unpause, "ops->unpause")?,
            destroy: required(ops.destroy, "ops->destroy")?,
            rename: required(ops.rename, "ops->rename")?,
        };
        Ok(Self { ops, must, user, guardian })
    }

    /// Makes one call of a callback.
    fn ask(
        &self,
        callback: &'static str,
        until: Until<'_>,
        act: impl FnOnce(*mut c_void, *mut Call) -> c_int,
    ) -> Result<(), Answer> {
        let mut message = [0; MESSAGE_LEN];
        let cancel = until.cancel.cloned().map(Cancel);
        let left = until.deadline.saturating_duration_since(Instant::now());
        let mut call = Call {
            left_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            cancel_fd: until.cancel.map_or(-1, |token| token.as_fd().as_raw_fd()),
            cancel: cancel.as_ref().map_or(ptr::null(), ptr::from_ref),
            errnum: 0,
            message: message.as_mut_ptr(),
            message_size: MESSAGE_LEN,
        };
        let code = act(self.user, &raw mut call);
        if code == 0 {
            return Ok(());
        }
        Err(Answer::of(callback, code, call.errnum, &message))
    }

    /// Does one thing to a domain that is meant, and looks at it afterwards, whatever was answered.
    fn act<R: From<Refusal> + From<Unanswered>>(
        &self,
        (domain, operation): (&DomainIdentity, Operation),
        until: Until<'_>,
        may: impl Fn(DomainState) -> bool,
        act: impl FnOnce() -> Result<(), Answer>,
        after: impl FnOnce(Option<DomainView>, Result<(), Answer>) -> Result<(), R>,
    ) -> Result<(), Failed<R>> {
        let failed = |state, reason: R| Failed::new(domain.domid, operation, state, reason);
        if domain.domid == DomId::DOM0 || !domain.domid.is_real() {
            return Err(failed(None, Refusal::ControlDomain.into()));
        }
        let view = match self.find(domain.domid, until.deadline) {
            Ok(Some(view)) if view.identity == *domain => view,
            Ok(Some(view)) => {
                let found = view.identity.uuid;
                return Err(failed(
                    Some(DomainState::Gone),
                    Refusal::AnotherDomain { found }.into(),
                ));
            }
            Ok(None) => return Err(failed(Some(DomainState::Gone), Refusal::NoSuchDomain.into())),
            Err(error) => {
                let state = self.state(domain, Instant::now() + LOOK_LIMIT).ok();
                return Err(failed(state, Unanswered(error).into()));
            }
        };
        if !may(view.state) {
            let state = view.state;
            return Err(failed(Some(state), Refusal::WrongState { state }.into()));
        }
        let answered = act();
        let looked = self.find(domain.domid, Instant::now() + LOOK_LIMIT);
        match looked {
            Ok(view) => {
                let view = view.filter(|view| view.identity == *domain);
                let state = view.as_ref().map_or(DomainState::Gone, |view| view.state);
                after(view, answered).map_err(|reason| failed(Some(state), reason))
            }
            Err(error) => Err(failed(None, Unanswered(error).into())),
        }
    }

    fn change(
        &self,
        (domain, operation): (&DomainIdentity, Operation),
        deadline: Instant,
        (callback, act): (&'static str, OfDomain),
        may: impl Fn(DomainState) -> bool,
        is_done: impl Fn(Option<&DomainView>) -> bool,
    ) -> Result<(), ChangeError> {
        let number = u32::from(domain.domid.get());
        self.act(
            (domain, operation),
            deadline.into(),
            may,
            || {
                // SAFETY: as the header says of the callback; what is passed lives until it returns.
                self.ask(callback, deadline.into(), |user, call| unsafe { act(user, number, call) })
            },
            |view, answered| match answered {
                _ if is_done(view.as_ref()) => Ok(()),
                Err(answer) if answer.is(Status::TimedOut) => Err(ChangeFailure::DeadlinePassed),
                Err(answer) => Err(ChangeFailure::Hypervisor { source: answer.said() }),
                Ok(()) if view.is_none() => Err(Refusal::NoSuchDomain.into()),
                Ok(()) => Err(ChangeFailure::NotDone),
            },
        )
    }

    fn suspend(
        &self,
        domain: &DomainIdentity,
        stream: Option<BorrowedFd<'_>>,
        live: bool,
        until: Until<'_>,
    ) -> Result<(), SuspendError> {
        let number = u32::from(domain.domid.get());
        let fd = stream.map_or(-1, |stream| stream.as_raw_fd());
        let suspend = self.must.suspend;
        self.act(
            (domain, Operation::Suspend),
            until,
            |state| state == DomainState::Running,
            || {
                self.ask("suspend", until, |user, call| {
                    // SAFETY: as the header says of the callback; what is passed lives until it returns.
                    unsafe { suspend(user, number, fd, live, call) }
                })
            },
            |view, answered| {
                let state = view.map_or(DomainState::Gone, |view| view.state);
                match (answered, state) {
                    (Ok(()), DomainState::Suspended) => Ok(()),
                    (_, DomainState::ShutDown(reason)) => {
                        Err(SuspendFailure::GuestStopped { reason })
                    }
                    (Ok(()), DomainState::Gone) => Err(Refusal::NoSuchDomain.into()),
                    (Ok(()), _) => Err(SuspendFailure::NotSuspended),
                    (Err(answer), _) => Err(answer.of_suspend()),
                }
            },
        )
    }

    /// What is left of a build that failed.
    fn not_built(
        &self,
        configuration: &DomainConfig,
        before: &[DomainView],
        reason: BuildFailure,
    ) -> BuildError {
        let deadline = Instant::now() + LOOK_LIMIT;
        BuildError::new(remove_built(self, configuration, before, deadline), reason)
    }
}

impl Drop for Callbacks {
    fn drop(&mut self) {
        if let Some(free) = self.ops.free {
            // SAFETY: as the header says of the callback; nothing uses `user` any more.
            unsafe { free(self.user) };
        }
    }
}

impl DomainControl for Callbacks {
    fn find(&self, domid: DomId, deadline: Instant) -> Result<Option<DomainView>, QueryError> {
        let about = Queried::Domain(domid);
        let mut domain = Domain::empty();
        let (find, number) = (self.must.find, u32::from(domid.get()));
        let answered = self.ask("find", deadline.into(), |user, call| {
            // SAFETY: as the header says of the callback; what is passed lives until it returns.
            unsafe { find(user, number, &raw mut domain, call) }
        });
        match answered {
            Ok(()) if domain.domid == number => domain
                .view("find")
                .map(Some)
                .map_err(|said| QueryError::Hypervisor { about, source: said.into() }),
            Ok(()) => {
                let what = format!("id is {}, when it was asked for {number}", domain.domid);
                let source = Said::Domain { callback: "find", what }.into();
                Err(QueryError::Hypervisor { about, source })
            }
            Err(answer) if answer.is(Status::NotFound) => Ok(None),
            Err(answer) => Err(answer.of_query(about)),
        }
    }

    fn list(&self, deadline: Instant) -> Result<Vec<DomainView>, QueryError> {
        unsafe extern "C" fn tell(teller: *mut c_void, domain: *const Domain) {
            // SAFETY: it is the list that was passed with this function, and nobody else uses it meanwhile.
            let told = unsafe { &mut *teller.cast::<Vec<Result<DomainView, Said>>>() };
            // SAFETY: the header asks for a domain.
            if let Some(domain) = unsafe { domain.as_ref() } {
                told.push(domain.view("list"));
            }
        }
        let about = Queried::Domains;
        let mut told: Vec<Result<DomainView, Said>> = Vec::new();
        let list = self.must.list;
        let answered = self.ask("list", deadline.into(), |user, call| {
            // SAFETY: as the header says of the callback; what is passed lives until it returns.
            unsafe { list(user, Some(tell), (&raw mut told).cast(), call) }
        });
        answered.map_err(|answer| answer.of_query(about))?;
        let mut views = told
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
            .map_err(|said| QueryError::Hypervisor { about, source: said.into() })?;
        views.retain(|view| view.identity.domid != DomId::DOM0);
        views.sort_by_key(|view| view.identity.domid);
        Ok(views)
    }

    fn suspend_to(
        &self,
        domain: &DomainIdentity,
        stream: BorrowedFd<'_>,
        live: bool,
        until: Until<'_>,
    ) -> Result<(), SuspendError> {
        self.suspend(domain, Some(stream), live, until)
    }

    fn suspend_only(&self, domain: &DomainIdentity, until: Until<'_>) -> Result<(), SuspendError> {
        self.suspend(domain, None, false, until)
    }

    fn resume(&self, domain: &DomainIdentity, deadline: Instant) -> Result<(), ResumeError> {
        let (resume, number) = (self.must.resume, u32::from(domain.domid.get()));
        self.act(
            (domain, Operation::Resume),
            deadline.into(),
            |state| state == DomainState::Suspended,
            || {
                self.ask("resume", deadline.into(), |user, call| {
                    // SAFETY: as the header says of the callback; what is passed lives until it returns.
                    unsafe { resume(user, number, call) }
                })
            },
            |view, answered| {
                let state = view.map_or(DomainState::Gone, |view| view.state);
                match answered {
                    _ if matches!(state, DomainState::Running | DomainState::Paused) => Ok(()),
                    Err(answer) if answer.is(Status::Busy) => Err(ResumeFailure::StillStreaming),
                    Err(answer) if answer.is(Status::TimedOut) => {
                        Err(ResumeFailure::DeadlinePassed)
                    }
                    Err(answer) => Err(ResumeFailure::Hypervisor { source: answer.said() }),
                    Ok(()) if state == DomainState::Gone => Err(Refusal::NoSuchDomain.into()),
                    Ok(()) => Err(ResumeFailure::NotResumed),
                }
            },
        )
    }

    fn build_from(
        &self,
        configuration: &DomainConfig,
        stream: BorrowedFd<'_>,
        until: Until<'_>,
    ) -> Result<DomainView, BuildError> {
        let unanswered = |error: QueryError| BuildError::new(None, Unanswered(error).into());
        let before = self.list(until.deadline).map_err(unanswered)?;
        let wanted = (&configuration.c_info.name, configuration.c_info.uuid);
        if let (Some(name), _) = wanted
            && before.iter().any(|view| view.name.as_ref() == Some(name))
        {
            return Err(BuildError::new(None, BuildFailure::NameTaken { name: name.clone() }));
        }
        let text = CString::new(configuration.to_json(Layout::Yajl))
            .map_err(|error| BuildFailure::Configuration { source: error.into() })
            .map_err(|reason| BuildError::new(None, reason))?;
        let (build, fd) = (self.must.build, stream.as_raw_fd());
        let mut number = u32::MAX;
        let answered = self.ask("build", until, |user, call| {
            // SAFETY: as the header says of the callback; what is passed lives until it returns.
            unsafe { build(user, text.as_ptr(), fd, &raw mut number, call) }
        });
        if let Err(answer) = answered {
            let reason = answer.of_build(configuration);
            return Err(self.not_built(configuration, &before, reason));
        }
        let found = u16::try_from(number)
            .ok()
            .and_then(|number| self.find(DomId::new(number), Instant::now() + LOOK_LIMIT).ok())
            .flatten();
        match found {
            Some(view)
                if view.state == DomainState::Paused
                    && (&view.name, view.identity.uuid) == wanted =>
            {
                Ok(view)
            }
            _ => Err(self.not_built(configuration, &before, BuildFailure::NotBuilt)),
        }
    }

    fn pause(&self, domain: &DomainIdentity, deadline: Instant) -> Result<(), ChangeError> {
        self.change(
            (domain, Operation::Pause),
            deadline,
            ("pause", self.must.pause),
            |state| !matches!(state, DomainState::ShutDown(_) | DomainState::Dying),
            |view| view.is_some_and(|view| view.paused),
        )
    }

    fn unpause(&self, domain: &DomainIdentity, deadline: Instant) -> Result<(), ChangeError> {
        self.change(
            (domain, Operation::Unpause),
            deadline,
            ("unpause", self.must.unpause),
            |state| matches!(state, DomainState::Running | DomainState::Paused),
            |view| view.is_some_and(|view| !view.paused),
        )
    }

    fn destroy(&self, domain: &DomainIdentity, deadline: Instant) -> Result<(), ChangeError> {
        self.change(
            (domain, Operation::Destroy),
            deadline,
            ("destroy", self.must.destroy),
            |_| true,
            |view| view.is_none(),
        )
    }

    fn rename(
        &self,
        domain: &DomainIdentity,
        name: &str,
        deadline: Instant,
    ) -> Result<(), RenameError> {
        let failed = |reason| Failed::new(domain.domid, Operation::Rename, None, reason);
        let text = CString::new(name)
            .map_err(|error| failed(RenameFailure::Hypervisor { source: error.into() }))?;
        let (rename, number) = (self.must.rename, u32::from(domain.domid.get()));
        self.act(
            (domain, Operation::Rename),
            deadline.into(),
            |_| true,
            || {
                self.ask("rename", deadline.into(), |user, call| {
                    // SAFETY: as the header says of the callback; what is passed lives until it returns.
                    unsafe { rename(user, number, text.as_ptr(), call) }
                })
            },
            |view, answered| {
                let has_it = view.as_ref().is_some_and(|view| view.name.as_deref() == Some(name));
                match answered {
                    _ if has_it => Ok(()),
                    Err(answer) if answer.is(Status::Exists) => {
                        Err(RenameFailure::NameTaken { name: name.to_owned() })
                    }
                    Err(answer) if answer.is(Status::TimedOut) => {
                        Err(RenameFailure::DeadlinePassed)
                    }
                    Err(answer) => Err(RenameFailure::Hypervisor { source: answer.said() }),
                    Ok(()) if view.is_none() => Err(Refusal::NoSuchDomain.into()),
                    Ok(()) => Err(RenameFailure::NotDone),
                }
            },
        )
    }

    fn settled(
        &self,
        domain: &DomainIdentity,
        deadline: Instant,
    ) -> Result<DomainState, QueryError> {
        if let Some(settle) = self.ops.settle {
            let number = u32::from(domain.domid.get());
            let answered = self.ask("settle", deadline.into(), |user, call| {
                // SAFETY: as the header says of the callback; what is passed lives until it returns.
                unsafe { settle(user, number, call) }
            });
            match answered {
                Err(answer) if !answer.is(Status::NotFound) => {
                    return Err(answer.of_query(Queried::Domain(domain.domid)));
                }
                _ => {}
            }
        }
        self.state(domain, deadline)
    }

    fn guardian(&self, domain: &DomainIdentity) -> Option<GuardianNeeds> {
        let (control, address) = self.guardian.clone()?;
        Some(GuardianNeeds { control, address, environment: Default::default(), domain: *domain })
    }
}
