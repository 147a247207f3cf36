//! Building a domain from a stream.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use libxl_config::model::Scheduler;
use libxl_config::{DomainConfig, Layout};
use snapshot::control::{
    BuildError, BuildFailure, DomainControl, DomainIdentity, DomainState, DomainView, Until,
};
use xsclient::DomId;

use crate::control::{LOOK_LIMIT, Libxl};
use crate::failure::{Failing, LibxlFailure, outcome};
use crate::ffi::Restored;
use crate::intake::Intake;
use crate::suspend::helper_died;

/// How long removing what is left of a failed build may take.
const REMOVE_LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
enum Unbuildable {
    #[error("it has no name")]
    Name,
    #[error("it has no uuid")]
    Uuid,
    #[error("a text in it has a NUL")]
    Nul(#[source] std::ffi::NulError),
    #[error("libxl cannot read it (rc {rc}): {log}")]
    Libxl { rc: i32, log: String },
}

impl From<Unbuildable> for BuildFailure {
    fn from(problem: Unbuildable) -> Self {
        Self::Configuration { source: Box::new(problem) }
    }
}

impl Libxl {
    pub(crate) fn build(
        &self,
        configuration: &DomainConfig,
        stream: BorrowedFd<'_>,
        until: Until<'_>,
    ) -> Result<DomainView, BuildError> {
        let nothing = |reason: BuildFailure| BuildError::new(None, reason);
        let wanted = Wanted::of(configuration).map_err(|problem| nothing(problem.into()))?;
        let before = self
            .list(until.deadline)
            .map_err(|error| nothing(BuildFailure::Hypervisor { source: Box::new(error) }))?;
        // libxl would find out only after it has made a domain.
        if before.iter().any(|view| view.name.as_ref() == Some(&wanted.name)) {
            return Err(nothing(BuildFailure::NameTaken { name: wanted.name }));
        }
        let (intake, outlet) = Intake::start(stream, until).map_err(nothing)?;
        let text = wanted.text;
        let ran = self.pool.run(until, move |context| Ok(context.restore(&text, outlet.as_fd())));
        let stopped = ran.stopped;
        let reason = match outcome(ran) {
            Ok((Restored::Domain { domid }, _)) => {
                let whole = intake.finish(until).map_err(BuildFailure::from);
                match whole.and_then(|()| self.built(domid, &wanted.name, configuration)) {
                    Ok(view) => return Ok(view),
                    Err(reason) => reason,
                }
            }
            Ok((Restored::NotAConfiguration { rc }, log)) => Unbuildable::Libxl { rc, log }.into(),
            // What was told to stop says that it failed, not that it was aborted.
            Ok((Restored::Failed { rc }, log)) => match (stopped, intake.give_up()) {
                (Some(stop), _) => Failing::from(stop).into(),
                (None, Some(unusable)) => unusable.into(),
                (None, None) => explain(rc, log),
            },
            Err(failing) => failing.into(),
        };
        Err(BuildError::new(self.remove_built(configuration, &before), reason))
    }

    /// The domain that libxl has built, if it is the one that was wanted.
    fn built(
        &self,
        domid: u32,
        name: &str,
        configuration: &DomainConfig,
    ) -> Result<DomainView, BuildFailure> {
        let domid = u16::try_from(domid).map_err(|_| BuildFailure::NotBuilt)?;
        let found = self.find(DomId::new(domid), Instant::now() + LOOK_LIMIT);
        let found = found.map_err(|error| BuildFailure::Hypervisor { source: Box::new(error) })?;
        let is_it = |view: &DomainView| {
            view.identity.uuid == configuration.c_info.uuid
                && view.name.as_deref() == Some(name)
                && view.state == DomainState::Paused
        };
        found.filter(is_it).ok_or(BuildFailure::NotBuilt)
    }

    /// Removes what a build has left: domains of that uuid that were not there before. libxl removes them itself, as far as it
    /// came to.
    fn remove_built(
        &self,
        configuration: &DomainConfig,
        before: &[DomainView],
    ) -> Option<DomainIdentity> {
        let listed = match self.list(Instant::now() + LOOK_LIMIT) {
            Ok(listed) => listed,
            Err(error) => {
                tracing::warn!(%error, "cannot find out whether a domain is left of a failed build");
                return None;
            }
        };
        let is_new = |view: &&DomainView| {
            view.identity.uuid == configuration.c_info.uuid
                && !before.iter().any(|other| other.identity == view.identity)
        };
        let left = listed.iter().find(is_new)?.identity;
        match self.destroy(&left, Instant::now() + REMOVE_LIMIT) {
            Ok(()) => None,
            Err(error) if error.state == Some(DomainState::Gone) => None,
            Err(error) => {
                tracing::warn!(%error, domain = %left, "a domain is left of a failed build");
                Some(left)
            }
        }
    }
}

/// What is built, as libxl takes it.
struct Wanted {
    name: String,
    text: CString,
}

impl Wanted {
    fn of(configuration: &DomainConfig) -> Result<Self, Unbuildable> {
        let name = configuration.c_info.name.clone().filter(|name| !name.is_empty());
        let name = name.ok_or(Unbuildable::Name)?;
        if configuration.c_info.uuid.is_nil() {
            return Err(Unbuildable::Uuid);
        }
        let mut configuration = configuration.clone();
        // The parameters are for whatever scheduler this host has: with the name of another, nothing could be built.
        configuration.b_info.sched_params.sched = Scheduler::default();
        let text = CString::new(configuration.to_json(Layout::Yajl)).map_err(Unbuildable::Nul)?;
        Ok(Self { name, text })
    }
}

/// What a number and a log say of a stream.
fn explain(rc: i32, log: String) -> BuildFailure {
    if helper_died(&log) {
        return BuildFailure::HelperDied;
    }
    let of_stream = ["stream", "restore_fd", "save/restore"].iter().any(|word| log.contains(word));
    let failure = LibxlFailure::Rc { rc, log };
    if of_stream {
        BuildFailure::InvalidStream { source: Box::new(failure) }
    } else {
        Failing::Libxl(failure).into()
    }
}
