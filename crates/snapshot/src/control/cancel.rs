//! Cancelling a call from another thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

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
}

impl CancelToken {
    /// A token that nobody has cancelled.
    ///
    /// # Errors
    ///
    /// If the process has no file descriptor left.
    pub fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { shared: Arc::new(Shared { cancelled: AtomicBool::new(false), event }) })
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
        self.shared.cancelled.load(Ordering::Acquire)
    }
}

impl AsFd for CancelToken {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.event.as_fd()
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
}
