//! Cancelling a call from another thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, epoll, eventfd};

/// Cancels the calls that it was given to. Clones are the same token; once cancelled it stays so.
///
/// It is a file descriptor as well, which is readable once the token is cancelled, so that a call can wait for it beside whatever
/// else it waits for.
#[derive(Clone, Debug)]
pub struct CancelToken {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    cancelled: AtomicBool,
    event: OwnedFd,
    above: Option<Above>,
}

/// The token that cancels another along with itself.
#[derive(Debug)]
struct Above {
    token: CancelToken,
    /// An epoll instance, which is readable when either of the two is.
    either: OwnedFd,
}

impl CancelToken {
    /// A token that nobody has cancelled.
    ///
    /// # Errors
    ///
    /// If the process has no file descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self::with(new_event()?, None))
    }

    /// A token that is cancelled with this one, or alone.
    ///
    /// # Errors
    ///
    /// If the process has no file descriptor left.
    pub fn child(&self) -> io::Result<Self> {
        let event = new_event()?;
        let either = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for token in [event.as_fd(), self.as_fd()] {
            epoll::add(&either, token, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
        }
        Ok(Self::with(event, Some(Above { token: self.clone(), either })))
    }

    fn with(event: OwnedFd, above: Option<Above>) -> Self {
        Self { shared: Arc::new(Shared { cancelled: AtomicBool::new(false), event, above }) }
    }

    /// Cancels, now and for good.
    pub fn cancel(&self) {
        if !self.shared.cancelled.swap(true, Ordering::AcqRel) {
            // Adding 1 to a counter that nobody else adds to and nobody reads neither blocks nor overflows.
            let _ = rustix::io::write(&self.shared.event, &1_u64.to_ne_bytes());
        }
    }

    /// Whether somebody has cancelled.
    pub fn is_cancelled(&self) -> bool {
        let Shared { cancelled, above, .. } = &*self.shared;
        cancelled.load(Ordering::Acquire)
            || above.as_ref().is_some_and(|above| above.token.is_cancelled())
    }
}

fn new_event() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

impl AsFd for CancelToken {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let Shared { event, above, .. } = &*self.shared;
        above.as_ref().map_or(event.as_fd(), |above| above.either.as_fd())
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    fn is_readable(token: &CancelToken) -> bool {
        let mut fds = [PollFd::new(token, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).unwrap() == 1
    }

    #[test]
    fn a_cancelled_token_is_readable_and_stays_so_for_all_its_clones() {
        let token = CancelToken::new().unwrap();
        let clone = token.clone();
        assert!(!token.is_cancelled() && !is_readable(&token));
        clone.cancel();
        clone.cancel();
        assert!(token.is_cancelled() && is_readable(&token) && is_readable(&clone));
        assert!(is_readable(&token), "looking does not consume it");
    }

    #[test]
    fn a_child_is_cancelled_with_its_token_and_not_the_token_with_its_child() {
        let token = CancelToken::new().unwrap();
        let (one, other) = (token.child().unwrap(), token.child().unwrap());
        one.cancel();
        assert!(one.is_cancelled() && is_readable(&one));
        for untouched in [&token, &other] {
            assert!(!untouched.is_cancelled() && !is_readable(untouched));
        }
        let grandchild = other.child().unwrap();
        token.cancel();
        for cancelled in [&token, &other, &grandchild] {
            assert!(cancelled.is_cancelled() && is_readable(cancelled));
        }
        drop(token);
        assert!(grandchild.is_cancelled() && is_readable(&grandchild));
    }
}
