//! What saving and restoring ask of a hypervisor, and of whoever speaks for it.
//!
//! [`DomainControl`] is cut where libxl can be cut. Suspending and streaming the memory are one call, since in libxl they are one
//! call; building a domain reads one stream. Everything else is small. The caller supplies the file descriptors, and the order:
//! nothing here knows about disks, Xenstore state or files.
//!
//! What an answer of libxl says is not what became of the domain: it reports success for a guest that never suspended, and an
//! aborted suspend leaves the guest suspended. So success here means *looked at afterwards*, and an error carries the state
//! that the domain was found in.
//!
//! | what | where |
//! |---|---|
//! | the calls | [`DomainControl`], [`Until`], [`CancelToken`] |
//! | which domain, and how it is | [`DomainIdentity`], [`DomainView`], [`DomainState`], [`DomainKind`] |
//! | why a call failed, and what the domain is now | [`Failed`], [`BuildError`], [`QueryError`] |
//! | what resumes a domain whose saver died | [`GuardianNeeds`] |
//!
//! What the calls promise is checked for any implementation by `conformance::check`.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use libxl_config::DomainConfig;
use xsclient::DomId;

mod built;
mod cancel;
#[doc(hidden)]
pub mod conformance;
mod errors;
mod guardian;
mod view;

pub use built::remove_built;
pub use cancel::CancelToken;
pub use errors::{
    BuildError, BuildFailure, Cause, ChangeError, ChangeFailure, Failed, Operation, Queried,
    QueryError, Refusal, RenameError, RenameFailure, ResumeError, ResumeFailure, SuspendError,
    SuspendFailure,
};
pub use guardian::{GUARDIAN_NEEDS_MAX, GuardianNeeds, GuardianNeedsError};
pub use view::{DomainIdentity, DomainKind, DomainState, DomainView, ShutdownReason};

/// How much longer than its deadline a call may take to stop what it began and to find out what became of the domain.
///
/// Stopping, looking and cleaning up are several calls; on an emulated host libxl did all of that within a few seconds.
pub const SETTLE_LIMIT: Duration = Duration::from_secs(30);

/// A hypervisor, as far as saving and restoring domains needs one. Calls may come from several threads at once.
///
/// # What holds for every call
///
/// - **Identity.** A domain is named by domid and uuid. If another domain has the domid by now, the call is refused with
///   [`Refusal::AnotherDomain`] and touches nothing. The control domain and reserved ids are refused before the
///   hypervisor is asked anything (libxl would destroy half of domain 0 before it failed).
/// - **Deadline.** What is not done by then is stopped. The call returns at most [`SETTLE_LIMIT`] later.
/// - **Success** is what a query afterwards has shown, not what the hypervisor's answer said.
/// - **Failure** carries [`Failed::state`], what a query has shown; `None` if that could not be found out.
///   [`Failed::state`] is `Some(Gone)` if there is no such domain any more.
/// - A call that fails with a `Refused` reason has changed nothing.
/// - A signal, a lost connection, or the death of the caller in the midst of a call leaves the domain in one of the states that
///   the call's failures name, and alive.
pub trait DomainControl: Send + Sync {
    /// The domain that has this domid now; `None` if none has. Changes nothing.
    ///
    /// # Errors
    ///
    /// If the hypervisor does not say before the deadline. Never because there is no such domain.
    fn find(&self, domid: DomId, deadline: Instant) -> Result<Option<DomainView>, QueryError>;

    /// All domains that the host has now, in whatever state but [`DomainState::Gone`]: ascending by domid, without the control
    /// domain. They need not be of one moment: a domain may come or go meanwhile. Changes nothing.
    ///
    /// # Errors
    ///
    /// If the hypervisor does not say before the deadline. Never because there are none.
    fn list(&self, deadline: Instant) -> Result<Vec<DomainView>, QueryError>;

    /// Suspends a running domain, writes its memory and vCPUs to `stream` as a libxl stream (version 2, without an xl
    /// header), and leaves it suspended.
    ///
    /// `stream` is any writable descriptor: file, pipe, socket. It is written from its current position, is not synced, not
    /// closed, and its flags are left alone. It must not be read by whoever waits for this call to return.
    ///
    /// After success: the domain is [`DomainState::Suspended`], and the stream is complete up to its END record.
    ///
    /// # Errors
    ///
    /// The stream is incomplete, and of no use, after any failure. The domain is
    ///
    /// - running, as before, after a refusal, [`SuspendFailure::LiveUnsupported`] and [`SuspendFailure::NotAcknowledged`]. A
    ///   request that the guest has not answered is withdrawn;
    /// - shut down or gone after [`SuspendFailure::GuestStopped`]. It cannot be resumed;
    /// - **suspended** if streaming had begun: [`SuspendFailure::Stream`], [`SuspendFailure::HelperDied`], and mostly after
    ///   [`SuspendFailure::Cancelled`] and [`SuspendFailure::DeadlinePassed`]. It is the caller's to [`resume`](Self::resume);
    /// - any of these after [`SuspendFailure::Hypervisor`].
    ///
    /// When the caller dies in the midst, the domain is left suspended, or suspends a moment later; a helper of the hypervisor
    /// may go on writing. That is what a guardian is for: [`guardian`](Self::guardian).
    fn suspend_to(
        &self,
        domain: &DomainIdentity,
        stream: BorrowedFd<'_>,
        live: bool,
        until: Until<'_>,
    ) -> Result<(), SuspendError>;

    /// Suspends a running domain and writes nothing. After success it is [`DomainState::Suspended`].
    ///
    /// # Errors
    ///
    /// As [`suspend_to`](Self::suspend_to), without those of the stream.
    fn suspend_only(&self, domain: &DomainIdentity, until: Until<'_>) -> Result<(), SuspendError>;

    /// Lets a suspended domain go on where it was, as if the suspend had been cancelled. Can be repeated after each suspend.
    ///
    /// If its memory is still being streamed by a helper that has outlived its saver, it is waited for until that has ended: a
    /// guest that goes on meanwhile makes that stream a lie. After success the domain is [`DomainState::Running`], or
    /// [`DomainState::Paused`] if it had been paused while suspended.
    ///
    /// # Errors
    ///
    /// The domain is suspended as before after [`ResumeFailure::StillStreaming`]; for any other reason [`Failed::state`] tells.
    fn resume(&self, domain: &DomainIdentity, deadline: Instant) -> Result<(), ResumeError>;

    /// Builds a domain from a libxl stream and a configuration, and leaves it **paused**: it has not run.
    ///
    /// The configuration says name, uuid, disks and everything else; the domid is the hypervisor's choice. `stream` is any
    /// readable descriptor, read from its current position up to the END record, perhaps further.
    ///
    /// After success a domain of that name and uuid is [`DomainState::Paused`]. What its guest had in Xenstore is not there.
    /// Whether the configuration is stored as the domain's template is the hypervisor's toolstack's: libxl does so, and a
    /// simulated host that has been given a directory for templates.
    ///
    /// # Errors
    ///
    /// No new domain is left, which has been verified, unless [`BuildError::left`] names one: that one is the caller's to
    /// destroy. Domains that existed before are untouched.
    fn build_from(
        &self,
        configuration: &DomainConfig,
        stream: BorrowedFd<'_>,
        until: Until<'_>,
    ) -> Result<DomainView, BuildError>;

    /// Stops the domain's vCPUs between any two instructions. Pausing a paused domain changes nothing and succeeds; so does
    /// pausing a suspended one, which will be paused when it is resumed.
    ///
    /// # Errors
    ///
    /// If it is shut down or dying, or the hypervisor does not do it.
    fn pause(&self, domain: &DomainIdentity, deadline: Instant) -> Result<(), ChangeError>;

    /// Lets a paused domain run. Succeeds and changes nothing if it runs already. A suspended domain does not run by this, and is
    /// refused: that it was asked to is an error of the caller's (xl prints one and exits with 0).
    ///
    /// # Errors
    ///
    /// As [`pause`](Self::pause), and if it is suspended.
    fn unpause(&self, domain: &DomainIdentity, deadline: Instant) -> Result<(), ChangeError>;

    /// Destroys the domain in whatever state it is. After success it is [`DomainState::Gone`].
    ///
    /// # Errors
    ///
    /// The domain is what [`Failed::state`] says; to destroy again is safe. [`Refusal::NoSuchDomain`] if it is gone already.
    fn destroy(&self, domain: &DomainIdentity, deadline: Instant) -> Result<(), ChangeError>;

    /// Gives the domain another name, unique on the host. It may be in any state but gone.
    ///
    /// A restore builds a domain under a temporary name while the one that it replaces still exists.
    ///
    /// # Errors
    ///
    /// The domain has its old name.
    fn rename(
        &self,
        domain: &DomainIdentity,
        name: &str,
        deadline: Instant,
    ) -> Result<(), RenameError>;

    /// Waits until nothing is under way any more that a saver, perhaps a dead one, has begun with the domain, and says what it is
    /// then: no suspend that the guest has been asked for and has not answered, no helper that streams its memory. Changes
    /// nothing.
    ///
    /// For guardians: a domain that is running now may have been asked to suspend a moment before its saver died.
    ///
    /// # Errors
    ///
    /// [`QueryError::DeadlinePassed`] if something is still under way at the deadline.
    fn settled(
        &self,
        domain: &DomainIdentity,
        deadline: Instant,
    ) -> Result<DomainState, QueryError>;

    /// What a program of its own needs to resume this domain when this process is dead; `None` if nothing but this process could.
    fn guardian(&self, domain: &DomainIdentity) -> Option<GuardianNeeds>;

    /// The state of the domain; [`DomainState::Gone`] also if another has its domid by now. Changes nothing.
    ///
    /// # Errors
    ///
    /// If the hypervisor does not say before the deadline.
    fn state(&self, domain: &DomainIdentity, deadline: Instant) -> Result<DomainState, QueryError> {
        Ok(match self.find(domain.domid, deadline)? {
            Some(view) if view.identity == *domain => view.state,
            _ => DomainState::Gone,
        })
    }
}

/// More than anything takes, and no more than a clock can tell.
const AT_MOST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// That long from now. A caller without a limit may say so by the longest time there is.
pub(crate) fn deadline_in(limit: Duration) -> Instant {
    Instant::now() + limit.min(AT_MOST)
}

/// How long a call that can be cancelled may take.
#[derive(Clone, Copy, Debug)]
pub struct Until<'a> {
    /// When it has to be done.
    pub deadline: Instant,
    /// What ends it earlier.
    pub cancel: Option<&'a CancelToken>,
}

impl Until<'_> {
    /// Until a deadline, without a way to cancel.
    pub fn deadline(deadline: Instant) -> Self {
        Self { deadline, cancel: None }
    }
}

impl From<Instant> for Until<'_> {
    fn from(deadline: Instant) -> Self {
        Self::deadline(deadline)
    }
}
