//! How far a call is, and how to end it early.

use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::control::CancelToken;

/// What a call does at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Phase {
    /// Looking whether the plan still holds.
    Plan,
    /// Reading what was saved, and comparing it with its digests.
    Verify,
    /// Making files and overlays that nobody uses yet.
    Prepare,
    /// Having the guest quiesce its file systems.
    Freeze,
    /// Having the guest suspend.
    Suspend,
    /// Writing the memory image.
    Memory,
    /// Reading configuration and Xenstore state.
    Capture,
    /// Making files durable.
    Sync,
    /// Giving files their names.
    Name,
    /// Snapshotting the disks: the commit point of a save.
    Pivot,
    /// Telling Xenstore and the template of the disks' new images.
    Configure,
    /// Letting the domain go on, or leaving it paused, or destroying it.
    After,
    /// Reading frozen images for their digests.
    Digest,
    /// Building the new domain.
    Build,
    /// Giving the new domain what the guest had in Xenstore.
    Apply,
    /// Destroying the domain that is replaced: the commit point of a restore in its place.
    Replace,
    /// Giving the new domain its name and letting it run.
    Start,
    /// Undoing what was done so far.
    RollBack,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plan => "plan",
            Self::Verify => "verify",
            Self::Prepare => "prepare",
            Self::Freeze => "freeze",
            Self::Suspend => "suspend",
            Self::Memory => "memory",
            Self::Capture => "capture",
            Self::Sync => "sync",
            Self::Name => "name",
            Self::Pivot => "pivot",
            Self::Configure => "configure",
            Self::After => "after",
            Self::Digest => "digest",
            Self::Build => "build",
            Self::Apply => "apply",
            Self::Replace => "replace",
            Self::Start => "start",
            Self::RollBack => "roll back",
        })
    }
}

/// How far a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Progress {
    /// What it does.
    pub phase: Phase,
    /// Octets of this phase that are done.
    pub done: u64,
    /// Octets that this phase will have, as far as it is known. A guess may be wrong in either direction.
    pub total: Option<u64>,
    /// How long this phase will still take, at the rate so far.
    #[serde(serialize_with = "milliseconds")]
    pub estimate: Option<Duration>,
}

#[expect(clippy::ref_option, reason = "serde hands over a reference")]
fn milliseconds<S: serde::Serializer>(
    estimate: &Option<Duration>,
    to: S,
) -> Result<S::Ok, S::Error> {
    estimate.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)).serialize(to)
}

/// Who watches a call, and may end it early.
///
/// The callback runs in the thread that made the call, between two pieces of work: what it takes, the call takes longer, and
/// while the guest is suspended the guest waits for it as well.
#[derive(Default)]
pub struct Observer<'a> {
    callback: Option<&'a mut dyn FnMut(&Progress)>,
    cancel: Option<&'a CancelToken>,
    /// The phase that was told last, and when it began.
    phase: Option<(Phase, Instant)>,
}

impl fmt::Debug for Observer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observer")
            .field("cancel", &self.cancel)
            .field("phase", &self.phase)
            .finish_non_exhaustive()
    }
}

impl<'a> Observer<'a> {
    /// Nobody.
    pub fn none() -> Self {
        Self::default()
    }

    /// Tells this of progress.
    #[must_use]
    pub fn progress(mut self, callback: &'a mut dyn FnMut(&Progress)) -> Self {
        self.callback = Some(callback);
        self
    }

    /// Ends when this is cancelled: as a failure, with everything undone, as long as nothing has been committed.
    #[must_use]
    pub fn cancel(mut self, cancel: &'a CancelToken) -> Self {
        self.cancel = Some(cancel);
        self
    }

    /// The token, for calls that can be cancelled themselves.
    pub fn token(&self) -> Option<&'a CancelToken> {
        self.cancel
    }

    /// Whether the call is to end.
    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_some_and(CancelToken::is_cancelled)
    }

    /// A phase begins.
    pub(crate) fn begin(&mut self, phase: Phase) {
        self.phase = Some((phase, Instant::now()));
        tracing::debug!(%phase, "begins");
        self.tell(phase, 0, None, None);
    }

    /// So much of the phase is done.
    pub(crate) fn advance(&mut self, done: u64, total: Option<u64>) {
        let Some((phase, began)) = self.phase else { return };
        let estimate = total.and_then(|total| remaining(began.elapsed(), done, total));
        self.tell(phase, done, total, estimate);
    }

    fn tell(&mut self, phase: Phase, done: u64, total: Option<u64>, estimate: Option<Duration>) {
        if let Some(callback) = &mut self.callback {
            callback(&Progress { phase, done, total, estimate });
        }
    }
}

/// How long the rest takes at the rate so far.
fn remaining(elapsed: Duration, done: u64, total: u64) -> Option<Duration> {
    let left = u128::from(total.saturating_sub(done));
    let nanos = elapsed.as_nanos().checked_mul(left)?.checked_div(u128::from(done))?;
    u64::try_from(nanos).ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_estimated_from_the_rate_so_far() {
        let second = Duration::from_secs(1);
        assert_eq!(remaining(second, 25, 100), Some(3 * second));
        assert_eq!(remaining(second, 100, 100), Some(Duration::ZERO));
        assert_eq!(remaining(second, 0, 100), None, "there is no rate yet");
        assert_eq!(remaining(second, 200, 100), Some(Duration::ZERO), "the total was a guess");
    }

    #[test]
    fn phases_are_told_in_their_order_and_progress_is_of_the_last_one() {
        let mut told = Vec::new();
        let mut callback = |progress: &Progress| told.push((progress.phase, progress.done));
        let mut observer = Observer::none().progress(&mut callback);
        observer.advance(1, None);
        observer.begin(Phase::Suspend);
        observer.begin(Phase::Memory);
        observer.advance(7, Some(9));
        assert_eq!(told, [(Phase::Suspend, 0), (Phase::Memory, 0), (Phase::Memory, 7)]);
    }
}
