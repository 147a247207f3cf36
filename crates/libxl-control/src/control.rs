//! [`DomainControl`] over libxl: checks before, the call, and a look afterwards.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::ops::ControlFlow;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use libxl_config::DomainConfig;
use snapshot::control::{
    BuildError, ChangeError, ChangeFailure, DomainControl, DomainIdentity, DomainState, DomainView,
    Failed, GuardianNeeds, Operation, Queried, QueryError, Refusal, RenameError, RenameFailure,
    ResumeError, ResumeFailure, SuspendError, Until,
};
use xsclient::{DomId, Endpoint};

use crate::failure::{Failing, LibxlFailure, outcome};
use crate::ffi::{Context, Library, Rc};
use crate::helper::Helper;
use crate::info::DomInfo;
use crate::load::{self, LibraryAt, LoadError};
use crate::pool::{End, Pool, lock};
use crate::rc;
use crate::refused::{Refused, Why};
use crate::store::{Store, StoreError};

/// The name of this implementation in [`GuardianNeeds::control`].
pub(crate) const CONTROL_NAME: &str = "libxl";
/// How long looking at a domain may take after a call.
pub(crate) const LOOK_LIMIT: Duration = Duration::from_secs(5);
/// How long making the first context may take.
const OPEN_LIMIT: Duration = Duration::from_secs(30);
/// Each pause of a toolstack's counts, and so must each unpause; Xen counts no further than this.
const PAUSES_MAX: usize = 256;
/// How long a guest may take from seeing a request to being suspended: a loaded guest freezes its own processes first.
pub(crate) const FREEZE_LIMIT: Duration = Duration::from_secs(20);

/// Domains of a Xen host through its libxl. See the crate's documentation.
#[derive(Clone)]
pub struct Libxl {
    pub(crate) pool: Arc<Pool>,
    pub(crate) store: Arc<Store>,
    at: LibraryAt,
    /// When somebody wrote to the request node of the domain that is guarded.
    asked: Arc<Mutex<Option<Instant>>>,
}

/// How libxl is opened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LibxlOptions {
    /// Which library.
    pub library: LibraryAt,
    /// The host's Xenstore: the same as libxl's, which searches as [`Endpoint::Search`] does.
    pub xenstore: Endpoint,
}

impl Default for LibxlOptions {
    fn default() -> Self {
        Self { library: LibraryAt::Host, xenstore: Endpoint::Search }
    }
}

impl std::fmt::Debug for Libxl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Libxl").field("library", &self.at).finish_non_exhaustive()
    }
}

impl Libxl {
    /// Loads libxl and connects it to the hypervisor.
    ///
    /// SIGPIPE is ignored from then on, unless the process handles it; children of the process stay its own.
    ///
    /// # Errors
    ///
    /// If there is no libxl that is known, or it does not reach its hypervisor within half a minute.
    pub fn open(options: LibxlOptions) -> Result<Self, LoadError> {
        let LibxlOptions { library: at, xenstore } = options;
        let pool = Arc::new(Pool::new(load::load(load::LIBXL, &at, Library::open)?));
        let unusable = |failure: LibxlFailure| LoadError::unusable("libxl", failure);
        match pool.warm_up(Until::deadline(Instant::now() + OPEN_LIMIT)) {
            End::Done { .. } => {}
            other => return Err(unusable(LibxlFailure::of_end(other))),
        }
        let store = Arc::new(Store::new(xenstore));
        Ok(Self { pool, store, at, asked: Arc::default() })
    }

    /// In a guardian: what [`DomainControl::guardian`] has described. From now on it is heard whether the guest is asked to
    /// suspend, so that [`settled`](DomainControl::settled) knows of a request that has been seen but not answered.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), and if Xenstore cannot be listened to.
    pub fn from_guardian(needs: &GuardianNeeds) -> Result<Self, LoadError> {
        let library = match &needs.address {
            Some(path) => LibraryAt::File(path.into()),
            None => LibraryAt::Host,
        };
        let path = needs.environment.get("XENSTORED_PATH");
        let xenstore = path.map_or(Endpoint::Search, Endpoint::at);
        let opened = Self::open(LibxlOptions { library, xenstore })?;
        let asked = Arc::clone(&opened.asked);
        let heard = move || *lock(&asked) = Some(Instant::now());
        let deadline = Instant::now() + OPEN_LIMIT;
        let listening = opened.store.listen(needs.domain.domid, deadline, heard);
        listening.map_err(|error| LoadError::unusable("libxl", error))?;
        Ok(opened)
    }

    /// The name of this implementation in [`GuardianNeeds::control`].
    pub const CONTROL_NAME: &str = CONTROL_NAME;

    /// One query of libxl.
    pub(crate) fn ask<T: Send + 'static>(
        &self,
        deadline: Instant,
        question: impl FnOnce(&Context) -> Result<T, Rc> + Send + 'static,
    ) -> Result<T, Failing> {
        outcome(self.pool.ask(deadline.into(), question)).map(|(value, _)| value)
    }

    fn look(&self, domid: DomId, deadline: Instant) -> Result<Option<DomainView>, Failing> {
        let number = u32::from(domid.get());
        let text = match self.ask(deadline, move |context| context.info(number)) {
            Ok(text) => text,
            Err(Failing::Libxl(LibxlFailure::Rc { rc: rc::DOMAIN_NOT_FOUND, .. })) => {
                return Ok(None);
            }
            Err(failing) => return Err(failing),
        };
        Ok(self.views(&[text], deadline)?.pop())
    }

    /// What libxl says of domains, with what Xenstore says.
    fn views(&self, texts: &[String], deadline: Instant) -> Result<Vec<DomainView>, Failing> {
        let mut infos = Vec::new();
        for text in texts {
            let info = DomInfo::read(text).map_err(Failing::of)?;
            infos.extend(info.identity().map(|identity| (identity, info)));
        }
        let domids: Vec<DomId> = infos.iter().map(|(identity, _)| identity.domid).collect();
        let described = self.store.describe(&domids, deadline)?;
        let view = |((identity, info), described): ((DomainIdentity, DomInfo), _)| {
            let crate::store::Described { name, kind } = described;
            DomainView {
                identity,
                name,
                kind: kind.unwrap_or(info.kind()),
                state: info.state(),
                paused: info.is_paused(),
            }
        };
        Ok(infos.into_iter().zip(described).map(view).collect())
    }

    /// The domain that is meant, or why nothing is done with it.
    pub(crate) fn meant(
        &self,
        domain: &DomainIdentity,
        deadline: Instant,
    ) -> Result<DomainView, Refused> {
        if domain.domid == DomId::DOM0 || !domain.domid.is_real() {
            return Err(Refused { state: None, why: Refusal::ControlDomain.into() });
        }
        let gone =
            |refusal: Refusal| Refused { state: Some(DomainState::Gone), why: refusal.into() };
        match self.look(domain.domid, deadline) {
            Ok(Some(view)) if view.identity == *domain => Ok(view),
            Ok(Some(view)) => Err(gone(Refusal::AnotherDomain { found: view.identity.uuid })),
            Ok(None) => Err(gone(Refusal::NoSuchDomain)),
            // It may only have been too late to ask.
            Err(failing) => Err(Refused { state: self.found(domain), why: Why::Failing(failing) }),
        }
    }

    /// What has become of a domain after a call.
    pub(crate) fn found(&self, domain: &DomainIdentity) -> Option<DomainState> {
        self.view_of(domain, Instant::now() + LOOK_LIMIT)
            .inspect_err(|error| tracing::warn!(%error, %domain, "its state is not known"))
            .ok()
            .map(|view| view.map_or(DomainState::Gone, |view| view.state))
    }

    fn view_of(
        &self,
        domain: &DomainIdentity,
        deadline: Instant,
    ) -> Result<Option<DomainView>, Failing> {
        Ok(self.look(domain.domid, deadline)?.filter(|view| view.identity == *domain))
    }

    /// Waits for the end of every helper that streams a domain's memory; `false` if one has not ended by the deadline.
    fn helpers_end(domain: &DomainIdentity, deadline: Instant) -> bool {
        while let Some(helper) = Helper::of(domain) {
            if !helper.ends(deadline) {
                return false;
            }
        }
        true
    }

    /// Makes a call that libxl answers with a number, and says what it answered.
    fn call(
        &self,
        deadline: Instant,
        call: impl FnOnce(&Context) -> Rc + Send + 'static,
    ) -> Result<(), Failing> {
        let ran = self.pool.run(deadline.into(), move |context| match call(context) {
            0 => Ok(()),
            rc => Err(rc),
        });
        outcome(ran).map(|_| ())
    }

    /// A call on a domain that is meant, whose outcome is what is found afterwards.
    fn change(
        &self,
        (domain, operation): (&DomainIdentity, Operation),
        deadline: Instant,
        may: impl Fn(&DomainView) -> bool,
        call: impl FnOnce(&Context, u32) -> Rc + Send + 'static,
        is_done: impl Fn(&DomainView) -> bool,
    ) -> Result<(), ChangeError> {
        let failed = |state, why: ChangeFailure| Failed::new(domain.domid, operation, state, why);
        let view =
            self.meant(domain, deadline).map_err(|refused| refused.failed(domain, operation))?;
        if is_done(&view) && may(&view) {
            return Ok(());
        }
        if !may(&view) {
            let state = view.state;
            return Err(failed(Some(state), Refusal::WrongState { state }.into()));
        }
        let number = u32::from(domain.domid.get());
        let called = self.call(deadline, move |context| call(context, number));
        let after = self.view_of(domain, Instant::now() + LOOK_LIMIT);
        let state = after.as_ref().ok().map(|view| state_of(view.as_ref()));
        match (called, after) {
            (_, Ok(Some(view))) if is_done(&view) => Ok(()),
            (Err(failing), _) | (Ok(()), Err(failing)) => Err(failed(state, failing.into())),
            (Ok(()), Ok(Some(_))) => Err(failed(state, ChangeFailure::NotDone)),
            (Ok(()), Ok(None)) => Err(failed(state, Refusal::NoSuchDomain.into())),
        }
    }
}

fn state_of(view: Option<&DomainView>) -> DomainState {
    view.map_or(DomainState::Gone, |view| view.state)
}

impl DomainControl for Libxl {
    fn find(&self, domid: DomId, deadline: Instant) -> Result<Option<DomainView>, QueryError> {
        self.look(domid, deadline).map_err(|failing| failing.about(Queried::Domain(domid)))
    }

    fn list(&self, deadline: Instant) -> Result<Vec<DomainView>, QueryError> {
        let listed = self.ask(deadline, Context::list);
        let mut views = listed
            .and_then(|texts| self.views(&texts, deadline))
            .map_err(|failing| failing.about(Queried::Domains))?;
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
        self.suspend(domain, Some((stream, live)), until)
    }

    fn suspend_only(&self, domain: &DomainIdentity, until: Until<'_>) -> Result<(), SuspendError> {
        self.suspend(domain, None, until)
    }

    fn resume(&self, domain: &DomainIdentity, deadline: Instant) -> Result<(), ResumeError> {
        let failed =
            |state, why: ResumeFailure| Failed::new(domain.domid, Operation::Resume, state, why);
        let view = self
            .meant(domain, deadline)
            .map_err(|refused| refused.failed(domain, Operation::Resume))?;
        let state = view.state;
        if state != DomainState::Suspended {
            return Err(failed(Some(state), Refusal::WrongState { state }.into()));
        }
        if !Self::helpers_end(domain, deadline) {
            return Err(failed(self.found(domain), ResumeFailure::StillStreaming));
        }
        let number = u32::from(domain.domid.get());
        let called = self.call(deadline, move |context| context.resume(number));
        match (self.found(domain), called) {
            (Some(DomainState::Running | DomainState::Paused), _) => Ok(()),
            (state, Err(failing)) => Err(failed(state, failing.into())),
            (state, Ok(())) => Err(failed(state, ResumeFailure::NotResumed)),
        }
    }

    fn build_from(
        &self,
        configuration: &DomainConfig,
        stream: BorrowedFd<'_>,
        until: Until<'_>,
    ) -> Result<DomainView, BuildError> {
        self.build(configuration, stream, until)
    }

    fn pause(&self, domain: &DomainIdentity, deadline: Instant) -> Result<(), ChangeError> {
        let may = |view: &DomainView| {
            matches!(
                view.state,
                DomainState::Running | DomainState::Paused | DomainState::Suspended
            )
        };
        // A pause too many would count.
        self.change((domain, Operation::Pause), deadline, may, Context::pause, |view| view.paused)
    }

    fn unpause(&self, domain: &DomainIdentity, deadline: Instant) -> Result<(), ChangeError> {
        let may =
            |view: &DomainView| matches!(view.state, DomainState::Running | DomainState::Paused);
        let unpause = |context: &Context, domid| {
            for _ in 0..PAUSES_MAX {
                let rc = context.unpause(domid);
                if rc != 0 {
                    return rc;
                }
                let paused = context.info(domid).map(|text| DomInfo::read(&text));
                if !matches!(paused, Ok(Ok(info)) if info.state() == DomainState::Paused) {
                    break;
                }
            }
            0
        };
        let is_running = |view: &DomainView| view.state != DomainState::Paused;
        self.change((domain, Operation::Unpause), deadline, may, unpause, is_running)
    }

    fn destroy(&self, domain: &DomainIdentity, deadline: Instant) -> Result<(), ChangeError> {
        let failed = |state, why| Failed::new(domain.domid, Operation::Destroy, state, why);
        self.meant(domain, deadline)
            .map_err(|refused| refused.failed(domain, Operation::Destroy))?;
        let number = u32::from(domain.domid.get());
        let called = self.call(deadline, move |context| context.destroy(number));
        // One that others still have pages of is dying for a while.
        let until = if called.is_ok() { deadline } else { Instant::now() + LOOK_LIMIT };
        let until = until.max(Instant::now() + LOOK_LIMIT);
        let dies = called.is_ok();
        let gone = self.store.await_change(domain.domid, until, || {
            Ok::<_, Failing>(match self.view_of(domain, Instant::now() + LOOK_LIMIT)? {
                None => ControlFlow::Break(DomainState::Gone),
                Some(view) if !dies && view.state != DomainState::Dying => {
                    ControlFlow::Break(view.state)
                }
                Some(_) => ControlFlow::Continue(()),
            })
        });
        let state = match gone {
            Ok(Some(state)) => Some(state),
            Ok(None) | Err(_) => self.found(domain),
        };
        match (state, called) {
            (Some(DomainState::Gone), _) => Ok(()),
            (state, Err(failing)) => Err(failed(state, failing.into())),
            (state @ Some(DomainState::Dying), Ok(())) => {
                Err(failed(state, ChangeFailure::DeadlinePassed))
            }
            (state, Ok(())) => Err(failed(state, ChangeFailure::NotDone)),
        }
    }

    fn rename(
        &self,
        domain: &DomainIdentity,
        name: &str,
        deadline: Instant,
    ) -> Result<(), RenameError> {
        let failed =
            |state, why: RenameFailure| Failed::new(domain.domid, Operation::Rename, state, why);
        let view = self
            .meant(domain, deadline)
            .map_err(|refused| refused.failed(domain, Operation::Rename))?;
        let state = Some(view.state);
        let others = self.list(deadline).map_err(|error| {
            failed(state, RenameFailure::Hypervisor { source: Box::new(error) })
        })?;
        let holds = |view: &DomainView| view.name.as_deref() == Some(name);
        if others.iter().any(|view| view.identity != *domain && holds(view)) {
            return Err(failed(state, RenameFailure::NameTaken { name: name.to_owned() }));
        }
        let text = CString::new(name).map_err(|error| failed(state, Failing::of(error).into()))?;
        let number = u32::from(domain.domid.get());
        let called = self.call(deadline, move |context| context.rename(number, &text));
        let after = self.view_of(domain, Instant::now() + LOOK_LIMIT);
        let state = after.as_ref().ok().map(|view| state_of(view.as_ref()));
        match (called, after) {
            (_, Ok(Some(view))) if holds(&view) => Ok(()),
            (Err(failing), _) | (Ok(()), Err(failing)) => Err(failed(state, failing.into())),
            (Ok(()), Ok(_)) => Err(failed(state, RenameFailure::NotDone)),
        }
    }

    fn settled(
        &self,
        domain: &DomainIdentity,
        deadline: Instant,
    ) -> Result<DomainState, QueryError> {
        let about = Queried::Domain(domain.domid);
        let late = || QueryError::DeadlinePassed { about };
        if self.state(domain, deadline)? == DomainState::Gone {
            return Ok(DomainState::Gone);
        }
        if !Self::helpers_end(domain, deadline) {
            return Err(late());
        }
        let settled = self.store.await_change(domain.domid, deadline, || {
            // In this order: a guest clears the request before it suspends.
            let asked = self.store.is_asked(domain.domid, deadline)?;
            let state = state_of(self.view_of(domain, deadline)?.as_ref());
            let freezes =
                || lock(&self.asked).is_some_and(|at: Instant| at.elapsed() < FREEZE_LIMIT);
            Ok::<_, Failing>(match state {
                DomainState::Running if asked || freezes() => ControlFlow::Continue(()),
                state => ControlFlow::Break(state),
            })
        });
        match settled {
            Ok(Some(state)) => Ok(state),
            Ok(None) => Err(late()),
            Err(failing) => Err(failing.about(about)),
        }
    }

    fn guardian(&self, domain: &DomainIdentity) -> Option<GuardianNeeds> {
        let address = match &self.at {
            LibraryAt::Host => None,
            LibraryAt::File(path) => Some(path.to_str()?.to_owned()),
        };
        let variables =
            ["XENSTORED_PATH", "XENSTORED_RUNDIR", "LD_LIBRARY_PATH", "LIBXL_SAVE_HELPER"];
        let set = |name: &str| Some((name.to_owned(), std::env::var(name).ok()?));
        let mut environment: BTreeMap<_, _> =
            variables.iter().filter_map(|name| set(name)).collect();
        if let Some(path) = self.store.path() {
            environment.insert("XENSTORED_PATH".to_owned(), path.to_str()?.to_owned());
        }
        Some(GuardianNeeds {
            control: CONTROL_NAME.to_owned(),
            address,
            environment,
            domain: *domain,
        })
    }
}

impl From<StoreError> for Failing {
    fn from(error: StoreError) -> Self {
        if error.is_timeout() { Self::DeadlinePassed } else { Self::of(error) }
    }
}
